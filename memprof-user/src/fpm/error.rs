//! What can go wrong between memprof and /proc, and what to do about it.

use std::path::PathBuf;

use procfs::ProcError;

/// Why php-fpm could not be found or one of its processes could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum FpmError {
    /// No process carries the title of a php-fpm master or worker.
    #[error(
        "no process in /proc has a title that begins with \"php-fpm: master process\" or \"php-fpm: pool\"; \
         start php-fpm, become root if /proc is mounted with hidepid, or name another PHP process by --pid"
    )]
    NoFpm,
    /// No running worker and no readable configuration knows the pool.
    #[error("no php-fpm pool is named \"{pool}\"; {}", known_pools(.known))]
    NoSuchPool {
        /// The pool asked for.
        pool: String,
        /// The pools that exist.
        known: Vec<String>,
    },
    /// The process does not exist, or has ended since it was found.
    #[error("process {pid} does not run; `memprof list` shows the workers that do")]
    NoSuchProcess {
        /// Its process id.
        pid: i32,
    },
    /// The process is a php-fpm master: it has no requests of its own.
    #[error("process {pid} is a php-fpm master, which serves no requests; take its workers: {cure}", cure = pool_flags(.pools))]
    IsMaster {
        /// Its process id.
        pid: i32,
        /// The pools of its workers.
        pools: Vec<String>,
    },
    /// The kernel refuses to show the file to this user.
    #[error(
        "no permission to read {path}; the processes of other users are shown to root, \
         or to a process with CAP_SYS_PTRACE"
    )]
    Permission {
        /// The file in /proc.
        path: PathBuf,
    },
    /// A file in /proc could not be read or made sense of.
    #[error("cannot read {path}")]
    Read {
        /// The file in /proc.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl FpmError {
    /// Sorts an I/O error on `path`, a file of process `pid`.
    pub(super) fn from_io(pid: i32, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            std::io::ErrorKind::PermissionDenied => Self::Permission { path },
            std::io::ErrorKind::NotFound if !process_exists(pid) => Self::NoSuchProcess { pid },
            // A file of a process that has just ended answers "no such process".
            _ if source.raw_os_error() == Some(nix::libc::ESRCH) => Self::NoSuchProcess { pid },
            _ => Self::Read { path, source },
        }
    }

    /// Sorts an error of the procfs crate on `path`, a file of process `pid`.
    pub(super) fn from_procfs(pid: i32, path: impl Into<PathBuf>, error: ProcError) -> Self {
        let source = match error {
            ProcError::PermissionDenied(_) => std::io::ErrorKind::PermissionDenied.into(),
            ProcError::NotFound(_) => std::io::ErrorKind::NotFound.into(),
            ProcError::Io(source, _) => source,
            other => std::io::Error::other(other),
        };
        Self::from_io(pid, path, source)
    }
}

fn process_exists(pid: i32) -> bool {
    PathBuf::from(format!("/proc/{pid}")).exists()
}

fn known_pools(known: &[String]) -> String {
    if known.is_empty() {
        "no pool was found at all".to_owned()
    } else {
        format!("the pools are: {}", known.join(", "))
    }
}

fn pool_flags(pools: &[String]) -> String {
    if pools.is_empty() {
        "it has none now".to_owned()
    } else {
        let flags: Vec<String> = pools.iter().map(|pool| format!("--pool {pool}")).collect();
        flags.join(" ")
    }
}
