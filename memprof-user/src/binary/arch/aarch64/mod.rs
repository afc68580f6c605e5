//! aarch64, decoded by yaxpeax-arm.

mod effects;
mod probing;
mod registers;

use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::{InstDecoder, Instruction as Decoded, Opcode, Operand};

use super::{
    Architecture, Effect, Flow, Instruction, Probing, Reference, ReferenceKind, RegisterSet, Target,
};
use crate::binary::Register;

/// The aarch64 decoder. Calling convention: AAPCS64.
pub(super) struct Aarch64;

/// In bytes, of every instruction.
const LENGTH: usize = 4;

/// x0 to x7.
const ARGUMENTS: [Register; 8] = [
    Register(0),
    Register(1),
    Register(2),
    Register(3),
    Register(4),
    Register(5),
    Register(6),
    Register(7),
];

/// x0.
const RESULT: Register = Register(0);

/// sp: in memory operands and sums the register that is x31's number.
const STACK_POINTER: Register = Register(31);

impl Architecture for Aarch64 {
    fn decode(&self, code: &[u8], address: u64) -> Vec<Instruction> {
        instructions(code, address).collect()
    }

    fn text(&self, code: &[u8], _address: u64) -> String {
        match code.first_chunk().map(|word| decode(*word)) {
            Some(Some(decoded)) => decoded.to_string(),
            _ => String::new(),
        }
    }

    fn references(&self, code: &[u8], address: u64, found: &mut dyn FnMut(Reference)) {
        // An address is made of two: `adrp` gives its page, an `add` soon behind it the rest.
        let mut constants = [None; 32];
        for instruction in instructions(code, address) {
            let sum = |from: Register, value| {
                let known: u64 = constants.get(usize::from(from.0)).copied().flatten()?;
                Some(known.wrapping_add_signed(value))
            };
            let constant = match instruction.effects[0] {
                Effect::Constant { to, value } => Some((to, value)),
                Effect::Add { to, from, value } => sum(from, value).map(|sum| (to, sum)),
                _ => None,
            };
            for index in 0..32 {
                if instruction.writes.contains(Register(index)) {
                    constants[usize::from(index)] = None;
                }
            }
            if let Some((to, value)) = constant
                && let Some(known) = constants.get_mut(usize::from(to.0))
            {
                *known = Some(value);
            }
            let (kind, target) = match instruction.flow {
                Flow::Call(Some(Target::Address(target))) => (ReferenceKind::Call, target),
                Flow::Jump(Some(Target::Address(target))) | Flow::Branch(target) => {
                    (ReferenceKind::Jump, target)
                }
                _ => match constant {
                    Some((_, value)) => (ReferenceKind::Address, value),
                    None => continue,
                },
            };
            found(Reference {
                from: instruction.address,
                target,
                kind,
            });
        }
    }

    fn arguments(&self) -> &'static [Register] {
        &ARGUMENTS
    }

    fn result(&self) -> Register {
        RESULT
    }

    fn stack_pointer(&self) -> Register {
        STACK_POINTER
    }
}

fn instructions(code: &[u8], address: u64) -> impl Iterator<Item = Instruction> {
    let (words, _) = code.as_chunks::<LENGTH>();
    (address..)
        .step_by(LENGTH)
        .zip(words)
        .map(|(address, word)| match decode(*word) {
            Some(decoded) => translate(&decoded, u32::from_le_bytes(*word), address),
            None => unknown(address),
        })
}

fn decode(word: [u8; LENGTH]) -> Option<Decoded> {
    InstDecoder::default()
        .decode(&mut U8Reader::new(&word))
        .ok()
}

/// An instruction of an extension that the decoder does not know. The next one is known to
/// begin behind it, so decoding goes on, with nothing known of any register.
fn unknown(address: u64) -> Instruction {
    Instruction {
        address,
        length: LENGTH as u64,
        flow: Flow::Next,
        effects: [Effect::Other; 2],
        memory: None,
        reads: RegisterSet::default(),
        writes: (0..32).map(Register).collect(),
        probing: Probing::Refused,
    }
}

fn translate(decoded: &Decoded, word: u32, address: u64) -> Instruction {
    let flow = flow(decoded, address);
    let (reads, writes) = registers::access(decoded, word, flow);
    Instruction {
        address,
        length: LENGTH as u64,
        flow,
        effects: effects::effects(decoded, address),
        memory: decoded.operands.iter().find_map(effects::place),
        reads,
        writes,
        probing: probing::probing(decoded, word),
    }
}

fn flow(decoded: &Decoded, address: u64) -> Flow {
    let target = decoded.operands.iter().find_map(|operand| match operand {
        Operand::PCOffset(offset) => Some(address.wrapping_add_signed(*offset)),
        _ => None,
    });
    match (decoded.opcode, target) {
        (Opcode::BL, target) => Flow::Call(target.map(Target::Address)),
        (Opcode::B, target) => Flow::Jump(target.map(Target::Address)),
        (
            Opcode::Bcc(_)
            | Opcode::BCcc(_)
            | Opcode::CBZ
            | Opcode::CBNZ
            | Opcode::TBZ
            | Opcode::TBNZ,
            Some(target),
        ) => Flow::Branch(target),
        (Opcode::BLR | Opcode::BLRAA | Opcode::BLRAAZ | Opcode::BLRAB | Opcode::BLRABZ, _) => {
            Flow::Call(None)
        }
        (Opcode::BR | Opcode::BRAA | Opcode::BRAAZ | Opcode::BRAB | Opcode::BRABZ, _) => {
            Flow::Jump(None)
        }
        (
            Opcode::RET
            | Opcode::RETAA
            | Opcode::RETAB
            | Opcode::RETAASPPC
            | Opcode::RETABSPPC
            | Opcode::RETAASPPCR
            | Opcode::RETABSPPCR,
            _,
        ) => Flow::Return,
        (Opcode::UDF | Opcode::BRK | Opcode::HLT | Opcode::ERET, _) => Flow::Stop,
        _ => Flow::Next,
    }
}
