//! What is read of a process while it stands still.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::capture::freeze::Frozen;
use crate::fpm::LivePhp;
use crate::zend::memory::ProcessMemory;
use crate::zend::{
    CachedMemory, Heap, HeapCounters, Holders, LiveObjects, Loaded, Process, Request, Session,
    StackEnds, ZendError,
};

/// Frames kept of each end of a stack.
const FRAMES_EACH_END: usize = 100;

/// What was read of a process; what could not be read is `None`, and the reason is in `left_out`.
pub(super) struct Reading {
    /// The moment that it shows.
    pub(super) time: Timestamp,
    /// How long the process was held; `None` where it was read while it ran.
    pub(super) stopped: Option<Duration>,
    /// Why it was not held.
    pub(super) not_stopped: Option<String>,
    pub(super) counters: HeapCounters,
    /// The same with huge blocks and pages.
    pub(super) heap: Option<Heap>,
    /// `None` also for an idle worker.
    pub(super) request: Option<Request>,
    pub(super) stack: Option<StackEnds>,
    pub(super) loaded: Option<Loaded>,
    pub(super) included_files: Option<Vec<String>>,
    pub(super) objects: Option<LiveObjects>,
    /// `None` also for an idle worker.
    pub(super) holders: Option<Holders>,
    /// `None` also where none was started.
    pub(super) session: Option<Session>,
    /// `None` also where it is not Laravel.
    pub(super) cache_driver: Option<String>,
    pub(super) rss_bytes: Option<u64>,
    pub(super) left_out: Vec<String>,
}

/// Holds the process, reads it, and lets it go, within `max_stop`.
///
/// A process that may not be held is read while it runs.
///
/// # Errors
/// [`ZendError`] when not even the heap's counters can be read.
pub(super) fn read(live: &LivePhp, max_stop: Duration) -> Result<Reading, ZendError> {
    let pid = live.process.pid;
    let (frozen, not_stopped) = match Frozen::freeze(pid, max_stop) {
        Ok(frozen) => (Some(frozen), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let deadline = frozen.as_ref().map(|frozen| frozen.since() + max_stop);
    let mut reading = read_within(live, deadline)?;
    reading.stopped = frozen.map(Frozen::release);
    reading.not_stopped = not_stopped;
    Ok(reading)
}

fn read_within(live: &LivePhp, deadline: Option<Instant>) -> Result<Reading, ZendError> {
    let time = Timestamp::now();
    let mut left_out = LeftOut(Vec::new());
    let heap = left_out.or_none("the heap's pages and huge blocks", live.zend.heap());
    let counters = match &heap {
        Some(heap) => heap.counters,
        None => live.zend.heap_counters()?,
    };
    let memory = CachedMemory::new(ProcessMemory::new(live.process.pid), deadline);
    let zend = live.zend.through(Box::new(memory));
    let request = left_out.or_none("the request", zend.request()).flatten();
    let stack = left_out.or_none("the stack", zend.stack_ends(FRAMES_EACH_END));
    let loaded = left_out.or_none("the classes", zend.loaded());
    let included_files = left_out.or_none("the included files", zend.included_files());
    let objects = left_out.or_none("the objects", zend.objects());
    let (session, cache_driver) = read_application(&zend, objects.as_ref(), &mut left_out);
    let holders = read_holders(live, &zend, deadline, &mut left_out);
    Ok(Reading {
        time,
        stopped: None,
        not_stopped: None,
        counters,
        heap,
        request,
        stack,
        loaded,
        included_files,
        objects,
        holders,
        session,
        cache_driver,
        rss_bytes: left_out.or_none("the resident memory", live.process.rss_bytes()),
        left_out: left_out.0,
    })
}

/// What holds how much, in the time that is left.
fn read_holders(
    live: &LivePhp,
    zend: &Process,
    deadline: Option<Instant>,
    left_out: &mut LeftOut,
) -> Option<Holders> {
    let memory = ProcessMemory::new(live.process.pid);
    let holders = zend.holders(&memory, deadline);
    let holders = left_out.or_none("the biggest holders", holders).flatten()?;
    left_out.0.extend_from_slice(&holders.left_out);
    Some(holders)
}

/// The session and the cache's driver, for which the application's objects must be known.
fn read_application(
    zend: &Process,
    objects: Option<&LiveObjects>,
    left_out: &mut LeftOut,
) -> (Option<Session>, Option<String>) {
    let Some(objects) = objects else {
        left_out
            .0
            .push("the session: it is among the objects".to_owned());
        return (None, None);
    };
    let session = left_out.or_none("the session", zend.session(objects));
    let cache_driver = left_out.or_none("the cache's driver", zend.cache_driver(objects));
    (session.flatten(), cache_driver.flatten())
}

/// What could not be read, and why.
struct LeftOut(Vec<String>);

impl LeftOut {
    fn or_none<T, E: std::fmt::Display>(&mut self, what: &str, result: Result<T, E>) -> Option<T> {
        result
            .map_err(|error| self.0.push(format!("{what}: {error}")))
            .ok()
    }
}
