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
use std::time::SystemTime;

use thiserror::Error;

use super::directory::Directory;
use super::dump::Dump;
use super::json;
use super::pprof::Profile;
use super::summary::Summary;

const LOG: &str = "memprof.log";
const DUMPS: &str = "memory-dumps";
const SUMMARY: &str = "summary.json";
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
