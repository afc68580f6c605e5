//! Chooses the instruction for each probe.
//!
//! A probe on an instruction that the kernel emulates costs one trap, on any other two
//! (measured on x86-64: 0.44 against 2.9 microseconds a hit). So a site is the first emulated
//! instruction that every path passes exactly once while the registers that tell the event are
//! still intact; where there is none, the instruction that is always right, single-stepped.
//! One on which the kernel takes no probe is never chosen.

use super::allocator::{self, AllocatorFunctions};
use super::arch::{Effect, Flow, Instruction, Place, Probing, ReferenceKind, RegisterSet, Stored};
use super::code::{Code, Function};
use super::map;
use super::{BinaryError, EmallocSize, MapEntry, MapStore, ProbeSite, Register, Site};

/// The exported functions into which in-place reallocation is inlined.
const REALLOC_FUNCTIONS: [&str; 4] = [
    "_erealloc",
    "_erealloc2",
    "_zend_mm_realloc",
    "_zend_mm_realloc2",
];

/// All sites of a PHP binary, [`Site::CompileFile`] excepted.
///
/// # Errors
/// [`BinaryError::NotPhp`] or [`BinaryError::NotFound`].
pub fn find(
    code: &Code<'_>,
    allocator: &AllocatorFunctions,
    chunk_map: u32,
) -> Result<Vec<ProbeSite>, BinaryError> {
    let finder = Finder { code, chunk_map };
    let mut sites = Vec::new();
    for (site, name) in [
        (Site::RequestStart, "php_request_startup"),
        (Site::RequestEnd, "php_request_shutdown"),
        (Site::HeapReset, "zend_mm_shutdown"),
        (Site::SendHeaders, "sapi_send_headers"),
    ] {
        sites.push(finder.entry(site, &code.exported(name)?, "exported")?);
    }
    sites.extend(finder.pages_taken(&allocator.alloc_pages)?);
    let found = "found from its exported callers";
    sites.extend(finder.entry_or_calls(Site::PagesFreed, &allocator.free_pages, found)?);
    sites.push(finder.pages_collected()?);
    sites.extend(finder.pages_resized(&allocator.alloc_pages)?);
    sites.extend(finder.at_returns(Site::HugeTaken, &allocator.alloc_huge)?);
    sites.extend(finder.at_returns(Site::HugeResized, &allocator.realloc_huge)?);
    sites.push(finder.entry(Site::HugeFreed, &allocator.free_huge, found)?);
    sites.push(finder.entry(Site::ChunkTaken, &allocator.chunk_alloc, found)?);
    let limit = Site::LimitError {
        size: allocator.limit_error_size,
    };
    sites.push(finder.entry(limit, &allocator.limit_error, "found by its message")?);
    for (name, size) in emalloc_functions(code) {
        sites.push(finder.entry(Site::Emalloc(size), &code.exported(&name)?, "exported")?);
    }
    Ok(sites)
}

/// The best site at the entry of the function that starts at `address`.
///
/// # Errors
/// [`BinaryError::NotFound`] if no function starts there.
pub fn entry_site(
    code: &Code<'_>,
    site: Site,
    name: &str,
    address: u64,
) -> Result<ProbeSite, BinaryError> {
    let finder = Finder { code, chunk_map: 0 };
    finder.entry(site, &code.function(name, address)?, "address given")
}

/// The returns of the function that starts at `address`.
///
/// # Errors
/// [`BinaryError::NotFound`] if no function starts there, or it has none.
pub fn return_sites(
    code: &Code<'_>,
    site: Site,
    name: &str,
    address: u64,
) -> Result<Vec<ProbeSite>, BinaryError> {
    let finder = Finder { code, chunk_map: 0 };
    finder.at_returns(site, &code.function(name, address)?)
}

/// `_emalloc`, its size classes, and the two reallocs. (`_ecalloc`, `_safe_emalloc`, `_estrdup`
/// and their like call these; `_zend_mm_alloc` is called by them.)
fn emalloc_functions(code: &Code<'_>) -> Vec<(String, EmallocSize)> {
    let mut functions: Vec<(String, EmallocSize)> = code
        .image
        .symbol_names()
        .filter_map(|name| {
            let size = match name {
                "_emalloc" | "_emalloc_large" | "_emalloc_huge" => EmallocSize::FirstArgument,
                "_erealloc" | "_erealloc2" => EmallocSize::SecondArgument,
                _ => EmallocSize::Fixed(name.strip_prefix("_emalloc_")?.parse().ok()?),
            };
            Some((name.to_owned(), size))
        })
        .collect();
    functions.sort_by_key(|(name, size)| match size {
        EmallocSize::Fixed(bytes) => (1, *bytes, name.clone()),
        _ => (0, 0, name.clone()),
    });
    functions
}

