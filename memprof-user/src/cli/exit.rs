//! What memprof's exit status says, and how an error is told.

use std::fmt::Write;
use std::io::ErrorKind;
use std::process::ExitCode;

use super::table::printable;
use crate::binary::BinaryError;
use crate::config::ConfigError;
use crate::fpm::{FpmError, LiveError};
use crate::zend::ZendError;

/// The exit status of every verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// 0: done.
    Done = 0,
    /// 1: failed.
    Failed = 1,
    /// 2: the command line makes no sense (clap ends with it too).
    Usage = 2,
    /// 3: no such pool or worker.
    NoSuchTarget = 3,
    /// 4: a permission or a capability is missing.
    Denied = 4,
    /// 5: this PHP or this kernel is not supported.
    Unsupported = 5,
    /// 6: memprof is disabled by its operator.
    Disabled = 6,
}

/// The same for `--help`.
pub(super) const HELP: &str = "\
EXIT STATUS:
  0  done
  1  failed
  2  usage
  3  no such pool or worker
  4  permission or capability missing
  5  unsupported PHP or kernel
  6  disabled by `memprof disable`";

/// An error of a verb that has an exit status of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExitError {
    /// The status to end with.
    pub exit: Exit,
    /// What was tried, what was found, and the cure.
    pub message: String,
}

impl Exit {
    /// The status that an error deserves: that of the first cause that has one, else [`Exit::Failed`].
    ///
    /// A reader that closed its pipe (`memprof list | head -1`) has seen enough: that is [`Exit::Done`].
    pub fn of(error: &anyhow::Error) -> Self {
        error
            .chain()
            .find_map(Self::of_cause)
            .unwrap_or(Self::Failed)
    }

    fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if let Some(error) = cause.downcast_ref::<ExitError>() {
            return Some(error.exit);
        }
        if let Some(error) = cause.downcast_ref::<FpmError>() {
            return Self::of_process(error);
        }
        if cause.is::<ConfigError>() {
            return Some(Self::Usage);
        }
        if let Some(error) = cause.downcast_ref::<LiveError>() {
            return Self::of_php(error);
        }
        #[cfg(feature = "ebpf")]
        if let Some(error) = cause.downcast_ref::<crate::capture::AttachError>() {
            return Self::of_attach(error);
        }
        match cause.downcast_ref::<std::io::Error>()?.kind() {
            ErrorKind::PermissionDenied => Some(Self::Denied),
            ErrorKind::BrokenPipe => Some(Self::Done),
            _ => None,
        }
    }
}

impl Exit {
    #[cfg(feature = "ebpf")]
    fn of_attach(error: &crate::capture::AttachError) -> Option<Self> {
        use crate::capture::{AttachError, FollowError};
        match error {
            AttachError::Process(error) => Self::of_process(error),
            AttachError::Follow(FollowError::Worker(error)) => Self::of_php(error),
            AttachError::Engine(error) | AttachError::Follow(FollowError::Engine(error)) => {
                Some(if error.is_permission() {
                    Self::Denied
                } else {
                    Self::Unsupported
                })
            }
            AttachError::PidNamespace => Some(Self::Unsupported),
            AttachError::Targeting(_) => Some(Self::Usage),
            AttachError::Disabled(_) => Some(Self::Disabled),
            AttachError::Output(_) | AttachError::Signals(_) | AttachError::Threads(_) => None,
        }
    }

    fn of_process(error: &FpmError) -> Option<Self> {
        match error {
            FpmError::NoFpm
            | FpmError::NoSuchPool { .. }
            | FpmError::NoSuchProcess { .. }
            | FpmError::IsMaster { .. } => Some(Self::NoSuchTarget),
            FpmError::Permission { .. } => Some(Self::Denied),
            FpmError::Read { .. } => None,
        }
    }

    pub(super) fn of_php(error: &LiveError) -> Option<Self> {
        match error {
            LiveError::Process(error) => Self::of_process(error),
            LiveError::Binary { source, .. } => match &**source {
                BinaryError::Read(_) => None,
                _ => Some(Self::Unsupported),
            },
            LiveError::NotMapped { .. } | LiveError::CompileFile { .. } => None,
            LiveError::Memory { source, .. } => Self::of_memory(source),
        }
    }

    fn of_memory(error: &ZendError) -> Option<Self> {
        if error.is_permission() {
            Some(Self::Denied)
        } else if error.is_gone() {
            Some(Self::NoSuchTarget)
        } else if let ZendError::Inconsistent { .. } = error {
            None
        } else {
            Some(Self::Unsupported)
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// This command once more, as root; with the program's whole path, because sudo has a PATH of its own.
pub(super) fn sudo_line() -> String {
    let program = std::env::current_exe()
        .map_or("memprof".into(), |path| path.to_string_lossy().into_owned());
    let arguments = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned());
    let words: Vec<String> = std::iter::once(program)
        .chain(arguments)
        .map(|word| quoted(&word))
        .collect();
    format!("sudo {}", words.join(" "))
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+%@".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// An error for people: what failed, each cause on a line of its own, and the command that would work.
pub fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut last = String::new();
    for cause in error.chain().map(ToString::to_string) {
        let head = if last.is_empty() {
            "memprof: "
        } else {
            "  because: "
        };
        // Some errors tell their cause in their own words already.
        if !last.contains(&cause) {
            let _ = writeln!(text, "{head}{}", printable(&cause));
        }
        last = cause;
    }
    if Exit::of(error) == Exit::Denied && !nix::unistd::geteuid().is_root() {
        let _ = writeln!(text, "  cure: {}", printable(&sudo_line()));
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn the_first_cause_with_a_status_decides() {
        let permission = std::io::Error::from(ErrorKind::PermissionDenied);
        let cases = [
            (anyhow!("anything"), Exit::Failed),
            (
                anyhow::Error::from(FpmError::NoFpm).context("cannot attach"),
                Exit::NoSuchTarget,
            ),
            (
                anyhow::Error::from(permission).context("cannot write"),
                Exit::Denied,
            ),
            (
                std::io::Error::from(ErrorKind::BrokenPipe).into(),
                Exit::Done,
            ),
        ];
        for (error, exit) in cases {
            assert_eq!(Exit::of(&error), exit, "{error:#}");
        }
    }

    #[test]
    fn a_file_of_another_user_is_a_matter_of_permission() {
        let source = std::io::Error::from(ErrorKind::PermissionDenied);
        let error = FpmError::Read {
            path: "/proc/1/maps".into(),
            source,
        };
        assert_eq!(Exit::of(&error.into()), Exit::Denied);
    }

    #[test]
    fn each_cause_has_its_line_and_no_escape_sequence_gets_out() {
        let error = Err::<(), _>(anyhow!("pool \u{1b}[2J"))
            .context("cannot attach")
            .expect_err("an error");
        assert_eq!(
            explain(&error),
            "memprof: cannot attach\n  because: pool \\u{1b}[2J\n"
        );
    }

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        let error = anyhow!("no such file").context("cannot read x: no such file");
        assert_eq!(explain(&error), "memprof: cannot read x: no such file\n");
    }

    #[test]
    fn the_command_is_quoted_for_a_shell() {
        assert_eq!(quoted("/usr/bin/memprof"), "/usr/bin/memprof");
        assert_eq!(quoted("my pool"), "'my pool'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
