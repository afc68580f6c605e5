//! What PHP's own structures and those of extensions hold, told by looking for pointers.
//!
//! Their layouts are not known. But what a word points to is: whether the heap gave out a slot there, whether
//! it is in use (the allocator's lists of free slots are read before), and whether it begins as an object,
//! an array or a string does. What is none of these is a block of its owner's, and looked through in turn.
//! All this comes behind the walk over what is known, so only what nothing else reached is found here.

use crate::binary::{Global, Globals};

use super::super::memory::{MemoryError, at};
use super::super::slots::{Mark, Slot};
use super::nodes::{Block, Key, Kind, Number};
use super::walk::{ARRAY, OBJECT, STRING, Walk, word32, word64};

/// Bytes copied by one read.
const BYTES_A_READ: usize = 4096;
/// Most bytes of one block that are looked through.
const MOST_BYTES: u64 = 256 << 20;

/// Flags that a string of the heap can have in `gc.u.type_info`: not collectable, interned, valid UTF-8 and
/// one that no release uses (7.4 to 8.6).
const STRING_FLAGS: u32 = 0x270;

/// Memory outside of the heap that is looked through.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Region {
    /// Its first address.
    pub(in super::super) start: u64,
    /// Its size.
    pub(in super::super) bytes: u64,
    /// What it leads to.
    pub(super) block: Block,
}

impl Region {
    /// PHP's globals: `compiler_globals` leads to code, the others to anything.
    pub(in super::super) fn of(globals: &Globals, load_bias: u64) -> Vec<Region> {
        let region = |global: Global, block| Region {
            start: load_bias.wrapping_add(global.address),
            bytes: global.size,
            block,
        };
        let mut regions = vec![
            region(globals.compiler, Block::Code),
            region(globals.executor, Block::Other),
            region(globals.core, Block::Other),
            region(globals.sapi, Block::Other),
        ];
        regions.extend(globals.session.map(|session| region(session, Block::Other)));
        regions
    }

    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes)
    }
}

/// What is looked through for one owner.
struct Scan {
    owner: Number,
    block: Block,
    /// Values found so far.
    found: u32,
    /// First and last address of what is still to be looked through.
    pending: Vec<(u64, u64)>,
}

