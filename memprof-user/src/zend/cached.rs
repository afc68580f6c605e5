//! The memory of a process that stands still, fetched page by page and kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::memory::{Memory, MemoryError};

/// Smallest page size of the machines known: a page of it is mapped wholly or not at all.
const PAGE: usize = 4096;
/// Most pages kept, 64 MiB; then all are given up, and fetched again where they are wanted.
const MOST_PAGES: usize = (64 << 20) / PAGE;

/// How many reads go by between two looks at the clock.
const READS_A_LOOK: u32 = 64;

/// Another source of memory, each page of which is fetched once.
///
/// What was fetched is not fetched again, so the process has to stand still meanwhile, or what is
/// read may be of several moments.
pub struct CachedMemory<M> {
    source: M,
    deadline: Option<Instant>,
    pages: Mutex<Pages>,
}

/// The pages fetched so far.
#[derive(Default)]
struct Pages {
    pages: Vec<Box<[u8; PAGE]>>,
    /// Where the page with this address is in `pages`.
    index: HashMap<u64, usize>,
    /// The same for the page that was read last: the next read is most often of the same one.
    last: Option<(u64, usize)>,
    reads: u32,
}

impl<M: Memory> CachedMemory<M> {
    /// A cache of `source` that answers with [`MemoryError::TimeUp`] once `deadline` is past.
    pub fn new(source: M, deadline: Option<Instant>) -> CachedMemory<M> {
        CachedMemory {
            source,
            deadline,
            pages: Mutex::default(),
        }
    }

    /// The page at `start`, fetched if it was not.
    fn page<'a>(&self, pages: &'a mut Pages, start: u64) -> Result<&'a [u8; PAGE], MemoryError> {
        let found = match pages.last {
            Some((last, place)) if last == start => Some(place),
            _ => pages.index.get(&start).copied(),
        };
        let place = match found {
            Some(place) => place,
            None => {
                self.in_time()?;
                let mut page = Box::new([0; PAGE]);
                self.source.read(start, page.as_mut_slice())?;
                if pages.pages.len() >= MOST_PAGES {
                    pages.pages.clear();
                    pages.index.clear();
                }
                pages.pages.push(page);
                pages.index.insert(start, pages.pages.len() - 1);
                pages.pages.len() - 1
            }
        };
        pages.last = Some((start, place));
        Ok(&pages.pages[place])
    }

    fn in_time(&self) -> Result<(), MemoryError> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(MemoryError::TimeUp),
            _ => Ok(()),
        }
    }
}

impl<M: Memory> Memory for CachedMemory<M> {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), MemoryError> {
        // A panic elsewhere leaves no page half fetched.
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.reads = pages.reads.wrapping_add(1);
        if pages.reads.is_multiple_of(READS_A_LOOK) {
            self.in_time()?;
        }
        let mut filled = 0;
        while filled < buffer.len() {
            let from = address.wrapping_add(filled as u64);
            let within = (from % PAGE as u64) as usize;
            let page = self.page(&mut pages, from - within as u64)?;
            let length = (buffer.len() - filled).min(PAGE - within);
            buffer[filled..filled + length].copy_from_slice(&page[within..within + length]);
            filled += length;
        }
        Ok(())
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
        let cached = CachedMemory::new(memory, None);
        let mut text = [0; 4];
        assert_eq!(cached.read(0x1ffe, &mut text), Ok(()));
        assert_eq!(&text, b"abcd");
        assert!(cached.read(0x2ffe, &mut text).is_err());
        assert!(cached.read(u64::MAX - 1, &mut text).is_err());
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
        assert_eq!(cached.u32(0x5000), Err(MemoryError::TimeUp));
    }
}
