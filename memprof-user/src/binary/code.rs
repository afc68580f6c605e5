//! The functions of an ELF image, decoded and traced.

use std::ops::Range;

use super::arch::{self, Architecture, Effect, Flow, Instruction, Place, Reference, Target};
use super::flow::{self, Root, State, Value};
use super::{BinaryError, ElfImage};

/// In bytes. The largest function decoded in any measured build has 14 KiB (the procedure
/// linkage table, which counts as one).
const LARGEST_FUNCTION: u64 = 64 << 10;

/// In bytes: a landing pad and a jump on x86-64, five instructions on aarch64.
const LINKAGE_STUB: u64 = 20;

/// An image with the decoder for its machine.
#[derive(Clone, Copy)]
pub struct Code<'a> {
    /// The file.
    pub image: &'a ElfImage,
    /// Its architecture.
    pub arch: &'static dyn Architecture,
}

/// One function, or the cold part of one.
pub struct Function {
    /// Its exported name, or one made of its address.
    pub name: String,
    /// Its bounds.
    pub range: Range<u64>,
    /// Its instructions in order of address.
    pub instructions: Vec<Instruction>,
    /// What is known of the registers before each of them.
    pub states: Vec<State>,
}

impl<'a> Code<'a> {
    /// # Errors
    /// [`BinaryError::UnsupportedMachine`] if there is no decoder for the image's machine.
    pub fn new(image: &'a ElfImage) -> Result<Self, BinaryError> {
        let arch = arch::for_machine(image.machine())?;
        Ok(Self { image, arch })
    }

    /// An exported function.
    ///
    /// # Errors
    /// [`BinaryError::NotPhp`] if it is not exported; [`BinaryError::NotFound`] if its bounds
    /// or bytes are missing.
    pub fn exported(&self, name: &str) -> Result<Function, BinaryError> {
        let symbol = self.image.symbol(name).ok_or_else(|| BinaryError::NotPhp {
            missing: name.to_owned(),
        })?;
        self.function(name, symbol.address)
    }

    /// The function that starts at an address.
    ///
    /// # Errors
    /// [`BinaryError::NotFound`] if no function starts there or its bytes are not in the file.
    pub fn function(&self, name: &str, address: u64) -> Result<Function, BinaryError> {
        let range = self
            .image
            .function_at(address)
            .filter(|range| range.start == address)
            .ok_or_else(|| {
                BinaryError::not_found(name, format!("no function starts at {address:#x}"))
            })?;
        self.decode(name.to_owned(), range)
    }

    /// The function, or the cold part of one, that holds an address.
    ///
    /// # Errors
    /// [`BinaryError::NotFound`] if there is none or its bytes are not in the file.
    pub fn around(&self, address: u64) -> Result<Function, BinaryError> {
        let range = self.image.function_at(address).ok_or_else(|| {
            BinaryError::not_found(
                format!("the function around {address:#x}"),
                "no entry of .eh_frame covers it",
            )
        })?;
        let name = self.name(range.start);
        self.decode(name, range)
    }

    /// A function's exported name, or one made of its address.
    pub fn name(&self, address: u64) -> String {
        match self.image.name_at(address) {
            Some(name) => name.to_owned(),
            None => format!("sub_{address:x}"),
        }
    }

    fn decode(&self, name: String, range: Range<u64>) -> Result<Function, BinaryError> {
        if range.end.saturating_sub(range.start) > LARGEST_FUNCTION {
            return Err(BinaryError::not_found(
                name,
                format!("{range:#x?} is larger than any function that memprof decodes"),
            ));
        }
        let bytes = self.image.bytes(range.clone()).ok_or_else(|| {
            BinaryError::not_found(&name, format!("{range:#x?} is not in the file"))
        })?;
        let instructions = self.arch.decode(bytes, range.start);
        let entry = State::at_entry(self.arch);
        let states = flow::trace(&instructions, entry, &|slot| self.image.pointer(slot));
        Ok(Function {
            name,
            range,
            instructions,
            states,
        })
    }

    /// An instruction as text.
    pub fn text(&self, instruction: &Instruction) -> String {
        let end = instruction.address.saturating_add(instruction.length);
        match self.image.bytes(instruction.address..end) {
            Some(bytes) => self.arch.text(bytes, instruction.address),
            None => String::new(),
        }
    }

    /// An instruction with where it stands, for evidence: `zend_mm_get_heap+0x0: mov rax,[...]`.
    pub fn cite(&self, function: &Function, instruction: &Instruction) -> String {
        format!(
            "{}+{:#x}: {}",
            function.name,
            instruction.address.wrapping_sub(function.range.start),
            self.text(instruction)
        )
    }

    /// Every instruction in the file that names one of `targets`.
    pub fn references_to(&self, targets: &[u64]) -> Vec<Reference> {
        let mut references = Vec::new();
        for range in self.image.functions() {
            let Some(bytes) = self.image.bytes(range.clone()) else {
                continue;
            };
            self.arch.references(bytes, range.start, &mut |reference| {
                if targets.contains(&reference.target) {
                    references.push(reference);
                }
            });
        }
        references
    }

