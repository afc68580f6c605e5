//! Which general registers an instruction reads and changes.

use yaxpeax_arm::armv8::a64::{Instruction, Opcode, Operand};

use super::super::{Flow, RegisterSet};
use super::STACK_POINTER;
use super::probing::{is_exclusive, is_hint};
use crate::binary::Register;

/// x17 and x30: what the hints that sign and check addresses change.
const SIGNED: [Register; 2] = [Register(17), LINK];

/// x30: where a call leaves the address to return to.
const LINK: Register = Register(30);

/// `ldadd`, `swp` and their like.
fn is_atomic(word: u32) -> bool {
    word & 0x3b20_0c00 == 0x3820_0000
}

/// The general registers that an instruction reads, and those that it changes. Where it is not
/// sure, it says both.
pub(super) fn access(decoded: &Instruction, word: u32, flow: Flow) -> (RegisterSet, RegisterSet) {
    let (mut reads, mut writes) = (RegisterSet::default(), RegisterSet::default());
    let unclear = is_exclusive(word) || is_atomic(word);
    let destinations = match flow {
        Flow::Next if !unclear => destinations(decoded.opcode),
        _ => 0,
    };
    for (index, operand) in decoded.operands.iter().enumerate() {
        if index < destinations {
            writes.extend(named(operand));
        } else {
            reads.extend(named(operand));
        }
        if unclear {
            writes.extend(named(operand));
        }
        match *operand {
            Operand::RegPreIndex(base, _, true)
            | Operand::RegPostIndex(base, _)
            | Operand::RegPostIndexReg(base, _) => writes.extend(register(base)),
            _ => {}
        }
    }
    if matches!(decoded.opcode, Opcode::MOVK | Opcode::BFM) {
        reads.extend(named(&decoded.operands[0]));
    }
    if is_hint(word) {
        writes.extend(SIGNED);
    }
    if matches!(flow, Flow::Call(_)) {
        // What a callee may change: x0 to x18.
        writes.extend((0..=18).map(Register).chain([LINK]));
    }
    (reads, writes)
}

/// How many operands an instruction writes: the first ones.
fn destinations(opcode: Opcode) -> usize {
    match opcode {
        Opcode::STR
        | Opcode::STRB
        | Opcode::STRH
        | Opcode::STUR
        | Opcode::STURB
        | Opcode::STURH
        | Opcode::STTR
        | Opcode::STTRB
        | Opcode::STTRH
        | Opcode::STLUR
        | Opcode::STLURB
        | Opcode::STLURH
        | Opcode::STP
        | Opcode::STNP
        | Opcode::CCMP
        | Opcode::CCMN => 0,
        Opcode::LDP | Opcode::LDNP | Opcode::LDPSW => 2,
        _ => 1,
    }
}

/// The general registers that an operand names.
pub(super) fn named(operand: &Operand) -> impl Iterator<Item = Register> {
    let (first, second) = match *operand {
        Operand::Register(_, number) if number < 31 => (register(number), None),
        Operand::RegisterOrSP(_, number) => (register(number), None),
        Operand::RegShift(_, _, _, number) if number < 31 => (register(number), None),
        Operand::RegisterPair(_, number) => (register(number), register(number + 1)),
        Operand::RegRegOffset(base, index, ..) | Operand::RegPostIndexReg(base, index) => (
            register(base),
            register(index).filter(|index| *index != STACK_POINTER),
        ),
        Operand::RegPreIndex(base, ..) | Operand::RegPostIndex(base, _) => (register(base), None),
        _ => (None, None),
    };
    first.into_iter().chain(second)
}

pub(super) fn register(number: u16) -> Option<Register> {
    let number = u8::try_from(number).ok()?;
    (number < 32).then_some(Register(number))
}

/// A register that a write changes as a whole, and that is not the one that is always 0.
pub(super) fn general(operand: &Operand) -> Option<Register> {
    match *operand {
        Operand::Register(_, number) if number < 31 => register(number),
        Operand::RegisterOrSP(_, number) => register(number),
        _ => None,
    }
}
