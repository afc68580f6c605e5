//! Appending to a log that others may write, read and rotate at the same time.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use thiserror::Error;

use super::{LogLine, MAX_LINE_BYTES};

const MODE: u32 = 0o640;
/// How often opening is tried again when the file appears or vanishes in between.
const OPEN_ATTEMPTS: usize = 3;

/// Why a line could not be logged.
#[derive(Debug, Error)]
pub enum LogError {
    /// The file could not be opened or made.
    #[error(
        "cannot open the log {path}: {source}; name another with --log, or make its directory writable"
    )]
    Open {
        /// The log.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is something else under that name.
    #[error(
        "the log {path} is no regular file; name one with --log (a symbolic link is not followed: name its target)"
    )]
    NotAFile {
        /// The log.
        path: PathBuf,
    },
    /// The line was not written, or only a part of it.
    #[error("cannot append to the log {path}: {source}")]
    Append {
        /// The log.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The record is too long for a line.
    #[error(
        "a line of {bytes} bytes is too long for the log {path}, whose lines end at {MAX_LINE_BYTES}"
    )]
    TooLong {
        /// The log.
        path: PathBuf,
        /// The length of the line.
        bytes: usize,
    },
    /// The record cannot be JSON.
    #[error("cannot write a record as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// A log that is open for appending.
///
/// Each line is one write to a file in append mode, so lines of several writers do not mix. When the file was renamed
/// or deleted (log rotation), the next line goes to a new file of the old name. A file that is made gets the owner and
/// mode of the one before it, or else the owner of its directory: a log that the application shares must stay writable
/// for the application.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    /// The last write broke off in the middle of a line.
    torn: bool,
}

impl LogFile {
    /// Opens the log, and makes it (mode 0640) where there is none. A symbolic link is not followed.
    ///
    /// # Errors
    ///
    /// [`LogError::Open`] and [`LogError::NotAFile`].
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let file = open(path, None)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            torn: false,
        })
    }

    /// Appends one line.
    ///
    /// # Errors
    ///
    /// [`LogError`]; after each of them the log can be appended to again.
    pub fn append(&mut self, line: &LogLine) -> Result<(), LogError> {
        let mut text = line.to_text()?;
        if text.len() > MAX_LINE_BYTES {
            return Err(LogError::TooLong {
                path: self.path.clone(),
                bytes: text.len(),
            });
        }
        self.follow_rotation()?;
        if self.torn {
            text.insert(0, '\n');
        }
        let written = self
            .file
            .write(text.as_bytes())
            .map_err(|source| self.append_error(source))?;
        self.torn = written < text.len() && (written > 0 || self.torn);
        if written < text.len() {
            let source = io::Error::new(
                io::ErrorKind::StorageFull,
                "only a part of the line was written",
            );
            return Err(self.append_error(source));
        }
        Ok(())
    }

    fn append_error(&self, source: io::Error) -> LogError {
        LogError::Append {
            path: self.path.clone(),
            source,
        }
    }

    fn follow_rotation(&mut self) -> Result<(), LogError> {
        let ours = self
            .file
            .metadata()
            .map_err(|source| self.append_error(source))?;
        let named = self.path.symlink_metadata().ok();
        if named.is_some_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino())) {
            return Ok(());
        }
        self.file = open(&self.path, Some(&ours))?;
        self.torn = false;
        Ok(())
    }
}

fn open(path: &Path, previous: Option<&Metadata>) -> Result<File, LogError> {
    let file = open_or_create(path, previous).map_err(|source| match source.raw_os_error() {
        Some(nix::libc::ELOOP | nix::libc::ENXIO) => LogError::NotAFile {
            path: path.to_owned(),
        },
        _ => LogError::Open {
            path: path.to_owned(),
            source,
        },
    })?;
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(_) => Err(LogError::NotAFile {
            path: path.to_owned(),
        }),
        Err(source) => Err(LogError::Open {
            path: path.to_owned(),
            source,
        }),
    }
}

fn open_or_create(path: &Path, previous: Option<&Metadata>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // O_NONBLOCK: a named pipe without a reader must fail, not wait.
    options
        .append(true)
        .mode(MODE)
        .custom_flags(O_NOFOLLOW | O_NONBLOCK);
    for _ in 0..OPEN_ATTEMPTS {
        match options.create_new(false).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        match options.create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => {
                hand_over(&file, path, previous)?;
                return Ok(file);
            }
        }
    }
    Err(io::Error::other("it appears and vanishes again and again"))
}

