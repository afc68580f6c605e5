//! What the allocator gave for an object: the slot that an address lies in, and its bytes.

use std::collections::HashMap;
use std::rc::Rc;

use super::ZendError;
use super::heap::{
    HeapReader, HugeBlock, LARGE_RUN, PAGE_SIZE, PAGES_A_CHUNK, SMALL_RUN, chunk_of,
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
    /// By the address of the chunk or of the huge block.
    places: HashMap<u64, Rc<Place>>,
    /// The place that was asked for last: the next object is most often in the same one.
    last: (u64, Rc<Place>),
}

/// What the allocator has at an address that is a multiple of the size of a chunk.
enum Place {
    /// A huge block of so many bytes.
    Huge(u64),
    /// A chunk, by its page map.
    Chunk(Bytes),
    /// Nothing of this heap's.
    Foreign,
}

impl<'a> Slots<'a> {
    pub(super) fn new(heap: HeapReader<'a>) -> Result<Slots<'a>, ZendError> {
        let huge = heap.huge()?;
        let place = |block: &HugeBlock| (block.address, Rc::new(Place::Huge(block.size)));
        Ok(Slots {
            heap,
            places: huge.iter().map(place).collect(),
            last: (0, Rc::new(Place::Foreign)),
        })
    }

    /// Bytes of the slot, page run or huge block that holds an object at `address`.
    ///
    /// `None` where that cannot be told: the heap's page map has no such thing there.
    pub(super) fn bytes_at(&mut self, address: u64) -> Result<Option<u64>, MemoryError> {
        let start = chunk_of(address);
        let map = match self.place(start)? {
            Place::Huge(size) => return Ok(Some(*size)),
            Place::Foreign => return Ok(None),
            Place::Chunk(map) => map,
        };
        let page = ((address - start) / PAGE_SIZE) as u32;
        let entry = map.u32(page * 4)?;
        Ok(match entry & (LARGE_RUN | SMALL_RUN) {
            0 => None,
            LARGE_RUN => Some(u64::from(entry & 0x3ff) * PAGE_SIZE),
            // Its first page or a further one: both carry the bin.
            _ => BINS.get((entry & 0x1f) as usize).copied(),
        })
    }

    fn place(&mut self, start: u64) -> Result<&Place, MemoryError> {
        if self.last.0 != start {
            let place = match self.places.get(&start) {
                Some(place) => Rc::clone(place),
                None => {
                    let place = Rc::new(self.read_place(start)?);
                    self.places.insert(start, Rc::clone(&place));
                    place
                }
            };
            self.last = (start, place);
        }
        Ok(&self.last.1)
    }

    fn read_place(&self, start: u64) -> Result<Place, MemoryError> {
        let HeapReader {
            memory,
            layout,
            heap_layout,
            heap,
        } = self.heap;
        match memory.u64(at(start, layout.chunk.heap)) {
            Ok(found) if found == heap => {}
            Err(MemoryError::TimeUp) => return Err(MemoryError::TimeUp),
            // No chunk: an object that an extension holds elsewhere.
            _ => return Ok(Place::Foreign),
        }
        let map = at(start, heap_layout.map);
        Bytes::read(memory, map, PAGES_A_CHUNK as usize * 4).map(Place::Chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::super::heap::HeapLayout;
    use super::super::testing::{CHUNK, HEAP, Image};
    use super::*;

    #[test]
    fn a_slot_is_as_large_as_its_run_says() -> Result<(), ZendError> {
        let mut image = Image::new("8.2.36");
        let node = image.memory.room(24);
        image.memory.put_u64(node, 0x5000_0000);
        image.memory.put_u64(node + 8, 3 << 20);
        image.memory.put_u64(HEAP + 0x140, node);
        image.memory.put(0x6000_0000, &[0; 64]);
        let heap_layout = HeapLayout::scan(&image.memory, HEAP, &image.layout, &image.decoded)?;
        let heap_layout = heap_layout.expect("a whole image");
        let mut slots = Slots::new(HeapReader {
            memory: &image.memory,
            layout: &image.layout,
            heap_layout: &heap_layout,
            heap: HEAP,
        })?;
        for (address, bytes) in [
            (CHUNK + PAGE_SIZE, Some(3 * PAGE_SIZE)),
            // Bin 22, in the run's first and second page.
            (CHUNK + 4 * PAGE_SIZE + 896, Some(896)),
            (CHUNK + 5 * PAGE_SIZE + 8, Some(896)),
            (CHUNK + 100 * PAGE_SIZE, None),
            (0x5000_0000, Some(3 << 20)),
            (0x6000_0010, None),
            (0x7000_0000, None),
        ] {
            assert_eq!(slots.bytes_at(address)?, bytes, "{address:#x}");
        }
        Ok(())
    }
}