    /// The imported function that a call or jump reaches, directly or through the procedure
    /// linkage table.
    pub fn import(&self, target: Target) -> Option<&'a str> {
        match target {
            Target::Slot(slot) => self.image.import(slot),
            Target::Address(address) => {
                let stub = self
                    .image
                    .bytes(address..address.checked_add(LINKAGE_STUB)?)?;
                self.image.import(self.linkage_slot(stub, address)?)
            }
        }
    }

    /// The slot through which a stub of the procedure linkage table jumps: named by the jump
    /// itself (x86-64), or by the load in front of a jump to a register (aarch64).
    fn linkage_slot(&self, stub: &[u8], address: u64) -> Option<u64> {
        let instructions = self.arch.decode(stub, address);
        let states = flow::trace(&instructions, State::at_entry(self.arch), &|_| None);
        let mut loaded = None;
        for (instruction, state) in instructions.iter().zip(&states) {
            match (instruction.flow, instruction.effects[0]) {
                (Flow::Jump(Some(Target::Slot(slot))), _) => return Some(slot),
                (Flow::Jump(None), _) => return loaded,
                (Flow::Next, Effect::Load { place, size: 8, .. }) => {
                    loaded = match state.location(place) {
                        Some((Root::Address, slot)) => u64::try_from(slot).ok(),
                        _ => None,
                    };
                }
                (Flow::Next, _) => {}
                _ => return None,
            }
        }
        None
    }
}

impl Function {
    /// The instructions with what is known before each.
    pub fn iter(&self) -> impl Iterator<Item = (&Instruction, &State)> {
        self.instructions.iter().zip(&self.states)
    }

    /// What the instructions compute, with what is known before each.
    pub fn effects(&self) -> impl Iterator<Item = (&Instruction, &State, &Effect)> {
        self.iter().flat_map(|(instruction, state)| {
            let effects = instruction.effects.iter();
            effects.map(move |effect| (instruction, state, effect))
        })
    }

    /// The function's loads of `size` bytes from an offset to `root`.
    pub fn loads(&self, root: Root, size: u8) -> impl Iterator<Item = (&Instruction, i64)> {
        self.effects()
            .filter_map(move |(instruction, state, effect)| match *effect {
                Effect::Load { place, size: s, .. } if s == size => {
                    at(state, place, root).map(|offset| (instruction, offset))
                }
                _ => None,
            })
    }

    /// The offsets to `root` that the function reads or writes, in any width.
    pub fn uses(&self, root: Root) -> impl Iterator<Item = i64> {
        let followed = self
            .effects()
            .filter_map(|(_, state, effect)| match *effect {
                Effect::Load { place, .. } | Effect::Store { place, .. } => Some((state, place)),
                _ => None,
            });
        self.iter()
            .filter_map(|(instruction, state)| Some((state, instruction.memory?)))
            .chain(followed)
            .filter_map(move |(state, place)| at(state, place, root))
    }

    /// The function's stores of `size` bytes to an offset to `root`.
    pub fn stores(&self, root: Root, size: u8) -> impl Iterator<Item = (&Instruction, i64)> {
        self.effects()
            .filter_map(move |(instruction, state, effect)| match *effect {
                Effect::Store { place, size: s, .. } if s == size => {
                    at(state, place, root).map(|offset| (instruction, offset))
                }
                _ => None,
            })
    }

    /// The instructions that call or jump unconditionally out of the function.
    pub fn exits(&self) -> impl Iterator<Item = (&Instruction, &State, Target)> {
        self.iter().filter_map(|(instruction, state)| {
            let target = match instruction.flow {
                Flow::Call(Some(target)) | Flow::Jump(Some(target)) => target,
                _ => return None,
            };
            let leaves = match target {
                Target::Address(address) => !self.range.contains(&address),
                Target::Slot(_) => true,
            };
            leaves.then_some((instruction, state, target))
        })
    }

    /// The addresses in this file that the function calls or jumps to unconditionally.
    pub fn callees(&self) -> impl Iterator<Item = u64> {
        self.exits().filter_map(|(_, _, target)| match target {
            Target::Address(address) => Some(address),
            Target::Slot(_) => None,
        })
    }

    /// Whether a branch or jump inside the function leads to an address.
    pub fn is_target(&self, address: u64) -> bool {
        self.instructions.iter().any(|instruction| {
            matches!(instruction.flow,
                Flow::Branch(target) | Flow::Jump(Some(Target::Address(target)))
                    if target == address)
        })
    }

    /// The function's returns.
    pub fn returns(&self) -> impl Iterator<Item = (&Instruction, &State)> {
        self.iter()
            .filter(|(instruction, _)| instruction.flow == Flow::Return)
    }

    /// Whether the function reads its argument of this index.
    pub fn reads_argument(&self, arch: &dyn Architecture, index: u8) -> bool {
        let holds = Some(Value::Argument(index));
        self.iter().any(|(instruction, state)| {
            (0..32)
                .map(super::Register)
                .any(|r| instruction.reads.contains(r) && state.get(r) == holds)
        }) && arch.arguments().len() > usize::from(index)
    }
}

fn at(state: &State, place: Place, root: Root) -> Option<i64> {
    let (found, offset) = state.location(place)?;
    (found == root).then_some(offset)
}
