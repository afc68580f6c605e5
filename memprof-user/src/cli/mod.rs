//! The command line, one file a verb; arguments are turned into plain option structs here.

mod analyze;
mod attach;
mod config;
mod diff;
mod disable;
mod doctor;
mod dump;
mod exit;
mod list;
mod mode;
mod table;
mod target;
mod values;

use clap::{Parser, Subcommand};

pub use exit::{Exit, ExitError, explain};

/// Tells, on a live server, what in a PHP application eats the memory
#[derive(Parser, Debug)]
#[command(version, after_help = exit::HELP, propagate_version = true, args_override_self = true)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Print nothing on stderr but errors
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Subcommand, Debug)]
enum Verb {
    List(list::ListArgs),
    Doctor(doctor::DoctorArgs),
    Attach(Box<attach::AttachArgs>),
    Dump(dump::DumpArgs),
    Mode(mode::ModeArgs),
    Disable(disable::DisableArgs),
    Enable(disable::EnableArgs),
    Analyze(analyze::AnalyzeArgs),
    Diff(diff::DiffArgs),
}

impl Cli {
    /// The command line of this process and, for a verb that takes settings, what the configuration and the
    /// environment say beside it.
    ///
    /// A command line that makes no sense ends the process, as clap has it.
    ///
    /// # Errors
    /// The configuration makes no sense.
    pub fn of_process() -> anyhow::Result<Self> {
        let cli = Self::parse();
        match &cli.verb {
            Verb::Attach(attach) => config::with_settings(attach.config.as_deref()),
            _ => Ok(cli),
        }
    }

    /// Does what the command line says.
    ///
    /// # Errors
    /// Whatever kept the verb from its end; [`Exit::of`] says with which status to tell it.
    pub fn run(self) -> anyhow::Result<Exit> {
        match self.verb {
            Verb::List(list) => list.run(self.quiet),
            Verb::Doctor(doctor) => doctor.run(),
            Verb::Attach(attach) => attach.run(self.quiet),
            Verb::Dump(dump) => dump.run(self.quiet),
            Verb::Mode(mode) => mode.run(),
            Verb::Disable(disable) => disable.run(self.quiet),
            Verb::Enable(enable) => enable.run(self.quiet),
            Verb::Analyze(analyze) => analyze.run(self.quiet),
            Verb::Diff(diff) => diff.run(),
        }
    }
}
