//! Page runs and huge blocks: what was taken, what is held, and what was held at the high-water mark.

use std::collections::HashMap;

use super::StackId;

/// One change of the heap. Addresses and bytes are whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeapChange {
    /// A page run or a huge block was taken.
    Taken {
        /// Where it starts.
        address: u64,
        /// Its size.
        bytes: u64,
        /// Who took it.
        stack: StackId,
    },
    /// A page run or a huge block was freed.
    Freed {
        /// Where it started.
        address: u64,
        /// Its size, where the probe tells it.
        bytes: Option<u64>,
    },
    /// It changed its size without moving.
    Resized {
        /// Where it starts.
        address: u64,
        /// Its new size.
        bytes: u64,
        /// Who resized it.
        stack: StackId,
    },
}

/// What one stack did, in bytes and in runs and blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackTotals {
    /// Bytes taken over the whole request.
    pub taken_bytes: u64,
    /// Runs and blocks taken over the whole request.
    pub taken_count: u64,
    /// Bytes held at the high-water mark.
    pub peak_bytes: u64,
    /// Runs and blocks held at the high-water mark.
    pub peak_count: u64,
    /// Bytes held now.
    pub held_bytes: u64,
    held_count: u64,
    changed_since_peak: bool,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    bytes: u64,
    stack: StackId,
}

/// The account of one request: which stack took what, and what stood when the sum was highest.
///
/// Whoever last made a block as large as it is holds it: a block that grows in place passes to the
/// stack that grew it, as it would have if growing had moved it.
#[derive(Debug, Default)]
pub struct Ledger {
    live: HashMap<u64, Block>,
    stacks: HashMap<StackId, StackTotals>,
    changed: Vec<StackId>,
    taken_bytes: u64,
    freed_bytes: u64,
    freed_unknown: u64,
    held_bytes: i64,
    peak_bytes: i64,
}

impl Ledger {
    /// Enters one change.
    pub fn enter(&mut self, change: HeapChange) {
        match change {
            HeapChange::Taken {
                address,
                bytes,
                stack,
            } => {
                // A run that was taken twice was freed in between, unseen.
                if let Some(lost) = self.live.remove(&address) {
                    self.give_back(lost, lost.bytes);
                }
                self.take(address, bytes, bytes, stack);
            }
            HeapChange::Freed { address, bytes } => match self.live.remove(&address) {
                Some(block) => self.give_back(block, block.bytes),
                None => self.give_back_unseen(bytes),
            },
            HeapChange::Resized {
                address,
                bytes,
                stack,
            } => self.resize(address, bytes, stack),
        }
    }

    fn resize(&mut self, address: u64, bytes: u64, stack: StackId) {
        let Some(block) = self.live.remove(&address) else {
            // Taken before the request: neither its old size nor its holder is known.
            self.freed_unknown += 1;
            return;
        };
        if bytes == block.bytes {
            // A huge block that had room: nobody took anything.
            self.live.insert(address, block);
        } else if bytes < block.bytes {
            self.give_back(block, block.bytes - bytes);
            let totals = self.stacks.entry(block.stack).or_default();
            totals.held_count += 1;
            self.live.insert(address, Block { bytes, ..block });
        } else {
            let grown = bytes - block.bytes;
            let totals = self.stacks.entry(block.stack).or_default();
            totals.held_bytes = totals.held_bytes.saturating_sub(block.bytes);
            totals.held_count = totals.held_count.saturating_sub(1);
            self.mark(block.stack);
            self.held_bytes -= signed(block.bytes);
            self.take(address, bytes, grown, stack);
        }
    }

    /// `bytes` are now held at `address`, of which `new` were not in use before.
    fn take(&mut self, address: u64, bytes: u64, new: u64, stack: StackId) {
        self.live.insert(address, Block { bytes, stack });
        let totals = self.stacks.entry(stack).or_default();
        totals.taken_bytes += new;
        totals.taken_count += 1;
        totals.held_bytes += bytes;
        totals.held_count += 1;
        self.mark(stack);
        self.taken_bytes += new;
        self.held_bytes += signed(bytes);
        self.peak_bytes = self.peak_bytes.max(self.held_bytes);
    }

