//! A dump of one live process, on demand: hold it, read it, let it go, then write.

mod document;
mod external;
mod holders;
mod occasion;
mod reading;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;

pub(super) use document::compose;
#[cfg(feature = "ebpf")]
pub(super) use occasion::{CheckpointLine, GrowthSoFar, HeldByStack, SoFar};
#[cfg(feature = "ebpf")]
pub(super) use reading::{Reading, Taken};

pub(super) use occasion::Occasion;
pub(super) use reading::Held;

use super::options::default_out;
use crate::fpm::{self, Builds, FpmError, LiveError, Target, Worker};
use crate::record::log::{LogError, LogFile, LogLine};
use crate::record::store::{Store, StoreError};
use crate::zend::{Holders, Scope};

/// The channel of the log line.
const APP_ENV: &str = "production";

/// What to dump, and where to.
#[derive(Clone, Debug)]
pub struct DumpOptions {
    /// The process: a php-fpm worker, or a php of the command line.
    pub pid: i32,
    /// The folder of the dump and of the log; `None` is /var/log/memprof/POOL, or /var/log/memprof/pid-PID
    /// for a process of no pool.
    pub out: Option<PathBuf>,
    /// How long the process may be held at most.
    pub max_stop: Duration,
    /// The file for the whole graph of the heap, in V8's .heapsnapshot format.
    pub heap_graph: Option<PathBuf>,
}

/// A dump that was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// How long the process was held; `None` where it was read while it ran.
    pub stopped: Option<Duration>,
    /// What the dump lacks, and why.
    pub left_out: Vec<String>,
}

/// Why there is no dump.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// No such process, or none that can be looked at.
    #[error("cannot find process {pid}")]
    Process {
        /// The process.
        pid: i32,
        /// What is wrong with it.
        source: FpmError,
    },
    /// It runs no PHP that can be read.
    #[error("cannot read process {pid}")]
    Php {
        /// The process.
        pid: i32,
        /// What is wrong with it.
        source: LiveError,
    },
    /// The pool's name cannot be a folder's.
    #[error("no folder can be named after the pool of process {pid}; name one by --out DIR")]
    NoFolder {
        /// The process.
        pid: i32,
    },
    /// The dump cannot be written.
    #[error("cannot store the dump of process {pid}")]
    Store {
        /// The process.
        pid: i32,
        /// Why not.
        source: StoreError,
    },
    /// The heap graph cannot be written.
    #[error(
        "cannot write the heap graph of process {pid} to {path}; name another file by --heap-graph"
    )]
    HeapGraph {
        /// The process.
        pid: i32,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The dump is written, its log line is not.
    #[error("the dump is written to {path}, but not logged")]
    Log {
        /// The dump.
        path: PathBuf,
        /// Why not.
        source: LogError,
    },
}

/// Dumps a live process.
///
/// # Errors
/// [`DumpError`]. What can be read only in part is no error: the dump says what it lacks.
pub fn dump(options: &DumpOptions) -> Result<Written, DumpError> {
    let pid = options.pid;
    let worker = find(pid).map_err(|source| DumpError::Process { pid, source })?;
    let out = match &options.out {
        Some(out) => out.clone(),
        None => default_folder(&worker).ok_or(DumpError::NoFolder { pid })?,
    };
    let unreadable = |source| DumpError::Php { pid, source };
    let live = Builds::default().live(worker.process).map_err(unreadable)?;
    // A folder that cannot be written to is found out before the process is held.
    let stored = |source| DumpError::Store { pid, source };
    let store = Store::create(&out).map_err(stored)?;
    let graph = HeapGraphFile::create(options)?;
    let scope = match &graph {
        Some(_) => Scope::Graph,
        None => Scope::Holders,
    };
    let taken = reading::take(&live, options.max_stop, scope)
        .map_err(|source| unreadable(LiveError::Memory { pid, source }))?;
    let (dump, left_out) = compose(&taken, &worker, &live, &Occasion::forced());
    let path = store
        .write_dump(&dump, pid.unsigned_abs())
        .map_err(stored)?;
    if let Some(graph) = graph {
        graph.write(taken.reading.holders.as_ref())?;
    }
    match log(&store.log_path(), &dump) {
        Ok(()) => Ok(Written {
            path,
            stopped: match taken.held {
                Held::For(time) => Some(time),
                Held::Not(_) => None,
            },
            left_out,
        }),
        Err(source) => Err(DumpError::Log { path, source }),
    }
}

/// The file of the heap graph, opened before the process is held.
struct HeapGraphFile<'a> {
    pid: i32,
    path: &'a Path,
    file: File,
}

impl HeapGraphFile<'_> {
    fn create(options: &DumpOptions) -> Result<Option<HeapGraphFile<'_>>, DumpError> {
        let Some(path) = &options.heap_graph else {
            return Ok(None);
        };
        let pid = options.pid;
        // Keys of arrays are in it, which are the application's data.
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path);
        let failed = |source| DumpError::HeapGraph {
            pid,
            path: path.clone(),
            source,
        };
        Ok(Some(HeapGraphFile {
            pid,
            path,
            file: opened.map_err(failed)?,
        }))
    }

    /// Writes the graph; where there is none the file stays empty, and the dump says why.
    fn write(self, holders: Option<&Holders>) -> Result<(), DumpError> {
        let Some(graph) = holders.and_then(|holders| holders.graph.as_ref()) else {
            return Ok(());
        };
        let mut out = BufWriter::new(self.file);
        let written = graph.write(&mut out).and_then(|()| out.flush());
        written.map_err(|source| DumpError::HeapGraph {
            pid: self.pid,
            path: self.path.to_owned(),
            source,
        })
    }
}

fn find(pid: i32) -> Result<Worker, FpmError> {
    let mut found = Target::Pids(vec![pid]).select(&fpm::discover()?)?;
    found.pop().ok_or(FpmError::NoSuchProcess { pid })
}

fn default_folder(worker: &Worker) -> Option<PathBuf> {
    let name = match &worker.pool {
        Some(pool) => pool.clone(),
        None => format!("pid-{}", worker.process.pid),
    };
    default_out(&name)
}

fn log(path: &Path, dump: &crate::record::dump::Dump) -> Result<(), LogError> {
    let time = dump.timestamp.to_zoned(TimeZone::UTC).datetime();
    LogFile::open(path)?.append(&LogLine::new(time, APP_ENV, dump)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(pool: Option<&str>) -> Worker {
        Worker {
            process: fpm::ProcessId {
                pid: 7,
                start_time: 1,
            },
            uid: 33,
            pool: pool.map(str::to_owned),
            parent: 1,
        }
    }

    #[test]
    fn a_pool_cannot_lead_out_of_the_log_folder() {
        let out = |pool| default_folder(&worker(pool)).map(|path| path.display().to_string());
        assert_eq!(out(Some("www")).as_deref(), Some("/var/log/memprof/www"));
        assert_eq!(out(None).as_deref(), Some("/var/log/memprof/pid-7"));
        assert_eq!(out(Some("../../etc")), None);
    }
}
