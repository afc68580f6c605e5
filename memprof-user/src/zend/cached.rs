//! The memory of a process that stands still, fetched in large pieces and kept.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::memory::{Memory, MemoryError};

/// Smallest page size of the machines known: a page of it is mapped wholly or not at all.
const PAGE: usize = 4096;
/// Bytes fetched by one read, and their alignment.
const BLOCK: usize = 64 << 10;
/// Pages in a block; one bit of [`Tag::mapped`] each.
const PAGES: usize = BLOCK / PAGE;
/// Places that a block can be kept in; when all are taken, the one that was filled first gives way.
const WAYS: usize = 4;

/// Most bytes that [`CachedMemory`] keeps.
const CACHED_BYTES: usize = 8 << 20;
/// How many reads go by between two looks at the clock.
const READS_A_LOOK: u32 = 64;

/// Blocks of another source of memory, kept as a processor's cache keeps its lines.
///
/// What was fetched is not fetched again while it is kept, so the process has to stand still
/// meanwhile, or what is read may be of several moments.
pub(super) struct Blocks<M> {
    source: M,
    deadline: Option<Instant>,
    tags: Vec<Tag>,
    /// Which way of each set is filled next.
    oldest: Vec<u8>,
    data: Vec<u8>,
    /// The block that was read last, and its place: the next read is most often of the same one.
    last: (u64, usize),
    fetched: Fetched,
}

/// What was fetched from the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fetched {
    /// How many bytes.
    pub(super) bytes: u64,
    /// How long it took.
    pub(super) time: Duration,
}

/// Which block is kept in a place.
#[derive(Clone, Copy, Default)]
struct Tag {
    /// Its address divided by its size, plus 1; 0 for none.
    block: u64,
    /// Which of its pages could be read.
    mapped: u16,
}

impl<M: Memory> Blocks<M> {
    /// Keeps at most `bytes` of `source`; answers with [`MemoryError::TimeUp`] once `deadline` is past.
    pub(super) fn new(source: M, deadline: Option<Instant>, bytes: usize) -> Blocks<M> {
        let sets = (bytes / BLOCK / WAYS).max(1);
        Blocks {
            source,
            deadline,
            tags: vec![Tag::default(); sets * WAYS],
            oldest: vec![0; sets],
            // Zero pages of the kernel's until a block comes in.
            data: vec![0; sets * WAYS * BLOCK],
            last: (0, 0),
            fetched: Fetched::default(),
        }
    }

    /// What was fetched so far.
    pub(super) fn fetched(&self) -> Fetched {
        self.fetched
    }

