//! The computations, loads and stores that are followed.

use yaxpeax_arm::armv8::a64::{Instruction, Opcode, Operand, SIMDSizeCode, ShiftStyle, SizeCode};

use super::super::{Effect, Place, Stored};
use super::registers::{general, named, register};
use crate::binary::Register;

/// What an instruction computes; a load or store of a pair does two things.
pub(super) fn effects(decoded: &Instruction, address: u64) -> [Effect; 2] {
    let [first, second, third, _] = &decoded.operands;
    let one = |effect| [effect, Effect::Other];
    let place = || followed(second, address);
    match decoded.opcode {
        Opcode::LDR | Opcode::LDUR => one(load(first, place(), width(first))),
        Opcode::LDRSW | Opcode::LDURSW => one(load(first, place(), Some(4))),
        Opcode::STR | Opcode::STUR => one(store(first, place(), width(first))),
        Opcode::LDP | Opcode::LDNP => {
            let [near, far] = neighbours(third, width(first));
            [
                load(first, near, width(first)),
                load(second, far, width(second)),
            ]
        }
        Opcode::LDPSW => {
            let [near, far] = neighbours(third, Some(4));
            [load(first, near, Some(4)), load(second, far, Some(4))]
        }
        Opcode::STP | Opcode::STNP => {
            let [near, far] = neighbours(third, width(first));
            [
                store(first, near, width(first)),
                store(second, far, width(second)),
            ]
        }
        _ => one(general(first).map_or(Effect::Other, |to| computed(decoded, to, address))),
    }
}

/// The places of a pair whose registers have `size` bytes each.
fn neighbours(operand: &Operand, size: Option<u8>) -> [Option<Place>; 2] {
    let near = place(operand);
    let far = match (near, size) {
        (
            Some(Place::Indexed {
                base,
                index,
                scale,
                displacement,
            }),
            Some(size),
        ) => Some(Place::Indexed {
            base,
            index,
            scale,
            displacement: displacement.saturating_add(i32::from(size)),
        }),
        _ => None,
    };
    [near, far]
}

/// What an instruction that is no load leaves in its first operand.
fn computed(decoded: &Instruction, to: Register, address: u64) -> Effect {
    let [first, second, third, fourth] = &decoded.operands;
    let constant = |value| Effect::Constant { to, value };
    match (decoded.opcode, second, third, fourth) {
        (Opcode::ADR, Operand::PCOffset(offset), ..) => {
            constant(address.wrapping_add_signed(*offset))
        }
        (Opcode::ADRP, Operand::PCOffset(offset), ..) => {
            constant((address & !0xfff).wrapping_add_signed(*offset))
        }
        (Opcode::MOVZ, ..) => match immediate(second) {
            Some(value) => constant(value),
            None => Effect::Other,
        },
        (Opcode::MOVN, ..) => match (immediate(second), width(first)) {
            (Some(value), Some(4)) => constant(u64::from(!(value as u32))),
            (Some(value), _) => constant(!value),
            (None, _) => Effect::Other,
        },
        (Opcode::MOVK, Operand::ImmShift(value, shift), ..) => Effect::Insert {
            to,
            mask: u64::from(u16::MAX).unbounded_shl(u32::from(*shift)),
            bits: u64::from(*value).unbounded_shl(u32::from(*shift)),
        },
        (
            Opcode::ORR,
            Operand::Register(_, 31),
            Operand::RegShift(ShiftStyle::LSL, 0, _, 31),
            _,
        ) => constant(0),
        (Opcode::ORR, Operand::Register(_, 31), Operand::RegShift(ShiftStyle::LSL, 0, ..), _) => {
            copy(to, third)
        }
        (Opcode::ORR, ..) => match (second, immediate(third)) {
            (Operand::Register(_, 31), Some(value)) => constant(value),
            (_, Some(bits)) => Effect::SetBits { to, bits },
            (_, None) => Effect::Other,
        },
        // `sxtw` and its like: the lower 32 bits.
        (Opcode::SBFM | Opcode::UBFM, _, Operand::Immediate(0), Operand::Immediate(31)) => {
            copy(to, second)
        }
        (Opcode::ADD | Opcode::SUB, ..) => sum(decoded, to),
        _ => Effect::Other,
    }
}

