//! The formats on disk, written and read: log lines, dumps, pprof.
//!
//! The records are those of an in-app Laravel memory profiler, byte for byte, so that greps and scripts written for it go
//! on working. Each record is a serde type whose field order is the key order of the document; [`json`] holds the two
//! encodings, and [`log`], [`dump`], [`pprof`] and [`store`] put them on disk.
//!
//! Nothing here knows of processes: figures come in as bytes and names, and leave as documents.

use serde::{Deserialize, Serialize};

pub mod checkpoint;
mod directory;
pub mod dump;
pub mod event;
pub mod frame;
pub mod guard;
pub mod heap_snapshot;
pub mod json;
pub mod log;
pub mod mode;
pub mod models;
pub mod number;
pub mod oom;
pub mod pprof;
pub mod query;
pub mod request;
pub mod sample;
pub mod scopes;
pub mod session;
pub mod sql;
pub mod store;
pub mod summary;
pub mod time;
pub mod units;

/// How serious a log line is, by the names that Monolog writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// For information.
    Info,
    /// Memory is high.
    Warning,
    /// Memory ran out, or nearly.
    Critical,
}

impl Level {
    /// The name in a log line: `INFO`, `WARNING`, `CRITICAL`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }

    /// The level with that name; `None` for the levels that no record of memprof has.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Info, Self::Warning, Self::Critical]
            .into_iter()
            .find(|level| level.name() == name)
    }
}

/// A record that is announced: as a line of the log, as a line of `--json`, or as both.
pub trait Record: Serialize {
    /// Which record it is, in `--json` lines.
    const NAME: &'static str;
    /// The message of the log line, to the byte: people grep for it.
    const MESSAGE: &'static str;
    /// The level of the log line.
    const LEVEL: Level;
}
