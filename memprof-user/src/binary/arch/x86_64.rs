//! x86-64, decoded by iced-x86.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Formatter, Instruction as Iced,
    InstructionInfoFactory, IntelFormatter, MemorySize, Mnemonic, OpAccess, OpKind,
    Register as IcedRegister,
};

use super::{
    Architecture, Effect, Flow, Instruction, Place, Probing, Reference, ReferenceKind, RegisterSet,
    Stored, Target,
};
use crate::binary::Register;

/// The x86-64 decoder. Calling convention: System V.
pub(super) struct X86_64;

/// rdi, rsi, rdx, rcx, r8, r9.
const ARGUMENTS: [Register; 6] = [
    Register(14),
    Register(13),
    Register(12),
    Register(11),
    Register(9),
    Register(8),
];

/// rax.
const RESULT: Register = Register(10);

/// rsp.
const STACK_POINTER: Register = Register(19);

/// What a callee may change: rax, rcx, rdx, rsi, rdi, r8 to r11.
const CALLER_SAVED: [Register; 9] = [
    RESULT,
    Register(11),
    Register(12),
    Register(13),
    Register(14),
    Register(9),
    Register(8),
    Register(7),
    Register(6),
];

impl Architecture for X86_64 {
    fn decode(&self, code: &[u8], address: u64) -> Vec<Instruction> {
        let mut information = InstructionInfoFactory::new();
        let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
        let mut instructions = Vec::new();
        while decoder.can_decode() {
            let iced = decoder.decode();
            if iced.is_invalid() {
                break;
            }
            instructions.push(translate(&iced, &mut information));
        }
        instructions
    }

    fn text(&self, code: &[u8], address: u64) -> String {
        let iced = Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode();
        let mut text = String::new();
        IntelFormatter::new().format(&iced, &mut text);
        text
    }

