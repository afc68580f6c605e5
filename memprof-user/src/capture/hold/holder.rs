//! The thread that traces one worker, from the order to the end of the request.

use std::time::{Duration, Instant};

use memprof_ebpf::{Hold, HoldOrder, StopReason};
use nix::libc;
use nix::time::{ClockId, clock_gettime};

use super::{Facts, NICE_TO_HOLD, NICE_TO_READ, Outcome, Shared, Target, lock, run_at};
use crate::capture::dump::{Held, Reading, Taken};
use crate::capture::tracee::{Stop, Tracee};
use crate::zend::Scope;

/// A request that ended well is stopped for this part of the longest stop at most.
const PART_AT_END: u32 = 5;

/// One worker that is traced.
pub(super) struct Holder<'a> {
    shared: &'a Shared,
    target: &'a Target,
    /// Stops that were seen; the kernel side counts those that it makes.
    stops: u64,
}

/// What the worker is to do after a stop.
pub(super) enum Next {
    GoOn(libc::c_int),
    Listen,
    LetGo,
}

impl<'a> Holder<'a> {
    pub(super) fn new(shared: &'a Shared, target: &'a Target) -> Holder<'a> {
        let state = shared.maps.state(target.live.process.pid);
        Holder::after(shared, target, state.map_or(0, |state| state.stops))
    }

    /// One that has seen so many stops.
    pub(super) fn after(shared: &'a Shared, target: &'a Target, stops: u64) -> Holder<'a> {
        Holder {
            shared,
            target,
            stops,
        }
    }

    /// How many stops were seen.
    pub(super) fn stops(&self) -> u64 {
        self.stops
    }

    /// Traces the worker until its request is over or it ends. What is still traced when the thread
    /// ends is let go by the kernel.
    pub(super) fn run(&mut self, order: HoldOrder) {
        let pid = self.pid();
        match self.seize() {
            Ok(tracee) => {
                if self.shared.maps.answer(pid, Hold::Held).is_ok() && self.is_running(order) {
                    self.follow(tracee);
                }
                self.shared.maps.take_back(pid);
                self.shared.forget(pid);
            }
            Err(refusal) => {
                // The next order may come as soon as this one is answered.
                self.shared.forget(pid);
                // Without an answer the worker waits no longer than it would for none.
                let _ = self.shared.maps.answer(pid, refusal);
            }
        }
    }

    fn pid(&self) -> i32 {
        self.target.live.process.pid
    }

    fn seize(&self) -> Result<Tracee, Hold> {
        if !self.target.live.process.leaves_alone(libc::SIGURG) {
            return Err(Hold::SignalTaken);
        }
        Tracee::seize(self.pid()).map_err(|_| Hold::Refused)
    }

    /// Whether the request that the order is for still runs: else nothing would end the tracing.
    fn is_running(&self, order: HoldOrder) -> bool {
        let state = self.shared.maps.state(self.pid());
        state.is_some_and(|state| state.request == order.request && state.hold_asked != 0)
    }

    fn follow(&mut self, tracee: Tracee) {
        while let Ok(Some(stop)) = tracee.wait() {
            let next = match stop {
                Stop::Signal(libc::SIGURG) => self.at_signal(&tracee),
                Stop::Signal(signal) => Some(Next::GoOn(signal)),
                Stop::Group => Some(Next::Listen),
                Stop::Own => Some(Next::GoOn(0)),
            };
            // What fails here was killed meanwhile, and the next wait tells of its end.
            let _ = match next {
                // It went on already.
                None => Ok(()),
                Some(Next::GoOn(signal)) => tracee.go_on(signal),
                Some(Next::Listen) => tracee.listen(),
                Some(Next::LetGo) => {
                    self.shared.maps.take_back(self.pid());
                    let _ = tracee.detach(0);
                    return;
                }
            };
        }
    }

    /// A SIGURG: the kernel side's, or one that is none of our business. `None` where the worker went on
    /// already.
    pub(super) fn at_signal(&mut self, tracee: &Tracee) -> Option<Next> {
        let Some(state) = self.shared.maps.state(self.pid()) else {
            return Some(Next::GoOn(libc::SIGURG));
        };
        if state.stops == self.stops {
            return Some(Next::GoOn(libc::SIGURG));
        }
        self.stops = state.stops;
        let since = Duration::from_nanos(state.stop_time);
        match StopReason::from_number(state.stop_reason) {
            Some(StopReason::RequestOver) => Some(Next::LetGo),
            Some(StopReason::RequestEnd) => {
                self.at_end(state.request, since);
                Some(Next::GoOn(0))
            }
            Some(reason) => {
                self.at_moment(tracee, reason, state.request, since);
                None
            }
            None => Some(Next::GoOn(0)),
        }
    }

    /// Reads what the request's records tell of its end.
    fn at_end(&self, request: u32, since: Duration) {
        let most = self.shared.max_stop / PART_AT_END;
        let deadline = Instant::now() + most.saturating_sub(elapsed(since));
        let facts = Facts::of(&self.target.live, deadline);
        lock(&self.shared.facts).insert(self.pid(), (request, facts));
    }

    /// Reads the worker, lets it go on, and hands on what was read.
    fn at_moment(&self, tracee: &Tracee, reason: StopReason, request: u32, since: Duration) {
        let begun = lock(&self.shared.budget).begin(reason, Instant::now());
        let is_begun = begun.is_ok();
        let result = begun.and_then(|()| {
            run_at(NICE_TO_READ);
            let deadline = Instant::now() + self.shared.max_stop.saturating_sub(elapsed(since));
            let reading = Reading::of(&self.target.live, Some(deadline), Scope::Holders);
            reading.map_err(|error| error.to_string())
        });
        // It fails where the worker was killed meanwhile, and the next wait tells of its end.
        let _ = tracee.go_on(0);
        let stopped = Held::For(elapsed(since));
        run_at(NICE_TO_HOLD);
        self.shared.report(Outcome {
            target: self.target.clone(),
            request,
            reason,
            time: Instant::now(),
            result: result.map(|reading| Taken::new(reading, stopped, self.target.live.process)),
        });
        if is_begun {
            lock(&self.shared.budget).end();
        }
    }
}

/// The time since `start` on CLOCK_MONOTONIC, which the kernel side's times are of.
fn elapsed(start: Duration) -> Duration {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(start, Duration::from);
    now.saturating_sub(start)
}
