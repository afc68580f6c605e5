//! The memory dump: one worker's memory at one moment, as a file of its own.
//!
//! The file is written by [`Store::write_dump`](super::store::Store::write_dump).

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::libc::O_NONBLOCK;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::frame::CalledFrame;
use super::session::Session;
use super::units::{MemoryLimit, Mib};
use super::{Level, Record, time};

/// The context of a dump at the memory-limit error.
pub const CONTEXT_OOM: &str = "oom_shutdown";
/// The context of a dump past the critical threshold.
pub const CONTEXT_CRITICAL: &str = "critical_threshold_reached";
/// The context of a dump that was asked for.
pub const CONTEXT_FORCED: &str = "forced";

/// The largest dump that is read, in bytes: as JSON in memory it may take twenty times as much.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A memory dump.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dump {
    /// Why it was taken: [`CONTEXT_OOM`], [`CONTEXT_CRITICAL`], [`CONTEXT_FORCED`], or any other text.
    pub context: String,
    /// The moment that it shows.
    #[serde(with = "time")]
    pub timestamp: Timestamp,
    /// The heap.
    pub memory: Memory,
    /// Live objects.
    pub objects: Objects,
    /// Declared classes.
    pub classes: Classes,
    /// Included files.
    pub resources: Resources,
    /// The stack, innermost first, from [`frame::backtrace`](super::frame::backtrace).
    pub backtrace: Vec<CalledFrame>,
    /// The session.
    pub session: Session,
    /// The application's cache.
    pub cache: Cache,
    /// What an in-app dump cannot hold: worker, request, counts. Left out when there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<Value>,
}

impl Record for Dump {
    const NAME: &'static str = "dump";
    const MESSAGE: &'static str = "Memory state dump";
    const LEVEL: Level = Level::Critical;
}

/// The Zend heap, as `memory_get_usage(true)` and memory_limit have it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// `memory_get_usage(true)`.
    pub current_mb: Mib,
    /// `memory_get_peak_usage(true)`.
    pub peak_mb: Mib,
    /// memory_limit; 8796093022208 (PHP_INT_MAX) without one.
    pub limit_mb: Mib,
    /// current as a share of the limit, in percent; 0 without a limit.
    pub usage_percent: f64,
}

impl Memory {
    /// A heap with that real_size and real_peak, in bytes, under that limit.
    pub fn new(current_bytes: u64, peak_bytes: u64, limit: MemoryLimit) -> Self {
        Self {
            current_mb: Mib::from_bytes(current_bytes),
            peak_mb: Mib::from_bytes(peak_bytes),
            limit_mb: limit.mib(),
            usage_percent: limit.usage_percent(current_bytes),
        }
    }
}

/// How many objects live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Objects {
    /// They were counted.
    Counted {
        /// So many.
        total_estimated: u64,
        /// How they were counted.
        note: String,
    },
    /// They were not.
    Unknown {
        /// Why not.
        error: String,
    },
}

/// How many classes are declared. `null` is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classes {
    /// Classes.
    pub declared: Option<u64>,
    /// Interfaces.
    pub interfaces: Option<u64>,
    /// Traits.
    pub traits: Option<u64>,
}

/// How many files are included. `null` is unknown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Files.
    pub included_files: Option<u64>,
    /// The sum of their sizes on disk.
    pub included_size_mb: Option<Mib>,
}

/// The application's cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cache {
    /// The driver is known.
    Driver {
        /// Its name, as `redis`.
        driver: String,
        /// A word on what it costs.
        note: String,
    },
    /// It is not.
    Unknown {
        /// Why not.
        error: String,
    },
}

impl Cache {
    /// A cache with that driver.
    pub fn driver(driver: String) -> Self {
        Self::Driver {
            driver,
            note: "Cache memory usage varies by driver".to_owned(),
        }
    }
}

