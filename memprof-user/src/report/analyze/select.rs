//! Which dumps are analyzed.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::AnalyzeError;

/// Where dumps lie below a run's directory, and below an application's.
const SUBDIRECTORIES: [&str; 2] = ["memory-dumps", "storage/logs/memory-dumps"];

/// The newest dumps of a directory.
#[derive(Debug)]
pub(super) struct Selection {
    /// Where they are.
    pub(super) directory: PathBuf,
    /// How many there are.
    pub(super) found: usize,
    names: Vec<OsString>,
}

impl Selection {
    /// The `count` newest dumps by mtime, in whole seconds; of one second, by name.
    pub(super) fn newest(directory: &Path, count: usize) -> Result<Self, AnalyzeError> {
        let directory = dump_directory(directory);
        let mut dumps = list(&directory).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                AnalyzeError::DirectoryNotFound(directory.clone())
            }
            _ => AnalyzeError::List {
                path: directory.clone(),
                source,
            },
        })?;
        let found = dumps.len();
        dumps.sort_unstable_by(|(time, name), (other_time, other_name)| {
            other_time.cmp(time).then_with(|| name.cmp(other_name))
        });
        dumps.truncate(count);
        let names = dumps.into_iter().map(|(_, name)| name).collect();
        Ok(Self {
            directory,
            found,
            names,
        })
    }

    /// How many are selected.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Their paths, newest first.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.names.iter().map(|name| self.directory.join(name))
    }
}

fn dump_directory(directory: &Path) -> PathBuf {
    let inner = SUBDIRECTORIES.iter().map(|inner| directory.join(inner));
    inner
        .into_iter()
        .find(|inner| inner.is_dir())
        .unwrap_or_else(|| directory.to_owned())
}

/// All `memory-dump-*.json` with their mtimes.
fn list(directory: &Path) -> io::Result<Vec<(i64, OsString)>> {
    let mut dumps = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let bytes = name.as_bytes();
        if !bytes.starts_with(b"memory-dump-") || !bytes.ends_with(b".json") {
            continue;
        }
        // Follows links, and passes over what was deleted meanwhile.
        if let Ok(metadata) = fs::metadata(directory.join(&name)) {
            dumps.push((metadata.mtime(), name));
        }
    }
    Ok(dumps)
}
