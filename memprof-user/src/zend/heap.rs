//! The Zend heap of a live process: its counters, its huge blocks, its pages.

use std::thread;
use std::time::Duration;

use crate::binary::Decoded;

use super::ZendError;
use super::layout::Layout;
use super::memory::{Bytes, Memory};

/// `ZEND_MM_CHUNK_SIZE`: a chunk and its alignment, in bytes (7.4 to 8.6).
pub const CHUNK_SIZE: u64 = 2 << 20;
/// `ZEND_MM_PAGE_SIZE`, in bytes (7.4 to 8.6).
pub const PAGE_SIZE: u64 = 4096;
/// `ZEND_MM_PAGES`: pages in a chunk, the first of which holds the chunk's own header.
pub const PAGES_A_CHUNK: u32 = 512;

/// Most chunks followed: 2 TiB of heap.
const MOST_CHUNKS: u32 = 1 << 20;
/// Most huge blocks followed; each takes at least 2 MiB, so as many as chunks.
const MOST_HUGE_BLOCKS: usize = 1 << 20;
/// How often a walk that was torn by the running process begins again.
const TRIES: usize = 20;
/// How long the process gets to finish what it was doing.
const PAUSE: Duration = Duration::from_micros(500);
/// Bytes of the free map: one bit a page.
const FREE_MAP: u32 = 64;

/// Where the members of `zend_mm_heap` and `zend_mm_chunk` are, in bytes.
///
/// The sums come from the binary's code, the lists from the heap's own contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapLayout {
    /// `zend_mm_heap.size`
    pub size: u32,
    /// `zend_mm_heap.peak`
    pub peak: u32,
    /// `zend_mm_heap.real_size`
    pub real_size: u32,
    /// `zend_mm_heap.real_peak`
    pub real_peak: u32,
    /// `zend_mm_heap.limit`
    pub limit: u32,
    /// `zend_mm_heap.huge_list`
    pub huge_list: u32,
    /// `zend_mm_heap.main_chunk`
    pub main_chunk: u32,
    /// `zend_mm_heap.chunks_count`, an `int`.
    pub chunks_count: u32,
    /// `zend_mm_heap.peak_chunks_count`, an `int`.
    pub peak_chunks_count: u32,
    /// `zend_mm_heap.cached_chunks_count`, an `int`.
    pub cached_chunks_count: u32,
    /// `zend_mm_chunk.free_map`, one bit a page.
    pub free_map: u32,
    /// `zend_mm_chunk.map`, an `uint32_t` a page.
    pub map: u32,
}

impl HeapLayout {
    /// Derives the layout, given where the heap's word with the main chunk's address is.
    ///
    /// Around `main_chunk` stand `huge_list` before it, `cached_chunks` and three counts behind it
    /// (7.4 to 8.6).
    fn around(main_chunk: u32, decoded: &Decoded) -> HeapLayout {
        HeapLayout {
            size: decoded.heap_size,
            peak: decoded.heap_peak,
            real_size: decoded.heap_real_size,
            real_peak: decoded.heap_real_peak,
            limit: decoded.heap_limit,
            huge_list: main_chunk - 8,
            main_chunk,
            chunks_count: main_chunk + 16,
            peak_chunks_count: main_chunk + 20,
            cached_chunks_count: main_chunk + 24,
            free_map: decoded.chunk_map.saturating_sub(FREE_MAP),
            map: decoded.chunk_map,
        }
    }

    /// Finds `main_chunk`: the first word behind `limit` that holds the main chunk's address.
    ///
    /// `None` when no word of the heap does.
    pub(super) fn scan(
        memory: &dyn Memory,
        heap: u64,
        layout: &Layout,
        decoded: &Decoded,
    ) -> Result<Option<HeapLayout>, ZendError> {
        // All of the chunk's header is in its first page: the heap, the free map, the page map.
        let end = decoded
            .chunk_map
            .saturating_sub(FREE_MAP + layout.chunk.heap_slot);
        let sums = [
            decoded.heap_size,
            decoded.heap_peak,
            decoded.heap_real_size,
            decoded.heap_real_peak,
            decoded.heap_limit,
        ];
        let fits = u64::from(decoded.chunk_map) + u64::from(PAGES_A_CHUNK) * 4 <= PAGE_SIZE
            && sums.iter().all(|offset| *offset < end);
        if !fits {
            return Ok(None);
        }
        // The counts behind main_chunk belong to the heap too.
        let words = decoded.heap_limit + 16..=end.saturating_sub(32);
        let bytes = Bytes::read(memory, heap, end as usize)?;
        for offset in words.step_by(8) {
            if bytes.u64(offset)? == chunk_of(heap) {
                return Ok(Some(HeapLayout::around(offset, decoded)));
            }
        }
        Ok(None)
    }