    fn give_back(&mut self, block: Block, bytes: u64) {
        self.keep_peak();
        let totals = self.stacks.entry(block.stack).or_default();
        totals.held_bytes = totals.held_bytes.saturating_sub(bytes);
        totals.held_count = totals.held_count.saturating_sub(1);
        self.mark(block.stack);
        self.freed_bytes += bytes;
        self.held_bytes -= signed(bytes);
    }

    fn give_back_unseen(&mut self, bytes: Option<u64>) {
        self.keep_peak();
        match bytes {
            Some(bytes) => {
                self.freed_bytes += bytes;
                self.held_bytes -= signed(bytes);
            }
            None => self.freed_unknown += 1,
        }
    }

    fn mark(&mut self, stack: StackId) {
        let totals = self.stacks.entry(stack).or_default();
        if !totals.changed_since_peak {
            totals.changed_since_peak = true;
            self.changed.push(stack);
        }
    }

    /// Before the sum falls from its highest value: remembers who holds what. Only what changed
    /// since the last time is looked at, so a request costs as much as it has changes.
    fn keep_peak(&mut self) {
        if self.held_bytes < self.peak_bytes {
            return;
        }
        for stack in self.changed.drain(..) {
            if let Some(totals) = self.stacks.get_mut(&stack) {
                totals.peak_bytes = totals.held_bytes;
                totals.peak_count = totals.held_count;
                totals.changed_since_peak = false;
            }
        }
    }

    /// Closes the account: after this every stack's peak is final.
    pub fn close(&mut self) {
        self.keep_peak();
    }

