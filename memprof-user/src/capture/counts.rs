//! What the kernel side counts in workers.

use memprof_ebpf::WorkerState;

use super::ebpf::Engine;

/// What the kernel side counted in workers, ended ones included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Probe hits.
    pub hits: u64,
    /// Events handed to the ring.
    pub sent: u64,
    /// Events lost, because the ring was full or the program busy.
    pub lost: u64,
    /// Of these, hits that found their program under way on the same processor.
    pub busy: u64,
    /// Calls that exact mode had no room to count.
    pub uncounted: u64,
    /// Reads of worker memory that failed.
    pub unreadable: u64,
    /// Watched PHP calls that ran inside another one.
    pub nested_calls: u64,
    /// Forced requests past the number that is recorded in a minute.
    pub refused: u64,
    /// Forced requests in workers that could not be held.
    pub untraced: u64,
    /// Requests started.
    pub requests: u64,
    /// Hits that were timed.
    pub timed_hits: u64,
    /// Nanoseconds of the timed hits, without their traps.
    pub timed_ns: u64,
}

impl Counts {
    /// Adds what was counted in one worker.
    pub fn add(&mut self, state: &WorkerState) {
        self.hits += state.hits;
        self.sent += state.sent;
        self.lost += state.lost;
        self.busy += state.busy;
        self.uncounted += state.uncounted;
        self.unreadable += state.unreadable;
        self.nested_calls += state.nested_calls;
        self.refused += state.refused;
        self.untraced += state.untraced;
        self.requests += u64::from(state.request);
        self.timed_hits += state.timed_hits;
        self.timed_ns += state.timed_ns;
    }

    /// What a program's run takes on average, in ns, without its trap; 0 where none was timed yet.
    #[must_use]
    pub fn program_ns(&self) -> f64 {
        if self.timed_hits == 0 {
            return 0.0;
        }
        self.timed_ns as f64 / self.timed_hits as f64
    }

    /// Has the kernel side forget a worker, and keeps what was counted in it.
    pub fn forget(&mut self, engine: &Engine, pid: i32) {
        if let Some(state) = engine.state(pid) {
            self.add(&state);
        }
        engine.forget(pid);
    }

    /// What went wrong, in words, each with how often.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let errors = [
            (
                "allocation calls that exact mode had no room to count",
                self.uncounted,
            ),
            ("reads of worker memory", self.unreadable),
            (
                "queries around another one, whose own end was not seen",
                self.nested_calls,
            ),
            (
                "forced requests past the number recorded in a minute; --force-value lifts it",
                self.refused,
            ),
            (
                "forced requests in workers that memprof could not hold: another process traces them, \
                 as php-fpm's slowlog does, or their application handles or blocks SIGURG",
                self.untraced,
            ),
        ];
        errors.into_iter().filter(|(_, count)| *count > 0)
    }
}