    /// Bytes of the heap to read to have all of its members.
    fn heap_bytes(&self) -> usize {
        self.limit.max(self.cached_chunks_count + 4) as usize + 8
    }
}

/// The chunk that an address lies in.
pub(super) fn chunk_of(address: u64) -> u64 {
    address & !(CHUNK_SIZE - 1)
}

/// The heap's own sums, in bytes, and its counts of chunks; read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapCounters {
    /// What `memory_get_usage()` gives.
    pub size: u64,
    /// What `memory_get_peak_usage()` gives.
    pub peak: u64,
    /// What `memory_get_usage(true)` gives: chunks, cached ones included, and huge blocks.
    ///
    /// PHP 7.4 leaves out the chunks that a request takes from the cache that earlier ones left, so
    /// there `size` can be many times larger (7.4.33: size 79284888, real_size 52432896).
    pub real_size: u64,
    /// What `memory_get_peak_usage(true)` gives.
    pub real_peak: u64,
    /// `memory_limit` as the heap enforces it; `i64::MAX` or more where there is none.
    pub limit: u64,
    /// Chunks in use.
    pub chunks: u32,
    /// Chunks kept for later: part of `real_size`, but not of what the request needs.
    pub cached_chunks: u32,
    /// The most chunks in use at a time.
    pub peak_chunks: u32,
}

/// One huge block: an allocation of more than 2 MiB less one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HugeBlock {
    /// Its address.
    pub address: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// The heap as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heap {
    /// Sums and counts.
    pub counters: HeapCounters,
    /// The huge blocks, newest first.
    pub huge: Vec<HugeBlock>,
    /// Pages in use in all chunks, the page with each chunk's header included.
    pub used_pages: u64,
}

/// Reads one heap.
#[derive(Clone, Copy)]
pub(super) struct HeapReader<'a> {
    pub(super) memory: &'a dyn Memory,
    pub(super) layout: &'a Layout,
    pub(super) heap_layout: &'a HeapLayout,
    /// The `zend_mm_heap`.
    pub(super) heap: u64,
}

