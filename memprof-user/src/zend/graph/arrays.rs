//! What arrays hold, and the tables of objects' properties and of functions' variables.

use super::super::memory::{MemoryError, at};
use super::super::slots::Mark;
use super::super::values::{BUCKET, PACKED};
use super::super::zval::MOST_SLOTS;
use super::nodes::{Block, Key, Number};
use super::walk::{STRING, Walk, word32, word64, zval_in};

/// `HASH_FLAG_UNINITIALIZED`: the table has no slots yet.
const UNINITIALIZED: u32 = 1 << 3;
/// Slots copied by one read.
const SLOTS_A_READ: u32 = 32;

/// A `zend_array`'s elements.
#[derive(Clone, Copy)]
pub(super) struct Table {
    pub(super) data: u64,
    pub(super) used: u32,
    /// Bytes of a slot.
    pub(super) slot: u32,
    is_packed: bool,
    /// Where the block with its slots begins.
    pub(super) block: u64,
}

/// How the keys of a table lead to its elements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    Elements,
    Properties,
    StaticVariables,
    Bound,
    Insides,
}

impl Walk<'_> {
    /// Reads the head of a `zend_array`; `None` where it has no slots of its own yet.
    pub(super) fn header(&mut self, address: u64) -> Result<Option<Table>, MemoryError> {
        let layout = self.layout.array;
        let head: [u8; 40] = self.memory.word(address)?;
        let flags = word32(&head, layout.flags);
        let used = word32(&head, layout.used);
        if flags & UNINITIALIZED != 0 {
            return Ok(None);
        }
        if used > MOST_SLOTS {
            return Err(MemoryError::OutOfBounds {
                what: "zend_array.nNumUsed",
                address: at(address, layout.used),
                found: u64::from(used),
                bound: u64::from(MOST_SLOTS),
            });
        }
        let data = word64(&head, layout.data);
        let is_packed = flags & PACKED != 0;
        // HT_HASH_SIZE: the hash part stands in front of the slots.
        let hash = u64::from(word32(&head, layout.mask).wrapping_neg()) * 4;
        Ok(Some(Table {
            data,
            used,
            slot: match is_packed {
                true => layout.packed_element,
                false => BUCKET,
            },
            is_packed,
            block: data.wrapping_sub(hash),
        }))
    }

    /// Follows the elements of a `zend_array`.
    pub(super) fn table(
        &mut self,
        owner: Number,
        address: u64,
        keys: Keys,
        from: u32,
        most: u32,
    ) -> Result<Option<u32>, MemoryError> {
        let Some(table) = self.header(address)? else {
            return Ok(None);
        };
        if from == 0
            && let Some(slot) = self.slots.find(table.block)
            && self.slots.mark(slot, Mark::Seen)
        {
            // Part of the array that was counted.
            self.blocks.add(Block::Array, 0, slot.bytes);
            if let Some(node) = self.nodes.get_mut(owner as usize) {
                node.bytes = node.bytes.saturating_add(slot.bytes);
            }
        }
        let end = table.used.min(from.saturating_add(most));
        let mut bytes = [0; (SLOTS_A_READ * BUCKET) as usize];
        for first in (from..end).step_by(SLOTS_A_READ as usize) {
            let count = SLOTS_A_READ.min(end - first);
            let bytes = &mut bytes[..(count * table.slot) as usize];
            let start = u64::from(first) * u64::from(table.slot);
            self.memory.read(table.data.wrapping_add(start), bytes)?;
            for number in 0..count {
                self.element(owner, keys, &table, bytes, first, number)?;
            }
        }
        Ok((end < table.used).then_some(end))
    }

    #[inline]
    fn element(
        &mut self,
        owner: Number,
        keys: Keys,
        table: &Table,
        bytes: &[u8],
        first: u32,
        number: u32,
    ) -> Result<(), MemoryError> {
        let offset = number * table.slot;
        let (kind, word) = zval_in(bytes, offset);
        if kind == 0 {
            return Ok(());
        }
        let text = match table.is_packed {
            true => 0,
            false => word64(bytes, offset + 24),
        };
        if text != 0 {
            self.string(owner, Key::Same, text);
        }
        if kind < STRING {
            return Ok(());
        }
        let key = match (keys, text) {
            // A declared property, which has a slot in the object.
            (Keys::Properties, _) if kind == self.layout.zval.indirect => return Ok(()),
            (Keys::Insides, _) => Key::Inside(first + number),
            (_, 0) if table.is_packed => Key::Index(i64::from(first + number)),
            (_, 0) => Key::Index(word64(bytes, offset + 16).cast_signed()),
            (Keys::Elements, text) => Key::Text(text),
            (Keys::Properties, text) => Key::Dynamic(text),
            (Keys::StaticVariables, text) => Key::StaticVariable(text),
            (Keys::Bound, text) => Key::Bound(text),
        };
        self.visit(owner, key, kind, word)
    }
}
