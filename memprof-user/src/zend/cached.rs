//! The memory of a process that stands still, fetched page by page and kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::memory::{Memory, MemoryError};

/// Smallest page size of the machines known: a page of it is mapped wholly or not at all.
const PAGE: usize = 4096;
/// Most pages kept, 64 MiB; then all are given up, and fetched again where they are wanted.
const MOST_PAGES: usize = (64 << 20) / PAGE;

/// Another source of memory, each page of which is fetched once.
///
/// What was fetched is not fetched again, so the process has to stand still meanwhile, or what is
/// read may be of several moments.
pub struct CachedMemory<M> {
    source: M,
    deadline: Option<Instant>,
    pages: Mutex<HashMap<u64, Box<[u8; PAGE]>>>,
}

impl<M: Memory> CachedMemory<M> {
    /// A cache of `source` that answers with [`MemoryError::TimeUp`] from `deadline` on.
    pub fn new(source: M, deadline: Option<Instant>) -> CachedMemory<M> {
        CachedMemory {
            source,
            deadline,
            pages: Mutex::default(),
        }
    }
}

impl<M: Memory> Memory for CachedMemory<M> {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), MemoryError> {
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Err(MemoryError::TimeUp);
        }
        // A panic elsewhere leaves no page half fetched.
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let mut filled = 0;
        while filled < buffer.len() {
            let from = address.wrapping_add(filled as u64);
            let within = (from % PAGE as u64) as usize;
            let start = from - within as u64;
            if !pages.contains_key(&start) {
                let mut page = Box::new([0; PAGE]);
                self.source.read(start, page.as_mut_slice())?;
                if pages.len() >= MOST_PAGES {
                    pages.clear();
                }
                pages.insert(start, page);
            }
            let wanted = &mut buffer[filled..];
            if let Some(page) = pages.get(&start) {
                let length = wanted.len().min(PAGE - within);
                wanted[..length].copy_from_slice(&page[within..within + length]);
                filled += length;
            }
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
        assert_eq!(cached.u32(0x1000), Err(MemoryError::TimeUp));
    }
}
