//! The walk: what is reached, from what, and whose bytes it is.
//!
//! Breadth first, so that paths are short. Only containers have a node; strings, references and small
//! containers without containers are accounted to their owner at once, large ones excepted. Of a large
//! container the first elements are followed, and the others when all else is done, so that a million rows
//! do not hide what lies deeper elsewhere. When the table of nodes is full, what is below is walked depth
//! first and accounted to the last node above it: bytes stay right, only finer paths are missing.

use std::collections::VecDeque;

use super::super::cached::Blocks as CachedBlocks;
use super::super::layout::Layout;
use super::super::memory::{Memory, MemoryError, at};
use super::super::objects::Store;
use super::super::process::Addresses;
use super::super::slots::{Mark, Slot, Slots};
use super::super::values::BUCKET;
use super::Scope;
use super::arrays::Keys;
use super::classes::{Classes, Insides};
use super::nodes::{Block, Blocks, Key, Kind, Node, Number};
use super::snapshot::Recording;

/// `IS_STRING` and those behind it, 7.4 to 8.6.
pub(super) const STRING: u8 = 6;
pub(super) const ARRAY: u8 = 7;
pub(super) const OBJECT: u8 = 8;
pub(super) const RESOURCE: u8 = 9;
pub(super) const REFERENCE: u8 = 10;
pub(super) const CONSTANT_AST: u8 = 11;

/// Most nodes: 40 bytes each.
const MOST_NODES: usize = 500_000;
/// Most nodes of a graph that is recorded whole.
const MOST_RECORDED: usize = 1 << 26;
/// A string of so many bytes has a node of its own.
const LARGE_STRING: u64 = 16 << 10;
/// Slots of a container that may be accounted to its owner.
const SMALL: u32 = 32;
/// Slots of a container that are followed before others had their turn.
const FIRST: u32 = 1024;
/// Slots of a container that are followed at a time, later.
const LATER: u32 = 4096;
/// Slots of a container that is walked depth first, at a time.
const AT_A_TIME: u32 = 128;
/// Most containers that wait to be walked depth first.
const MOST_PENDING: usize = 1 << 19;

/// Most things whose insides are looked through.
const MOST_INSIDES: usize = 1 << 18;

/// A container that is to be walked depth first.
struct Pending {
    owner: Number,
    kind: Kind,
    address: u64,
    from: u32,
}

