//! `--pool`, `--pid`, `--all`.

use std::path::PathBuf;

use clap::Args;

use crate::capture::control::RUN_FOLDER;
use crate::fpm::Target;

/// Which workers a verb is about.
#[derive(Args, Clone, Debug)]
#[group(id = "target", multiple = false)]
pub(super) struct TargetArgs {
    /// The workers of this php-fpm pool, present and future; may be given several times
    #[arg(long, value_name = "NAME")]
    pool: Vec<String>,
    /// These processes; they need not be php-fpm workers
    #[arg(short, long, value_name = "PID", num_args = 1.., value_parser = clap::value_parser!(i32).range(1..))]
    pid: Vec<i32>,
}

/// Where memprofs that run are reached.
#[derive(Args, Clone, Debug)]
pub(super) struct RunFolderArgs {
    /// The folder by which memprofs that run are reached
    #[arg(long, value_name = "DIR", env = "MEMPROF_RUN_FOLDER", default_value = RUN_FOLDER, hide = true)]
    pub(super) run_folder: PathBuf,
}

impl TargetArgs {
    /// The target, or `None` when neither a pool nor a process was named.
    pub(super) fn target(&self) -> Option<Target> {
        if !self.pool.is_empty() {
            Some(Target::Pools(self.pool.clone()))
        } else if !self.pid.is_empty() {
            Some(Target::Pids(self.pid.clone()))
        } else {
            None
        }
    }
}
