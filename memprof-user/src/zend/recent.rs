//! What was looked up a moment ago, by address.

/// How many are kept; a power of two.
const KEPT: usize = 16;

/// A few recent answers in front of a slower map.
pub(super) struct Recent<T> {
    entries: [Option<(u64, T)>; KEPT],
}

impl<T: Copy> Default for Recent<T> {
    fn default() -> Recent<T> {
        Recent {
            entries: [None; KEPT],
        }
    }
}

impl<T: Copy> Recent<T> {
    /// What is kept for an address.
    #[inline]
    pub(super) fn get(&self, address: u64) -> Option<T> {
        match self.entries[place(address)] {
            Some((kept, value)) if kept == address => Some(value),
            _ => None,
        }
    }

    /// Keeps an answer, in the place of an older one.
    pub(super) fn keep(&mut self, address: u64, value: T) {
        self.entries[place(address)] = Some((address, value));
    }
}

/// Structs lie some hundred bytes apart.
#[inline]
fn place(address: u64) -> usize {
    (address >> 4 ^ address >> 9) as usize % KEPT
}
