//! Holds workers still at the moments that are worth a dump, and reads them there.
//!
//! A thread waits for the kernel side's orders. Each worker that is to be held gets a thread of its own,
//! because ptrace belongs to a thread and a worker that dies must not wait until another is read.

mod budget;
mod holder;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use memprof_ebpf::{HoldOrder, StopReason};

use super::dump::Taken;
use super::ebpf::{EngineError, HoldMaps};
use super::options::DumpPolicy;
use crate::fpm::{LivePhp, Worker};
use budget::Budget;
use holder::Holder;

/// How often the watching thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

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
    /// What was read, or why nothing was.
    pub result: Result<Taken, String>,
}

/// What the threads share.
struct Shared {
    maps: HoldMaps,
    max_stop: Duration,
    targets: Mutex<HashMap<i32, Target>>,
    /// Workers that have a thread.
    held: Mutex<HashSet<i32>>,
    budget: Mutex<Budget>,
    outcomes: Mutex<Sender<Outcome>>,
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
            held: Mutex::default(),
            budget: Mutex::new(Budget::new(policy.per_minute)),
            outcomes: Mutex::new(sender),
            ends: AtomicBool::new(false),
        });
        let watched = Arc::clone(&shared);
        let watcher = thread::Builder::new()
            .name("hold-orders".to_owned())
            .spawn(move || watch(&watched))?;
        Ok(Holders {
            shared,
            outcomes,
            watcher: Some(watcher),
        })
    }

    /// From now on this worker may be held.
    pub fn follow(&self, target: Target) {
        let pid = target.live.process.pid;
        lock(&self.shared.targets).insert(pid, target);
    }

    /// The worker has ended.
    pub fn forget(&self, pid: i32) {
        lock(&self.shared.targets).remove(&pid);
        self.shared.maps.take_back(pid);
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
    fn report(&self, outcome: Outcome) {
        // Nobody listens any more where this fails: memprof ends.
        let _ = lock(&self.outcomes).send(outcome);
    }

    fn forget(&self, pid: i32) {
        lock(&self.held).remove(&pid);
    }
}

/// Starts a thread for each worker that is to be held.
fn watch(shared: &Arc<Shared>) -> Result<(), EngineError> {
    shared.maps.watch(
        LOOK,
        || !shared.ends.load(Ordering::Relaxed),
        |order| hold(shared, order),
    )
}

fn hold(shared: &Arc<Shared>, order: HoldOrder) {
    let pid = order.pid.cast_signed();
    let target = lock(&shared.targets).get(&pid).cloned();
    let Some(target) = target else {
        return;
    };
    if !lock(&shared.held).insert(pid) {
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
