//! What the allocator gave for an object: the slot that an address lies in, and its bytes.

use std::collections::HashMap;

use super::ZendError;
use super::heap::{
    CHUNK_SIZE, HeapReader, LARGE_RUN, PAGE_SIZE, PAGES_A_CHUNK, SMALL_RUN, chunk_of,
};
use super::memory::{Bytes, MemoryError, at};

/// Bytes of a slot by bin: `ZEND_MM_BINS_INFO` (7.4 to 8.6).
const BINS: [u64; 30] = [
    8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640,
    768, 896, 1024, 1280, 1536, 1792, 2048, 2560, 3072,
];

/// The slots of one heap; the page map of each chunk is read once.
pub(super) struct Slots<'a> {
    heap: HeapReader<'a>,
    huge: HashMap<u64, u64>,
    /// `None` for what is no chunk of this heap.
    chunks: HashMap<u64, Option<Bytes>>,
}

impl<'a> Slots<'a> {
    pub(super) fn new(heap: HeapReader<'a>) -> Result<Slots<'a>, ZendError> {
        let huge = heap.huge()?;
        Ok(Slots {
            heap,
            huge: huge
                .iter()
                .map(|block| (block.address, block.size))
                .collect(),
            chunks: HashMap::new(),
        })
    }

    /// Bytes of the slot, page run or huge block that holds an object at `address`.
    ///
    /// `None` where that cannot be told: the heap's page map has no such thing there.
    pub(super) fn bytes_at(&mut self, address: u64) -> Result<Option<u64>, MemoryError> {
        let chunk = chunk_of(address);
        if let Some(size) = self.huge.get(&chunk) {
            return Ok(Some(*size));
        }
        let page = ((address - chunk) / PAGE_SIZE) as u32;
        let Some(map) = self.map(chunk)? else {
            return Ok(None);
        };
        let entry = map.u32(page * 4)?;
        Ok(match entry & (LARGE_RUN | SMALL_RUN) {
            0 => None,
            LARGE_RUN => Some(u64::from(entry & 0x3ff) * PAGE_SIZE),
            // Its first page or a further one: both carry the bin.
            _ => BINS.get((entry & 0x1f) as usize).copied(),
        })
    }

    fn map(&mut self, chunk: u64) -> Result<Option<&Bytes>, MemoryError> {
        if !self.chunks.contains_key(&chunk) {
            let map = self.read_map(chunk)?;
            self.chunks.insert(chunk, map);
        }
        Ok(self.chunks.get(&chunk).and_then(Option::as_ref))
    }

    fn read_map(&self, chunk: u64) -> Result<Option<Bytes>, MemoryError> {
        let HeapReader {
            memory,
            layout,
            heap_layout,
            heap,
        } = self.heap;
        match memory.u64(at(chunk, layout.chunk.heap)) {
            Ok(found) if found == heap => {}
            Err(MemoryError::TimeUp) => return Err(MemoryError::TimeUp),
            // No chunk: an object that an extension holds elsewhere.
            _ => return Ok(None),
        }
        let map = at(chunk, heap_layout.map);
        Bytes::read(memory, map, PAGES_A_CHUNK as usize * 4).map(Some)
    }
}

const _: () = assert!(CHUNK_SIZE == PAGE_SIZE * PAGES_A_CHUNK as u64);
