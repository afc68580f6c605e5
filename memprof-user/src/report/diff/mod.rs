//! What grew between two dumps, or between two profiles.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use super::analyze::{self, AnalyzeError};
use super::dump_view::DumpView;
use super::facts::Facts;
use super::text;
use crate::record::dump;
use crate::record::pprof;

mod dumps;
mod profiles;
mod section;

pub(super) use dumps::compare as compare_dumps;
pub use section::{Row, Section, Unit};

/// The first bytes of a gzip file, as profiles are.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Two records and what is different in the second.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The first record.
    pub before: Side,
    /// The second.
    pub after: Side,
    /// Totals first.
    pub sections: Vec<Section>,
}

/// One of the two records.
#[derive(Debug, Serialize)]
pub struct Side {
    /// The file; of a folder, the one that was chosen.
    pub path: PathBuf,
    /// `dump` or `profile`.
    pub kind: &'static str,
    /// The moment that a dump shows, or a profile's start.
    pub time: String,
    /// What it is of, as `GET /admin, pid 4711`.
    pub of: String,
}

/// Why two records could not be compared.
#[derive(Debug, Error)]
pub enum DiffError {
    /// One is a dump and the other a profile.
    #[error(
        "{dump} is a memory dump and {profile} is a profile: one is a moment and the other a span of time, so they \
         cannot be compared; name two memory-dump-*.json, or two profile-*.pb.gz"
    )]
    Mixed {
        /// The dump.
        dump: PathBuf,
        /// The profile.
        profile: PathBuf,
    },
    /// The folder holds neither.
    #[error(
        "there is no memory-dump-*.json and no profile-*.pb.gz in {0}; take a dump with `memprof dump --pid PID --out \
         {0}`, or name a file"
    )]
    Nothing(PathBuf),
    /// The folder cannot be listed.
    #[error(transparent)]
    Folder(#[from] AnalyzeError),
    /// The file cannot be opened.
    #[error("cannot read {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no dump.
    #[error(transparent)]
    Dump(#[from] dump::ReadError),
    /// It is JSON, and lacks what each dump has.
    #[error("{path} is no memory dump: it has no {missing}")]
    NoDump {
        /// The file.
        path: PathBuf,
        /// The missing key.
        missing: &'static str,
    },
    /// It is no profile.
    #[error("cannot read {path}")]
    Profile {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: pprof::ReadError,
    },
}

/// A record that was read.
enum Loaded {
    Dump(Box<Facts>),
    Profile(Box<pprof::ReadProfile>),
}

/// Compares two dumps or two profiles; of a folder, its newest dump, or its newest profile where it has no dump.
///
/// # Errors
///
/// [`DiffError`].
pub fn diff(before: &Path, after: &Path) -> Result<Comparison, DiffError> {
    let (before_path, after_path) = (choose(before)?, choose(after)?);
    let (before, after) = (load(&before_path)?, load(&after_path)?);
    let sections = match (&before, &after) {
        (Loaded::Dump(before), Loaded::Dump(after)) => dumps::compare(before, after),
        (Loaded::Profile(before), Loaded::Profile(after)) => profiles::compare(before, after),
        (Loaded::Dump(_), Loaded::Profile(_)) => {
            return Err(DiffError::Mixed {
                dump: before_path,
                profile: after_path,
            });
        }
        (Loaded::Profile(_), Loaded::Dump(_)) => {
            return Err(DiffError::Mixed {
                dump: after_path,
                profile: before_path,
            });
        }
    };
    Ok(Comparison {
        before: before.side(before_path),
        after: after.side(after_path),
        sections,
    })
}

/// The file itself, or the newest of a folder.
fn choose(path: &Path) -> Result<PathBuf, DiffError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    match analyze::newest_dump(path)? {
        Some(dump) => Ok(dump),
        None => newest_profile(path).ok_or_else(|| DiffError::Nothing(path.to_owned())),
    }
}

fn newest_profile(folder: &Path) -> Option<PathBuf> {
    let is_profile = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("profile-") && name.ends_with(".pb.gz")
    };
    let entries = folder.read_dir().ok()?.flatten().map(|entry| entry.path());
    entries.filter(is_profile).max_by_key(|path| {
        let modified = path
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok();
        (modified, path.clone())
    })
}

fn load(path: &Path) -> Result<Loaded, DiffError> {
    let open_error = |source| DiffError::Open {
        path: path.to_owned(),
        source,
    };
    if is_profile(path).map_err(open_error)? {
        let file = File::open(path).map_err(open_error)?;
        let profile = pprof::read(file).map_err(|source| DiffError::Profile {
            path: path.to_owned(),
            source,
        })?;
        return Ok(Loaded::Profile(Box::new(profile)));
    }
    let json = dump::read(path)?;
    let view = DumpView::new(&json).map_err(|missing| DiffError::NoDump {
        path: path.to_owned(),
        missing,
    })?;
    let facts = Facts::new(path.display().to_string(), &json, view);
    Ok(Loaded::Dump(Box::new(facts)))
}

/// By its first bytes; what is no regular file is left to the reader of dumps, which refuses it.
fn is_profile(path: &Path) -> io::Result<bool> {
    if !path.metadata()?.is_file() {
        return Ok(false);
    }
    let mut start = Vec::new();
    File::open(path)?
        .take(GZIP.len() as u64)
        .read_to_end(&mut start)?;
    Ok(start == GZIP)
}

impl Loaded {
    fn side(&self, path: PathBuf) -> Side {
        match self {
            Self::Dump(facts) => {
                let pid = facts.external.as_ref().and_then(|external| external.pid);
                let pid = pid.map(|pid| format!("pid {pid}"));
                let of: Vec<String> = facts.route().into_iter().chain(pid).collect();
                Side {
                    path,
                    kind: "dump",
                    time: facts.view.timestamp.clone(),
                    of: of.join(", "),
                }
            }
            Self::Profile(profile) => Side {
                path,
                kind: "profile",
                time: profile.started.to_string(),
                of: format!(
                    "{} stacks in {:.0?}",
                    text::count(profile.samples.len() as u64),
                    profile.duration
                ),
            },
        }
    }
}

#[cfg(test)]
mod tests;