/// The heap of a process that stands still, and what was reached of it.
pub(super) struct Walk<'a> {
    pub(super) memory: CachedBlocks<&'a dyn Memory>,
    pub(super) layout: &'a Layout,
    pub(super) slots: Slots,
    pub(super) store: Store,
    pub(super) nodes: Vec<Node>,
    pub(super) blocks: Blocks,
    pub(super) classes: Classes,
    /// Objects with insides that only their extension knows, and their owners.
    pub(super) insides: Vec<(Number, u64)>,
    /// Containers that could not be read, or that no place was left for.
    pub(super) lost: u64,
    /// `CG(map_ptr_base)`
    map_base: u64,
    most_nodes: usize,
    /// Notes every edge down, where the whole graph is wanted.
    pub(super) recording: Option<Recording>,
    /// The first node that was not followed yet.
    next: usize,
    deferred: VecDeque<(Number, u32)>,
    pending: Vec<Pending>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        mut memory: CachedBlocks<&'a dyn Memory>,
        layout: &'a Layout,
        slots: Slots,
        addresses: Addresses,
        scope: Scope,
    ) -> Result<Walk<'a>, MemoryError> {
        let store = Store::read(&mut memory, layout, addresses.executor)?;
        let map_base = memory.u64(at(addresses.compiler, layout.compiler.map_ptr_base))?;
        Ok(Walk {
            memory,
            layout,
            slots,
            store,
            // Pages of it are used as nodes come.
            nodes: Vec::with_capacity(MOST_NODES),
            blocks: Blocks::default(),
            classes: Classes::default(),
            insides: Vec::new(),
            lost: 0,
            map_base,
            most_nodes: match scope {
                Scope::Holders => MOST_NODES,
                Scope::Graph => MOST_RECORDED,
            },
            recording: match scope {
                Scope::Holders => None,
                Scope::Graph => Some(Recording::default()),
            },
            next: 0,
            deferred: VecDeque::new(),
            pending: Vec::new(),
        })
    }

    /// A new place to begin at, or a group of its values.
    pub(super) fn place(&mut self, owner: Number, key: Key, kind: Kind, address: u64) -> Number {
        let number = self.nodes.len() as Number;
        self.nodes.push(Node {
            address,
            key,
            bytes: 0,
            owner,
            kind,
        });
        number
    }

    /// Follows everything that was reached.
    pub(super) fn follow(&mut self) -> Result<(), MemoryError> {
        let mut turns = 0_u32;
        loop {
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(256) {
                self.memory.in_time()?;
            }
            if let Some(pending) = self.pending.pop() {
                self.resume(pending)?;
            } else if let Some(node) = self.nodes.get(self.next).copied() {
                let number = self.next as Number;
                self.next += 1;
                let rest = self.expand(number, node.kind, node.address, 0, FIRST);
                if let Some(from) = self.readable(rest)? {
                    self.deferred.push_back((number, from));
                }
            } else if let Some((number, from)) = self.deferred.pop_front() {
                let node = self.nodes[number as usize];
                let rest = self.expand(number, node.kind, node.address, from, LATER);
                if let Some(from) = self.readable(rest)? {
                    self.deferred.push_front((number, from));
                }
            } else {
                return Ok(());
            }
        }
    }

    fn resume(&mut self, pending: Pending) -> Result<(), MemoryError> {
        let Pending {
            owner,
            kind,
            address,
            from,
        } = pending;
        // What is left of it goes below what it holds.
        let below = self.pending.len();
        let rest = self.expand(owner, kind, address, from, AT_A_TIME);
        if let Some(from) = self.readable(rest)? {
            self.pending.insert(below, Pending { from, ..pending });
        }
        Ok(())
    }

    /// Counts what cannot be read, and goes on; ends only when the time is up.
    pub(super) fn readable<T>(
        &mut self,
        result: Result<Option<T>, MemoryError>,
    ) -> Result<Option<T>, MemoryError> {
        match result {
            Err(MemoryError::TimeUp) => Err(MemoryError::TimeUp),
            Err(_) => {
                self.lost += 1;
                Ok(None)
            }
            read => read,
        }
    }

    /// Follows at most `most` elements of a container, from one on; returns where there are more.
    fn expand(
        &mut self,
        owner: Number,
        kind: Kind,
        address: u64,
        from: u32,
        most: u32,
    ) -> Result<Option<u32>, MemoryError> {
        match kind {
            Kind::Array => {
                if from == 0 {
                    self.account(owner, address, Block::Array);
                }
                self.table(owner, address, Keys::Elements, from, most)
            }
            Kind::Object => self.object(owner, address, from, most),
            _ => Ok(None),
        }
    }

    /// Accounts a block that was marked before.
    fn account(&mut self, owner: Number, address: u64, block: Block) {
        if let Some(slot) = self.slots.find(address) {
            self.add(owner, block, slot.bytes);
        }
    }

    #[inline]
    pub(super) fn add(&mut self, owner: Number, block: Block, bytes: u64) {
        self.blocks.add(block, 1, bytes);
        if let Some(node) = self.nodes.get_mut(owner as usize) {
            node.bytes = node.bytes.saturating_add(bytes);
        }
    }

    /// Takes a block that has one owner only; tells its slot, if it was not reached before.
    pub(super) fn take(&mut self, owner: Number, address: u64, block: Block) -> Option<Slot> {
        let slot = self.slots.find(address)?;
        if !self.slots.mark(slot, Mark::Seen) {
            return None;
        }
        self.add(owner, block, slot.bytes);
        Some(slot)
    }

    /// Takes the value of a zval: its type and its first word.
    #[inline]
    pub(super) fn visit(
        &mut self,
        owner: Number,
        key: Key,
        kind: u8,
        word: u64,
    ) -> Result<(), MemoryError> {
        match kind {
            0..STRING => Ok(()),
            STRING => {
                self.string(owner, key, word);
                Ok(())
            }
            ARRAY => self.container(owner, key, Kind::Array, word),
            OBJECT => self.container(owner, key, Kind::Object, word),
            REFERENCE => self.reference(owner, key, word),
            RESOURCE | CONSTANT_AST => {
                if self.take(owner, word, Block::Other).is_some() {
                    self.inside(owner, word);
                }
                Ok(())
            }
            kind if kind == self.layout.zval.indirect => {
                let (kind, word) = self.zval(word)?;
                match kind {
                    // One step only: such a zval never points to another of its kind.
                    kind if kind == self.layout.zval.indirect => Ok(()),
                    kind => self.visit(owner, key, kind, word),
                }
            }
            _ => Ok(()),
        }
    }

    /// What the word at `address` leads to, by the rules of `ZEND_MAP_PTR`; 0 for nothing.
    pub(super) fn map_pointer(&mut self, address: u64) -> Result<u64, MemoryError> {
        let layout = self.layout.map_pointer;
        let word = self.memory.u64(address)?;
        match word {
            0 => Ok(0),
            offset if offset & 1 == 1 => {
                let of_request = self.map_base.wrapping_add(offset);
                self.memory
                    .u64(of_request.wrapping_sub(u64::from(layout.bias)))
            }
            pointer if layout.is_indirect => self.memory.u64(pointer),
            pointer => Ok(pointer),
        }
    }

    /// Remembers something whose insides are to be looked through when all else is done.
    pub(super) fn inside(&mut self, owner: Number, address: u64) {
        match self.insides.len() < MOST_INSIDES {
            true => self.insides.push((owner, address)),
            false => self.lost += 1,
        }
    }

    /// The type of the zval at `address`, and its first word.
    #[inline]
    pub(super) fn zval(&mut self, address: u64) -> Result<(u8, u64), MemoryError> {
        let bytes: [u8; 16] = self.memory.word(address)?;
        Ok(zval_in(&bytes, 0))
    }

    pub(super) fn string(&mut self, owner: Number, key: Key, address: u64) {
        let Some(slot) = self.slots.find(address) else {
            return;
        };
        self.record(owner, key, slot);
        if !self.slots.mark(slot, Mark::Seen) {
            self.slots.mark(slot, Mark::Shared);
            return;
        }
        let is_wanted = slot.bytes >= LARGE_STRING || self.recording.is_some();
        let owner = match is_wanted && self.nodes.len() < self.most_nodes {
            true => self.place(owner, key, Kind::String, address),
            false => owner,
        };
        self.add(owner, Block::String, slot.bytes);
    }

    #[inline]
    fn record(&mut self, owner: Number, key: Key, slot: Slot) {
        if let Some(recording) = &mut self.recording {
            recording.edge(owner, key, slot.start);
        }
    }

    /// A reference is no step of a path.
    fn reference(&mut self, owner: Number, key: Key, address: u64) -> Result<(), MemoryError> {
        let Some(slot) = self.slots.find(address) else {
            return Ok(());
        };
        let is_new = self.slots.mark(slot, Mark::Seen);
        let (kind, word) = self.zval(at(address, self.layout.reference.value))?;
        if is_new {
            self.add(owner, Block::Reference, slot.bytes);
            // PHP makes no reference to a reference.
            return match kind {
                REFERENCE => Ok(()),
                kind => self.visit(owner, key, kind, word),
            };
        }
        if let (STRING..=OBJECT, Some(target)) = (kind, self.slots.find(word)) {
            self.record(owner, key, target);
            self.slots.mark(target, Mark::Shared);
        }
        Ok(())
    }

    pub(super) fn container(
        &mut self,
        owner: Number,
        key: Key,
        kind: Kind,
        address: u64,
    ) -> Result<(), MemoryError> {
        let Some(slot) = self.slots.find(address) else {
            return Ok(());
        };
        self.record(owner, key, slot);
        if !self.slots.mark(slot, Mark::Seen) {
            self.slots.mark(slot, Mark::Shared);
            return Ok(());
        }
        let is_leaf = self.is_leaf(kind, address);
        if self.readable(is_leaf.map(Some))? == Some(true) {
            let taken = self.expand(owner, kind, address, 0, SMALL);
            self.readable(taken)?;
        } else if self.nodes.len() < self.most_nodes {
            self.place(owner, key, kind, address);
        } else if self.pending.len() < MOST_PENDING {
            self.pending.push(Pending {
                owner,
                kind,
                address,
                from: 0,
            });
        } else {
            self.lost += 1;
        }
        Ok(())
    }

    /// Whether a container is small and holds nothing that would have a node.
    fn is_leaf(&mut self, kind: Kind, address: u64) -> Result<bool, MemoryError> {
        if self.recording.is_some() {
            return Ok(false);
        }
        let (first, count, slot) = if kind == Kind::Array {
            match self.header(address)? {
                None => return Ok(true),
                Some(table) => (table.data, table.used, table.slot),
            }
        } else {
            let layout = self.layout.object;
            let class = self.memory.u64(at(address, layout.class))?;
            let class = self.classes.of(&mut self.memory, self.layout, class)?;
            if class.insides != Insides::None
                || self.memory.u64(at(address, layout.properties))? != 0
            {
                return Ok(false);
            }
            (at(address, layout.slots), class.properties, 16)
        };
        if count > SMALL {
            return Ok(false);
        }
        let mut bytes = [0; (SMALL * BUCKET) as usize];
        let bytes = &mut bytes[..(count * slot) as usize];
        self.memory.read(first, bytes)?;
        for offset in (0..count).map(|number| number * slot) {
            let is_leaf = match zval_in(bytes, offset) {
                (0..STRING, _) => true,
                (STRING, word) => {
                    let slot = self.slots.find(word);
                    slot.is_none_or(|slot| slot.bytes < LARGE_STRING)
                }
                (ARRAY | OBJECT, word) => self.slots.find(word).is_none(),
                _ => false,
            };
            if !is_leaf {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The type of a zval in what was read, and its first word.
#[inline]
pub(super) fn zval_in(bytes: &[u8], offset: u32) -> (u8, u64) {
    (bytes[offset as usize + 8], word64(bytes, offset))
}

#[inline]
pub(super) fn word64(bytes: &[u8], offset: u32) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset as usize..offset as usize + 8]);
    u64::from_le_bytes(word)
}

#[inline]
pub(super) fn word32(bytes: &[u8], offset: u32) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[offset as usize..offset as usize + 4]);
    u32::from_le_bytes(word)
}