fn copy(to: Register, from: &Operand) -> Effect {
    match named(from).next() {
        Some(from) => Effect::Copy { to, from },
        None => Effect::Other,
    }
}

/// `add` and `sub`.
fn sum(decoded: &Instruction, to: Register) -> Effect {
    let [_, second, third, _] = &decoded.operands;
    let Some(from) = general(second) else {
        return Effect::Other;
    };
    let value = immediate(third).and_then(|value| i64::try_from(value).ok());
    match (decoded.opcode, third, value) {
        (Opcode::ADD, _, Some(0)) => Effect::Copy { to, from },
        (Opcode::ADD, _, Some(value)) => Effect::Add { to, from, value },
        (Opcode::SUB, _, Some(value)) => Effect::Add {
            to,
            from,
            value: -value,
        },
        (
            Opcode::ADD,
            Operand::RegShift(ShiftStyle::LSL | ShiftStyle::UXTW | ShiftStyle::SXTW, 2, ..),
            None,
        ) => match named(third).next() {
            Some(index) => Effect::Element {
                to,
                base: from,
                index,
            },
            None => Effect::Other,
        },
        _ => Effect::Other,
    }
}

fn immediate(operand: &Operand) -> Option<u64> {
    match *operand {
        Operand::Immediate(value) => Some(u64::from(value)),
        Operand::Imm16(value) => Some(u64::from(value)),
        Operand::Imm64(value) => Some(value),
        Operand::ImmShift(value, shift) => u64::from(value).checked_shl(u32::from(shift)),
        _ => None,
    }
}

/// Bytes of a register of 32 bits or more; nothing is followed through narrower ones.
fn width(operand: &Operand) -> Option<u8> {
    match operand {
        Operand::Register(SizeCode::W, _) => Some(4),
        Operand::Register(SizeCode::X, _) => Some(8),
        Operand::SIMDRegister(SIMDSizeCode::S, _) => Some(4),
        Operand::SIMDRegister(SIMDSizeCode::D, _) => Some(8),
        Operand::SIMDRegister(SIMDSizeCode::Q, _) => Some(16),
        _ => None,
    }
}

fn load(to: &Operand, place: Option<Place>, size: Option<u8>) -> Effect {
    match (general(to), place, size) {
        (Some(to), Some(place), Some(size)) => Effect::Load { to, place, size },
        _ => Effect::Other,
    }
}

fn store(from: &Operand, place: Option<Place>, size: Option<u8>) -> Effect {
    let value = match from {
        Operand::Register(_, 31) => Some(Stored::Constant(0)),
        _ => general(from).map(Stored::Register),
    };
    match (place, size) {
        (Some(place), Some(size)) => Effect::Store { place, value, size },
        _ => Effect::Other,
    }
}

/// The memory that a load or store names, where it is followed: with an index of 64 bits, since
/// the upper half of a narrower one's register says nothing.
fn followed(operand: &Operand, address: u64) -> Option<Place> {
    match operand {
        Operand::PCOffset(offset) => Some(Place::Absolute(address.wrapping_add_signed(*offset))),
        Operand::RegRegOffset(_, _, SizeCode::W, ..) => None,
        _ => place(operand),
    }
}

/// The memory that an operand names by registers.
pub(super) fn place(operand: &Operand) -> Option<Place> {
    let (base, index, scale, displacement) = match *operand {
        Operand::RegPreIndex(base, displacement, _) => (base, None, 1, displacement),
        Operand::RegPostIndex(base, _) | Operand::RegPostIndexReg(base, _) => (base, None, 1, 0),
        Operand::RegRegOffset(base, index, _, _, shift) => {
            let index = (index < 31).then(|| register(index)).flatten();
            (base, index, 1_u8.checked_shl(u32::from(shift))?, 0)
        }
        _ => return None,
    };
    Some(Place::Indexed {
        base: register(base)?,
        index,
        scale,
        displacement,
    })
}