impl HeapReader<'_> {
    /// Reads sums and counts in one read.
    pub(super) fn counters(&self) -> Result<HeapCounters, ZendError> {
        self.counters_and_huge_list().map(|(counters, _)| counters)
    }

    fn counters_and_huge_list(&self) -> Result<(HeapCounters, u64), ZendError> {
        let layout = self.heap_layout;
        let bytes = Bytes::read(self.memory, self.heap, layout.heap_bytes())?;
        let counters = HeapCounters {
            size: bytes.u64(layout.size)?,
            peak: bytes.u64(layout.peak)?,
            real_size: bytes.u64(layout.real_size)?,
            real_peak: bytes.u64(layout.real_peak)?,
            limit: bytes.u64(layout.limit)?,
            chunks: bytes.u32(layout.chunks_count)?,
            cached_chunks: bytes.u32(layout.cached_chunks_count)?,
            peak_chunks: bytes.u32(layout.peak_chunks_count)?,
        };
        Ok((counters, bytes.u64(layout.huge_list)?))
    }

    /// Reads the whole heap; begins again when the running process changed a list meanwhile.
    pub(super) fn heap(&self) -> Result<Heap, ZendError> {
        retried(|| {
            let (counters, huge_list) = self.counters_and_huge_list()?;
            Ok(Heap {
                counters,
                huge: self.huge_blocks(huge_list)?,
                used_pages: self.used_pages(counters.chunks)?,
            })
        })
    }

    /// The huge blocks, newest first.
    pub(super) fn huge(&self) -> Result<Vec<HugeBlock>, ZendError> {
        let (_, huge_list) = self.counters_and_huge_list()?;
        self.huge_blocks(huge_list)
    }

    fn huge_blocks(&self, first: u64) -> Result<Vec<HugeBlock>, ZendError> {
        let layout = self.layout.huge;
        let mut blocks = Vec::new();
        let mut node = first;
        while node != 0 {
            if blocks.len() >= MOST_HUGE_BLOCKS {
                return Err(ZendError::Inconsistent {
                    what: "the heap's list of huge blocks does not end",
                    address: self.heap,
                });
            }
            let bytes = Bytes::read(self.memory, node, layout.node as usize)?;
            blocks.push(HugeBlock {
                address: bytes.u64(layout.ptr)?,
                size: bytes.u64(layout.size)?,
            });
            node = bytes.u64(layout.next)?;
        }
        Ok(blocks)
    }

    /// The addresses of the chunks in use, the main chunk first.
    pub(super) fn chunks(&self) -> Result<Vec<u64>, ZendError> {
        let mut addresses = Vec::new();
        let counted = self.counters()?.chunks;
        self.for_each_chunk(counted, &mut |chunk, _| addresses.push(chunk))?;
        Ok(addresses)
    }

    fn used_pages(&self, chunks: u32) -> Result<u64, ZendError> {
        let mut used = 0;
        self.for_each_chunk(chunks, &mut |_, pages| used += u64::from(pages))?;
        Ok(used)
    }

    /// Walks the ring of chunks, which must have as many as the heap counts; gives the address of each,
    /// and how many of its pages are in use.
    fn for_each_chunk(
        &self,
        chunks: u32,
        visit: &mut dyn FnMut(u64, u32),
    ) -> Result<(), ZendError> {
        let layout = self.layout.chunk;
        let main_chunk = chunk_of(self.heap);
        let inconsistent = |what| ZendError::Inconsistent {
            what,
            address: self.heap,
        };
        if chunks > MOST_CHUNKS {
            return Err(inconsistent("the heap counts more than 2^20 chunks"));
        }
        let mut chunk = main_chunk;
        for passed in 0..chunks {
            if passed > 0 && chunk == main_chunk {
                return Err(inconsistent("the ring of chunks is shorter than counted"));
            }
            let header = Bytes::read(self.memory, chunk, layout.heap_slot as usize)?;
            let free = header.u32(layout.free_pages)?;
            if header.u64(layout.heap)? != self.heap || free >= PAGES_A_CHUNK {
                return Err(inconsistent("a chunk of the heap is not one"));
            }
            visit(chunk, PAGES_A_CHUNK - free);
            chunk = header.u64(layout.next)?;
        }
        if chunk == main_chunk {
            Ok(())
        } else {
            Err(inconsistent("the ring of chunks is longer than counted"))
        }
    }

    /// Reads the main chunk's page map and counts the pages that it accounts for.
    pub(super) fn page_map(&self) -> Result<PageMap, ZendError> {
        let length = self.heap_layout.map + PAGES_A_CHUNK * 4;
        let chunk = Bytes::read(self.memory, chunk_of(self.heap), length as usize)?;
        let free_pages = chunk.u32(self.layout.chunk.free_pages)?;
        let mut used = [false; PAGES_A_CHUNK as usize];
        let mut entries = [0; PAGES_A_CHUNK as usize];
        for page in 0..PAGES_A_CHUNK {
            let bits = chunk.u8(self.heap_layout.free_map + page / 8)?;
            used[page as usize] = bits >> (page % 8) & 1 == 1;
            entries[page as usize] = chunk.u32(self.heap_layout.map + page * 4)?;
        }
        Ok(PageMap {
            free: free_pages,
            used: used.iter().filter(|used| **used).count() as u32,
            in_runs: pages_in_runs(&used, &entries),
        })
    }
}

/// What a chunk's page map says, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageMap {
    /// `zend_mm_chunk.free_pages`
    pub(super) free: u32,
    /// Bits set in the free map.
    pub(super) used: u32,
    /// Pages that belong to a run which the map describes whole.
    pub(super) in_runs: u32,
}

impl PageMap {
    /// Whether every page is accounted for.
    pub(super) fn is_whole(&self) -> bool {
        self.free.checked_add(self.used) == Some(PAGES_A_CHUNK) && self.in_runs == self.used
    }
}

/// `ZEND_MM_IS_LRUN`: a large run, its length in the low 10 bits.
pub(super) const LARGE_RUN: u32 = 1 << 30;
/// `ZEND_MM_IS_SRUN`: a run of small slots, its bin in the low 5 bits. With [`LARGE_RUN`] too: one
/// of the run's further pages, its distance from the first in bits 16 to 24.
pub(super) const SMALL_RUN: u32 = 1 << 31;