    /// What each stack did. Peaks are final after [`Ledger::close`].
    pub fn stacks(&self) -> impl Iterator<Item = (StackId, &StackTotals)> {
        self.stacks.iter().map(|(&stack, totals)| (stack, totals))
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// Bytes freed so far, those taken before the request included.
    #[must_use]
    pub fn freed_bytes(&self) -> u64 {
        self.freed_bytes
    }

    /// Blocks freed or resized whose size was never seen.
    #[must_use]
    pub fn freed_unknown(&self) -> u64 {
        self.freed_unknown
    }

    /// Taken less freed, now.
    #[must_use]
    pub fn held_bytes(&self) -> i64 {
        self.held_bytes
    }

    /// Taken less freed when it was highest, at least 0.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        u64::try_from(self.peak_bytes).unwrap_or(0)
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{profile::Stacks, record::frame::Frame};

    fn two_stacks() -> (StackId, StackId) {
        let mut stacks = Stacks::default();
        let mut of = |name: &str| {
            stacks.intern([Frame {
                function: name.into(),
                file: None,
                line: Some(1),
            }])
        };
        (of("one"), of("two"))
    }

    fn peak(ledger: &Ledger, stack: StackId) -> u64 {
        ledger
            .stacks()
            .find(|&(id, _)| id == stack)
            .map_or(0, |(_, totals)| totals.peak_bytes)
    }

    fn taken(address: u64, bytes: u64, stack: StackId) -> HeapChange {
        HeapChange::Taken {
            address,
            bytes,
            stack,
        }
    }

    fn freed(address: u64) -> HeapChange {
        HeapChange::Freed {
            address,
            bytes: None,
        }
    }

    #[test]
    fn the_high_water_mark_is_who_held_what_when_the_sum_was_highest() {
        let (one, two) = two_stacks();
        let mut ledger = Ledger::default();
        ledger.enter(taken(0x1000, 100, one));
        ledger.enter(taken(0x2000, 50, two));
        ledger.enter(freed(0x1000));
        ledger.enter(taken(0x3000, 60, two));
        ledger.close();
        assert_eq!(ledger.peak_bytes(), 150);
        assert_eq!((peak(&ledger, one), peak(&ledger, two)), (100, 50));
        assert_eq!(ledger.taken_bytes(), 210);
        assert_eq!(ledger.held_bytes(), 110);
    }

    #[test]
    fn a_later_higher_sum_replaces_the_mark() {
        let (one, two) = two_stacks();
        let mut ledger = Ledger::default();
        ledger.enter(taken(0x1000, 100, one));
        ledger.enter(freed(0x1000));
        ledger.enter(taken(0x1000, 80, two));
        ledger.enter(taken(0x2000, 80, two));
        ledger.close();
        assert_eq!((peak(&ledger, one), peak(&ledger, two)), (0, 160));
    }

    #[test]
    fn growing_in_place_passes_the_block_on_and_takes_only_the_difference() {
        let (one, two) = two_stacks();
        let mut ledger = Ledger::default();
        ledger.enter(taken(0x1000, 100, one));
        ledger.enter(HeapChange::Resized {
            address: 0x1000,
            bytes: 150,
            stack: two,
        });
        ledger.close();
        assert_eq!((peak(&ledger, one), peak(&ledger, two)), (0, 150));
        assert_eq!(ledger.taken_bytes(), 150);
        assert_eq!(ledger.peak_bytes(), 150);
    }

    #[test]
    fn a_block_that_stays_as_large_as_it_is_keeps_its_holder() {
        let (one, two) = two_stacks();
        let mut ledger = Ledger::default();
        ledger.enter(taken(0x1000, 100, one));
        ledger.enter(HeapChange::Resized {
            address: 0x1000,
            bytes: 100,
            stack: two,
        });
        ledger.close();
        assert_eq!((peak(&ledger, one), peak(&ledger, two)), (100, 0));
        assert_eq!(ledger.taken_bytes(), 100);
    }

    #[test]
    fn shrinking_in_place_frees_the_difference_and_keeps_the_holder() {
        let (one, two) = two_stacks();
        let mut ledger = Ledger::default();
        ledger.enter(taken(0x1000, 100, one));
        ledger.enter(HeapChange::Resized {
            address: 0x1000,
            bytes: 40,
            stack: two,
        });
        assert_eq!(ledger.held_bytes(), 40);
        ledger.enter(freed(0x1000));
        ledger.close();
        assert_eq!(ledger.held_bytes(), 0);
        assert_eq!((peak(&ledger, one), peak(&ledger, two)), (100, 0));
        assert_eq!(ledger.freed_bytes(), 100);
    }

    #[test]
    fn what_was_taken_before_the_request_is_freed_by_its_own_size() {
        let mut ledger = Ledger::default();
        ledger.enter(HeapChange::Freed {
            address: 0x9000,
            bytes: Some(8192),
        });
        ledger.enter(freed(0xa000));
        assert_eq!(ledger.held_bytes(), -8192);
        assert_eq!(ledger.freed_unknown(), 1);
        assert_eq!(ledger.peak_bytes(), 0);
    }

    /// Against a plain account that copies everything at each new peak.
    #[test]
    fn random_changes_agree_with_a_plain_account() {
        let (one, two) = two_stacks();
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for _ in 0..200 {
            let mut ledger = Ledger::default();
            let mut live: HashMap<u64, (u64, StackId)> = HashMap::new();
            let (mut best, mut best_one, mut best_two) = (0, 0, 0);
            for _ in 0..300 {
                let address = 4096 * (1 + next(20));
                let stack = if next(2) == 0 { one } else { two };
                let bytes = 4096 * (1 + next(10));
                if live.contains_key(&address) {
                    if next(3) == 0 {
                        let (old, holder) = live[&address];
                        let holder = if bytes <= old { holder } else { stack };
                        live.insert(address, (bytes, holder));
                        ledger.enter(HeapChange::Resized {
                            address,
                            bytes,
                            stack,
                        });
                    } else {
                        live.remove(&address);
                        ledger.enter(freed(address));
                    }
                } else {
                    live.insert(address, (bytes, stack));
                    ledger.enter(taken(address, bytes, stack));
                }
                let sum = |of: StackId| -> u64 {
                    live.values()
                        .filter(|block| block.1 == of)
                        .map(|block| block.0)
                        .sum()
                };
                // A tie goes to the later moment, as in the ledger.
                if sum(one) + sum(two) >= best {
                    (best, best_one, best_two) = (sum(one) + sum(two), sum(one), sum(two));
                }
            }
            ledger.close();
            assert_eq!(ledger.peak_bytes(), best);
            assert_eq!(
                (peak(&ledger, one), peak(&ledger, two)),
                (best_one, best_two)
            );
        }
    }
}
