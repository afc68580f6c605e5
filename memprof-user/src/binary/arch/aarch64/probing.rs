//! What the kernel does with a probe on an instruction.

use yaxpeax_arm::armv8::a64::{Instruction, Opcode};

use super::super::Probing;

/// What the kernel does with a probe on it: `arm_probe_decode_insn` and
/// `aarch64_insn_is_steppable` in arch/arm64/kernel/probes/decode-insn.c, with their masks.
/// A refused one is told only where a live process maps the file; else it never fires.
pub(super) fn probing(decoded: &Instruction, word: u32) -> Probing {
    match decoded.opcode {
        Opcode::B
        | Opcode::BL
        | Opcode::BR
        | Opcode::BLR
        | Opcode::RET
        | Opcode::Bcc(_)
        | Opcode::CBZ
        | Opcode::CBNZ
        | Opcode::TBZ
        | Opcode::TBNZ
        | Opcode::ADR
        | Opcode::ADRP => return Probing::Emulated,
        _ => {}
    }
    // `ldr` of a literal is relative to the place where it is stepped; what an exclusive load
    // reserves is lost at the step (the mask covers `ldar` and `cas` too).
    let literal = word & 0x3b00_0000 == 0x1800_0000;
    // Branches, exceptions and system instructions; of these `mrs` and some hints can be stepped.
    let system = word & 0x1c00_0000 == 0x1400_0000;
    let steppable = if system {
        is_mrs(word) || is_hint(word) && steppable_hint(word)
    } else {
        !literal && !is_exclusive(word)
    };
    if steppable {
        Probing::Stepped
    } else {
        Probing::Refused
    }
}

/// `nop`, `bti` and what signs an address; what checks one (`autiasp`) is refused. From 5.8 on;
/// kernels before refuse `bti` and `paciasp` too.
fn steppable_hint(word: u32) -> bool {
    let number = word >> 5 & 0x7f;
    // nop, xpaclri, pacia1716, pacib1716, paciaz, paciasp, pacibz, pacibsp, bti, bti c, j, jc
    matches!(number, 0 | 7 | 8 | 10 | 24..=27 | 32 | 34 | 36 | 38)
}

/// Reads a system register.
fn is_mrs(word: u32) -> bool {
    word & 0xfff0_0000 == 0xd530_0000
}

/// The instructions that older processors take for `nop`.
pub(super) fn is_hint(word: u32) -> bool {
    word & 0xffff_f01f == 0xd503_201f
}

/// Loads and stores that are exclusive or ordered, and compare-and-swap.
pub(super) fn is_exclusive(word: u32) -> bool {
    word & 0x3f00_0000 == 0x0800_0000
}
