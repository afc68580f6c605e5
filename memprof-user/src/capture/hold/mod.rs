//! Holds workers still at the moments that are worth a dump, and reads them there.
//!
//! A thread waits for the kernel side's orders. Each worker that is to be held gets a thread of its own,
//! because ptrace belongs to a thread and a worker that dies must not wait until another is read.

mod budget;
mod facts;
mod holder;
mod keeper;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use memprof_ebpf::{Hold, HoldOrder, OrderKind, StopReason};

use nix::libc;

use super::dump::Taken;
use super::ebpf::{EngineError, HoldMaps};
use super::options::DumpPolicy;
use crate::fpm::{LivePhp, Worker};
use budget::Budget;
pub use facts::Facts;
use holder::Holder;
pub use keeper::Keeper;

/// How often the watching thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// Nice values: who reads must not keep another worker from being held.
const NICE_TO_HOLD: libc::c_int = -10;
const NICE_TO_READ: libc::c_int = -5;
const HOLD: u32 = OrderKind::Hold as u32;

/// A worker that may be held.
#[derive(Clone)]
pub struct Target {
    /// The worker.
    pub worker: Worker,
    /// Its memory.
    pub live: Arc<LivePhp>,
}

/// What became of one stop.
pub struct Outcome {
    /// The worker.
    pub target: Target,
    /// [`memprof_ebpf::WorkerState::request`]
    pub request: u32,
    /// Why it was stopped.
    pub reason: StopReason,
    /// When it was known.
    pub time: Instant,
    /// What was read, or why nothing was.
    pub result: Result<Taken, String>,
}

/// What the threads share.
struct Shared {
    maps: HoldMaps,
    max_stop: Duration,
    targets: Mutex<HashMap<i32, Target>>,
    /// Workers that another thread traces all the time.
    kept: Mutex<HashSet<i32>>,
    /// Workers that have a thread.
    held: Mutex<HashSet<i32>>,
    budget: Mutex<Budget>,
    outcomes: Mutex<Sender<Outcome>>,
    /// By worker: the request, and what was read at its end.
    facts: Mutex<HashMap<i32, (u32, Facts)>>,
    ends: AtomicBool,
}

/// Holds the workers that it is told of.
pub struct Holders {
    shared: Arc<Shared>,
    outcomes: Receiver<Outcome>,
    watcher: Option<JoinHandle<Result<(), EngineError>>>,
}

impl Holders {
    /// Begins to wait for orders.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(maps: HoldMaps, policy: &DumpPolicy) -> std::io::Result<Holders> {
        let (sender, outcomes) = channel();
        let shared = Arc::new(Shared {
            maps,
            max_stop: policy.max_stop,
            targets: Mutex::default(),
            kept: Mutex::default(),
            held: Mutex::default(),
            budget: Mutex::new(Budget::new(policy.per_minute)),
            outcomes: Mutex::new(sender),
            facts: Mutex::default(),
            ends: AtomicBool::new(false),
        });
        let watched = Arc::clone(&shared);
        let watcher = thread::Builder::new()
            .name("hold-orders".to_owned())
            .spawn(move || {
                run_at(NICE_TO_HOLD);
                watch(&watched)
            })?;
        Ok(Holders {
            shared,
            outcomes,
            watcher: Some(watcher),
        })
    }

    /// For the thread that traces workers all the time.
    pub fn keeper(&self) -> Keeper {
        Keeper(Arc::clone(&self.shared))
    }

    /// From now on this worker may be held.
    pub fn follow(&self, target: Target) {
        let pid = target.live.process.pid;
        lock(&self.shared.targets).insert(pid, target);
    }

    /// The worker has ended.
    pub fn forget(&self, pid: i32) {
        lock(&self.shared.targets).remove(&pid);
        lock(&self.shared.kept).remove(&pid);
        lock(&self.shared.facts).remove(&pid);
        self.shared.maps.take_back(pid);
    }

    /// What was read at the end of a request. It is there before any event that follows that end.
    pub fn facts(&self, pid: i32, request: u32) -> Option<Facts> {
        let (of, facts) = lock(&self.shared.facts).remove(&pid)?;
        (of == request).then_some(facts)
    }

    /// What became of the stops since the last call.
    pub fn outcomes(&self) -> impl Iterator<Item = Outcome> {
        self.outcomes.try_iter()
    }

    /// Waits for the readings that are under way, when the probes are gone; takes no more orders.
    ///
    /// # Errors
    /// The orders could not be read; workers were not held since then.
    pub fn finish(&mut self) -> Result<(), EngineError> {
        self.shared.ends.store(true, Ordering::Relaxed);
        let ended = self.watcher.take().map(JoinHandle::join);
        let deadline = Instant::now() + self.shared.max_stop;
        while lock(&self.shared.budget).is_running() && Instant::now() < deadline {
            thread::sleep(LOOK / 20);
        }
        // A panic of the thread was printed already.
        ended.and_then(Result::ok).unwrap_or(Ok(()))
    }
}

impl Shared {
    fn report_missed(&self, target: Target, order: HoldOrder) {
        let why = match Hold::from_number(order.answer) {
            Some(Hold::Refused) => {
                "the worker could not be held: another process traces it (php-fpm's slowlog, strace)"
            }
            Some(Hold::SignalTaken) => {
                "the worker could not be held: its application handles or blocks SIGURG"
            }
            Some(Hold::Held | Hold::Kept) | None => "the worker was not held in time",
        };
        if let Some(reason) = StopReason::from_number(order.reason) {
            self.report(Outcome {
                target,
                request: order.request,
                reason,
                time: Instant::now(),
                result: Err(why.to_owned()),
            });
        }
    }

    fn report(&self, outcome: Outcome) {
        // Nobody listens any more where this fails: memprof ends.
        let _ = lock(&self.outcomes).send(outcome);
    }

    fn forget(&self, pid: i32) {
        lock(&self.held).remove(&pid);
    }
}

/// Gives this thread, and those that it starts, the processor before others: a worker stands still for
/// as long as they have to wait for one.
fn run_at(nice: libc::c_int) {
    // SAFETY: it takes numbers, and 0 is the calling thread.
    // Without CAP_SYS_NICE it does nothing, and stops are longer on a machine that is full.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}

/// Starts a thread for each worker that is to be held.
fn watch(shared: &Arc<Shared>) -> Result<(), EngineError> {
    shared.maps.watch(
        LOOK,
        || !shared.ends.load(Ordering::Relaxed),
        |order| {
            let pid = order.pid.cast_signed();
            let target = lock(&shared.targets).get(&pid).cloned();
            if let Some(target) = target {
                match order.kind {
                    HOLD => hold(shared, target, order),
                    _ => shared.report_missed(target, order),
                }
            }
        },
    )
}

fn hold(shared: &Arc<Shared>, target: Target, order: HoldOrder) {
    let pid = target.live.process.pid;
    if lock(&shared.kept).contains(&pid) || !lock(&shared.held).insert(pid) {
        return;
    }
    let of_thread = Arc::clone(shared);
    let thread = thread::Builder::new()
        .name(format!("hold-{pid}"))
        .spawn(move || Holder::new(&of_thread, &target).run(order));
    if thread.is_err() {
        // The worker waits in vain, and says so.
        shared.forget(pid);
    }
}

/// What is locked here is whole after every statement, so a panic of another thread spoils nothing.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
