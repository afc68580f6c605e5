//! What differs between processor architectures, behind one small interface.
//!
//! A decoder turns machine code into [`Instruction`]s, which say only what the searches in
//! this module's siblings need: where control goes, which registers change, and the few
//! moves, loads and stores that carry a fact. Every search is written once, on these.

mod aarch64;
mod x86_64;

use super::{BinaryError, Register};

/// One processor architecture.
pub trait Architecture: Sync {
    /// Decodes a function, from its first instruction on. Stops at what is no instruction, unless
    /// it is plain where the next one begins.
    fn decode(&self, code: &[u8], address: u64) -> Vec<Instruction>;

    /// The first instruction of `code` as text, for people.
    fn text(&self, code: &[u8], address: u64) -> String;

    /// Calls `found` for every direct call, jump or address computation in `code`.
    fn references(&self, code: &[u8], address: u64, found: &mut dyn FnMut(Reference));

    /// The registers of the first integer arguments, in order.
    fn arguments(&self) -> &'static [Register];

    /// The register of an integer result.
    fn result(&self) -> Register;

    /// The register that points to the stack's top.
    fn stack_pointer(&self) -> Register;
}

/// The decoder for an ELF file's machine.
///
/// # Errors
/// [`BinaryError::UnsupportedMachine`] for everything but x86-64 and aarch64.
pub fn for_machine(
    machine: object::Architecture,
) -> Result<&'static dyn Architecture, BinaryError> {
    match machine {
        object::Architecture::X86_64 => Ok(&x86_64::X86_64),
        object::Architecture::Aarch64 => Ok(&aarch64::Aarch64),
        other => Err(BinaryError::UnsupportedMachine(format!("{other:?}"))),
    }
}

/// A set of general registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegisterSet(u64);

impl RegisterSet {
    /// Adds a register.
    pub fn insert(&mut self, register: Register) {
        self.0 |= 1 << (register.0 & 63);
    }

    /// Takes a register out.
    pub fn remove(&mut self, register: Register) {
        self.0 &= !(1 << (register.0 & 63));
    }

    /// Whether a register is in the set.
    pub fn contains(self, register: Register) -> bool {
        self.0 & (1 << (register.0 & 63)) != 0
    }

    /// Whether the sets share a register.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl FromIterator<Register> for RegisterSet {
    fn from_iter<I: IntoIterator<Item = Register>>(registers: I) -> Self {
        let mut set = Self::default();
        set.extend(registers);
        set
    }
}

impl Extend<Register> for RegisterSet {
    fn extend<I: IntoIterator<Item = Register>>(&mut self, registers: I) {
        for register in registers {
            self.insert(register);
        }
    }
}

/// What one machine instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// ELF virtual address.
    pub address: u64,
    /// Length in bytes.
    pub length: u64,
    /// Where control goes.
    pub flow: Flow,
    /// What it computes, if it is one of the forms that are followed. Only a load or store of a
    /// pair of registers has two.
    pub effects: [Effect; 2],
    /// The memory that it reads or writes, if it names any.
    pub memory: Option<Place>,
    /// The general registers that it reads.
    pub reads: RegisterSet,
    /// The general registers that it changes; for a call those that the callee may change.
    pub writes: RegisterSet,
    /// What the kernel does at a uprobe on it.
    pub probing: Probing,
}

/// What the kernel does at a uprobe on an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probing {
    /// It does the instruction's work itself.
    Emulated,
    /// It single-steps the instruction elsewhere, which costs a second trap.
    Stepped,
    /// It takes no probe there.
    Refused,
}

/// Where control goes after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To the next instruction.
    Next,
    /// To a function and back; `None` where the target is computed.
    Call(Option<Target>),
    /// Away; `None` where the target is computed.
    Jump(Option<Target>),
    /// To the address, or to the next instruction.
    Branch(u64),
    /// To the caller.
    Return,
    /// Nowhere: a trap.
    Stop,
}

/// The target of a call or jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address in the instruction.
    Address(u64),
    /// The address kept in memory at this address (a slot of the global offset table).
    Slot(u64),
}

/// A computation that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that is followed.
    Other,
    /// `to = from`, sign or zero extension included.
    Copy {
        /// Register written.
        to: Register,
        /// Register read.
        from: Register,
    },
    /// `to = value`; addresses are constants too.
    Constant {
        /// Register written.
        to: Register,
        /// The constant.
        value: u64,
    },
    /// `to = from + value`
    Add {
        /// Register written.
        to: Register,
        /// Register read.
        from: Register,
        /// The constant added.
        value: i64,
    },
    /// `to = base + index * 4`: the address of an array's element.
    Element {
        /// Register written.
        to: Register,
        /// Register of the array.
        base: Register,
        /// Register of the index, perhaps widened from 32 bits.
        index: Register,
    },
    /// `to = something | bits`
    SetBits {
        /// Register written.
        to: Register,
        /// The constant.
        bits: u64,
    },
    /// `to = (to & !mask) | bits`
    Insert {
        /// Register written.
        to: Register,
        /// The bits replaced.
        mask: u64,
        /// The constant that replaces them.
        bits: u64,
    },
    /// `to = *place`
    Load {
        /// Register written.
        to: Register,
        /// The memory read.
        place: Place,
        /// Bytes read.
        size: u8,
    },
    /// `*place = value`
    Store {
        /// The memory written.
        place: Place,
        /// What is written; `None` where it is neither a register nor a constant.
        value: Option<Stored>,
        /// Bytes written.
        size: u8,
    },
}

/// What a store writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A register's value.
    Register(Register),
    /// A constant.
    Constant(u64),
}

/// A memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A fixed ELF virtual address.
    Absolute(u64),
    /// `base + index * scale + displacement`
    Indexed {
        /// Base register.
        base: Register,
        /// Index register.
        index: Option<Register>,
        /// 1, 2, 4 or 8.
        scale: u8,
        /// Displacement in bytes.
        displacement: i32,
    },
}

/// One place in the code that names another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The instruction's address.
    pub from: u64,
    /// The address that it names.
    pub target: u64,
    /// How it names it.
    pub kind: ReferenceKind,
}

/// How an instruction names an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceKind {
    /// It calls it.
    Call,
    /// It jumps there, perhaps on a condition.
    Jump,
    /// It loads the address into a register.
    Address,
}
