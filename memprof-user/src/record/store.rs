//! The directory that a run writes its records to (`--out`).
//!
//! ```text
//! memprof.log                                 the log lines, unless they go to another log
//! memory-dumps/memory-dump-<unix>-<pid>.json  one dump each
//! profile-<unix>.pb.gz                        growth by stack, for `go tool pprof`
//! summary.json                                what the run saw, and what it cost
//! ```
//!
//! Directories are made with mode 0750 and files with 0640: paths and stacks of an application are nobody else's business.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use thiserror::Error;

use super::directory::{Directory, OwnFile};
use super::dump::Dump;
use super::json;
use super::pprof::Profile;
use super::summary::Summary;

const LOG: &str = "memprof.log";
const DUMPS: &str = "memory-dumps";
const SUMMARY: &str = "summary.json";
/// Logs that were put aside: this, the moment in Unix seconds, `.log`.
const LOG_ASIDE: &str = "memprof-";
/// A longer log is put aside.
const MOST_LOG_BYTES: u64 = 64 << 20;
/// How many dumps of one worker in one second get a name of their own.
const MAX_DUMPS_A_SECOND: u32 = 1000;

/// Why a record could not be stored.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The directory could not be opened or made.
    #[error(
        "cannot use {path} for records: {source}; name a directory that can be made or written to \
         (a symbolic link is not followed: name its target)"
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file could not be written; nothing of it is left.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The record cannot be JSON.
    #[error("cannot write a record as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Which records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// So many bytes of them at most.
    pub bytes: u64,
    /// Those that are not older.
    pub age: Duration,
}

/// The open directory of a run.
#[derive(Debug)]
pub struct Store {
    root: Directory,
    dumps: Directory,
}