/// Counts the used pages that belong to a run whose every page is used and described as its part.
fn pages_in_runs(used: &[bool], entries: &[u32]) -> u32 {
    let mut page = 0;
    let mut counted = 0;
    while page < entries.len() {
        let entry = entries[page];
        let length = match (used[page], entry & (LARGE_RUN | SMALL_RUN)) {
            (true, LARGE_RUN) => (entry & 0x3ff) as usize,
            (true, SMALL_RUN) => {
                let bin = entry & 0x1f;
                let further = |distance: usize| {
                    LARGE_RUN | SMALL_RUN | bin | u32::try_from(distance).unwrap_or(0) << 16
                };
                1 + (1..entries.len() - page)
                    .take_while(|distance| {
                        let next = page + distance;
                        used[next] && entries[next] & 0xc1ff_001f == further(*distance)
                    })
                    .count()
            }
            _ => 0,
        };
        let is_run = length > 0 && used[page..].len() >= length;
        if is_run && used[page..page + length].iter().all(|used| *used) {
            counted += length as u32;
            page += length;
        } else {
            page += 1;
        }
    }
    counted
}

/// Tries again what a running process can tear.
///
/// It changes its lists in nanoseconds, but it can be preempted or map memory meanwhile: so there
/// is a pause between tries (without one, 3 of 60 attaches to a busy worker on a full machine failed).
pub(super) fn retried<T, E>(mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let mut result = attempt();
    for _ in 1..TRIES {
        if result.is_ok() {
            break;
        }
        thread::sleep(PAUSE);
        result = attempt();
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::testing::{CHUNK, HEAP, Image};
    use super::*;

    #[test]
    fn a_run_counts_only_where_it_is_whole() {
        let used = [true, true, true, true, false, true];
        let large = LARGE_RUN | 3;
        let small = SMALL_RUN | 7;
        assert_eq!(
            pages_in_runs(&used, &[LARGE_RUN | 1, large, 0, 0, 0, small]),
            5
        );
        // Four pages from page 1 on would take the free one.
        assert_eq!(
            pages_in_runs(&used, &[LARGE_RUN | 1, LARGE_RUN | 4, 0, 0, 0, small]),
            2
        );
        // A run past the chunk's end, an entry that is no run at all.
        assert_eq!(
            pages_in_runs(&used, &[LARGE_RUN | 511, 0, 0, 0, 0, LARGE_RUN | 2]),
            0
        );
        let further = |bin: u32, distance: u32| LARGE_RUN | SMALL_RUN | bin | distance << 16;
        let entries = [small, further(7, 1), further(7, 2), further(8, 3), 0, small];
        assert_eq!(pages_in_runs(&used, &entries), 4);
    }

    #[test]
    fn a_ring_of_chunks_must_have_as_many_as_are_counted() {
        let mut image = Image::new("8.2.36");
        let layout = HeapLayout::around(0x148, &image.decoded);
        let used_pages = |image: &Image, chunks| {
            HeapReader {
                memory: &image.memory,
                layout: &image.layout,
                heap_layout: &layout,
                heap: HEAP,
            }
            .used_pages(chunks)
        };
        assert_eq!(used_pages(&image, 1).ok(), Some(6));
        assert!(used_pages(&image, 2).is_err());
        let second = 0x6000_0000;
        image.memory.put(second, &[0; 0x40]);
        image.memory.put_u64(second, HEAP);
        image.memory.put_u64(second + 8, CHUNK);
        image.memory.put_u32(second + 0x18, 500);
        image.memory.put_u64(CHUNK + 8, second);
        assert_eq!(used_pages(&image, 2).ok(), Some(18));
        assert!(used_pages(&image, 1).is_err());
        image.memory.put_u64(second, HEAP + 8);
        assert!(used_pages(&image, 2).is_err(), "not this heap's chunk");
    }

    #[test]
    fn offsets_that_do_not_fit_a_chunks_header_are_refused() -> Result<(), ZendError> {
        let image = Image::new("8.2.36");
        for chunk_map in [0, 0x60, 0x900, u32::MAX] {
            let decoded = Decoded {
                chunk_map,
                ..image.decoded
            };
            let found = HeapLayout::scan(&image.memory, HEAP, &image.layout, &decoded)?;
            assert_eq!(found, None);
        }
        Ok(())
    }
}
