//! How many dumps may be taken: a pool that runs out of memory in a loop is not to be stopped for
//! each, nor the disk to be filled.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use memprof_ebpf::StopReason;

/// The time that the budget is for.
const MINUTE: Duration = Duration::from_secs(60);
/// Workers that are read at the same time; each reading takes up to 64 MiB.
const MOST_AT_ONCE: usize = 4;

/// What is left to be taken.
#[derive(Debug)]
pub(super) struct Budget {
    per_minute: usize,
    /// When the dumps of the last minute were taken.
    taken: VecDeque<Instant>,
    running: usize,
}

impl Budget {
    pub(super) fn new(per_minute: u32) -> Budget {
        Budget {
            per_minute: per_minute as usize,
            taken: VecDeque::new(),
            running: 0,
        }
    }

    /// Takes one dump's share, to be [ended](Self::end); why not, where there is none.
    ///
    /// Dumps at the critical threshold take half of it at most, so that there is room for those at the
    /// limit, which tell more.
    pub(super) fn begin(&mut self, reason: StopReason, now: Instant) -> Result<(), String> {
        while let Some(oldest) = self.taken.front()
            && now.duration_since(*oldest) >= MINUTE
        {
            self.taken.pop_front();
        }
        let most = match reason {
            StopReason::Critical => self.per_minute / 2,
            _ => self.per_minute,
        };
        if self.taken.len() >= most {
            return Err(format!(
                "skipped: {} dumps were taken within a minute; allow more with --dumps-per-minute",
                self.taken.len()
            ));
        }
        if self.running >= MOST_AT_ONCE {
            return Err(format!(
                "skipped: {MOST_AT_ONCE} other workers were being read"
            ));
        }
        self.taken.push_back(now);
        self.running += 1;
        Ok(())
    }

    /// Whether a worker is being read.
    pub(super) fn is_running(&self) -> bool {
        self.running > 0
    }

    /// A dump was read.
    pub(super) fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_so_many_dumps_and_the_next_has_as_many() {
        let start = Instant::now();
        let mut budget = Budget::new(2);
        let mut begin = |seconds, reason| {
            let begun = budget.begin(reason, start + Duration::from_secs(seconds));
            if begun.is_ok() {
                budget.end();
            }
            begun.is_ok()
        };
        assert!(begin(0, StopReason::Critical));
        assert!(!begin(1, StopReason::Critical), "half is for the limit");
        assert!(begin(2, StopReason::LimitError));
        assert!(!begin(3, StopReason::LimitError));
        assert!(begin(60, StopReason::LimitError));
        assert!(!begin(61, StopReason::LimitError));
    }

    #[test]
    fn few_are_read_at_once() {
        let now = Instant::now();
        let mut budget = Budget::new(1000);
        for _ in 0..MOST_AT_ONCE {
            assert_eq!(budget.begin(StopReason::LimitError, now), Ok(()));
        }
        assert!(budget.begin(StopReason::LimitError, now).is_err());
        budget.end();
        assert_eq!(budget.begin(StopReason::LimitError, now), Ok(()));
    }
}
