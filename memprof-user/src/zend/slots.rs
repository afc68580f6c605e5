//! What the allocator gave out: the slot that an address lies in, its bytes, and which slots were seen.

use super::ZendError;
use super::heap::{
    CHUNK_SIZE, HeapReader, HugeBlock, LARGE_RUN, PAGE_SIZE, PAGES_A_CHUNK, SMALL_RUN, chunk_of,
};
use super::memory::{Bytes, MemoryError, at};

/// Bytes of a slot by bin, and pages of a run of them: `ZEND_MM_BINS_INFO` (7.4 to 8.6).
const BINS: [(u32, u32); 30] = [
    (8, 1),
    (16, 1),
    (24, 1),
    (32, 1),
    (40, 1),
    (48, 1),
    (56, 1),
    (64, 1),
    (80, 1),
    (96, 1),
    (112, 1),
    (128, 1),
    (160, 1),
    (192, 1),
    (224, 1),
    (256, 1),
    (320, 5),
    (384, 3),
    (448, 1),
    (512, 1),
    (640, 5),
    (768, 3),
    (896, 2),
    (1024, 2),
    (1280, 5),
    (1536, 3),
    (1792, 7),
    (2048, 4),
    (2560, 5),
    (3072, 3),
];

/// How many bins there are.
pub(super) const BIN_COUNT: u32 = BINS.len() as u32;

/// Most chunks and pieces of huge blocks that are kept account of: 128 GiB of heap.
const MOST_PLACES: usize = 1 << 16;
/// Bytes that one bit stands for. Slots of 16 bytes and more have a bit of their own each; two of 8 bytes,
/// which hold no PHP value, can share one.
const BYTES_A_BIT: u64 = 16;
/// Words of the bits of one chunk.
const WORDS: usize = (CHUNK_SIZE / BYTES_A_BIT / 64) as usize;

/// The slots of one heap, and two marks for each: seen, and seen again.
pub(super) struct Slots {
    /// Open addressing by the chunk's number; [`EMPTY`] where there is none.
    index: Vec<(u64, u32)>,
    places: Vec<Place>,
    /// The place that was asked for last: the next address is most often in the same one.
    last: (u64, u32),
    /// Pages in use in chunks, the page of each chunk's header included, and bytes of huge blocks.
    heap_bytes: u64,
}

const EMPTY: (u64, u32) = (u64::MAX, u32::MAX);

/// What the allocator has in one piece of memory of a chunk's size and alignment.
struct Place {
    start: u64,
    content: Content,
}

enum Content {
    Chunk(Box<Chunk>),
    Huge {
        /// The place where the block begins, which has the marks.
        first: u32,
        bytes: u64,
        marks: [bool; 2],
    },
}

struct Chunk {
    pages: [Run; PAGES_A_CHUNK as usize],
    marks: [[u64; WORDS]; 2],
}

/// The run that a page belongs to; of no pages where it is free.
#[derive(Clone, Copy, Default)]
struct Run {
    first: u16,
    pages: u16,
    /// Bytes of a slot; 0 for a large run, which is one slot.
    slot: u16,
    /// 2^32 divided by the bytes of a slot, rounded up: a number below 2^15 times this is 2^32 times the
    /// quotient, and less than one slot's share more. Dividing would take most of the time of a look-up.
    inverse: u32,
}

/// A mark on a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It was reached, or is known to be free.
    Seen,
    /// It was reached a second time.
    Shared,
}

/// One slot: of a run of small ones, a large page run, or a huge block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Its first address.
    pub(super) start: u64,
    /// Its size.
    pub(super) bytes: u64,
    place: u32,
}

impl Slot {
    /// The address behind it.
    pub(super) fn end(&self) -> u64 {
        self.start.wrapping_add(self.bytes)
    }
}

impl Slots {
    /// Reads the heap's lists of chunks and huge blocks, and the page map of each chunk.
    pub(super) fn new(heap: HeapReader<'_>) -> Result<Slots, ZendError> {
        let huge = heap.huge()?;
        let chunks = heap.chunks()?;
        let pieces = |block: &HugeBlock| block.size.div_ceil(CHUNK_SIZE);
        let count = huge
            .iter()
            .map(pieces)
            .fold(chunks.len() as u64, u64::saturating_add);
        if count > MOST_PLACES as u64 {
            return Err(ZendError::Inconsistent {
                what: "the heap is larger than the 128 GiB that are kept account of",
                address: heap.heap,
            });
        }
        let mut slots = Slots {
            index: vec![EMPTY; (count as usize * 2).next_power_of_two()],
            places: Vec::with_capacity(count as usize),
            last: EMPTY,
            heap_bytes: 0,
        };
        for start in chunks {
            let pages = pages(&heap, start)?;
            let used = pages.iter().filter(|run| run.pages > 0).count() as u64;
            slots.heap_bytes += used * PAGE_SIZE;
            let marks = [[0; WORDS]; 2];
            let content = Content::Chunk(Box::new(Chunk { pages, marks }));
            slots.add(Place { start, content });
        }
        for block in &huge {
            slots.heap_bytes = slots.heap_bytes.saturating_add(block.size);
            let first = slots.places.len() as u32;
            for piece in 0..pieces(block) {
                let start = block.address.wrapping_add(piece * CHUNK_SIZE);
                let content = Content::Huge {
                    first,
                    bytes: block.size,
                    marks: [false; 2],
                };
                slots.add(Place { start, content });
            }
        }
        Ok(slots)
    }