impl Walk<'_> {
    /// Looks through all objects and blocks whose insides were put off.
    pub(super) fn scan_insides(&mut self) -> Result<(), MemoryError> {
        while let Some((owner, address)) = self.insides.pop() {
            if let Some(slot) = self.slots.find(address) {
                self.scan(owner, Block::Other, slot.start, slot.end())?;
            }
            self.follow()?;
        }
        Ok(())
    }

    /// Looks through the words between two addresses.
    pub(super) fn scan(
        &mut self,
        owner: Number,
        block: Block,
        first: u64,
        end: u64,
    ) -> Result<(), MemoryError> {
        let mut scan = Scan {
            owner,
            block,
            found: 0,
            pending: vec![(first, end)],
        };
        while let Some((first, end)) = scan.pending.pop() {
            let end = end.min(first.saturating_add(MOST_BYTES));
            let scanned = self.scan_range(&mut scan, first, end);
            self.readable(scanned.map(Some))?;
        }
        Ok(())
    }

    fn scan_range(&mut self, scan: &mut Scan, first: u64, end: u64) -> Result<(), MemoryError> {
        let mut bytes = [0; BYTES_A_READ];
        let mut from = first.next_multiple_of(8);
        while from.saturating_add(8) <= end {
            let length = (end - from).min(BYTES_A_READ as u64) & !7;
            let bytes = &mut bytes[..length as usize];
            self.memory.read(from, bytes)?;
            for offset in (0..length as u32).step_by(8) {
                let word = word64(bytes, offset);
                if word & 7 == 0 && word != 0 {
                    self.pointer(scan, word)?;
                }
            }
            from += length;
        }
        Ok(())
    }

    /// Takes what a word points to, if it is a slot that nothing reached.
    #[inline]
    fn pointer(&mut self, scan: &mut Scan, word: u64) -> Result<(), MemoryError> {
        let Some(slot) = self.slots.find(word) else {
            return Ok(());
        };
        if self.slots.is_marked(slot, Mark::Seen) {
            return Ok(());
        }
        match self.kind_of(word, slot)? {
            Some(kind) => {
                let key = Key::Inside(scan.found);
                scan.found = scan.found.saturating_add(1);
                self.visit(scan.owner, key, kind, word)
            }
            None => {
                if self.take(scan.owner, word, scan.block).is_some() {
                    scan.pending.push((slot.start, slot.end()));
                }
                Ok(())
            }
        }
    }

    /// Whether an object, an array or a string begins here.
    fn kind_of(&mut self, address: u64, slot: Slot) -> Result<Option<u8>, MemoryError> {
        if slot.bytes < 32 {
            return Ok(None);
        }
        let head: [u8; 24] = self.memory.word(address)?;
        let layout = self.layout;
        let info = word32(&head, 4);
        match info as u8 & 0xf {
            OBJECT => {
                let handle = word32(&head, layout.object.handle);
                let is_known = handle != 0
                    && handle < self.store.top
                    && self.store.object(&mut self.memory, handle)? == Some(address);
                Ok(is_known.then_some(OBJECT))
            }
            ARRAY if address == slot.start && slot.bytes == u64::from(layout.array.whole) => {
                let room = self.memory.u32(at(address, layout.array.room))?;
                let used = self.memory.u32(at(address, layout.array.used))?;
                let count = self.memory.u32(at(address, layout.array.count))?;
                let is_array = room.is_power_of_two() && used <= room && count <= used;
                Ok(is_array.then_some(ARRAY))
            }
            // The upper half of a pointer has other bits too.
            STRING if address == slot.start && info & !STRING_FLAGS == u32::from(STRING) => {
                let needs = word64(&head, layout.string.len)
                    .saturating_add(u64::from(layout.string.val) + 1);
                Ok((needs <= slot.bytes && needs > slot.bytes / 4).then_some(STRING))
            }
            _ => Ok(None),
        }
    }

    /// The objects that nothing leads to: garbage that PHP has not collected yet, or what an extension holds
    /// where it is not looked for.
    pub(super) fn unreached_objects(&mut self) -> Result<(), MemoryError> {
        let mut classes = std::collections::HashMap::new();
        for handle in 1..self.store.top {
            let Some(object) = self.store.object(&mut self.memory, handle)? else {
                continue;
            };
            let Some(slot) = self.slots.find(object) else {
                continue;
            };
            if self.slots.is_marked(slot, Mark::Seen) {
                continue;
            }
            let class = self.memory.u64(at(object, self.layout.object.class))?;
            let owner = match classes.get(&class) {
                Some(owner) => *owner,
                None => {
                    let owner = self.place(super::nodes::NONE, Key::Same, Kind::Unreached, class);
                    classes.insert(class, owner);
                    owner
                }
            };
            self.container(owner, Key::Handle(handle), Kind::Object, object)?;
            self.follow()?;
        }
        Ok(())
    }

    /// Marks the slots that the allocator has on its lists of free ones, given where the lists begin.
    pub(super) fn free_slots(&mut self, lists: u64, count: u32) -> Result<(), MemoryError> {
        for list in 0..count {
            let mut address = self.memory.u64(at(lists, list * 8))?;
            let mut passed = 0_u32;
            // Each is marked once, so a list that does not end ends here.
            while let Some(slot) = self.slots.find(address) {
                if !self.slots.mark(slot, Mark::Seen) {
                    break;
                }
                self.blocks.add(Block::FreeSlot, 1, slot.bytes);
                passed += 1;
                if passed.is_multiple_of(1024) {
                    self.memory.in_time()?;
                }
                // zend_mm_free_slot.next_free_slot
                address = self.memory.u64(slot.start)?;
            }
        }
        Ok(())
    }
}