struct Finder<'a> {
    code: &'a Code<'a>,
    chunk_map: u32,
}

impl Finder<'_> {
    /// The argument registers that tell a site's event and so must be intact.
    fn needed(&self, site: Site) -> RegisterSet {
        let arguments = self.code.arch.arguments();
        let first = |count: usize| arguments.iter().take(count).copied().collect();
        match site {
            Site::RequestStart | Site::RequestEnd | Site::SendHeaders => first(0),
            Site::CompileFile | Site::ChunkTaken | Site::HeapReset => first(1),
            Site::HugeFreed | Site::Handler(_) => first(2),
            Site::HandlerReturn(_) => first(0),
            Site::PagesFreed => first(4),
            Site::LimitError { size } => [size].into_iter().collect(),
            Site::Emalloc(EmallocSize::Fixed(_)) => first(0),
            Site::Emalloc(EmallocSize::FirstArgument) => first(1),
            Site::Emalloc(EmallocSize::SecondArgument) => first(2),
            Site::PagesTaken | Site::HugeTaken | Site::HugeResized => {
                [self.code.arch.result()].into_iter().collect()
            }
            Site::PagesResized(store) => store.entry.registers().chain([store.value]).collect(),
            Site::PagesCollected(entry) => entry.registers().collect(),
        }
    }

    fn entry(
        &self,
        site: Site,
        function: &Function,
        found: &str,
    ) -> Result<ProbeSite, BinaryError> {
        let chosen = first_emulated(function, 0, self.needed(site));
        let why = match chosen {
            Some(0) => format!("{found}; its first instruction is emulated"),
            Some(_) => {
                format!("{found}; first emulated instruction of the entry block, arguments intact")
            }
            None => {
                format!("{found}; no emulated instruction before an argument is lost: its first")
            }
        };
        self.site(site, function, chosen.unwrap_or(0), why)
    }

    /// A function's entry. Where that would be single-stepped, its callers' calls and last jumps
    /// instead, if there is no other way in: they are emulated, and the arguments are in place.
    fn entry_or_calls(
        &self,
        site: Site,
        function: &Function,
        found: &str,
    ) -> Result<Vec<ProbeSite>, BinaryError> {
        let entry = self.entry(site, function, found)?;
        if entry.emulated {
            return Ok(vec![entry]);
        }
        let mut references = self.code.references_to(&[function.range.start]);
        // A loop to its own start is no way in.
        references.retain(|reference| !function.range.contains(&reference.from));
        let mut sites = Vec::new();
        for reference in &references {
            let caller = self.code.around(reference.from)?;
            let index = caller.instructions.iter().position(|instruction| {
                instruction.address == reference.from
                    && matches!(instruction.flow, Flow::Call(_) | Flow::Jump(_))
                    && instruction.probing == Probing::Emulated
            });
            let Some(index) = index else {
                return Ok(vec![entry]);
            };
            let why = format!(
                "one of the {} calls of {}, whose entry is single-stepped",
                references.len(),
                function.name
            );
            sites.push(self.site(site, &caller, index, why)?);
        }
        if sites.is_empty() {
            sites.push(entry);
        }
        Ok(sites)
    }

    /// Behind each call of the page allocator. Where it is reached in another way too (a tail
    /// jump, a pointer), its own returns instead.
    fn pages_taken(&self, alloc_pages: &Function) -> Result<Vec<ProbeSite>, BinaryError> {
        let references = self.code.references_to(&[alloc_pages.range.start]);
        let mut sites = Vec::new();
        for reference in references
            .iter()
            // A loop to its own start is no way in.
            .filter(|r| !alloc_pages.range.contains(&r.from))
        {
            let caller = self.code.around(reference.from)?;
            match self.behind_call(&caller, reference.from) {
                Some(index) if reference.kind == ReferenceKind::Call => {
                    let why = format!(
                        "behind one of the {} calls of zend_mm_alloc_pages ({:#x})",
                        references.len(),
                        reference.from
                    );
                    sites.push(self.site(Site::PagesTaken, &caller, index, why)?);
                }
                _ => return self.at_returns(Site::PagesTaken, alloc_pages),
            }
        }
        if sites.is_empty() {
            return self.at_returns(Site::PagesTaken, alloc_pages);
        }
        Ok(sites)
    }

    /// Where the result of the call at `from` can be read, on the call's path only.
    fn behind_call(&self, caller: &Function, from: u64) -> Option<usize> {
        let call = caller.instructions.iter().position(|i| i.address == from)?;
        let next = caller.instructions.get(call + 1)?;
        if caller.is_target(next.address) {
            return None;
        }
        let result = self.needed(Site::PagesTaken);
        Some(first_emulated(caller, call + 1, result).unwrap_or(call + 1))
    }

    /// `zend_mm_gc` frees runs of small blocks by code of its own, where it sets their map
    /// entry to 0. The probe sits on the store itself: the old entry still tells the bin.
    fn pages_collected(&self) -> Result<ProbeSite, BinaryError> {
        const WHAT: &str = "where zend_mm_gc frees a page run";
        let function = self.code.exported("zend_mm_gc")?;
        let found: Vec<(usize, MapEntry)> = function
            .iter()
            .enumerate()
            .filter_map(|(index, (instruction, state))| {
                let effect = &instruction.effects[0];
                allocator::cleared_map_entry(state, effect, self.chunk_map)?;
                Some((index, map_entry(effect)?.0))
            })
            .collect();
        let [(index, entry)] = found[..] else {
            return Err(BinaryError::not_found(
                WHAT,
                format!("{} stores of 0 into the page map, not 1", found.len()),
            ));
        };
        let why = "sets the map entry of a collected run to 0; the entry is still old here";
        self.site(
            Site::PagesCollected(entry),
            &function,
            index,
            why.to_owned(),
        )
    }

    /// Every store of a large run's map entry in the realloc functions and what they call,
    /// the page allocator's own excepted.
    fn pages_resized(&self, alloc_pages: &Function) -> Result<Vec<ProbeSite>, BinaryError> {
        let mut functions = Vec::new();
        let mut callees = Vec::new();
        for name in REALLOC_FUNCTIONS {
            let function = self.code.exported(name)?;
            callees.extend(function.callees());
            functions.push(function);
        }
        callees.sort_unstable();
        callees.dedup();
        callees.retain(|callee| {
            *callee != alloc_pages.range.start && functions.iter().all(|f| f.range.start != *callee)
        });
        // What is no function of its own is the linkage table.
        functions.extend(
            callees
                .iter()
                .filter_map(|callee| self.code.function(&self.code.name(*callee), *callee).ok()),
        );
        let mut sites = Vec::new();
        for function in &functions {
            let before = sites.len();
            sites.extend(self.resizes_in(function)?);
            let exported = REALLOC_FUNCTIONS.contains(&function.name.as_str());
            if exported && sites.len() == before {
                return Err(BinaryError::not_found(
                    "where a page run is resized",
                    format!("{} stores no large run's map entry", function.name),
                ));
            }
        }
        Ok(sites)
    }

    fn resizes_in(&self, function: &Function) -> Result<Vec<ProbeSite>, BinaryError> {
        let mut sites = Vec::new();
        for (index, (instruction, state)) in function.iter().enumerate() {
            let Some((entry, stored)) = map_entry(&instruction.effects[0]) else {
                continue;
            };
            let Some(value) = map::stores_large_run(state, stored) else {
                continue;
            };
            let offset = map::entry(state, entry.place()).map(|entry| entry.offset);
            if offset != Some(i64::from(self.chunk_map)) {
                return Err(BinaryError::disagree(
                    "zend_mm_chunk.map",
                    format!("_efree loads from {:#x}", self.chunk_map),
                    self.code.cite(function, instruction),
                ));
            }
            let site = Site::PagesResized(MapStore { entry, value });
            let chosen = first_emulated(function, index, self.needed(site));
            let why = format!(
                "at or behind the store of a resized run's length ({:#x})",
                instruction.address
            );
            sites.push(self.site(site, function, chosen.unwrap_or(index), why)?);
        }
        Ok(sites)
    }

    fn at_returns(&self, site: Site, function: &Function) -> Result<Vec<ProbeSite>, BinaryError> {
        let mut sites = Vec::new();
        for (index, instruction) in function.instructions.iter().enumerate() {
            if instruction.flow == Flow::Return {
                let why = "a return of the function; the result is in place";
                sites.push(self.site(site, function, index, why.to_owned())?);
            }
        }
        if sites.is_empty() {
            return Err(BinaryError::not_found(
                format!("the returns of {}", function.name),
                "it has none",
            ));
        }
        Ok(sites)
    }

    fn site(
        &self,
        site: Site,
        function: &Function,
        index: usize,
        why: String,
    ) -> Result<ProbeSite, BinaryError> {
        let missing = || {
            BinaryError::not_found(
                format!("a probe site in {}", function.name),
                "it has no instructions in the file",
            )
        };
        let instruction: &Instruction = function.instructions.get(index).ok_or_else(missing)?;
        if instruction.probing == Probing::Refused {
            return Err(BinaryError::not_found(
                format!("a probe site in {}", function.name),
                format!(
                    "the kernel takes no probe on {}",
                    self.code.cite(function, instruction)
                ),
            ));
        }
        Ok(ProbeSite {
            site,
            function: function.name.clone(),
            address: instruction.address,
            file_offset: self
                .code
                .image
                .file_offset(instruction.address)
                .ok_or_else(missing)?,
            instruction: self.code.text(instruction),
            emulated: instruction.probing == Probing::Emulated,
            why,
        })
    }
}

