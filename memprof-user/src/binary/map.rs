//! Accesses to a chunk's page map, in what is known of registers.

use super::Register;
use super::arch::{Place, Stored};
use super::flow::{State, Value, argument, plus};

/// An access to a 4-byte entry of an array inside a structure, such as a chunk's page map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The array's offset in the structure in bytes, once the constant that is part of the index
    /// is counted in.
    pub offset: i64,
    /// Whether an index is added: else it may be a plain field.
    pub indexed: bool,
    /// The function's argument that is the structure's address.
    pub structure: Option<u8>,
    /// The function's argument that is the index.
    pub index: Option<u8>,
}

/// A 4-byte access as one to an array's entry; `None` where it cannot be one.
pub fn entry(state: &State, place: Place) -> Option<Entry> {
    let Place::Indexed {
        base,
        index,
        scale,
        displacement,
    } = place
    else {
        return None;
    };
    let offset = i64::from(displacement);
    match (state.get(base), index) {
        // A constant base is a table of its own, not a structure.
        (Some(Value::Constant(_)), _) => None,
        (Some(Value::Element { base, index }), None) => Some(Entry {
            offset,
            indexed: true,
            structure: base,
            index,
        }),
        (base, None) => Some(Entry {
            offset,
            indexed: false,
            structure: argument(base),
            index: None,
        }),
        (base, Some(register)) if scale == 4 => {
            let (index, constant) = plus(state.get(register));
            Some(Entry {
                offset: offset.checked_add(constant.checked_mul(4)?)?,
                indexed: true,
                structure: argument(base),
                index,
            })
        }
        (_, Some(_)) => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binary::{arch, flow};

    const RAX: Register = Register(10);
    const RCX: Register = Register(11);
    const R8: Register = Register(9);

    /// The state before the last instruction.
    fn at_end(machine: object::Architecture, code: &[u8]) -> State {
        let arch = arch::for_machine(machine).expect("there is a decoder");
        let instructions = arch.decode(code, 0x1000);
        let states = flow::trace(&instructions, State::at_entry(arch), &|_| None);
        *states.last().expect("there is code")
    }

    #[test]
    fn a_constant_in_the_index_counts() {
        // lea rcx,[rdi+88h]; or eax,40000000h; mov [r8+rcx*4],eax
        let code = [
            0x48, 0x8d, 0x8f, 0x88, 0, 0, 0, 0x0d, 0, 0, 0, 0x40, 0x41, 0x89, 0x04, 0x88,
        ];
        let state = at_end(object::Architecture::X86_64, &code);
        let place = Place::Indexed {
            base: R8,
            index: Some(RCX),
            scale: 4,
            displacement: 0,
        };
        let entry = entry(&state, place).map(|entry| (entry.offset, entry.indexed, entry.index));
        assert_eq!(entry, Some((0x220, true, Some(0))));
        assert_eq!(
            stores_large_run(&state, Some(Stored::Register(RAX))),
            Some(RAX)
        );
        assert_eq!(stores_large_run(&state, Some(Stored::Register(RCX))), None);
    }

    #[test]
    fn an_element_keeps_what_it_is_made_of() {
        // add x4,x1,w2,uxtw #2; str wzr,[x4,#208h]
        let code = [0x8b22_4824_u32, 0xb902_089f].map(u32::to_le_bytes);
        let state = at_end(object::Architecture::Aarch64, code.as_flattened());
        let place = |base, index| Place::Indexed {
            base: Register(base),
            index,
            scale: 4,
            displacement: 0x208,
        };
        let found = Entry {
            offset: 0x208,
            indexed: true,
            structure: Some(1),
            index: Some(2),
        };
        assert_eq!(entry(&state, place(4, None)), Some(found));
        assert_eq!(entry(&state, place(1, Some(Register(2)))), Some(found));
        let field = entry(&state, place(1, None)).map(|entry| entry.indexed);
        assert_eq!(field, Some(false), "a plain field");
    }
}
