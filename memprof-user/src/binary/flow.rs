//! What registers hold inside one function, as far as constants, arguments and globals go.
//!
//! A forward data flow over the function's instructions, to a fixed point: where two paths
//! meet, a register keeps only what both agree on. Of memory only spilled registers are followed.

use std::ops::Range;

use super::Register;
use super::arch::{Architecture, Effect, Flow, Instruction, Place, Stored, Target};

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
    /// Something unknown plus a constant.
    Plus {
        /// The function's argument that it is, perhaps narrowed to 32 bits.
        argument: Option<u8>,
        /// The constant.
        value: i64,
    },
    /// The address of an array's 4-byte element, less what the array's own offset is.
    Element {
        /// The function's argument that the array is counted from.
        base: Option<u8>,
        /// The function's argument that is the index.
        index: Option<u8>,
    },
    /// The map entry of a large run: a page count with [`LARGE_RUN`] set.
    LargeRun,
}

/// How many 4-byte words of the stack's top are followed: compilers spill near the top.
const STACK_WORDS: usize = 32;

/// What is known of all registers and of the words on top of the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    registers: [Option<Value>; 32],
    /// By distance from the stack pointer; a spilled register of 8 bytes fills two.
    stack: [Option<Value>; STACK_WORDS],
    stack_pointer: Option<Register>,
}

impl State {
    /// At a function's entry: its arguments.
    pub fn at_entry(arch: &dyn Architecture) -> Self {
        let mut state = Self {
            stack_pointer: Some(arch.stack_pointer()),
            ..Self::default()
        };
        for (index, register) in (0..).zip(arch.arguments()) {
            state.set(*register, Some(Value::Argument(index)));
        }
        state
    }

    /// What is known of a register.
    pub fn get(&self, register: Register) -> Option<Value> {
        let known = self.registers.get(usize::from(register.0));
        known.copied().flatten()
    }

    fn set(&mut self, register: Register, value: Option<Value>) {
        if let Some(known) = self.registers.get_mut(usize::from(register.0)) {
            *known = value;
        }
    }

    /// The words of the followed stack that an operand names, if it names the stack at all.
    fn stack_words(&self, place: Place, size: u8) -> Option<Range<usize>> {
        let Place::Indexed {
            base,
            index: None,
            displacement,
            ..
        } = place
        else {
            return None;
        };
        let first = usize::try_from(displacement).ok()? / 4;
        let last = first + usize::from(size) / 4;
        (Some(base) == self.stack_pointer && displacement % 4 == 0 && last <= STACK_WORDS)
            .then_some(first..last)
    }

    /// What a load reads back from the stack.
    fn spilled(&self, place: Place, size: u8) -> Option<Value> {
        let words = self.stack.get(self.stack_words(place, size)?)?;
        let first = words.first().copied().flatten()?;
        words
            .iter()
            .all(|word| *word == Some(first))
            .then_some(first)
    }

