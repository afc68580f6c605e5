//! What can go wrong while a PHP executable is read.

use super::PhpVersion;

/// Why a file cannot be used as a PHP binary.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// The file could not be read.
    #[error("reading the executable failed: {0}; run as root, or check that the file still exists")]
    Read(#[from] std::io::Error),
    /// The file is larger than any PHP build.
    #[error(
        "the executable has {size} bytes, more than the {limit} that memprof reads; is this the PHP binary?"
    )]
    TooLarge {
        /// Bytes found.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The file is not ELF, or its tables contradict each other.
    #[error("not a readable ELF file: {0}; reinstall the package, or name another binary")]
    Malformed(String),
    /// The machine code is for a processor that memprof does not decode.
    #[error("the executable is for {0}; memprof decodes x86-64 and aarch64")]
    UnsupportedMachine(String),
    /// The file does not export what every PHP executable exports.
    #[error(
        "not a PHP executable: it does not export `{missing}`; name the php-fpm binary itself, linked with its dynamic symbols"
    )]
    NotPhp {
        /// The symbol that is not there.
        missing: String,
    },
    /// A thread-safe (ZTS) build: its globals are per thread.
    #[error(
        "this PHP is a thread-safe (ZTS) build: it exports `executor_globals_offset`, not `executor_globals`; \
         memprof reads non-thread-safe builds (`php -i` says \"Thread Safety => disabled\"): use the NTS package"
    )]
    ThreadSafe,
    /// A piece of code does not look as in any build that was measured.
    #[error(
        "{what} was not found: {reason}; this build is not supported yet, please report its `php -v` and build-id"
    )]
    NotFound {
        /// What was looked for.
        what: String,
        /// Where it was looked for, and what was there instead.
        reason: String,
    },
    /// Two independent ways to the same value gave different results.
    #[error(
        "{what}: {first}, but {second}; nothing is guessed, please report this build's `php -v` and build-id"
    )]
    Disagree {
        /// The value.
        what: String,
        /// The first way and its result.
        first: String,
        /// The second way and its result.
        second: String,
    },
    /// A version whose code was never measured.
    #[error("PHP {0} is older than the oldest supported version, 7.4")]
    UnsupportedVersion(PhpVersion),
}

impl BinaryError {
    /// A [`BinaryError::NotFound`].
    pub(super) fn not_found(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::NotFound {
            what: what.into(),
            reason: reason.into(),
        }
    }

    /// A [`BinaryError::Disagree`].
    pub(super) fn disagree(
        what: impl Into<String>,
        first: impl Into<String>,
        second: impl Into<String>,
    ) -> Self {
        Self::Disagree {
            what: what.into(),
            first: first.into(),
            second: second.into(),
        }
    }
}