/// Why a dump could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file could not be opened or read.
    #[error(
        "cannot read the dump {path}: {source}; it has to be there, and readable for this user"
    )]
    Io {
        /// The dump.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error("{path} is no regular file, so it is no dump; remove it from the dumps' directory")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// It is too large to be a dump.
    #[error("{path} has {bytes} bytes, more than the {MAX_BYTES} that a dump may have")]
    TooLarge {
        /// The dump.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is no dump.
    #[error("{path} is no memory dump: {source}; it may have been cut off while it was written")]
    Format {
        /// The dump.
        path: PathBuf,
        /// What does not fit, and where.
        source: serde_json::Error,
    },
}

/// Reads a dump, as a [`Dump`] or as any looser type: old dumps may lack keys.
///
/// # Errors
///
/// [`ReadError`].
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ReadError> {
    let io_error = |source| ReadError::Io {
        path: path.to_owned(),
        source,
    };
    // O_NONBLOCK: opening a named pipe must not wait for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)
        .map_err(io_error)?;
    let metadata = file.metadata().map_err(io_error)?;
    if !metadata.is_file() {
        return Err(ReadError::NotAFile {
            path: path.to_owned(),
        });
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ReadError::TooLarge {
            path: path.to_owned(),
            bytes: metadata.len(),
        });
    }
    serde_json::from_slice(&bytes).map_err(|source| ReadError::Format {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::session::SessionKey;
    use super::*;
    use crate::record::json::to_pretty;

    const MIB: u64 = 1024 * 1024;

    /// The dump of the golden file `dump-oom.json`.
    pub(in super::super) fn example() -> Dump {
        let called = |file: &str, line, function: &str| CalledFrame {
            file: file.to_owned(),
            line,
            function: function.to_owned(),
        };
        let key = |key: &str, bytes| (SessionKey::Text(key.to_owned()), Some(bytes));
        Dump {
            context: CONTEXT_OOM.to_owned(),
            timestamp: Timestamp::from_microsecond(1_770_091_506_250_000).expect("in range"),
            memory: Memory::new(1946 * MIB, 2046 * MIB, MemoryLimit::Bytes(2048 * MIB)),
            objects: Objects::Counted {
                total_estimated: 0,
                note: "Install php-meminfo for accurate object counting".to_owned(),
            },
            classes: Classes {
                declared: Some(2210),
                interfaces: Some(611),
                traits: Some(233),
            },
            resources: Resources {
                included_files: Some(1874),
                included_size_mb: Some(Mib::from_bytes(15_319_695)),
            },
            backtrace: vec![
                called("ShiftList.php", 58, "App\\Models\\Shift->expand"),
                called("unknown", 0, "App\\Depot\\ShiftList->App\\Depot\\{closure}"),
                called("ShiftList.php", 56, "array_map"),
                called("index.php", 20, "App\\Depot\\ShiftList::render"),
            ],
            session: Session::started(
                Some(3_407_872),
                &[
                    key("_token", 50),
                    key("roster", 3_380_296),
                    key("nav", 27_034),
                ],
            ),
            cache: Cache::driver("redis".to_owned()),
            external: None,
        }
    }

    pub(in super::super) fn golden() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/dump-oom.json")
    }

    #[test]
    fn example_to_the_byte() {
        let expected = std::fs::read_to_string(golden()).expect("the golden file");
        assert_eq!(to_pretty(&example()).expect("JSON"), expected);
        assert_eq!(read::<Dump>(&golden()).expect("reads back"), example());
    }

    #[test]
    fn what_is_unknown_says_so() {
        let mut dump = example();
        dump.objects = Objects::Unknown {
            error: "the objects could not be read".to_owned(),
        };
        dump.classes.traits = None;
        dump.session = Session::not_started();
        dump.cache = Cache::Unknown {
            error: "not read from outside".to_owned(),
        };
        dump.memory = Memory::new(1946 * MIB, 2046 * MIB, MemoryLimit::Unlimited);
        dump.external = Some(serde_json::json!({"pid": 7}));
        let text = to_pretty(&dump).expect("JSON");
        for part in [
            "\"objects\": {\n        \"error\": \"the objects could not be read\"\n    }",
            "\"traits\": null",
            "\"session\": {\n        \"status\": \"not_started\"\n    }",
            "\"limit_mb\": 8796093022208,\n        \"usage_percent\": 0\n",
            "    },\n    \"external\": {\n        \"pid\": 7\n    }\n}",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(
            serde_json::from_str::<Dump>(&text).expect("reads back"),
            dump
        );
    }

    #[test]
    fn what_is_no_dump_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(matches!(
            read::<Dump>(directory.path()),
            Err(ReadError::NotAFile { .. })
        ));
        assert!(matches!(
            read::<Dump>(&directory.path().join("none")),
            Err(ReadError::Io { .. })
        ));
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
        assert!(matches!(
            read::<Dump>(&pipe),
            Err(ReadError::NotAFile { .. })
        ));
        let path = directory.path().join("a.json");
        for text in [
            String::new(),
            "{".to_owned(),
            "[".repeat(100_000),
            "{}".to_owned(),
        ] {
            std::fs::write(&path, text).expect("writes");
            assert!(matches!(read::<Dump>(&path), Err(ReadError::Format { .. })));
        }
        std::fs::File::create(&path)
            .and_then(|file| file.set_len(MAX_BYTES + 1))
            .expect("a sparse file");
        assert!(matches!(
            read::<Dump>(&path),
            Err(ReadError::TooLarge { .. })
        ));
    }
}
