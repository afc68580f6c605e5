//! The last key of a dump: what an in-app dump cannot hold.

use std::time::Duration;

use serde::Serialize;

use super::holders::{HoldersView, ObjectStoreView};
use super::occasion::{CheckpointLine, GrowthSoFar, Occasion};
use super::reading::{Held, Reading, Taken};
use crate::fpm::{LivePhp, Worker};
use crate::profile::Query;
use crate::record::frame::Frame;
use crate::record::request::UserId;
use crate::record::session::SessionKey;
use crate::record::units::MemoryLimit;
use crate::zend::frame::own_lines;
use crate::zend::{
    ClassObjects, HeapCounters, LiveObjects, PAGE_SIZE, PAGES_A_CHUNK, Recursion, Request, Session,
    SessionSource, StackEnd, StackEnds,
};

/// Classes listed with their objects.
const TOP_CLASSES: usize = 50;

/// The last key of the dump.
#[derive(Serialize)]
pub(super) struct External<'a> {
    pid: i32,
    pool: Option<&'a str>,
    php_version: String,
    /// `null` for an idle worker, and where `left_out` says so.
    request: Option<RequestView<'a>>,
    /// When the request started, in Unix seconds; `null` where nobody knows.
    started: Option<f64>,
    /// For how long it had run.
    running_ms: Option<f64>,
    /// `null` without a limit.
    memory_limit_bytes: Option<u64>,
    /// Bytes asked for when the limit was hit.
    tried_bytes: Option<u64>,
    heap: HeapView,
    rss_bytes: Option<u64>,
    /// Read right after the process went on.
    pss_bytes: Option<u64>,
    /// `null` where the process was read while it ran.
    stopped_ms: Option<f64>,
    /// Whether all of the dump is of one moment.
    consistent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_stopped: Option<&'a str>,
    stack: Option<StackView>,
    /// `null` where nobody was attached when the request started.
    checkpoints: Option<&'a [CheckpointLine]>,
    /// `null` where growth was not recorded.
    growth: Option<&'a GrowthSoFar>,
    objects: Option<ObjectsView<'a>>,
    object_store: Option<ObjectStoreView>,
    holders: Option<HoldersView<'a>>,
    session: Option<SessionView<'a>>,
    /// Those run last, the newest last; `null` where queries were not recorded.
    queries: Option<Vec<QueryView<'a>>>,
    /// What could not be read, and why.
    left_out: &'a [String],
}

#[derive(Serialize)]
struct RequestView<'a> {
    method: Option<&'a str>,
    path: Option<&'a str>,
    script: Option<&'a str>,
    user_id: Option<&'a UserId>,
}

/// `null` is unknown.
#[derive(Serialize)]
struct HeapView {
    size_bytes: u64,
    real_size_bytes: u64,
    peak_bytes: u64,
    real_peak_bytes: u64,
    chunks: u32,
    cached_chunks: u32,
    huge_blocks: Option<usize>,
    huge_bytes: Option<u64>,
    used_pages: Option<u64>,
    /// Fragmentation: pages that are free in chunks that are not.
    free_bytes_in_used_chunks: Option<u64>,
}

/// Functions with the line that each executes, innermost first.
#[derive(Serialize)]
struct StackView {
    /// All frames, those omitted included.
    depth: u64,
    /// Why the stack ends before its outermost frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    torn: Option<String>,
    /// All frames, or the innermost of them.
    innermost: Vec<Frame>,
    omitted: u64,
    outermost: Vec<Frame>,
    recursion: Option<RecursionView>,
}

#[derive(Serialize)]
struct RecursionView {
    /// One turn, the outermost caller first.
    cycle: Vec<Frame>,
    /// Whole turns.
    times: u64,
    /// Frames of all turns.
    frames: u64,
}

#[derive(Serialize)]
struct ObjectsView<'a> {
    total: u64,
    classes: usize,
    /// Those with the most objects.
    by_class: Vec<ClassView<'a>>,
}

#[derive(Serialize)]
struct ClassView<'a> {
    class: &'a str,
    count: u64,
    /// The objects' own slots; `null` is unknown.
    bytes: Option<u64>,
}

#[derive(Serialize)]
struct SessionView<'a> {
    source: &'static str,
    /// `strlen(serialize())`; `null` is unknown.
    bytes: Option<u64>,
    /// The keys whose size only PHP could tell.
    unknown: Vec<UnknownValue<'a>>,
}

#[derive(Serialize)]
struct QueryView<'a> {
    /// With `?` for every literal.
    sql: &'a str,
    running: bool,
    ms: f64,
    /// `null` where they were not fetched at once.
    rows: Option<u64>,
}

#[derive(Serialize)]
struct UnknownValue<'a> {
    key: &'a SessionKey,
    reason: &'a str,
}