    fn references(&self, code: &[u8], address: u64, found: &mut dyn FnMut(Reference)) {
        let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
        let mut iced = Iced::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut iced);
            let (kind, target) = match flow(&iced) {
                Flow::Call(Some(Target::Address(target))) => (ReferenceKind::Call, target),
                Flow::Jump(Some(Target::Address(target))) | Flow::Branch(target) => {
                    (ReferenceKind::Jump, target)
                }
                _ if iced.mnemonic() == Mnemonic::Lea && iced.is_ip_rel_memory_operand() => {
                    (ReferenceKind::Address, iced.ip_rel_memory_address())
                }
                _ => continue,
            };
            found(Reference {
                from: iced.ip(),
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

fn translate(iced: &Iced, information: &mut InstructionInfoFactory) -> Instruction {
    let (mut reads, mut writes) = (RegisterSet::default(), RegisterSet::default());
    for used in information.info(iced).used_registers() {
        let Some(register) = general(used.register()) else {
            continue;
        };
        let access = used.access();
        if !matches!(access, OpAccess::Write | OpAccess::CondWrite) {
            reads.insert(register);
        }
        if !matches!(access, OpAccess::Read | OpAccess::CondRead) {
            writes.insert(register);
        }
    }
    let flow = flow(iced);
    if matches!(flow, Flow::Call(_)) {
        // What it pushes, the return pops.
        writes.remove(STACK_POINTER);
        for register in CALLER_SAVED {
            writes.insert(register);
        }
    }
    Instruction {
        address: iced.ip(),
        length: iced.len() as u64,
        flow,
        effects: [effect(iced), Effect::Other],
        memory: memory(iced),
        reads,
        writes,
        probing: probing(iced),
    }
}

/// The instructions of `arch/x86/kernel/uprobes.c` that need no single step: `push reg`, the
/// one-byte `nop`, and relative `jmp`, `jcc` and `call`. (Newer kernels know longer `nop`s too.)
fn probing(iced: &Iced) -> Probing {
    let emulated = match iced.code() {
        Code::Push_r64 => true,
        Code::Nopd | Code::Nopq => iced.len() == 1,
        Code::Call_rel32_64 | Code::Jmp_rel32_64 | Code::Jmp_rel8_64 => true,
        // The 16-bit forms (prefix 66) are refused by the kernel.
        _ => iced.is_jcc_short_or_near() && matches!(iced.op0_kind(), OpKind::NearBranch64),
    };
    if emulated {
        Probing::Emulated
    } else {
        Probing::Stepped
    }
}

fn flow(iced: &Iced) -> Flow {
    let direct = || match iced.op0_kind() {
        OpKind::NearBranch64 => Some(Target::Address(iced.near_branch64())),
        OpKind::Memory => match place(iced) {
            Some(Place::Absolute(slot)) => Some(Target::Slot(slot)),
            _ => None,
        },
        _ => None,
    };
    match iced.flow_control() {
        FlowControl::Call | FlowControl::IndirectCall => Flow::Call(direct()),
        FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => Flow::Jump(direct()),
        FlowControl::ConditionalBranch => Flow::Branch(iced.near_branch_target()),
        FlowControl::Return => Flow::Return,
        FlowControl::Exception | FlowControl::Interrupt => Flow::Stop,
        FlowControl::Next | FlowControl::XbeginXabortXend => Flow::Next,
    }
}

fn effect(iced: &Iced) -> Effect {
    let to = (iced.op0_kind() == OpKind::Register)
        .then(|| wide(iced.op0_register()))
        .flatten();
    let from = (iced.op1_kind() == OpKind::Register)
        .then(|| wide(iced.op1_register()))
        .flatten();
    let constant = constant(iced);
    let reads_memory = iced.op1_kind() == OpKind::Memory;
    match (iced.mnemonic(), to) {
        (Mnemonic::Mov | Mnemonic::Movsxd, Some(to)) if reads_memory => load(iced, to),
        (Mnemonic::Mov, Some(to)) if constant.is_some() => Effect::Constant {
            to,
            value: constant.unwrap_or_default(),
        },
        (Mnemonic::Mov | Mnemonic::Movsxd, Some(to)) => match from {
            Some(from) => Effect::Copy { to, from },
            None => Effect::Other,
        },
        (Mnemonic::Xor, Some(to)) if from == Some(to) => Effect::Constant { to, value: 0 },
        (Mnemonic::Lea, Some(to)) => address(iced, to),
        (Mnemonic::Add, Some(to)) => added(to, constant.map(|value| value as i64)),
        (Mnemonic::Sub, Some(to)) => added(to, constant.map(|v| (v as i64).wrapping_neg())),
        (Mnemonic::Or, Some(to)) => match constant {
            Some(bits) => Effect::SetBits { to, bits },
            None => Effect::Other,
        },
        (Mnemonic::Mov, None) if iced.op0_kind() == OpKind::Memory => store(iced, from, constant),
        _ => Effect::Other,
    }
}

fn added(to: Register, value: Option<i64>) -> Effect {
    match value {
        Some(value) => Effect::Add {
            to,
            from: to,
            value,
        },
        None => Effect::Other,
    }
}

fn load(iced: &Iced, to: Register) -> Effect {
    match (place(iced), memory_size(iced)) {
        (Some(place), Some(size)) => Effect::Load { to, place, size },
        _ => Effect::Other,
    }
}

fn store(iced: &Iced, from: Option<Register>, constant: Option<u64>) -> Effect {
    match (place(iced), memory_size(iced)) {
        (Some(place), Some(size)) => Effect::Store {
            place,
            value: from
                .map(Stored::Register)
                .or(constant.map(Stored::Constant)),
            size,
        },
        _ => Effect::Other,
    }
}

/// `lea`: a constant, a sum with a constant, or more than is followed.
fn address(iced: &Iced, to: Register) -> Effect {
    match place(iced) {
        Some(Place::Absolute(value)) => Effect::Constant { to, value },
        Some(Place::Indexed {
            base,
            index: None,
            displacement,
            ..
        }) => Effect::Add {
            to,
            from: base,
            value: i64::from(displacement),
        },
        _ => Effect::Other,
    }
}

fn constant(iced: &Iced) -> Option<u64> {
    let kind = iced.op_kind(iced.op_count().checked_sub(1)?);
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
    .then(|| iced.immediate(iced.op_count() - 1))
}

fn memory_size(iced: &Iced) -> Option<u8> {
    match iced.memory_size() {
        MemorySize::UInt32 | MemorySize::Int32 => Some(4),
        MemorySize::UInt64 | MemorySize::Int64 => Some(8),
        _ => None,
    }
}

/// The memory that an instruction names; `lea` only computes an address.
fn memory(iced: &Iced) -> Option<Place> {
    let names_memory = iced.op_kinds().any(|kind| kind == OpKind::Memory);
    (names_memory && iced.mnemonic() != Mnemonic::Lea)
        .then(|| place(iced))
        .flatten()
}

fn place(iced: &Iced) -> Option<Place> {
    if matches!(iced.segment_prefix(), IcedRegister::FS | IcedRegister::GS) {
        return None;
    }
    if iced.is_ip_rel_memory_operand() {
        return Some(Place::Absolute(iced.ip_rel_memory_address()));
    }
    let base = iced.memory_base();
    let index = iced.memory_index();
    if base == IcedRegister::None {
        return (index == IcedRegister::None)
            .then(|| Place::Absolute(iced.memory_displacement64()));
    }
    Some(Place::Indexed {
        base: general(base)?,
        index: general(index),
        scale: u8::try_from(iced.memory_index_scale()).ok()?,
        displacement: i32::try_from(iced.memory_displacement64() as i64).ok()?,
    })
}

/// A 32 or 64 bit general register: one that a write changes as a whole.
fn wide(register: IcedRegister) -> Option<Register> {
    (register.is_gpr32() || register.is_gpr64())
        .then(|| general(register))
        .flatten()
}

/// The index in `struct pt_regs` of the general register that `register` is part of.
fn general(register: IcedRegister) -> Option<Register> {
    if !register.is_gpr() {
        return None;
    }
    let index = match register.full_register() {
        IcedRegister::R15 => 0,
        IcedRegister::R14 => 1,
        IcedRegister::R13 => 2,
        IcedRegister::R12 => 3,
        IcedRegister::RBP => 4,
        IcedRegister::RBX => 5,
        IcedRegister::R11 => 6,
        IcedRegister::R10 => 7,
        IcedRegister::R9 => 8,
        IcedRegister::R8 => 9,
        IcedRegister::RAX => 10,
        IcedRegister::RCX => 11,
        IcedRegister::RDX => 12,
        IcedRegister::RSI => 13,
        IcedRegister::RDI => 14,
        IcedRegister::RSP => 19,
        _ => return None,
    };
    Some(Register(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAX: Register = Register(10);
    const RCX: Register = Register(11);
    const RDI: Register = Register(14);
    const RBP: Register = Register(4);
    const R12: Register = Register(3);
    const R15: Register = Register(0);

    fn one(code: &[u8]) -> Instruction {
        let instructions = X86_64.decode(code, 0x1000);
        assert_eq!(instructions.len(), 1, "{code:x?}");
        instructions[0]
    }

    #[test]
    fn emulated_are_push_nop_and_relative_control_flow() {
        for code in [
            &[0x55][..],               // push rbp
            &[0x41, 0x57],             // push r15
            &[0x90],                   // nop
            &[0x74, 0x10],             // je short
            &[0x0f, 0x85, 0, 1, 0, 0], // jne near
            &[0xeb, 0x10],             // jmp short
            &[0xe9, 0, 1, 0, 0],       // jmp near
            &[0xe8, 0, 1, 0, 0],       // call
        ] {
            assert_eq!(one(code).probing, Probing::Emulated, "{code:x?}");
        }
    }

    #[test]
    fn everything_else_is_stepped() {
        for code in [
            &[0xf3, 0x0f, 0x1e, 0xfa][..], // endbr64
            &[0xc3],                       // ret
            &[0x5d],                       // pop rbp
            &[0x6a, 0x01],                 // push 1
            &[0xff, 0x35, 0, 1, 0, 0],     // push [rip+100h]
            &[0xff, 0x15, 0, 1, 0, 0],     // call [rip+100h]
            &[0xff, 0xe0],                 // jmp rax
            &[0xe3, 0x10],                 // jrcxz
            &[0x66, 0x90],                 // two-byte nop
            &[0x0f, 0x1f, 0x40, 0x00],     // four-byte nop
            &[0x48, 0x89, 0xfe],           // mov rsi,rdi
        ] {
            assert_eq!(one(code).probing, Probing::Stepped, "{code:x?}");
        }
    }

    #[test]
    fn a_load_relative_to_the_instruction_is_absolute() {
        // mov rax,[rip+10h]
        let load = one(&[0x48, 0x8b, 0x05, 0x10, 0, 0, 0]);
        let place = Place::Absolute(0x1017);
        assert_eq!(
            load.effects[0],
            Effect::Load {
                to: RAX,
                place,
                size: 8
            }
        );
        assert_eq!(load.memory, Some(place));
        assert!(load.writes.contains(RAX));
    }

    #[test]
    fn an_indexed_store_keeps_its_parts() {
        // mov dword ptr [r12+rbp*4+220h],0
        let store = one(&[0x41, 0xc7, 0x84, 0xac, 0x20, 2, 0, 0, 0, 0, 0, 0]);
        let place = Place::Indexed {
            base: R12,
            index: Some(RBP),
            scale: 4,
            displacement: 0x220,
        };
        let value = Some(Stored::Constant(0));
        assert_eq!(
            store.effects[0],
            Effect::Store {
                place,
                value,
                size: 4
            }
        );
        assert_eq!(store.writes, RegisterSet::default());
    }

    #[test]
    fn sums_and_bits_are_followed() {
        // lea rcx,[rdi+88h]
        let lea = one(&[0x48, 0x8d, 0x8f, 0x88, 0, 0, 0]);
        assert_eq!(
            lea.effects[0],
            Effect::Add {
                to: RCX,
                from: RDI,
                value: 0x88
            }
        );
        assert_eq!(lea.memory, None);
        // sub rcx,8
        let sub = one(&[0x48, 0x83, 0xe9, 0x08]);
        assert_eq!(
            sub.effects[0],
            Effect::Add {
                to: RCX,
                from: RCX,
                value: -8
            }
        );
        // or r15d,40000000h
        let or = one(&[0x41, 0x81, 0xcf, 0, 0, 0, 0x40]);
        assert_eq!(
            or.effects[0],
            Effect::SetBits {
                to: R15,
                bits: 0x4000_0000
            }
        );
        // mov cl,1 changes only a part of rcx
        assert_eq!(one(&[0xb1, 0x01]).effects[0], Effect::Other);
    }

    #[test]
    fn thread_local_memory_is_not_an_address() {
        // mov rax,fs:[28h]
        let load = one(&[0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0]);
        assert_eq!(load.effects[0], Effect::Other);
        assert_eq!(load.memory, None);
    }

    #[test]
    fn a_call_changes_what_the_callee_may_change() {
        let call = one(&[0xe8, 0xfb, 0, 0, 0]);
        assert_eq!(call.flow, Flow::Call(Some(Target::Address(0x1100))));
        assert!(call.writes.contains(RAX) && call.writes.contains(RDI));
        assert!(!call.writes.contains(R12) && !call.writes.contains(STACK_POINTER));
    }

    #[test]
    fn decoding_stops_at_what_is_no_instruction() {
        // push rbp; (invalid in 64-bit mode); push rbp
        assert_eq!(X86_64.decode(&[0x55, 0x06, 0x55], 0).len(), 1);
        assert_eq!(X86_64.decode(&[], 0).len(), 0);
        // A call cut in the middle.
        assert_eq!(X86_64.decode(&[0xe8, 0, 0], 0).len(), 0);
    }
}