    /// Allows more time, or less.
    pub(super) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Whether there is time left.
    pub(super) fn in_time(&self) -> Result<(), MemoryError> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(MemoryError::TimeUp),
            _ => Ok(()),
        }
    }

    /// Fills `buffer` from `address` on, wholly or not at all.
    pub(super) fn read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), MemoryError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let from = address.wrapping_add(filled as u64);
            let length = (buffer.len() - filled).min(BLOCK - within(from));
            buffer[filled..filled + length].copy_from_slice(self.part(from, length)?);
            filled += length;
        }
        Ok(())
    }

    /// The 64-bit word at `address`.
    #[inline]
    pub(super) fn u64(&mut self, address: u64) -> Result<u64, MemoryError> {
        self.word(address).map(u64::from_le_bytes)
    }

    /// The 32-bit word at `address`.
    #[inline]
    pub(super) fn u32(&mut self, address: u64) -> Result<u32, MemoryError> {
        self.word(address).map(u32::from_le_bytes)
    }

    /// The `N` bytes at `address`.
    #[inline]
    pub(super) fn word<const N: usize>(&mut self, address: u64) -> Result<[u8; N], MemoryError> {
        let mut bytes = [0; N];
        if within(address) + N <= BLOCK {
            bytes.copy_from_slice(self.part(address, N)?);
        } else {
            self.read(address, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// `length` bytes that lie in one block.
    #[inline]
    fn part(&mut self, address: u64, length: usize) -> Result<&[u8], MemoryError> {
        let block = address / BLOCK as u64 + 1;
        if self.last.0 != block {
            self.last = (block, self.place(block)?);
        }
        let place = self.last.1;
        let offset = within(address);
        let mapped = self.tags[place].mapped;
        if mapped != u16::MAX {
            let pages = offset / PAGE..=(offset + length.max(1) - 1) / PAGE;
            if pages.into_iter().any(|page| mapped >> page & 1 == 0) {
                return Err(MemoryError::Unreadable {
                    address,
                    length,
                    errno: Errno::EFAULT,
                });
            }
        }
        let start = place * BLOCK + offset;
        Ok(&self.data[start..start + length])
    }

    /// Where a block is kept; it is fetched if it was not there.
    fn place(&mut self, block: u64) -> Result<usize, MemoryError> {
        // Fibonacci hashing: neighbours go to sets far from each other.
        let hash = block.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let set = hash as usize % self.oldest.len();
        let ways = set * WAYS..(set + 1) * WAYS;
        if let Some(place) = ways.clone().find(|place| self.tags[*place].block == block) {
            return Ok(place);
        }
        self.in_time()?;
        let place = ways.start + usize::from(self.oldest[set]) % WAYS;
        self.oldest[set] = self.oldest[set].wrapping_add(1);
        self.tags[place] = Tag::default();
        self.last = (0, 0);
        self.tags[place] = Tag {
            block,
            mapped: self.fetch(block, place)?,
        };
        Ok(place)
    }

    /// Fetches a block; tells which of its pages are mapped.
    fn fetch(&mut self, block: u64, place: usize) -> Result<u16, MemoryError> {
        let begun = Instant::now();
        let address = (block - 1) * BLOCK as u64;
        let data = &mut self.data[place * BLOCK..(place + 1) * BLOCK];
        let mapped = match self.source.read(address, data) {
            Ok(()) => u16::MAX,
            Err(whole) => {
                let mut mapped = 0;
                for page in 0..PAGES {
                    let from = address + (page * PAGE) as u64;
                    let page_data = &mut data[page * PAGE..(page + 1) * PAGE];
                    let is_read = self.source.read(from, page_data).is_ok();
                    mapped |= u16::from(is_read) << page;
                }
                if mapped == 0 {
                    return Err(whole);
                }
                mapped
            }
        };
        self.fetched.bytes += u64::from(mapped.count_ones()) * PAGE as u64;
        self.fetched.time += begun.elapsed();
        Ok(mapped)
    }
}

/// Where an address lies in its block.
#[inline]
fn within(address: u64) -> usize {
    address as usize % BLOCK
}

/// Another source of memory through a cache of 8 MiB.
pub struct CachedMemory<M> {
    cached: Mutex<Cached<M>>,
}

struct Cached<M> {
    blocks: Blocks<M>,
    reads: u32,
}

impl<M: Memory> CachedMemory<M> {
    /// A cache of `source` that answers with [`MemoryError::TimeUp`] once `deadline` is past.
    pub fn new(source: M, deadline: Option<Instant>) -> CachedMemory<M> {
        let blocks = Blocks::new(source, deadline, CACHED_BYTES);
        CachedMemory {
            cached: Mutex::new(Cached { blocks, reads: 0 }),
        }
    }
}

impl<M: Memory> Memory for CachedMemory<M> {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), MemoryError> {
        // A panic elsewhere leaves no block half fetched.
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.reads = cached.reads.wrapping_add(1);
        if cached.reads.is_multiple_of(READS_A_LOOK) {
            cached.blocks.in_time()?;
        }
        cached.blocks.read(address, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::FakeMemory;
    use super::*;

    #[test]
    fn a_read_across_pages_is_whole_or_fails() {
        let mut memory = FakeMemory::default();
        memory.put(0x1ffe, b"abcd");
        memory.put(0x1_fffe, b"efgh");
        let cached = CachedMemory::new(memory, None);
        let mut text = [0; 4];
        assert_eq!(cached.read(0x1ffe, &mut text), Ok(()));
        assert_eq!(&text, b"abcd");
        assert_eq!(cached.read(0x1_fffe, &mut text), Ok(()));
        assert_eq!(&text, b"efgh");
        assert!(cached.read(0x2ffe, &mut text).is_err());
        assert!(cached.read(u64::MAX - 1, &mut text).is_err());
    }

    #[test]
    fn more_is_read_than_is_kept() {
        let mut memory = FakeMemory::default();
        let addresses = (0..40_u64).map(|block| block * BLOCK as u64 + 8 * block);
        for address in addresses.clone() {
            memory.put_u64(address, address);
        }
        let mut blocks = Blocks::new(memory, None, 8 * BLOCK);
        for _ in 0..2 {
            for address in addresses.clone() {
                assert_eq!(blocks.u64(address), Ok(address));
            }
        }
        // One page of each block is mapped; each block was fetched twice.
        assert_eq!(blocks.fetched().bytes, 2 * 40 * PAGE as u64);
    }

    #[test]
    fn nothing_is_read_past_the_deadline() {
        let mut memory = FakeMemory::default();
        memory.put(0x1000, b"abcd");
        let soon = Instant::now() + Duration::from_millis(20);
        let cached = CachedMemory::new(memory, Some(soon));
        assert!(cached.u32(0x1000).is_ok());
        std::thread::sleep(Duration::from_millis(30));
        // Not even what is there already, for long.
        let late = (0..READS_A_LOOK).find_map(|_| cached.u32(0x1000).err());
        assert_eq!(late, Some(MemoryError::TimeUp));
        assert_eq!(cached.u32(0x5_0000), Err(MemoryError::TimeUp));
    }
}