/// The first emulated instruction from `start` on that is passed whenever `start` is, exactly
/// once, with the `needed` registers as they were before `start`.
fn first_emulated(function: &Function, start: usize, needed: RegisterSet) -> Option<usize> {
    for (index, instruction) in function.instructions.iter().enumerate().skip(start) {
        if index > start && function.is_target(instruction.address) {
            return None;
        }
        if instruction.probing == Probing::Emulated {
            return Some(index);
        }
        if instruction.flow != Flow::Next || instruction.writes.intersects(needed) {
            return None;
        }
    }
    None
}

fn map_entry(effect: &Effect) -> Option<(MapEntry, Option<Stored>)> {
    let Effect::Store {
        place:
            Place::Indexed {
                base,
                index,
                scale,
                displacement,
            },
        value,
        size: 4,
    } = *effect
    else {
        return None;
    };
    let entry = MapEntry {
        base,
        index,
        scale,
        displacement,
    };
    Some((entry, value))
}

impl MapEntry {
    fn place(self) -> Place {
        Place::Indexed {
            base: self.base,
            index: self.index,
            scale: self.scale,
            displacement: self.displacement,
        }
    }

    fn registers(self) -> impl Iterator<Item = Register> {
        [self.base].into_iter().chain(self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binary::arch;
    use crate::binary::flow::State;

    const RAX: Register = Register(10);
    const RDI: Register = Register(14);

    /// The address of the first emulated instruction from the `start`th on.
    fn chosen(code: &[u8], start: usize, needed: &[Register]) -> Option<u64> {
        let arch = arch::for_machine(object::Architecture::X86_64).expect("x86-64 is decoded");
        let instructions = arch.decode(code, 0);
        let function = Function {
            name: "test".to_owned(),
            range: 0..code.len() as u64,
            states: vec![State::default(); instructions.len()],
            instructions,
        };
        let needed = needed.iter().copied().collect();
        first_emulated(&function, start, needed).map(|index| function.instructions[index].address)
    }

    #[test]
    fn the_first_emulated_instruction_is_taken() {
        // mov rcx,[rip]; mov eax,[rcx]; test eax,eax; jne: as _emalloc begins in 8.2.36
        let code = [
            0x48, 0x8b, 0x0d, 0, 0, 0, 0, 0x8b, 0x01, 0x85, 0xc0, 0x0f, 0x85, 0, 1, 0, 0,
        ];
        assert_eq!(chosen(&code, 0, &[RDI]), Some(0xb));
        assert_eq!(chosen(&[0x55, 0xc3], 0, &[RDI]), Some(0));
    }

    #[test]
    fn not_behind_a_lost_register() {
        // mov rdi,[rip]; je
        let code = [0x48, 0x8b, 0x3d, 0, 0, 0, 0, 0x74, 0x10];
        assert_eq!(chosen(&code, 0, &[RDI]), None);
        assert_eq!(chosen(&code, 0, &[RAX]), Some(7));
    }

    #[test]
    fn not_behind_other_control_flow() {
        // jmp rax; push rbp
        assert_eq!(chosen(&[0xff, 0xe0, 0x55], 0, &[]), None);
        // ret; push rbp
        assert_eq!(chosen(&[0xc3, 0x55], 0, &[]), None);
    }

    #[test]
    fn not_where_a_loop_comes_back() {
        // xor eax,eax; (loop) nop; jmp loop
        assert_eq!(chosen(&[0x31, 0xc0, 0x90, 0xeb, 0xfd], 0, &[]), None);
    }

    #[test]
    fn behind_a_call_only_while_the_result_lives() {
        // call; test rax,rax; je
        let test = [0xe8, 0, 1, 0, 0, 0x48, 0x85, 0xc0, 0x74, 0x10];
        assert_eq!(chosen(&test, 1, &[RAX]), Some(8));
        // call; shr rax,12; je
        let shift = [0xe8, 0, 1, 0, 0, 0x48, 0xc1, 0xe8, 0x0c, 0x74, 0x10];
        assert_eq!(chosen(&shift, 1, &[RAX]), None);
    }
}