impl<'a> External<'a> {
    /// What was taken of that worker, and why.
    pub(super) fn new(
        taken: &'a Taken,
        worker: &'a Worker,
        live: &LivePhp,
        occasion: &'a Occasion,
        left_out: &'a [String],
    ) -> External<'a> {
        let reading = &taken.reading;
        let so_far = occasion.so_far.as_ref();
        let of_request = |request: &Request| request.started;
        let started = so_far
            .and_then(|so_far| so_far.started)
            .or_else(|| reading.request.as_ref().and_then(of_request));
        let (stopped, not_stopped) = match &taken.held {
            Held::For(time) => (Some(*time), None),
            Held::Not(reason) => (None, Some(reason.as_str())),
        };
        External {
            pid: worker.process.pid,
            pool: worker.pool.as_deref(),
            php_version: live.binary.version.to_string(),
            request: request_view(reading),
            started,
            running_ms: started.map(|started| running_ms(started, reading)),
            memory_limit_bytes: match MemoryLimit::from_heap(reading.counters.limit) {
                MemoryLimit::Bytes(bytes) => Some(bytes),
                MemoryLimit::Unlimited => None,
            },
            tried_bytes: occasion.tried_bytes,
            heap: heap_view(reading),
            rss_bytes: reading.rss_bytes,
            pss_bytes: taken.pss_bytes,
            stopped_ms: stopped.map(milliseconds),
            consistent: stopped.is_some(),
            not_stopped,
            stack: reading.stack.as_ref().map(stack_view),
            checkpoints: so_far.map(|so_far| so_far.checkpoints.as_slice()),
            growth: so_far.and_then(|so_far| so_far.growth.as_ref()),
            objects: reading.objects.as_ref().map(objects_view),
            object_store: reading.objects.as_ref().map(ObjectStoreView::of),
            holders: reading.holders.as_ref().map(HoldersView::of),
            session: reading.session.as_ref().map(session_view),
            queries: so_far
                .and_then(|so_far| so_far.queries.as_ref())
                .map(|queries| queries_view(queries, reading)),
            left_out,
        }
    }
}

/// The last query still runs where a database's function is the innermost of the stack.
fn queries_view<'a>(queries: &'a [Query], reading: &Reading) -> Vec<QueryView<'a>> {
    let innermost = reading.stack.as_ref().and_then(|stack| {
        let frames = own_lines(&stack.innermost);
        frames.into_iter().next().map(|frame| frame.function)
    });
    let in_database = innermost.is_some_and(|function| {
        let of = |prefix: &&str| function.starts_with(*prefix);
        ["PDO", "mysqli", "pg_", "SQLite3"].iter().any(of)
    });
    let view = |(index, query): (usize, &'a Query)| QueryView {
        sql: &query.sql,
        running: in_database && index + 1 == queries.len(),
        ms: milliseconds(Duration::from_nanos(
            query.end_ns.saturating_sub(query.start_ns),
        )),
        rows: query.rows,
    };
    queries.iter().enumerate().map(view).collect()
}

fn running_ms(started: f64, reading: &Reading) -> f64 {
    let now = reading.time.as_microsecond() as f64 / 1e6;
    ((now - started) * 1e6).round() / 1000.0
}

fn objects_view(objects: &LiveObjects) -> ObjectsView<'_> {
    ObjectsView {
        total: objects.total,
        classes: objects.classes.len(),
        by_class: objects
            .classes
            .iter()
            .take(TOP_CLASSES)
            .map(class_view)
            .collect(),
    }
}

fn session_view(session: &Session) -> SessionView<'_> {
    let unknown = session.values.iter().filter_map(|value| {
        let reason = value.bytes.as_ref().err()?;
        Some(UnknownValue {
            key: &value.key,
            reason,
        })
    });
    SessionView {
        source: match session.source {
            SessionSource::Laravel => "laravel",
            SessionSource::Native => "native",
        },
        bytes: session.bytes.as_ref().ok().copied(),
        unknown: unknown.collect(),
    }
}

fn stack_view(stack: &StackEnds) -> StackView {
    let (innermost, outermost) = if stack.skipped == 0 {
        let whole = [stack.innermost.as_slice(), &stack.outermost].concat();
        (own_lines(&whole), Vec::new())
    } else {
        (own_lines(&stack.innermost), own_lines(&stack.outermost))
    };
    StackView {
        depth: (innermost.len() + outermost.len()) as u64 + stack.skipped,
        torn: match &stack.end {
            StackEnd::Torn(reason) => Some(reason.clone()),
            StackEnd::Whole | StackEnd::Cut => None,
        },
        innermost,
        omitted: stack.skipped,
        outermost,
        recursion: stack.recursion.as_ref().map(recursion_view),
    }
}

fn recursion_view(recursion: &Recursion) -> RecursionView {
    let mut cycle = own_lines(&recursion.cycle);
    cycle.reverse();
    RecursionView {
        cycle,
        times: recursion.times,
        frames: recursion.frames,
    }
}

fn class_view(class: &ClassObjects) -> ClassView<'_> {
    ClassView {
        class: &class.class,
        count: class.count,
        bytes: class.bytes,
    }
}

fn request_view(reading: &Reading) -> Option<RequestView<'_>> {
    let request = reading.request.as_ref()?;
    Some(RequestView {
        method: request.method.as_deref(),
        path: request.path.as_deref(),
        script: request.script.as_deref(),
        user_id: reading.user_id.as_ref(),
    })
}

fn heap_view(reading: &Reading) -> HeapView {
    let HeapCounters {
        size,
        peak,
        real_size,
        real_peak,
        chunks,
        cached_chunks,
        ..
    } = reading.counters;
    let heap = reading.heap.as_ref();
    let pages = u64::from(chunks) * u64::from(PAGES_A_CHUNK);
    HeapView {
        size_bytes: size,
        real_size_bytes: real_size,
        peak_bytes: peak,
        real_peak_bytes: real_peak,
        chunks,
        cached_chunks,
        huge_blocks: heap.map(|heap| heap.huge.len()),
        huge_bytes: heap.map(|heap| {
            let sizes = heap.huge.iter().map(|block| block.size);
            sizes.fold(0, u64::saturating_add)
        }),
        used_pages: heap.map(|heap| heap.used_pages),
        free_bytes_in_used_chunks: heap.map(|heap| {
            pages
                .saturating_sub(heap.used_pages)
                .saturating_mul(PAGE_SIZE)
        }),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}
