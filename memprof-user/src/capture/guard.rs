//! The guard: what memprof costs the workers and the machine stays below its bounds.

use std::{
    fmt,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use super::options::{GuardPolicy, Mode};
use crate::fpm::ProcessId;

/// The time over which memprof's own processor time is measured.
const CPU_SPAN: Duration = Duration::from_secs(5);
/// The memory has to be above its bound for so many looks: what a dump takes comes and goes.
const MEMORY_LOOKS: u32 = 3;
/// The most that samples are thinned: by two to the power of this.
const MOST_THINNED: u32 = 10;

/// Watches over what memprof costs.
#[derive(Debug)]
pub struct Guard {
    policy: GuardPolicy,
    /// Requests in a row whose overhead was above the bound.
    in_a_row: u32,
    measured: Instant,
    /// Processor time used until then.
    used: Duration,
    /// Samples are thinned by two to the power of this.
    thinned: u32,
    /// Looks in a row at which the memory was above its bound.
    over_memory: u32,
}

/// What the guard found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Finding {
    /// So many requests in a row took longer, by ms, than this bound in ms.
    Overhead {
        /// Requests.
        requests: u32,
        /// Of the last of them, in ms.
        ms: f64,
        /// The bound, in ms.
        most_ms: f64,
    },
    /// memprof's resident memory is above its bound; both in bytes.
    Memory {
        /// Resident.
        bytes: u64,
        /// The bound.
        most: u64,
    },
    /// memprof's share of one processor calls for other samples: one in so many of those configured.
    Cpu {
        /// The share, 0 to 1 a processor.
        share: f64,
        /// The bound.
        most: f64,
        /// One sample in so many is taken from now on.
        one_in: u32,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overhead {
                requests,
                ms,
                most_ms,
            } => write!(
                to,
                "{requests} requests in a row took more than {most_ms} ms longer, the last {ms:.1} ms"
            ),
            Self::Memory { bytes, most } => write!(
                to,
                "memprof's resident memory is {} MiB, above {} MiB",
                bytes >> 20,
                most >> 20
            ),
            Self::Cpu {
                share,
                most,
                one_in,
            } => write!(
                to,
                "memprof used {:.0} % of a processor, of {:.0} % that it may: it takes one sample in \
                 {one_in} of those configured",
                share * 100.0,
                most * 100.0
            ),
        }
    }
}

impl Guard {
    /// Starts to watch.
    #[must_use]
    pub fn new(policy: GuardPolicy) -> Self {
        Self {
            policy,
            in_a_row: 0,
            measured: Instant::now(),
            used: used(),
            thinned: 0,
            over_memory: 0,
        }
    }

    /// A request is over that memprof's probes made longer by `ms`. The finding, where it is one too
    /// many.
    pub fn finished(&mut self, mode: Mode, ms: f64) -> Option<Finding> {
        let most_ms = self.policy.most_overhead_ms(mode)?;
        if ms <= most_ms {
            self.in_a_row = 0;
            return None;
        }
        self.in_a_row += 1;
        let requests = self.in_a_row;
        if requests < self.policy.requests_in_a_row {
            return None;
        }
        self.in_a_row = 0;
        Some(Finding::Overhead {
            requests,
            ms,
            most_ms,
        })
    }

    /// Looks at memprof's own memory and processor time.
    pub fn look(&mut self) -> Option<Finding> {
        if self.measured.elapsed() < CPU_SPAN {
            return None;
        }
        let most = self.policy.most_memory_bytes;
        let resident =
            ProcessId::of(std::process::id().cast_signed()).and_then(ProcessId::rss_bytes);
        if let Ok(bytes) = resident
            && bytes > most
        {
            self.over_memory += 1;
            if self.over_memory == MEMORY_LOOKS {
                self.restart();
                return Some(Finding::Memory { bytes, most });
            }
        } else {
            self.over_memory = 0;
        }
        let span = self.measured.elapsed();
        let share = used().saturating_sub(self.used).as_secs_f64() / span.as_secs_f64();
        self.restart();
        self.thin(share)
    }

    fn restart(&mut self) {
        self.measured = Instant::now();
        self.used = used();
    }

    /// Halves the samples above the bound, and doubles them again below a quarter of it.
    fn thin(&mut self, share: f64) -> Option<Finding> {
        let most = self.policy.most_cpu;
        let before = self.thinned;
        if share > most && self.thinned < MOST_THINNED {
            self.thinned += 1;
        } else if share < most / 4.0 {
            self.thinned = self.thinned.saturating_sub(1);
        }
        (self.thinned != before).then_some(Finding::Cpu {
            share,
            most,
            one_in: 1 << self.thinned,
        })
    }
}

/// Processor time of this process.
fn used() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard::new(GuardPolicy {
            requests_in_a_row: 3,
            ..GuardPolicy::default()
        })
    }

    #[test]
    fn so_many_in_a_row_are_too_many() {
        let mut guard = guard();
        let mut finished = |ms| guard.finished(Mode::Aggressive, ms).is_some();
        assert!(!finished(51.0) && !finished(51.0) && !finished(50.0));
        assert!(!finished(51.0) && !finished(51.0) && finished(51.0));
        assert!(!finished(51.0) && !finished(51.0) && finished(51.0));
    }

    #[test]
    fn each_mode_has_its_bound() {
        let mut guard = guard();
        guard.policy.requests_in_a_row = 1;
        assert!(guard.finished(Mode::Light, 5.1).is_some());
        assert!(guard.finished(Mode::Aggressive, 5.1).is_none());
        // Who asks for exact mode was told what it costs.
        assert!(guard.finished(Mode::Exact, 5000.0).is_none());
        guard.policy.max_overhead_ms = Some(1.0);
        assert!(guard.finished(Mode::Aggressive, 1.1).is_some());
        guard.policy.is_on = false;
        assert!(guard.finished(Mode::Aggressive, 1.1).is_none());
    }

    #[test]
    fn samples_are_thinned_and_come_back() {
        let mut guard = guard();
        let one_in = |finding| match finding {
            Some(Finding::Cpu { one_in, .. }) => one_in,
            _ => 0,
        };
        assert_eq!(one_in(guard.thin(0.5)), 2);
        assert_eq!(one_in(guard.thin(0.21)), 4);
        assert_eq!(one_in(guard.thin(0.1)), 0);
        assert_eq!(one_in(guard.thin(0.01)), 2);
        assert_eq!(one_in(guard.thin(0.01)), 1);
        assert_eq!(one_in(guard.thin(0.01)), 0);
    }
}