    /// What the heap has given out: used pages and huge blocks, in bytes.
    pub(super) fn heap_bytes(&self) -> u64 {
        self.heap_bytes
    }

    /// How many chunks there are.
    pub(super) fn chunks(&self) -> u64 {
        let is_chunk = |place: &&Place| matches!(place.content, Content::Chunk(_));
        self.places.iter().filter(is_chunk).count() as u64
    }

    /// The slot that holds `address`; `None` where the heap has given out nothing there.
    #[inline]
    pub(super) fn find(&mut self, address: u64) -> Option<Slot> {
        let start = chunk_of(address);
        if self.last.0 != start {
            self.last = (start, self.lookup(start)?);
        }
        let place = self.last.1;
        match &self.places[place as usize].content {
            Content::Huge { first, bytes, .. } => {
                let start = self.places[*first as usize].start;
                (address.wrapping_sub(start) < *bytes).then_some(Slot {
                    start,
                    bytes: *bytes,
                    place: *first,
                })
            }
            Content::Chunk(chunk) => {
                let offset = address - start;
                let run = chunk.pages[(offset / PAGE_SIZE) as usize];
                let first = u64::from(run.first) * PAGE_SIZE;
                let (start, bytes) = match run.slot {
                    // The first page is the chunk's own.
                    0 if run.pages == 0 || first == 0 => return None,
                    0 => (start + first, u64::from(run.pages) * PAGE_SIZE),
                    slot => {
                        let slot = u32::from(slot);
                        let within = offset - first;
                        let number = ((within * u64::from(run.inverse)) >> 32) as u32;
                        if (number + 1) * slot > u32::from(run.pages) * PAGE_SIZE as u32 {
                            return None;
                        }
                        (start + first + u64::from(number * slot), u64::from(slot))
                    }
                };
                Some(Slot {
                    start,
                    bytes,
                    place,
                })
            }
        }
    }

    /// Marks a slot; tells whether it was not marked so before.
    #[inline]
    pub(super) fn mark(&mut self, slot: Slot, mark: Mark) -> bool {
        let place = &mut self.places[slot.place as usize];
        match &mut place.content {
            Content::Huge { marks, .. } => !std::mem::replace(&mut marks[mark as usize], true),
            Content::Chunk(chunk) => {
                let bit = ((slot.start - place.start) / BYTES_A_BIT) as usize;
                let word = &mut chunk.marks[mark as usize][bit / 64];
                let is_new = *word >> (bit % 64) & 1 == 0;
                *word |= 1 << (bit % 64);
                is_new
            }
        }
    }

    /// Whether a slot is marked.
    #[inline]
    pub(super) fn is_marked(&self, slot: Slot, mark: Mark) -> bool {
        let place = &self.places[slot.place as usize];
        match &place.content {
            Content::Huge { marks, .. } => marks[mark as usize],
            Content::Chunk(chunk) => {
                let bit = ((slot.start - place.start) / BYTES_A_BIT) as usize;
                chunk.marks[mark as usize][bit / 64] >> (bit % 64) & 1 == 1
            }
        }
    }

    fn add(&mut self, place: Place) {
        let mut position = self.position(place.start);
        while self.index[position] != EMPTY {
            position = (position + 1) % self.index.len();
        }
        self.index[position] = (place.start, self.places.len() as u32);
        self.places.push(place);
    }

    fn lookup(&self, start: u64) -> Option<u32> {
        let mut position = self.position(start);
        // It is never more than half full.
        loop {
            match self.index[position] {
                EMPTY => return None,
                (found, place) if found == start => return Some(place),
                _ => position = (position + 1) % self.index.len(),
            }
        }
    }

    fn position(&self, start: u64) -> usize {
        let hash = (start / CHUNK_SIZE).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        hash as usize % self.index.len()
    }
}