impl Store {
    /// Opens the directory, and makes it and those above it where there are none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Open`], also when it or its `memory-dumps` is a symbolic link.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let open_error = |path: PathBuf| move |source| StoreError::Open { path, source };
        let root = Directory::open_or_create(path).map_err(open_error(path.to_owned()))?;
        let dumps = root
            .subdirectory(DUMPS)
            .map_err(open_error(path.join(DUMPS)))?;
        Ok(Self { root, dumps })
    }

    /// Where the log belongs when no other was named.
    pub fn log_path(&self) -> PathBuf {
        self.root.join(LOG)
    }

    /// Writes a dump of the worker with that pid, and tells where. Its mtime is the moment that it shows, because the
    /// analyzer orders dumps by it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Write`] and [`StoreError::Json`].
    pub fn write_dump(&self, dump: &Dump, pid: u32) -> Result<PathBuf, StoreError> {
        let name = self.free_dump_name(dump.timestamp.as_second(), pid)?;
        let text = json::to_pretty(dump)?;
        put(
            &self.dumps,
            &name,
            text.as_bytes(),
            Some(dump.timestamp.into()),
        )
    }

    /// Writes a profile, named after the moment of its start, and tells where.
    ///
    /// # Errors
    ///
    /// [`StoreError::Write`].
    pub fn write_profile(&self, profile: &Profile) -> Result<PathBuf, StoreError> {
        let name = format!("profile-{}.pb.gz", profile.started().as_second());
        let bytes = profile.encode().map_err(|source| StoreError::Write {
            path: self.root.join(&name),
            source,
        })?;
        put(&self.root, &name, &bytes, None)
    }

    /// Writes the summary, in place of an earlier run's, and tells where.
    ///
    /// # Errors
    ///
    /// [`StoreError::Write`] and [`StoreError::Json`].
    pub fn write_summary(&self, summary: &Summary) -> Result<PathBuf, StoreError> {
        let text = json::to_pretty(summary)? + "\n";
        put(&self.root, SUMMARY, text.as_bytes(), None)
    }

    /// Takes away what is older than that, and the oldest beyond so many bytes: dumps, profiles and logs of
    /// runs before, and nothing that this user has not written. How many files went.
    ///
    /// # Errors
    ///
    /// [`StoreError::Write`].
    pub fn clean(&self, keep: Keep, now: Timestamp) -> Result<u64, StoreError> {
        let failed = |path| move |source| StoreError::Write { path, source };
        let mut files = Vec::new();
        for directory in [&self.root, &self.dumps] {
            let found = directory.own_files().map_err(failed(directory.join("")))?;
            let records = found.into_iter().filter(|file| is_record(&file.name));
            files.extend(records.map(|file| (directory, file)));
        }
        // Newest first; the name decides between those of one second.
        files.sort_by(|(_, one), (_, other)| {
            (other.modified, &other.name).cmp(&(one.modified, &one.name))
        });
        let oldest = now.as_second().saturating_sub_unsigned(keep.age.as_secs());
        let mut kept = 0_u64;
        let mut removed = 0;
        for (directory, file) in files {
            kept = kept.saturating_add(file.bytes);
            if kept > keep.bytes || file.modified < oldest {
                directory
                    .remove(&file.name)
                    .map_err(failed(directory.join(&file.name)))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Puts the log aside when it is long; the next line begins a new one.
    ///
    /// # Errors
    ///
    /// [`StoreError::Write`].
    pub fn rotate_log(&self, now: Timestamp) -> Result<(), StoreError> {
        let failed = |source| StoreError::Write {
            path: self.root.join(LOG),
            source,
        };
        let files = self.root.own_files().map_err(failed)?;
        let is_long = |file: &OwnFile| file.name == LOG && file.bytes > MOST_LOG_BYTES;
        if !files.iter().any(is_long) {
            return Ok(());
        }
        let aside = format!("{LOG_ASIDE}{}.log", now.as_second());
        self.root.rename(LOG, &aside).map_err(failed)
    }

    fn free_dump_name(&self, second: i64, pid: u32) -> Result<String, StoreError> {
        let write_error = |source| StoreError::Write {
            path: self.root.join(DUMPS),
            source,
        };
        let first = format!("memory-dump-{second}-{pid}.json");
        let more = (2..=MAX_DUMPS_A_SECOND)
            .map(|count| format!("memory-dump-{second}-{pid}-{count}.json"));
        for name in std::iter::once(first).chain(more) {
            if !self.dumps.contains(&name).map_err(write_error)? {
                return Ok(name);
            }
        }
        Err(write_error(io::Error::other(format!(
            "{MAX_DUMPS_A_SECOND} dumps of worker {pid} in one second"
        ))))
    }
}

/// Whether a file has a name that only records have.
fn is_record(name: &str) -> bool {
    let numbered = |prefix: &str, suffix: &str| {
        let middle = name
            .strip_prefix(prefix)
            .and_then(|rest| rest.strip_suffix(suffix));
        middle.is_some_and(|middle| {
            !middle.is_empty() && middle.chars().all(|c| c.is_ascii_digit() || c == '-')
        })
    };
    numbered("memory-dump-", ".json")
        || numbered("profile-", ".pb.gz")
        || numbered(LOG_ASIDE, ".log")
}

fn put(
    directory: &Directory,
    name: &str,
    content: &[u8],
    modified: Option<SystemTime>,
) -> Result<PathBuf, StoreError> {
    let path = directory.join(name);
    match directory.put(name, content, modified) {
        Ok(()) => Ok(path),
        Err(source) => Err(StoreError::Write { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::dump;
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).expect("lists");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn dumps_of_one_second_do_not_collide() {
        let root = tempfile::tempdir().expect("a directory");
        let store = Store::create(&root.path().join("www")).expect("made");
        let dump = dump::tests::example();
        let first = store.write_dump(&dump, 7).expect("written");
        let second = store.write_dump(&dump, 7).expect("written");
        store.write_dump(&dump, 8).expect("written");
        assert_eq!(
            names(&root.path().join("www/memory-dumps")),
            [
                "memory-dump-1770091506-7-2.json",
                "memory-dump-1770091506-7.json",
                "memory-dump-1770091506-8.json"
            ]
        );
        let golden = fs::read(dump::tests::golden()).expect("the golden file");
        for path in [first, second] {
            assert_eq!(fs::read(&path).expect("there"), golden);
            let metadata = fs::metadata(&path).expect("there");
            assert_eq!(
                (metadata.mtime(), metadata.mode() & 0o7777),
                (1_770_091_506, 0o640)
            );
        }
    }

    #[test]
    fn the_oldest_records_go_and_nothing_else() {
        let root = tempfile::tempdir().expect("a directory");
        let store = Store::create(root.path()).expect("made");
        let now = Timestamp::from_second(1_770_000_000).expect("in range");
        let day = 86_400;
        let put = |directory: &Directory, name: &str, bytes: usize, age: u64| {
            let modified = SystemTime::from(now) - Duration::from_secs(age);
            let content = vec![b' '; bytes];
            directory
                .put(name, &content, Some(modified))
                .expect("written");
        };
        put(&store.dumps, "memory-dump-1-7.json", 100, 8 * day);
        put(&store.dumps, "memory-dump-2-7.json", 100, 6 * day);
        put(&store.dumps, "memory-dump-3-7-2.json", 100, 3 * day);
        put(&store.root, "profile-4.pb.gz", 100, 5 * day);
        put(&store.root, "memprof-5.log", 100, 4 * day);
        for other in [
            "laravel.log",
            "memprof.log",
            "summary.json",
            "profile-x.pb.gz",
        ] {
            put(&store.root, other, 1000, 100 * day);
        }
        put(&store.dumps, "memory-dump-mine.json", 1000, 100 * day);
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("profile-9.pb.gz"))
            .expect("symlink");

        let keep = Keep {
            bytes: 1000,
            age: Duration::from_secs(7 * day),
        };
        assert_eq!(store.clean(keep, now).expect("cleaned"), 1);
        let few = Keep { bytes: 250, ..keep };
        assert_eq!(store.clean(few, now).expect("cleaned"), 2);
        assert_eq!(
            names(root.path()),
            [
                "laravel.log",
                "memory-dumps",
                "memprof-5.log",
                "memprof.log",
                "profile-9.pb.gz",
                "profile-x.pb.gz",
                "summary.json"
            ]
        );
        assert_eq!(
            names(&root.path().join("memory-dumps")),
            ["memory-dump-3-7-2.json", "memory-dump-mine.json"]
        );
    }

    #[test]
    fn a_long_log_is_put_aside() {
        let root = tempfile::tempdir().expect("a directory");
        let store = Store::create(root.path()).expect("made");
        let now = Timestamp::from_second(1_770_000_000).expect("in range");
        let log = fs::File::create(store.log_path()).expect("made");
        log.set_len(MOST_LOG_BYTES).expect("set");
        store.rotate_log(now).expect("looked at");
        log.set_len(MOST_LOG_BYTES + 1).expect("set");
        store.rotate_log(now).expect("put aside");
        assert_eq!(
            names(root.path()),
            ["memory-dumps", "memprof-1770000000.log"]
        );
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let root = tempfile::tempdir().expect("a directory");
        let file = root.path().join("file");
        fs::write(&file, "").expect("writes");
        let error = Store::create(&file).expect_err("a file is no directory");
        assert!(
            error.to_string().contains(&file.display().to_string()),
            "{error}"
        );
    }
}
