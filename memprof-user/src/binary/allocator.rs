//! The Zend allocator's static functions, found from the exported ones that call them.

use std::collections::HashSet;

use memchr::memmem;

use super::arch::{Effect, Reference, ReferenceKind, Stored, Target};
use super::code::{Code, Function};
use super::flow::{State, Value};
use super::map::{self, Entry};
use super::{BinaryError, Evidence, Register};

/// The static functions of zend_alloc.c through which the heap grows and shrinks.
pub struct AllocatorFunctions {
    /// `zend_mm_alloc_pages(heap, pages)`
    pub alloc_pages: Function,
    /// `zend_mm_free_pages(heap, chunk, page, pages)`
    pub free_pages: Function,
    /// `zend_mm_alloc_huge(heap, size)`
    pub alloc_huge: Function,
    /// `zend_mm_free_huge(heap, block)`, or `zend_mm_del_huge_block` with the same arguments
    /// where the first is inlined everywhere (Debian 7.4; the npm builds of 7.4, 8.2 and 8.3).
    pub free_huge: Function,
    /// `zend_mm_realloc_huge(heap, block, size, copied)`
    pub realloc_huge: Function,
    /// `zend_mm_chunk_alloc_int(size, alignment)`, which maps memory.
    pub chunk_alloc: Function,
    /// `zend_mm_safe_error`, which raises "Allowed memory size ... exhausted".
    pub limit_error: Function,
    /// The register in which `limit_error` gets the bytes asked for.
    pub limit_error_size: Register,
}

/// The text that only the memory-limit error uses (the same from 7.4 to 8.6).
const LIMIT_MESSAGE: &[u8] = b"Allowed memory size of %zu bytes exhausted";

/// How deep below the two callers `mmap` may be called: the function and two wrappers.
const MMAP_DEPTH: usize = 3;

impl AllocatorFunctions {
    /// Finds all of them.
    ///
    /// # Errors
    /// [`BinaryError::NotPhp`], [`BinaryError::NotFound`] or [`BinaryError::Disagree`].
    pub fn find(
        code: &Code<'_>,
        heap_pointer: u64,
        evidence: &mut Vec<Evidence>,
    ) -> Result<Self, BinaryError> {
        let mut search = Search {
            code,
            heap: Value::Global(heap_pointer),
            evidence,
        };
        let alloc_pages = search.handed_heap("zend_mm_alloc_pages", "_emalloc_large", None)?;
        let free_pages = search.handed_heap("zend_mm_free_pages", "_efree_large", None)?;
        let alloc_huge = search.handed_heap(
            "zend_mm_alloc_huge",
            "_emalloc_huge",
            Some(Value::Argument(0)),
        )?;
        let free_huge =
            search.handed_heap("zend_mm_free_huge", "_efree_huge", Some(Value::Argument(0)))?;
        search.also_called("zend_mm_alloc_huge", &alloc_huge, "_emalloc")?;
        search.also_called("zend_mm_free_pages", &free_pages, "_efree")?;
        search.also_called("zend_mm_free_huge", &free_huge, "_efree")?;
        let realloc_huge = search.realloc_huge(&alloc_huge, &free_pages)?;
        let chunk_alloc = search.chunk_alloc(&alloc_pages, &alloc_huge)?;
        let (limit_error, limit_error_size) = search.limit_error()?;
        Ok(Self {
            alloc_pages,
            free_pages,
            alloc_huge,
            free_huge,
            realloc_huge,
            chunk_alloc,
            limit_error,
            limit_error_size,
        })
    }

    /// Checks that the compiler left `zend_mm_free_pages` its arguments: it must set the map
    /// entry of (second argument, third argument) to 0 and read the fourth.
    ///
    /// # Errors
    /// [`BinaryError::Disagree`] if it does not.
    pub fn check_free_pages(&self, code: &Code<'_>, chunk_map: u32) -> Result<(), BinaryError> {
        let clears = self.free_pages.effects().any(|(_, state, effect)| {
            cleared_map_entry(state, effect, chunk_map)
                .is_some_and(|entry| (entry.structure, entry.index) == (Some(1), Some(2)))
        });
        if clears && self.free_pages.reads_argument(code.arch, 3) {
            return Ok(());
        }
        Err(BinaryError::disagree(
            "the arguments of zend_mm_free_pages",
            "its source says (heap, chunk, page, pages)",
            format!(
                "{} does not set the map entry of its second and third argument to 0, or does not read its fourth",
                self.free_pages.name
            ),
        ))
    }
}

