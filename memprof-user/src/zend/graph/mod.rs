//! The heap walk: what holds how much, and the path that leads to it.
//!
//! Bytes are those of the allocator's slots, and their sum is held against what the heap has given out: what
//! the walk cannot explain is told as such.

mod arrays;
mod classes;
mod insides;
mod names;
mod nodes;
mod objects;
mod roots;
mod snapshot;
#[cfg(test)]
mod tests;
mod top;
mod walk;

use std::time::{Duration, Instant};

use crate::record::heap_snapshot::HeapSnapshot;

use super::ZendError;
use super::cached::Blocks as CachedBlocks;
use super::heap::{HeapReader, PAGE_SIZE};
use super::memory::{Memory, MemoryError, at};
use super::process::Addresses;
use super::slots::{BIN_COUNT, Slots};
use super::values::Reader;
use nodes::{Block, Key, Kind, NONE};
use roots::Roots;
use walk::Walk;

pub(super) use insides::Region;
pub use nodes::Sum;

/// Bytes of the process that are kept at a time.
const KEPT_BYTES: usize = 16 << 20;
/// Share of the time that is left for naming the biggest holders: one in so many parts.
const NAMING_SHARE: u32 = 8;

/// How much of a heap's graph is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The biggest holders, in bounded memory.
    Holders,
    /// The whole graph too: memory for every array, object and string.
    Graph,
}

/// The biggest holders of a heap, and what the walk found by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holders {
    /// Used pages and huge blocks: what the heap has given out, in bytes.
    pub heap_bytes: u64,
    /// Bytes of all slots that were reached or are known to be free.
    pub explained_bytes: u64,
    /// Whether the walk came to its end.
    pub is_complete: bool,
    /// Why not, and what could not be read.
    pub left_out: Vec<String>,
    /// What was found by kind of block, in a fixed order.
    pub kinds: Vec<(&'static str, Sum)>,
    /// Those that hold most, the biggest first.
    pub top: Vec<Holder>,
    /// The whole graph, where it was asked for and its names could be read in time.
    pub graph: Option<HeapSnapshot>,
    /// Bytes copied out of the process.
    pub read_bytes: u64,
    /// How long copying took.
    pub read_time: Duration,
}

/// One array, string, object or group of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// How PHP code gets at it: `$GLOBALS['rows'][5]`. Names only, never values.
    pub path: String,
    /// `array`, `string`, `object`, or what else it is.
    pub kind: &'static str,
    /// An object's class.
    pub class: Option<String>,
    /// An array's elements.
    pub elements: Option<u64>,
    /// Bytes of its own slots.
    pub own_bytes: u64,
    /// The same with all that was reached first through it; counted once.
    pub retained_bytes: u64,
    /// Whether something else leads to it too.
    pub is_shared: bool,
}

/// Walks a heap.
pub(super) struct Graph<'a> {
    pub(super) heap: HeapReader<'a>,
    pub(super) reader: Reader<'a>,
    pub(super) addresses: Addresses,
    /// Sizes of `executor_globals` and `compiler_globals` and so on with their addresses.
    pub(super) globals: &'a [Region],
}

