//! What is read of a process while it stands still.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::capture::freeze::Frozen;
use crate::fpm::{LivePhp, ProcessId};
use crate::record::request::UserId;
use crate::zend::memory::ProcessMemory;
use crate::zend::{
    CachedMemory, Heap, HeapCounters, Holders, LiveObjects, Loaded, Process, Request, Scope,
    Session, StackEnds, ZendError,
};

/// Frames kept of each end of a stack.
const FRAMES_EACH_END: usize = 100;

/// What was read of a process; what could not be read is `None`, and the reason is in `left_out`.
pub(in crate::capture) struct Reading {
    /// The moment that it shows.
    pub(super) time: Timestamp,
    pub(super) counters: HeapCounters,
    /// The same with huge blocks and pages.
    pub(super) heap: Option<Heap>,
    /// `None` also for an idle worker.
    pub(super) request: Option<Request>,
    /// The id of the user who is logged in; `None` also where nobody is, or it is not Laravel.
    pub(super) user_id: Option<UserId>,
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

/// A reading, and how it was come by.
pub(in crate::capture) struct Taken {
    pub(super) reading: Reading,
    pub(super) held: Held,
    /// Read when the process went on again.
    pub(super) pss_bytes: Option<u64>,
}

/// Whether a process stood still while it was read.
pub(in crate::capture) enum Held {
    /// It did, for so long.
    For(Duration),
    /// It ran, for this reason.
    Not(String),
}

/// Holds the process, reads it, and lets it go, within `max_stop`.
///
/// A process that may not be held is read while it runs.
///
/// # Errors
/// [`ZendError`] when not even the heap's counters can be read.
pub(super) fn take(live: &LivePhp, max_stop: Duration, scope: Scope) -> Result<Taken, ZendError> {
    let (reading, held) = match Frozen::freeze(live.process.pid, max_stop) {
        Ok(frozen) => {
            let reading = Reading::of(live, Some(frozen.since() + max_stop), scope);
            (reading, Held::For(frozen.release()))
        }
        Err(error) => (Reading::of(live, None, scope), Held::Not(error.to_string())),
    };
    Ok(Taken::new(reading?, held, live.process))
}

impl Reading {
    /// Reads a process, until `deadline` where there is one; that it stands still is for the caller to see to.
    ///
    /// # Errors
    /// [`ZendError`] when not even the heap's counters can be read.
    pub(in crate::capture) fn of(
        live: &LivePhp,
        deadline: Option<Instant>,
        scope: Scope,
    ) -> Result<Reading, ZendError> {
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
        let application = read_application(&zend, objects.as_ref(), &mut left_out);
        let holders = read_holders(live, &zend, (deadline, scope), &mut left_out);
        Ok(Reading {
            time,
            counters,
            heap,
            request,
            user_id: application.user_id,
            stack,
            loaded,
            included_files,
            objects,
            holders,
            session: application.session,
            cache_driver: application.cache_driver,
            rss_bytes: left_out.or_none("the resident memory", live.process.rss_bytes()),
            left_out: left_out.0,
        })
    }
}

impl Taken {
    /// What was read of a process that goes on again, or never stood still.
    pub(in crate::capture) fn new(reading: Reading, held: Held, process: ProcessId) -> Taken {
        Taken {
            reading,
            held,
            pss_bytes: process.pss_bytes().ok().flatten(),
        }
    }
}

/// What only the application's objects tell.
#[derive(Default)]
struct Application {
    session: Option<Session>,
    cache_driver: Option<String>,
    user_id: Option<UserId>,
}

/// What holds how much, in the time that is left.
fn read_holders(
    live: &LivePhp,
    zend: &Process,
    (deadline, scope): (Option<Instant>, Scope),
    left_out: &mut LeftOut,
) -> Option<Holders> {
    let memory = ProcessMemory::new(live.process.pid);
    let holders = zend.holders(&memory, deadline, scope);
    let holders = left_out.or_none("the biggest holders", holders).flatten()?;
    left_out.0.extend_from_slice(&holders.left_out);
    Some(holders)
}

fn read_application(
    zend: &Process,
    objects: Option<&LiveObjects>,
    left_out: &mut LeftOut,
) -> Application {
    let Some(objects) = objects else {
        left_out
            .0
            .push("the session and the user: they are among the objects".to_owned());
        return Application::default();
    };
    let session = left_out.or_none("the session", zend.session(objects));
    let cache_driver = left_out.or_none("the cache's driver", zend.cache_driver(objects));
    let user_id = left_out.or_none("the user's id", zend.user_id(objects));
    Application {
        session: session.flatten(),
        cache_driver: cache_driver.flatten(),
        user_id: user_id.flatten(),
    }
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