/// Gives a log that was just made to whom it belongs.
fn hand_over(file: &File, path: &Path, previous: Option<&Metadata>) -> io::Result<()> {
    let (owner, mode) = match previous {
        Some(previous) => ((previous.uid(), previous.gid()), previous.mode() & 0o777),
        None => {
            let directory = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            let directory = directory.unwrap_or(Path::new(".")).metadata()?;
            ((directory.uid(), directory.gid()), MODE)
        }
    };
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != owner {
        match fchown(file, Some(owner.0), Some(owner.1)) {
            // Only root may give a file away; for everyone else it stays their own.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            done => done?,
        }
    }
    file.set_permissions(Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::super::super::Level;
    use super::*;
    use serde_json::json;
    use std::fs;

    fn line(number: usize, filling: usize) -> LogLine {
        LogLine {
            time: "2026-02-03T04:05:06".parse().expect("a date"),
            environment: "production".to_owned(),
            level: Level::Info,
            message: "m".to_owned(),
            context: json!({"n": number, "x": "x".repeat(filling)}),
        }
    }

    fn numbers(path: &Path) -> Vec<u64> {
        let file = io::BufReader::new(File::open(path).expect("the log"));
        let mut reader = super::super::LogReader::new(file);
        let numbers = reader
            .by_ref()
            .map(|line| line.expect("read").context["n"].as_u64().expect("n"))
            .collect();
        assert_eq!(reader.passed_over(), 0);
        numbers
    }

    #[test]
    fn follows_a_rotation_and_keeps_the_mode() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, rotated) = (
            directory.path().join("a.log"),
            directory.path().join("a.log.1"),
        );
        let mut log = LogFile::open(&path).expect("opens");
        log.append(&line(1, 0)).expect("appends");
        assert_eq!(fs::metadata(&path).expect("made").mode() & 0o777, 0o640);

        fs::set_permissions(&path, Permissions::from_mode(0o664)).expect("chmod");
        fs::rename(&path, &rotated).expect("rename");
        log.append(&line(2, 0)).expect("appends");
        fs::remove_file(&path).expect("remove");
        log.append(&line(3, 0)).expect("appends");

        assert_eq!(numbers(&rotated), [1]);
        assert_eq!(numbers(&path), [3]);
        assert_eq!(fs::metadata(&path).expect("made").mode() & 0o777, 0o664);
    }

    #[test]
    fn lines_of_several_writers_do_not_mix() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.log");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let mut log = LogFile::open(&path).expect("opens");
                scope.spawn(move || {
                    for number in 0..100 {
                        log.append(&line(writer * 100 + number, 20_000))
                            .expect("appends");
                    }
                });
            }
        });
        let mut seen = numbers(&path);
        seen.sort_unstable();
        assert_eq!(seen, (0..400).collect::<Vec<u64>>());
    }

    #[test]
    fn only_regular_files() {
        let directory = tempfile::tempdir().expect("a directory");
        let link = directory.path().join("link.log");
        std::os::unix::fs::symlink("/dev/null", &link).expect("symlink");
        assert!(matches!(
            LogFile::open(&link),
            Err(LogError::NotAFile { .. })
        ));
        let pipe = directory.path().join("pipe.log");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
        assert!(matches!(
            LogFile::open(&pipe),
            Err(LogError::NotAFile { .. })
        ));
        assert!(matches!(
            LogFile::open(directory.path()),
            Err(LogError::Open { .. })
        ));
    }

    #[test]
    fn a_line_too_long_is_refused_and_the_next_is_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.log");
        let mut log = LogFile::open(&path).expect("opens");
        assert!(matches!(
            log.append(&line(1, MAX_LINE_BYTES)),
            Err(LogError::TooLong { .. })
        ));
        log.append(&line(2, 0)).expect("appends");
        assert_eq!(numbers(&path), [2]);
    }

    #[test]
    fn a_torn_line_does_not_spoil_the_next() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.log");
        fs::write(&path, "[2026-02-03 04:05:06] production.INFO: m {\"n\"").expect("writes");
        let mut log = LogFile {
            torn: true,
            ..LogFile::open(&path).expect("opens")
        };
        log.append(&line(1, 0)).expect("appends");
        log.append(&line(2, 0)).expect("appends");

        let file = io::BufReader::new(File::open(&path).expect("the log"));
        let mut reader = super::super::LogReader::new(file);
        assert_eq!(reader.by_ref().count(), 2);
        assert_eq!(reader.passed_over(), 1);
    }
}
