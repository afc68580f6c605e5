//! The dump's document, made of what was read.

use std::fs;
use std::path::Path;

use super::external::External;
use super::occasion::Occasion;
use super::reading::{Reading, Taken};
use crate::fpm::{LivePhp, ProcessId, Worker};
use crate::record::dump::{self, Cache, Classes, Dump, Memory, Objects, Resources};
use crate::record::frame::{CalledFrame, Frame};
use crate::record::session::{self, SessionKey};
use crate::record::units::{MemoryLimit, Mib};
use crate::zend::frame::call_sites;
use crate::zend::{Session, StackEnds};

/// Frames in the backtrace.
const BACKTRACE_FRAMES: usize = 15;

/// Makes the dump; tells also what it lacks.
pub(in crate::capture) fn compose(
    taken: &Taken,
    worker: &Worker,
    live: &LivePhp,
    occasion: &Occasion,
) -> (Dump, Vec<String>) {
    let reading = &taken.reading;
    let mut left_out = reading.left_out.clone();
    let resources = resources(reading, worker.process, &mut left_out);
    let external = External::new(taken, worker, live, occasion, &left_out);
    let counters = reading.counters;
    let limit = MemoryLimit::from_heap(counters.limit);
    let loaded = reading.loaded;
    let dump = Dump {
        context: occasion.context.to_owned(),
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
