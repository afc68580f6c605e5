//! The dump's document, made of what was read.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::holders::{HoldersView, ObjectStoreView};
use super::reading::Reading;
use crate::fpm::{LivePhp, ProcessId, Worker};
use crate::record::dump::{self, CONTEXT_FORCED, Cache, Classes, Dump, Memory, Objects, Resources};
use crate::record::frame::CalledFrame;
use crate::record::frame::Frame;
use crate::record::session::{self, SessionKey};
use crate::record::units::{MemoryLimit, Mib};
use crate::zend::frame::{call_sites, own_lines};
use crate::zend::{
    ClassObjects, HeapCounters, PAGE_SIZE, PAGES_A_CHUNK, Request, Session, SessionSource,
    StackEnd, StackEnds,
};

/// Frames in the backtrace.
const BACKTRACE_FRAMES: usize = 15;
/// Classes listed with their objects.
const TOP_CLASSES: usize = 50;

/// The last key of the dump.
#[derive(Serialize)]
struct External<'a> {
    pid: i32,
    pool: Option<&'a str>,
    php_version: String,
    /// `null` for an idle worker, and where `left_out` says so.
    request: Option<RequestView<'a>>,
    /// `null` without a limit.
    memory_limit_bytes: Option<u64>,
    heap: HeapView,
    rss_bytes: Option<u64>,
    /// `null` where the process was read while it ran.
    stopped_ms: Option<f64>,
    /// Whether all of the dump is of one moment.
    consistent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_stopped: Option<&'a str>,
    stack: Option<StackView>,
    objects: Option<ObjectsView<'a>>,
    object_store: Option<ObjectStoreView>,
    holders: Option<HoldersView<'a>>,
    session: Option<SessionView<'a>>,
    /// What could not be read, and why.
    left_out: &'a [String],
}

#[derive(Serialize)]
struct RequestView<'a> {
    method: Option<&'a str>,
    path: Option<&'a str>,
    script: Option<&'a str>,
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
struct UnknownValue<'a> {
    key: &'a SessionKey,
    reason: &'a str,
}

/// Makes the dump; tells also what it lacks.
pub(super) fn compose(reading: &Reading, worker: &Worker, live: &LivePhp) -> (Dump, Vec<String>) {
    let mut left_out = reading.left_out.clone();
    let resources = resources(reading, worker.process, &mut left_out);
    let counters = reading.counters;
    let limit = MemoryLimit::from_heap(counters.limit);
    let external = External {
        pid: worker.process.pid,
        pool: worker.pool.as_deref(),
        php_version: live.binary.version.to_string(),
        request: reading.request.as_ref().map(request_view),
        memory_limit_bytes: match limit {
            MemoryLimit::Bytes(bytes) => Some(bytes),
            MemoryLimit::Unlimited => None,
        },
        heap: heap_view(reading),
        rss_bytes: reading.rss_bytes,
        stopped_ms: reading.stopped.map(milliseconds),
        consistent: reading.stopped.is_some(),
        not_stopped: reading.not_stopped.as_deref(),
        stack: reading.stack.as_ref().map(stack_view),
        objects: reading.objects.as_ref().map(|objects| ObjectsView {
            total: objects.total,
            classes: objects.classes.len(),
            by_class: objects
                .classes
                .iter()
                .take(TOP_CLASSES)
                .map(class_view)
                .collect(),
        }),
        object_store: reading.objects.as_ref().map(ObjectStoreView::of),
        holders: reading.holders.as_ref().map(HoldersView::of),
        session: reading.session.as_ref().map(session_view),
        left_out: &left_out,
    };
    let loaded = reading.loaded;
    let dump = Dump {
        context: CONTEXT_FORCED.to_owned(),
        timestamp: reading.time,
        memory: Memory::new(counters.real_size, counters.real_peak, limit),
        objects: objects(reading),
        classes: Classes {
            declared: loaded.map(|loaded| loaded.classes),
            interfaces: loaded.map(|loaded| loaded.interfaces),
            traits: loaded.map(|loaded| loaded.traits),
        },
        resources,
        backtrace: reading.stack.as_ref().map(backtrace).unwrap_or_default(),
        session: reading
            .session
            .as_ref()
            .map_or_else(session::Session::not_started, session),
        cache: cache(reading),
        // A document of plain values is always JSON.
        external: serde_json::to_value(&external).ok(),
    };
    (dump, left_out)
}

fn objects(reading: &Reading) -> Objects {
    match &reading.objects {
        Some(objects) => Objects::Counted {
            total_estimated: objects.total,
            note: "Live objects, counted; by class under external".to_owned(),
        },
        None => Objects::Unknown {
            error: "the objects could not be read; see left_out under external".to_owned(),
        },
    }
}

fn cache(reading: &Reading) -> Cache {
    match &reading.cache_driver {
        Some(driver) => dump::Cache::driver(driver.clone()),
        None => Cache::Unknown {
            error: "no Laravel configuration that names a cache is loaded".to_owned(),
        },
    }
}

/// The included files with the sum of their sizes, as far as they are files on disk.
fn resources(reading: &Reading, process: ProcessId, left_out: &mut Vec<String>) -> Resources {
    let Some(files) = &reading.included_files else {
        return Resources {
            included_files: reading.loaded.map(|loaded| loaded.included_files),
            included_size_mb: None,
        };
    };
    let root = Path::new("/proc")
        .join(process.pid.to_string())
        .join("root");
    let size = |file: &String| {
        let metadata = fs::metadata(root.join(file.strip_prefix('/')?)).ok()?;
        metadata.is_file().then_some(metadata.len())
    };
    let sizes: Vec<u64> = files.iter().filter_map(size).collect();
    let missing = files.len() - sizes.len();
    if missing > 0 {
        left_out.push(format!(
            "the sizes of {missing} of {} included files: they are no files on disk",
            files.len()
        ));
    }
    let sum = sizes
        .iter()
        .fold(0, |sum: u64, size| sum.saturating_add(*size));
    Resources {
        included_files: Some(files.len() as u64),
        included_size_mb: (missing < files.len() || files.is_empty()).then(|| Mib::from_bytes(sum)),
    }
}

fn session(session: &Session) -> session::Session {
    let values: Vec<(SessionKey, Option<u64>)> = session
        .values
        .iter()
        .map(|value| (value.key.clone(), value.bytes.as_ref().ok().copied()))
        .collect();
    session::Session::started(session.bytes.as_ref().ok().copied(), &values)
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

/// As `debug_backtrace()` has it: each function with the place that called it.
fn backtrace(stack: &StackEnds) -> Vec<CalledFrame> {
    let frames = if stack.skipped == 0 {
        call_sites(&[stack.innermost.as_slice(), &stack.outermost].concat())
    } else {
        call_sites(&stack.innermost)
    };
    frames
        .into_iter()
        .take(BACKTRACE_FRAMES)
        .map(called_frame)
        .collect()
}

fn called_frame(frame: Frame) -> CalledFrame {
    let base_name = frame
        .file
        .as_deref()
        .and_then(|file| Path::new(file).file_name());
    CalledFrame {
        file: base_name.map_or("unknown".into(), |name| name.to_string_lossy().into_owned()),
        line: frame.line.unwrap_or(0),
        function: frame.function,
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
    }
}

fn class_view(class: &ClassObjects) -> ClassView<'_> {
    ClassView {
        class: &class.class,
        count: class.count,
        bytes: class.bytes,
    }
}

fn request_view(request: &Request) -> RequestView<'_> {
    RequestView {
        method: request.method.as_deref(),
        path: request.path.as_deref(),
        script: request.script.as_deref(),
    }
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