/// The entry of a chunk's page map, at this offset, that an instruction sets to 0.
pub fn cleared_map_entry(state: &State, effect: &Effect, chunk_map: u32) -> Option<Entry> {
    let Effect::Store {
        place,
        value: Some(value),
        size: 4,
    } = *effect
    else {
        return None;
    };
    let zero = match value {
        Stored::Constant(value) => value == 0,
        Stored::Register(register) => state.get(register) == Some(Value::Constant(0)),
    };
    let entry = map::entry(state, place)?;
    (zero && entry.offset == i64::from(chunk_map)).then_some(entry)
}

struct Search<'a> {
    code: &'a Code<'a>,
    heap: Value,
    evidence: &'a mut Vec<Evidence>,
}

impl Search<'_> {
    /// The first function to which an exported one hands the heap as first argument (and
    /// `second` as second), by a call or by its last jump.
    fn handed_heap(
        &mut self,
        what: &str,
        exported: &str,
        second: Option<Value>,
    ) -> Result<Function, BinaryError> {
        let function = self.code.exported(exported)?;
        let [first_argument, second_argument, ..] = *self.code.arch.arguments() else {
            return Err(BinaryError::not_found(what, "no argument registers"));
        };
        let found = function.exits().find_map(|(instruction, state, target)| {
            let Target::Address(address) = target else {
                return None;
            };
            let matches = state.get(first_argument) == Some(self.heap)
                && (second.is_none() || state.get(second_argument) == second);
            matches.then_some((instruction, address))
        });
        let Some((instruction, address)) = found else {
            return Err(BinaryError::not_found(
                what,
                format!("{exported} hands the heap to no function"),
            ));
        };
        let how = self.code.cite(&function, instruction);
        self.named(what, address, how)
    }

    fn named(&mut self, what: &str, address: u64, how: String) -> Result<Function, BinaryError> {
        self.evidence.push(Evidence {
            what: what.to_owned(),
            value: format!("{address:#x}"),
            how,
        });
        self.code.function(what, address)
    }

    /// A second witness: another exported function reaches the same one.
    fn also_called(
        &self,
        what: &str,
        function: &Function,
        exported: &str,
    ) -> Result<(), BinaryError> {
        let other = self.code.exported(exported)?;
        if other.callees().any(|callee| callee == function.range.start) {
            return Ok(());
        }
        Err(BinaryError::disagree(
            what,
            format!("found at {:#x}", function.range.start),
            format!("{exported} never calls it"),
        ))
    }

    /// Both `_erealloc` and `_erealloc2` end in jumps to `zend_mm_realloc_slow` (which
    /// allocates, copies and frees) and to `zend_mm_realloc_huge`, which falls back to it.
    fn realloc_huge(
        &mut self,
        alloc_huge: &Function,
        free_pages: &Function,
    ) -> Result<Function, BinaryError> {
        const WHAT: &str = "zend_mm_realloc_huge";
        let first = self.code.exported("_erealloc")?;
        let second = self.code.exported("_erealloc2")?;
        let mut shared: Vec<u64> = second.callees().collect();
        shared.retain(|callee| first.callees().any(|other| other == *callee));
        shared.sort_unstable();
        shared.dedup();
        let mut functions = Vec::new();
        for address in shared {
            // Imports go through the linkage table, which is no function of its own.
            if let Ok(function) = self.code.function(WHAT, address) {
                functions.push(function);
            }
        }
        let calls = |function: &Function, address| function.callees().any(|c| c == address);
        let slow: Vec<&Function> = functions
            .iter()
            .filter(|f| calls(f, alloc_huge.range.start) && calls(f, free_pages.range.start))
            .collect();
        let [slow] = slow[..] else {
            return Err(BinaryError::not_found(
                WHAT,
                format!("{} candidates for zend_mm_realloc_slow, not 1", slow.len()),
            ));
        };
        let huge: Vec<u64> = functions
            .iter()
            .filter(|function| calls(function, slow.range.start))
            .map(|function| function.range.start)
            .collect();
        let [address] = huge[..] else {
            return Err(BinaryError::not_found(
                WHAT,
                format!(
                    "{} functions called by _erealloc and _erealloc2 fall back to zend_mm_realloc_slow, not 1",
                    huge.len()
                ),
            ));
        };
        let how = format!(
            "called by _erealloc and _erealloc2, and falls back to zend_mm_realloc_slow ({:#x})",
            slow.range.start
        );
        self.named(WHAT, address, how)
    }

    /// The one function that the page allocator and the huge allocator share and that maps
    /// memory. (They share `zend_mm_gc` too, which only unmaps.)
    fn chunk_alloc(
        &mut self,
        alloc_pages: &Function,
        alloc_huge: &Function,
    ) -> Result<Function, BinaryError> {
        const WHAT: &str = "zend_mm_chunk_alloc_int";
        let mut shared: Vec<u64> = alloc_pages.callees().collect();
        shared.retain(|callee| alloc_huge.callees().any(|other| other == *callee));
        shared.sort_unstable();
        shared.dedup();
        let maps: Vec<u64> = shared
            .iter()
            .copied()
            .filter(|address| self.reaches_mmap(*address))
            .collect();
        let [address] = maps[..] else {
            return Err(BinaryError::not_found(
                WHAT,
                format!(
                    "{} of the {} functions that zend_mm_alloc_pages and zend_mm_alloc_huge share call mmap, not 1",
                    maps.len(),
                    shared.len()
                ),
            ));
        };
        let how = "called by zend_mm_alloc_pages and zend_mm_alloc_huge, and reaches mmap";
        self.named(WHAT, address, how.to_owned())
    }

    /// Whether a function, or one called from it, calls `mmap`.
    fn reaches_mmap(&self, address: u64) -> bool {
        let mmap = |target| matches!(self.code.import(target), Some("mmap" | "mmap64"));
        let mut seen = HashSet::from([address]);
        let mut level = vec![address];
        for _ in 0..MMAP_DEPTH {
            let functions: Vec<Function> = level
                .iter()
                .filter_map(|address| self.code.function("", *address).ok())
                .collect();
            if functions
                .iter()
                .any(|f| f.exits().any(|(.., target)| mmap(target)))
            {
                return true;
            }
            level = functions.iter().flat_map(Function::callees).collect();
            level.retain(|callee| seen.insert(*callee));
        }
        false
    }

    /// The function that is called with the address of "Allowed memory size ...". Up to
    /// mid-October 2026 it is (heap, format, limit, size); since 8.2.35 and 8.4.27 (format,
    /// limit, size), and a helper uses the text once more: the function has the most calls.
    fn limit_error(&mut self) -> Result<(Function, Register), BinaryError> {
        const WHAT: &str = "zend_mm_safe_error";
        let texts: Vec<u64> = memmem::find_iter(self.code.image.data(), LIMIT_MESSAGE)
            .filter_map(|offset| self.code.image.address_of(offset as u64))
            .collect();
        // (function, argument index of the text) of each call that follows such a reference.
        let mut calls: Vec<(u64, usize)> = Vec::new();
        for reference in self.code.references_to(&texts) {
            if reference.kind == ReferenceKind::Address {
                calls.extend(self.call_after(reference)?);
            }
        }
        let mut counted: Vec<(usize, u64, usize)> = Vec::new();
        for (address, argument) in &calls {
            let same = |c: &&(u64, usize)| c.0 == *address && c.1 == *argument;
            counted.push((calls.iter().filter(same).count(), *address, *argument));
        }
        counted.sort_unstable();
        counted.dedup();
        let Some((count, address, text)) = counted.pop() else {
            return Err(BinaryError::not_found(
                WHAT,
                format!(
                    "no call follows a use of {:?}",
                    String::from_utf8_lossy(LIMIT_MESSAGE)
                ),
            ));
        };
        let tied = counted.last().is_some_and(|(other, ..)| *other == count);
        let size = self.code.arch.arguments().get(text + 2).copied();
        let (false, Some(size)) = (tied, size) else {
            return Err(BinaryError::not_found(
                WHAT,
                format!("the text goes to more than one function alike: {calls:x?}"),
            ));
        };
        let how = format!(
            "{count} calls get the text \"Allowed memory size of %zu bytes exhausted\" as argument {}; the size is argument {}",
            text + 1,
            text + 3
        );
        Ok((self.named(WHAT, address, how)?, size))
    }

    /// The first call or jump out after an instruction that loads an address, with the argument
    /// that then holds this address.
    fn call_after(&self, reference: Reference) -> Result<Option<(u64, usize)>, BinaryError> {
        let function = self.code.around(reference.from)?;
        let call = function
            .exits()
            .find(|(instruction, ..)| instruction.address > reference.from);
        let Some((_, state, Target::Address(address))) = call else {
            return Ok(None);
        };
        let text = Some(Value::Constant(reference.target));
        let argument = self
            .code
            .arch
            .arguments()
            .iter()
            .position(|register| state.get(*register) == text);
        Ok(argument.map(|argument| (address, argument)))
    }
}