impl Graph<'_> {
    /// Walks the heap that `source` has, until `deadline`.
    pub(super) fn holders(
        &self,
        source: &dyn Memory,
        deadline: Option<Instant>,
        scope: Scope,
    ) -> Result<Holders, ZendError> {
        let now = Instant::now();
        let naming =
            deadline.map(|deadline| deadline.saturating_duration_since(now) / NAMING_SHARE);
        let until = deadline
            .zip(naming)
            .map(|(deadline, naming)| deadline - naming);
        let memory = CachedBlocks::new(source, until, KEPT_BYTES);
        let slots = Slots::new(self.heap)?;
        let layout = self.reader.layout;
        let mut walk = Walk::new(memory, layout, slots, self.addresses, scope)?;
        let walked = self.walk(&mut walk);
        let mut left_out = Vec::new();
        match &walked {
            Err(MemoryError::TimeUp) => {
                left_out.push(format!("part of the heap: {}", MemoryError::TimeUp))
            }
            Err(error) => left_out.push(format!("part of the heap: {error}")),
            Ok(()) => {}
        }
        if walk.lost > 0 {
            left_out.push(format!(
                "{} structures of the heap that could not be read or were nested too deep",
                walk.lost
            ));
        }
        walk.blocks.add(
            Block::ChunkHeader,
            walk.slots.chunks(),
            walk.slots.chunks() * PAGE_SIZE,
        );
        walk.memory.set_deadline(deadline);
        let graph = match walk.recording.take() {
            Some(recording) => match snapshot::snapshot(&mut walk, recording, self.reader) {
                Ok(graph) => Some(graph),
                Err(error) => {
                    left_out.push(format!("the heap graph: {error}"));
                    None
                }
            },
            None => None,
        };
        let top = top::biggest(&mut walk, self.reader, &mut left_out);
        let fetched = walk.memory.fetched();
        Ok(Holders {
            heap_bytes: walk.slots.heap_bytes(),
            explained_bytes: walk.blocks.bytes(),
            is_complete: left_out.is_empty(),
            left_out,
            kinds: kinds(&walk.blocks),
            top,
            graph,
            read_bytes: fetched.bytes,
            read_time: fetched.time,
        })
    }

    fn walk(&self, walk: &mut Walk<'_>) -> Result<(), MemoryError> {
        let mut roots = Roots::new(self.reader, self.addresses);
        roots.find(walk)?;
        walk.follow()?;
        roots.other_frames(walk)?;
        walk.follow()?;
        // The lists stand in front of real_size (7.4 to 8.6).
        let lists = BIN_COUNT * 8;
        let real_size = at(self.heap.heap, self.heap.heap_layout.real_size);
        walk.free_slots(real_size.wrapping_sub(u64::from(lists)), BIN_COUNT)?;
        walk.scan_insides()?;
        self.engine(walk)?;
        walk.unreached_objects()?;
        walk.scan_insides()?;
        self.temporaries(walk)
    }

    /// What PHP's own globals hold.
    fn engine(&self, walk: &mut Walk<'_>) -> Result<(), MemoryError> {
        let engine = walk.place(NONE, Key::Same, Kind::Engine, 0);
        for region in self.globals {
            walk.scan(engine, region.block, region.start, region.end())?;
            walk.follow()?;
        }
        walk.scan_insides()
    }

    /// What lies on the VM's stack in no variable. Values of calls that are over lie there too, so this comes
    /// last.
    fn temporaries(&self, walk: &mut Walk<'_>) -> Result<(), MemoryError> {
        let layout = self.reader.layout;
        let temporaries = walk.place(NONE, Key::Same, Kind::Temporaries, 0);
        let first = at(self.addresses.executor, layout.executor.vm_stack);
        let mut page = walk.memory.u64(first)?;
        for _ in 0..roots::MOST_STACK_PAGES {
            let Some(slot) = walk.slots.find(page) else {
                break;
            };
            walk.scan(temporaries, Block::Other, slot.start, slot.end())?;
            walk.follow()?;
            page = walk.memory.u64(at(page, layout.vm_stack.prev))?;
        }
        walk.scan_insides()
    }
}

fn kinds(blocks: &nodes::Blocks) -> Vec<(&'static str, Sum)> {
    [
        ("arrays", Block::Array),
        ("strings", Block::String),
        ("objects", Block::Object),
        ("closures", Block::Closure),
        ("references", Block::Reference),
        ("vm_stack", Block::VmStack),
        ("object_store", Block::ObjectStore),
        ("code", Block::Code),
        ("other", Block::Other),
        ("free_slots", Block::FreeSlot),
        ("chunk_headers", Block::ChunkHeader),
    ]
    .map(|(name, block)| (name, blocks.of(block)))
    .to_vec()
}