    /// Keeps what `other` agrees on.
    fn meet(&mut self, other: &Self) {
        let mine = self.registers.iter_mut().chain(&mut self.stack);
        for (mine, theirs) in mine.zip(other.registers.iter().chain(&other.stack)) {
            if *mine != *theirs {
                *mine = None;
            }
        }
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
                    Value::Plus { .. } | Value::Element { .. } | Value::LargeRun => None,
                }
            }
            Place::Indexed { .. } => None,
        }
    }

    fn step(mut self, instruction: &Instruction, pointer: &dyn Fn(u64) -> Option<u64>) -> Self {
        let results = instruction
            .effects
            .map(|effect| self.result(&effect, pointer));
        self.write_stack(instruction);
        for index in 0..32 {
            if instruction.writes.contains(Register(index)) {
                self.set(Register(index), None);
            }
        }
        for (register, value) in results.into_iter().flatten() {
            self.set(register, value);
        }
        self
    }

    /// What an instruction leaves of the stack's followed words.
    fn write_stack(&mut self, instruction: &Instruction) {
        let moves = |register| instruction.writes.contains(register);
        if self.stack_pointer.is_none_or(moves) {
            self.stack = Default::default();
            return;
        }
        let mut followed = false;
        for effect in instruction.effects {
            match effect {
                Effect::Load { .. } => followed = true,
                Effect::Store { place, value, size } => {
                    followed = true;
                    self.store(place, value, size);
                }
                _ => {}
            }
        }
        if let (false, Some(place)) = (followed, instruction.memory) {
            self.overwrite(place);
        }
    }

    fn store(&mut self, place: Place, value: Option<Stored>, size: u8) {
        let Some(words) = self.stack_words(place, size) else {
            return self.overwrite(place);
        };
        let value = match value {
            Some(Stored::Register(register)) => self.get(register),
            Some(Stored::Constant(value)) => Some(Value::Constant(value)),
            None => None,
        };
        if let Some(words) = self.stack.get_mut(words) {
            words.fill(value);
        }
    }

    /// A store of another width, or to an unknown offset: if it is one to the stack, which words
    /// it changes is not worth following.
    fn overwrite(&mut self, place: Place) {
        if let Place::Indexed { base, .. } = place
            && Some(base) == self.stack_pointer
        {
            self.stack = Default::default();
        }
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
                    known => {
                        let (argument, before) = plus(known);
                        let value = value.wrapping_add(before);
                        Value::Plus { argument, value }
                    }
                };
                Some((to, Some(sum)))
            }
            Effect::Element { to, base, index } => {
                let (base, index) = (self.get(base), self.get(index));
                let element = Value::Element {
                    base: argument(base),
                    index: argument(index),
                };
                // A table of its own, and an index with a part of the offset in it, are not
                // followed through the sum.
                let plain = !matches!(base, Some(Value::Constant(_))) && plus(index).1 == 0;
                Some((to, plain.then_some(element)))
            }
            Effect::SetBits { to, bits } => {
                Some((to, (bits == LARGE_RUN).then_some(Value::LargeRun)))
            }
            Effect::Insert { to, mask, bits } => match self.get(to) {
                Some(Value::Constant(known)) => {
                    Some((to, Some(Value::Constant(known & !mask | bits))))
                }
                _ => None,
            },
            Effect::Load { to, place, size } => {
                let value = match self.location(place) {
                    Some((Root::Address, address)) => {
                        let address = address as u64;
                        let pointer = pointer(address).map(Value::Constant);
                        Some(pointer.unwrap_or(Value::Global(address)))
                    }
                    _ => self.spilled(place, size),
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

/// Passes until the fixed point; the functions of 11 builds need 2 to 4.
const MOST_PASSES: usize = 64;

/// What is known before each instruction of a function; nothing, where no path that was
/// followed leads, or where no fixed point
/// was reached. `pointer` tells the address that the loader puts into a slot.
pub fn trace(
    instructions: &[Instruction],
    entry: State,
    pointer: &dyn Fn(u64) -> Option<u64>,
) -> Vec<State> {
    let predecessors = predecessors(instructions);
    let mut before: Vec<Option<State>> = vec![None; instructions.len()];
    let mut after = before.clone();
    for _ in 0..MOST_PASSES {
        let mut changed = false;
        for (index, instruction) in instructions.iter().enumerate() {
            let mut known = match predecessors[index].len() {
                _ if index == 0 => before[index].or(Some(entry)),
                // Anew each time: a sum's constant is known where its other part no longer is.
                0 | 1 => None,
                // Where paths meet, what was given up stays so: there the passes end.
                _ => before[index],
            };
            for state in predecessors[index]
                .iter()
                .filter_map(|p| after[*p].as_ref())
            {
                match &mut known {
                    Some(known) => known.meet(state),
                    None => known = Some(*state),
                }
            }
            if known != before[index] {
                changed = true;
                before[index] = known;
                after[index] = known.map(|known| known.step(instruction, pointer));
            }
        }
        if !changed {
            return before.into_iter().map(Option::unwrap_or_default).collect();
        }
    }
    vec![State::default(); instructions.len()]
}

/// The instructions from which control comes to each, by their index.
fn predecessors(instructions: &[Instruction]) -> Vec<Vec<usize>> {
    let mut predecessors = vec![Vec::new(); instructions.len()];
    for (index, instruction) in instructions.iter().enumerate() {
        let (falls_through, target) = match instruction.flow {
            Flow::Next | Flow::Call(_) => (true, None),
            Flow::Branch(target) => (true, Some(target)),
            Flow::Jump(Some(Target::Address(target))) => (false, Some(target)),
            Flow::Jump(_) | Flow::Return | Flow::Stop => (false, None),
        };
        let target = target.and_then(|target| {
            instructions
                .binary_search_by_key(&target, |instruction| instruction.address)
                .ok()
        });
        for successor in falls_through.then_some(index + 1).into_iter().chain(target) {
            if let Some(predecessors) = predecessors.get_mut(successor) {
                predecessors.push(index);
            }
        }
    }
    predecessors
}

/// What of a sum is an argument and what a constant, as far as it is known.
pub fn plus(value: Option<Value>) -> (Option<u8>, i64) {
    match value {
        Some(Value::Argument(argument)) => (Some(argument), 0),
        Some(Value::Plus { argument, value }) => (argument, value),
        _ => (None, 0),
    }
}

/// The argument that a value is.
pub fn argument(value: Option<Value>) -> Option<u8> {
    match value {
        Some(Value::Argument(argument)) => Some(argument),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binary::arch;

    const RAX: Register = Register(10);
    const RSI: Register = Register(13);
    const R8: Register = Register(9);

    /// The state before the last instruction.
    fn at_end(code: &[u8]) -> State {
        let arch = arch::for_machine(object::Architecture::X86_64).expect("x86-64 is decoded");
        let instructions = arch.decode(code, 0x1000);
        let states = trace(&instructions, State::at_entry(arch), &|_| None);
        *states.last().expect("there is code")
    }

    #[test]
    fn a_global_is_known_through_copies() {
        // mov rcx,[rip+0F9h]; mov rax,rcx; ret
        let state = at_end(&[0x48, 0x8b, 0x0d, 0xf9, 0, 0, 0, 0x48, 0x89, 0xc8, 0xc3]);
        assert_eq!(state.get(RAX), Some(Value::Global(0x1100)));
    }

    #[test]
    fn paths_that_disagree_leave_nothing() {
        // je +5; mov eax,1; (join) ret
        let state = at_end(&[0x74, 5, 0xb8, 1, 0, 0, 0, 0xc3]);
        assert_eq!(state.get(RAX), None);
        assert_eq!(state.get(RSI), Some(Value::Argument(1)), "both agree");
    }

    #[test]
    fn a_loop_forgets_what_it_changes() {
        // mov ecx,1; (loop) mov eax,ecx; add ecx,1; je loop; ret
        let state = at_end(&[
            0xb9, 1, 0, 0, 0, 0x89, 0xc8, 0x83, 0xc1, 1, 0x74, 0xf9, 0xc3,
        ]);
        assert_eq!(state.get(RAX), None);
    }

    #[test]
    fn a_sum_keeps_its_constant_in_a_loop() {
        // mov ecx,1; (loop) lea eax,[rcx+88h]; mov ecx,[rdx]; je loop; ret
        let state = at_end(&[
            0xb9, 1, 0, 0, 0, 0x8d, 0x81, 0x88, 0, 0, 0, 0x8b, 0x0a, 0x74, 0xf6, 0xc3,
        ]);
        let sum = Value::Plus {
            argument: None,
            value: 0x88,
        };
        assert_eq!(state.get(RAX), Some(sum));
    }

    #[test]
    fn a_spilled_register_is_read_back() {
        // mov [rsp+10h],rsi; mov r8,[rsp+10h]; ret
        let spill = [0x48, 0x89, 0x74, 0x24, 0x10];
        let reload = [0x4c, 0x8b, 0x44, 0x24, 0x10];
        let code = [&spill[..], &reload, &[0xc3]].concat();
        assert_eq!(at_end(&code).get(R8), Some(Value::Argument(1)));
        // A push between them moves the stack.
        let code = [&spill[..], &[0x50], &reload, &[0xc3]].concat();
        assert_eq!(at_end(&code).get(R8), None);
        // A byte written over it.
        let byte = [0xc6, 0x44, 0x24, 0x12, 0];
        let code = [&spill[..], &byte, &reload, &[0xc3]].concat();
        assert_eq!(at_end(&code).get(R8), None);
    }
}