/// The runs of one chunk, by page.
fn pages(heap: &HeapReader<'_>, start: u64) -> Result<[Run; PAGES_A_CHUNK as usize], MemoryError> {
    let layout = heap.heap_layout;
    let length = layout.map + PAGES_A_CHUNK * 4;
    let header = Bytes::read(heap.memory, at(start, 0), length as usize)?;
    let mut runs = [Run::default(); PAGES_A_CHUNK as usize];
    let mut page = 0;
    while page < PAGES_A_CHUNK {
        let is_used = header.u8(layout.free_map + page / 8)? >> (page % 8) & 1 == 1;
        let entry = header.u32(layout.map + page * 4)?;
        let (pages, slot) = match entry & (LARGE_RUN | SMALL_RUN) {
            LARGE_RUN if is_used => (entry & 0x3ff, 0),
            SMALL_RUN if is_used => match BINS.get((entry & 0x1f) as usize) {
                Some((slot, pages)) => (*pages, *slot),
                None => (0, 0),
            },
            _ => (0, 0),
        };
        let pages = pages.min(PAGES_A_CHUNK - page);
        let inverse = (1_u64 << 32).div_ceil(u64::from(slot.max(2))) as u32;
        for of_run in page..page + pages {
            runs[of_run as usize] = Run {
                first: page as u16,
                pages: pages as u16,
                slot: slot as u16,
                inverse,
            };
        }
        page += pages.max(1);
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::super::heap::HeapLayout;
    use super::super::testing::{CHUNK, HEAP, Image};
    use super::*;

    /// The image's heap with a huge block of 3 MiB and another at the end of the address space.
    fn slots() -> Result<Slots, ZendError> {
        let mut image = Image::new("8.2.36");
        let (first, second) = (image.memory.room(24), image.memory.room(24));
        for (node, address, next) in [
            (first, 0x5000_0000, second),
            (second, 0_u64.wrapping_sub(2 << 20), 0),
        ] {
            image.memory.put_u64(node, address);
            image.memory.put_u64(node + 8, 3 << 20);
            image.memory.put_u64(node + 16, next);
        }
        image.memory.put_u64(HEAP + 0x140, first);
        let heap_layout = HeapLayout::scan(&image.memory, HEAP, &image.layout, &image.decoded)?;
        let heap_layout = heap_layout.expect("a whole image");
        Slots::new(HeapReader {
            memory: &image.memory,
            layout: &image.layout,
            heap_layout: &heap_layout,
            heap: HEAP,
        })
    }

    #[test]
    fn a_slot_is_as_large_as_its_run_says() -> Result<(), ZendError> {
        let mut slots = slots()?;
        let run = CHUNK + 4 * PAGE_SIZE;
        for (address, found) in [
            (
                CHUNK + PAGE_SIZE + 5000,
                Some((CHUNK + PAGE_SIZE, 3 * PAGE_SIZE)),
            ),
            // Bin 22, in the run's first and second page.
            (run + 896, Some((run + 896, 896))),
            (run + 5 * 896 + 8, Some((run + 5 * 896, 896))),
            // Nine slots fit two pages; what is left over is no slot.
            (run + 9 * 896, None),
            (CHUNK, None),
            (CHUNK + 100 * PAGE_SIZE, None),
            (0x5000_0000, Some((0x5000_0000, 3 << 20))),
            (0x5000_0000 + (5 << 19), Some((0x5000_0000, 3 << 20))),
            (0x5000_0000 + (3 << 20), None),
            (0x6000_0010, None),
            (0x1000_0000, None),
            (u64::MAX, Some((0_u64.wrapping_sub(2 << 20), 3 << 20))),
        ] {
            let slot = slots.find(address).map(|slot| (slot.start, slot.bytes));
            assert_eq!(slot, found, "{address:#x}");
        }
        assert_eq!(slots.heap_bytes(), 6 * PAGE_SIZE + (6 << 20));
        assert_eq!(slots.chunks(), 1);
        Ok(())
    }

    #[test]
    fn every_address_of_a_run_is_divided_rightly() {
        for (slot, pages) in BINS {
            let inverse = (1_u64 << 32).div_ceil(u64::from(slot));
            for within in 0..u64::from(pages) * PAGE_SIZE {
                assert_eq!((within * inverse) >> 32, within / u64::from(slot));
            }
        }
    }

    #[test]
    fn each_slot_is_marked_on_its_own() -> Result<(), ZendError> {
        let mut slots = slots()?;
        let run = CHUNK + 4 * PAGE_SIZE;
        for address in [run, run + 896, CHUNK + PAGE_SIZE, 0x5000_0000] {
            let slot = slots.find(address).expect("a slot");
            assert!(slots.mark(slot, Mark::Seen), "{address:#x}");
            let slot = slots.find(address + 800).expect("the same");
            assert!(!slots.mark(slot, Mark::Seen), "{address:#x}");
            assert!(!slots.is_marked(slot, Mark::Shared));
            assert!(slots.mark(slot, Mark::Shared));
            assert!(slots.is_marked(slot, Mark::Shared));
        }
        Ok(())
    }
}
