//! How an operator reaches memprofs that run: the folder with their sockets, and the flag that disables all.

mod client;
mod flag;
#[cfg(feature = "ebpf")]
mod server;

use std::{
    fs::{DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use client::{Answer, ask_all};
pub use flag::Disabled;
#[cfg(feature = "ebpf")]
pub use server::Server;

use super::options::Mode;

/// Where memprofs that run are reached, unless told otherwise.
pub const RUN_FOLDER: &str = "/run/memprof";
/// A request and an answer are shorter.
const MOST_BYTES: u64 = 4096;

/// Why memprofs can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The folder can't be made or used.
    #[error("cannot use {path}, where memprofs that run are reached (it takes root): {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder could be another user's.
    #[error(
        "{path}, where memprofs that run are reached, belongs to another user or may be written by others: \
         remove it, and memprof makes it anew"
    )]
    Insecure {
        /// The folder.
        path: PathBuf,
    },
}

/// The folder by which memprofs are reached: mode 0700, and nobody else's.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Opens it, and makes it where there is none.
    ///
    /// # Errors
    /// [`ControlError`]
    pub fn open(path: &Path) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Folder {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        // A link is not followed.
        let found = path.symlink_metadata().map_err(failed)?;
        let is_ours = found.uid() == nix::unistd::geteuid().as_raw();
        if !found.is_dir() || !is_ours || found.mode() & 0o022 != 0 {
            return Err(ControlError::Insecure {
                path: path.to_owned(),
            });
        }
        std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
        Ok(Self(path.to_owned()))
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn error(&self, source: io::Error) -> ControlError {
        ControlError::Folder {
            path: self.0.clone(),
            source,
        }
    }
}

/// What a memprof that runs is asked; a line of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Say which mode you are in.
    State,
    /// Go over to a mode.
    Mode {
        /// The mode.
        mode: Mode,
        /// For so many seconds; `None` for good.
        seconds: Option<u64>,
    },
    /// Go back to what is configured.
    Configured,
}

/// What it answers; a line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its process id.
    pub pid: i32,
    /// What it is attached to.
    pub target: String,
    /// Its mode; `None` while it holds no probe.
    pub mode: Option<Mode>,
    /// Why it is in this mode.
    pub reason: String,
    /// Why it did not do what it was asked.
    pub refused: Option<String>,
}
