//! `memprof disable` and `memprof enable`: a flag that every memprof of this machine obeys.

use std::time::Duration;

use clap::Args;

use super::exit::Exit;
use super::target::RunFolderArgs;
use super::values;
use crate::capture::control::Folder;

/// Have every memprof of this machine take its probes away within a second, and none start
#[derive(Args, Debug)]
pub(super) struct DisableArgs {
    /// For so long: 60, 60s, 10m, 1h; without it until `memprof enable`
    #[arg(long = "for", value_name = "TIME", value_parser = values::duration)]
    time: Option<Duration>,
    #[command(flatten)]
    run: RunFolderArgs,
}

/// End what `memprof disable` began
#[derive(Args, Debug)]
pub(super) struct EnableArgs {
    #[command(flatten)]
    run: RunFolderArgs,
}

impl DisableArgs {
    pub(super) fn run(self, quiet: bool) -> anyhow::Result<Exit> {
        let disabled = Folder::open(&self.run.run_folder)?.disable(self.time)?;
        if !quiet {
            match disabled.until {
                Some(until) => eprintln!("memprof: disabled until {until}"),
                None => eprintln!("memprof: disabled until `memprof enable`"),
            }
        }
        Ok(Exit::Done)
    }
}

impl EnableArgs {
    pub(super) fn run(self, quiet: bool) -> anyhow::Result<Exit> {
        let was_disabled = Folder::open(&self.run.run_folder)?.enable()?;
        if !quiet {
            match was_disabled {
                true => eprintln!("memprof: enabled"),
                false => eprintln!("memprof: it was not disabled"),
            }
        }
        Ok(Exit::Done)
    }
}
