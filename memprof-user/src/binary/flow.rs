//! What registers hold inside one function, as far as constants, arguments and globals go.
//!
//! A forward data flow over the function's instructions, to a fixed point: where two paths
//! meet, a register keeps only what both agree on. Memory is not followed.

use super::Register;
use super::arch::{Effect, Flow, Instruction, Place, Stored, Target};

/// The bit that marks the first page of a large run in a chunk's map (`ZEND_MM_IS_LRUN`,
/// zend_alloc.c, the same from 7.0 to 8.6).
const LARGE_RUN: u64 = 0x4000_0000;

/// What is known of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// The function's integer argument of this index, perhaps narrowed to 32 bits.
    Argument(u8),
    /// A number or an address.
    Constant(u64),
    /// What is kept in memory at this address: the value of a global.
    Global(u64),
    /// Something unknown plus this.
    Plus(i64),
    /// The map entry of a large run: a page count with [`LARGE_RUN`] set.
    LargeRun,
}

/// What is known of all registers, by register index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State([Option<Value>; 32]);

impl State {
    /// At a function's entry: its arguments.
    pub fn at_entry(arguments: &[Register]) -> Self {
        let mut state = Self::default();
        for (index, register) in (0..).zip(arguments) {
            state.set(*register, Some(Value::Argument(index)));
        }
        state
    }

    /// What is known of a register.
    pub fn get(&self, register: Register) -> Option<Value> {
        self.0.get(usize::from(register.0)).copied().flatten()
    }

    fn set(&mut self, register: Register, value: Option<Value>) {
        if let Some(known) = self.0.get_mut(usize::from(register.0)) {
            *known = value;
        }
    }

    /// Keeps what `other` agrees on; tells whether anything was given up.
    fn meet(&mut self, other: &Self) -> bool {
        let before = *self;
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            if *mine != *theirs {
                *mine = None;
            }
        }
        *self != before
    }

    /// The address that a memory operand names, as a root and an offset in bytes. `None` where
    /// the root is not known or an index is added.
    pub fn location(&self, place: Place) -> Option<(Root, i64)> {
        match place {
            Place::Absolute(address) => Some((Root::Address, i64::try_from(address).ok()?)),
            Place::Indexed {
                base,
                index: None,
                displacement,
                ..
            } => {
                let displacement = i64::from(displacement);
                match self.get(base)? {
                    Value::Constant(address) => Some((
                        Root::Address,
                        i64::try_from(address).ok()?.checked_add(displacement)?,
                    )),
                    Value::Global(address) => Some((Root::Global(address), displacement)),
                    Value::Argument(index) => Some((Root::Argument(index), displacement)),
                    Value::Plus(_) | Value::LargeRun => None,
                }
            }
            Place::Indexed { .. } => None,
        }
    }

    fn step(mut self, instruction: &Instruction, pointer: &dyn Fn(u64) -> Option<u64>) -> Self {
        let result = self.result(&instruction.effect, pointer);
        for index in 0..32 {
            if instruction.writes.contains(Register(index)) {
                self.set(Register(index), None);
            }
        }
        if let Some((register, value)) = result {
            self.set(register, value);
        }
        self
    }

    fn result(
        &self,
        effect: &Effect,
        pointer: &dyn Fn(u64) -> Option<u64>,
    ) -> Option<(Register, Option<Value>)> {
        match *effect {
            Effect::Other | Effect::Store { .. } => None,
            Effect::Copy { to, from } => Some((to, self.get(from))),
            Effect::Constant { to, value } => Some((to, Some(Value::Constant(value)))),
            Effect::Add { to, from, value } => {
                let sum = match self.get(from) {
                    Some(Value::Constant(known)) => {
                        Value::Constant(known.wrapping_add_signed(value))
                    }
                    Some(Value::Plus(known)) => Value::Plus(known.wrapping_add(value)),
                    _ => Value::Plus(value),
                };
                Some((to, Some(sum)))
            }
            Effect::SetBits { to, bits } => {
                Some((to, (bits == LARGE_RUN).then_some(Value::LargeRun)))
            }
            Effect::Load { to, place, .. } => {
                let value = match self.location(place) {
                    Some((Root::Address, address)) => {
                        let address = address as u64;
                        let pointer = pointer(address).map(Value::Constant);
                        Some(pointer.unwrap_or(Value::Global(address)))
                    }
                    _ => None,
                };
                Some((to, value))
            }
        }
    }
}

/// What an offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// Nothing: the offset is an ELF virtual address.
    Address,
    /// The pointer kept in memory at this address.
    Global(u64),
    /// The function's integer argument of this index.
    Argument(u8),
}

/// What is known before each instruction of a function; nothing, where no path that was
/// followed leads. `pointer` tells the address that the loader puts into a slot.
pub fn trace(
    instructions: &[Instruction],
    entry: State,
    pointer: &dyn Fn(u64) -> Option<u64>,
) -> Vec<State> {
    let mut before: Vec<Option<State>> = vec![None; instructions.len()];
    if let Some(first) = before.first_mut() {
        *first = Some(entry);
    }
    let index_of = |address| {
        instructions
            .binary_search_by_key(&address, |instruction| instruction.address)
            .ok()
    };
    // States only lose knowledge, so this ends; every pass but the last gives up something.
    let mut changed = true;
    while changed {
        changed = false;
        for (index, instruction) in instructions.iter().enumerate() {
            let Some(state) = before[index] else { continue };
            let after = state.step(instruction, pointer);
            let (falls_through, target) = match instruction.flow {
                Flow::Next | Flow::Call(_) => (true, None),
                Flow::Branch(target) => (true, Some(target)),
                Flow::Jump(Some(Target::Address(target))) => (false, Some(target)),
                Flow::Jump(_) | Flow::Return | Flow::Stop => (false, None),
            };
            let next = falls_through.then_some(index + 1);
            for successor in next.into_iter().chain(target.and_then(index_of)) {
                match before.get_mut(successor) {
                    Some(Some(known)) => changed |= known.meet(&after),
                    Some(unseen) => {
                        *unseen = Some(after);
                        changed = true;
                    }
                    None => {}
                }
            }
        }
    }
    before.into_iter().map(Option::unwrap_or_default).collect()
}

/// A 4-byte access to an array of 4-byte entries inside a structure, such as a chunk's page map:
/// its offset there in bytes, once the constant that is part of the index is counted in.
pub fn entry_offset(state: &State, place: Place) -> Option<i64> {
    let Place::Indexed {
        base,
        index,
        scale,
        displacement,
    } = place
    else {
        return None;
    };
    // A constant base is a table of its own, not a structure.
    if matches!(state.get(base), Some(Value::Constant(_))) {
        return None;
    }
    let constant = |register| match state.get(register) {
        Some(Value::Plus(value)) => value,
        _ => 0,
    };
    let index = match index {
        Some(index) if scale == 4 => constant(index).checked_mul(4)?,
        Some(_) => return None,
        None => 0,
    };
    i64::from(displacement).checked_add(index)
}

/// Whether a store writes the map entry of a large run.
pub fn stores_large_run(state: &State, value: Option<Stored>) -> Option<Register> {
    match value {
        Some(Stored::Register(register)) if state.get(register) == Some(Value::LargeRun) => {
            Some(register)
        }
        _ => None,
    }
}
