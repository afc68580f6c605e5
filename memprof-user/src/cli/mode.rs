//! `memprof mode`: the mode of memprofs that run.

use std::io::Write;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::exit::{Exit, ExitError};
use super::table::printable;
use super::target::RunFolderArgs;
use super::values;
use crate::capture::Mode;
use crate::capture::control::{Answer, Folder, Request, State, ask_all};

/// Show or change the mode of the memprofs that run
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ModeArgs {
    /// The mode; without it the mode is only shown
    #[arg(value_enum)]
    mode: Option<Wanted>,
    /// For so long: 60, 60s, 10m, 1h; without it until told otherwise
    #[arg(long = "for", value_name = "TIME", value_parser = values::duration, requires = "mode")]
    time: Option<Duration>,
    /// Only the memprof with this process id
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    #[command(flatten)]
    run: RunFolderArgs,
}

const EXAMPLES: &str = "\
EXAMPLES:
  sudo memprof mode
  sudo memprof mode aggressive --for 10m
  sudo memprof mode configured

A mode that is ordered goes before windows and --when, and ends what the overhead guard said.";

/// The modes that can be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wanted {
    /// A share of the requests in full
    Light,
    /// Every request with its growth by stack
    Aggressive,
    /// Requests that carry the header of --force-header
    Targeted,
    /// What the command line or the configuration says
    Configured,
}

impl ModeArgs {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let folder = Folder::open(&self.run.run_folder)?;
        let seconds = self.time.map(|time| time.as_secs());
        let ordered = |mode| Request::Mode { mode, seconds };
        let request = match self.mode {
            None => Request::State,
            Some(Wanted::Light) => ordered(Mode::Light),
            Some(Wanted::Aggressive) => ordered(Mode::Aggressive),
            Some(Wanted::Targeted) => ordered(Mode::Targeted),
            Some(Wanted::Configured) => Request::Configured,
        };
        let answers = ask_all(&folder, self.pid, &request)?;
        if answers.is_empty() {
            return Err(ExitError {
                exit: Exit::NoSuchTarget,
                message: match self.pid {
                    Some(pid) => format!("no memprof with process id {pid} is attached"),
                    None => "no memprof is attached on this machine".to_owned(),
                },
            }
            .into());
        }
        let mut exit = Exit::Done;
        for answer in answers {
            let line = match answer {
                Answer::State(state) => {
                    if state.refused.is_some() {
                        exit = Exit::Failed;
                    }
                    told(&state)
                }
                Answer::Silent(socket, error) => {
                    exit = Exit::Failed;
                    format!("{socket} does not answer: {error}")
                }
            };
            writeln!(std::io::stdout().lock(), "{}", printable(&line))?;
        }
        Ok(exit)
    }
}

fn told(state: &State) -> String {
    let State {
        pid,
        target,
        mode,
        reason,
        refused,
    } = state;
    let mode = mode.map_or("no probe", Mode::as_str);
    let refused = refused
        .as_ref()
        .map_or(String::new(), |why| format!("; refused: {why}"));
    format!("memprof {pid} ({target}): {mode}, {reason}{refused}")
}
