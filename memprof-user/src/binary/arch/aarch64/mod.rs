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
    words.iter().enumerate().map(move |(index, word)| {
        let address = address.wrapping_add((index * LENGTH) as u64);
        match decode(*word) {
            Some(decoded) => translate(&decoded, u32::from_le_bytes(*word), address),
            None => unknown(address),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binary::arch::{Place, Stored};

    const X0: Register = Register(0);
    const X1: Register = Register(1);
    const X2: Register = Register(2);
    const X20: Register = Register(20);

    fn one(word: u32) -> Instruction {
        let instructions = Aarch64.decode(&word.to_le_bytes(), 0x1000);
        assert_eq!(instructions.len(), 1, "{word:x}");
        instructions[0]
    }

    fn at(base: Register, displacement: i32) -> Place {
        Place::Indexed {
            base,
            index: None,
            scale: 1,
            displacement,
        }
    }

    #[test]
    fn emulated_is_what_the_kernel_computes_itself() {
        for word in [
            0x1000_0080_u32, // adr x0, .+16
            0x9000_0000,     // adrp x0, .
            0x1400_0002,     // b .+8
            0x9400_0002,     // bl .+8
            0x5400_0040,     // b.eq .+8
            0xb400_0040,     // cbz x0, .+8
            0x3500_0040,     // cbnz w0, .+8
            0x36f8_0043,     // tbz w3, #31, .+8
            0xb708_0043,     // tbnz x3, #33, .+8
            0xd61f_0200,     // br x16
            0xd63f_0020,     // blr x1
            0xd65f_03c0,     // ret
        ] {
            assert_eq!(one(word).probing, Probing::Emulated, "{word:x}");
        }
    }

    #[test]
    fn stepped_is_what_works_elsewhere_too() {
        for word in [
            0xa9bd_7bfd_u32, // stp x29, x30, [sp, #-48]!
            0xd132_c3ff,     // sub sp, sp, #0xcb0
            0xd503_201f,     // nop: emulated from 6.13 on only
            0xd503_245f,     // bti c
            0xd503_233f,     // paciasp
            0xf940_0420,     // ldr x0, [x1, #8]
            0xb902_231f,     // str wzr, [x24, #0x220]
            0xaa01_03e0,     // mov x0, x1
            0xd53b_d040,     // mrs x0, tpidr_el0
        ] {
            assert_eq!(one(word).probing, Probing::Stepped, "{word:x}");
        }
    }

    #[test]
    fn refused_is_what_would_never_fire() {
        for word in [
            0x5800_0040_u32, // ldr x0, .+8
            0x9800_0040,     // ldrsw x0, .+8
            0x5c00_0040,     // ldr d0, .+8
            0xd503_23bf,     // autiasp
            0xd503_23ff,     // autibsp
            0xd503_203f,     // yield
            0xd65f_0bff,     // retaa
            0xd65f_0fff,     // retab
            0xd63f_081f,     // blraaz x0
            0x5400_0050,     // bc.eq .+8
            0xc85f_7c20,     // ldxr x0, [x1]
            0xc800_7c41,     // stxr w0, x1, [x2]
            0xd400_0001,     // svc #0
            0xd420_0020,     // brk #1
            0x1901_0440,     // cpyfp: of an extension that the decoder does not know
        ] {
            assert_eq!(one(word).probing, Probing::Refused, "{word:x}");
        }
    }

    #[test]
    fn control_goes_where_the_instruction_says() {
        let target = Target::Address(0x1008);
        assert_eq!(one(0x9400_0002).flow, Flow::Call(Some(target)));
        assert_eq!(one(0x1400_0002).flow, Flow::Jump(Some(target)));
        assert_eq!(one(0xb400_0040).flow, Flow::Branch(0x1008));
        assert_eq!(one(0xd63f_0020).flow, Flow::Call(None), "blr x1");
        assert_eq!(one(0xd61f_0200).flow, Flow::Jump(None), "br x16");
        assert_eq!(one(0xd65f_0bff).flow, Flow::Return, "retaa");
        assert_eq!(one(0xd420_0020).flow, Flow::Stop, "brk #1");
    }

    #[test]
    fn an_address_is_a_page_and_the_rest() {
        // adrp x0, .+0x2000; ldr x3, [x1]; add x0, x0, #0x248; add x0, x0, #1
        let code = [0xd000_0000_u32, 0xf940_0023, 0x9109_2000, 0x9100_0400];
        let mut found = Vec::new();
        let code = code.map(u32::to_le_bytes);
        Aarch64.references(code.as_flattened(), 0x1234, &mut |reference| {
            found.push((reference.from, reference.target));
        });
        let expected = [(0x1234, 0x3000), (0x123c, 0x3248), (0x1240, 0x3249)];
        assert_eq!(found, expected);
        // adrp x0, .+0x2000; bl .+8; add x0, x0, #0x248
        let code = [0xd000_0000_u32, 0x9400_0002, 0x9109_2000].map(u32::to_le_bytes);
        found.clear();
        Aarch64.references(code.as_flattened(), 0x1000, &mut |reference| {
            found.push((reference.from, reference.target));
        });
        assert_eq!(found, [(0x1000, 0x3000), (0x1004, 0x100c)], "x0 is lost");
    }

    #[test]
    fn a_pair_does_two_things() {
        // ldp w4, w5, [sp, #136]
        let load = |to, displacement| Effect::Load {
            to,
            place: at(STACK_POINTER, displacement),
            size: 4,
        };
        let pair = one(0x2951_17e4);
        assert_eq!(
            pair.effects,
            [load(Register(4), 136), load(Register(5), 140)]
        );
        assert!(pair.writes.contains(Register(4)) && pair.writes.contains(Register(5)));
        // stp xzr, x1, [x0]
        let store = |value, displacement| Effect::Store {
            place: at(X0, displacement),
            value: Some(value),
            size: 8,
        };
        let pair = one(0xa900_041f);
        let zero = store(Stored::Constant(0), 0);
        assert_eq!(pair.effects, [zero, store(Stored::Register(X1), 8)]);
        assert_eq!(pair.writes, RegisterSet::default());
    }

    #[test]
    fn a_map_store_keeps_its_parts() {
        // str w0, [x20, x2, lsl #2]
        let place = Place::Indexed {
            base: X20,
            index: Some(X2),
            scale: 4,
            displacement: 0,
        };
        let store = one(0xb822_7a80);
        let value = Some(Stored::Register(X0));
        let expected = Effect::Store {
            place,
            value,
            size: 4,
        };
        assert_eq!(store.effects[0], expected);
        // ldr w1, [x2, w3, uxtw #2]: the upper half of x3 says nothing.
        let load = one(0xb863_5841);
        assert_eq!(load.effects[0], Effect::Other);
        assert!(load.memory.is_some());
    }

    #[test]
    fn sums_and_constants_are_followed() {
        let first = |word| one(word).effects[0];
        let constant = |value| Effect::Constant { to: X0, value };
        assert_eq!(first(0xd280_00a0), constant(5), "mov x0, #5");
        assert_eq!(first(0x52a0_0020), constant(0x1_0000), "mov w0, #0x10000");
        assert_eq!(first(0x9280_0000), constant(u64::MAX), "mov x0, #-1");
        assert_eq!(first(0x1280_0000), constant(0xffff_ffff), "mov w0, #-1");
        assert_eq!(first(0x2a1f_03e0), constant(0), "mov w0, wzr");
        let movk = Effect::Insert {
            to: X0,
            mask: 0xffff_0000,
            bits: 0x1_0000,
        };
        assert_eq!(first(0xf2a0_0020), movk, "movk x0, #1, lsl #16");
        let sum = |from, value| Effect::Add {
            to: X0,
            from,
            value,
        };
        assert_eq!(first(0x9102_2020), sum(X1, 0x88), "add x0, x1, #0x88");
        assert_eq!(first(0xd100_0400), sum(X0, -1), "sub x0, x0, #1");
        let copy = |to, from| Effect::Copy { to, from };
        assert_eq!(first(0xaa01_03e0), copy(X0, X1), "mov x0, x1");
        assert_eq!(first(0x9340_7c54), copy(X20, X2), "sxtw x20, w2");
        let large_run = Effect::SetBits {
            to: X1,
            bits: 0x4000_0000,
        };
        assert_eq!(first(0x3202_0041), large_run, "orr w1, w2, #0x40000000");
        let element = Effect::Element {
            to: X0,
            base: X1,
            index: X0,
        };
        assert_eq!(first(0x8b00_0820), element, "add x0, x1, x0, lsl #2");
        assert_eq!(first(0x8b02_0020), Effect::Other, "add x0, x1, x2");
    }

    #[test]
    fn registers_read_and_changed() {
        let reads = |word, register| one(word).reads.contains(Register(register));
        let writes = |word, register| one(word).writes.contains(Register(register));
        let call = 0x9400_0002;
        assert!(writes(call, 0) && writes(call, 18) && writes(call, 30));
        assert!(!writes(call, 19) && !writes(call, 29) && !writes(call, 31));
        let compare = 0xf100_041f; // cmp x0, #1
        assert!(reads(compare, 0) && one(compare).writes == RegisterSet::default());
        let zero = 0x2a1f_03e0; // mov w0, wzr: no x31 in it
        assert!(writes(zero, 0) && !reads(zero, 0) && !reads(zero, 31));
        let push = 0xa9bd_7bfd; // stp x29, x30, [sp, #-48]!
        assert!(reads(push, 29) && writes(push, 31) && !writes(push, 29));
        let exclusive = 0xc800_7c41; // stxr w0, x1, [x2]
        assert!(writes(exclusive, 0) && reads(exclusive, 1));
        let added = 0xf820_0041; // ldadd x0, x1, [x2]
        assert!(reads(added, 0) && writes(added, 1));
        let signed = 0xd503_233f; // paciasp
        assert!(writes(signed, 30) && !writes(signed, 0));
    }

    #[test]
    fn any_bytes_can_be_decoded() {
        // A walk through the words in steps of a prime, and a function cut in the middle.
        for word in (0..=u32::MAX).step_by(65_521) {
            let bytes = word.to_le_bytes();
            assert_eq!(Aarch64.decode(&bytes, u64::MAX - 3).len(), 1);
            Aarch64.text(&bytes, 0);
        }
        assert_eq!(Aarch64.decode(&[0x1f, 0x20, 0x03], 0).len(), 0);
        assert_eq!(Aarch64.text(&[], 0), "");
    }
}
