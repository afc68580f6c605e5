//! `memprof analyze`: what the newest memory dumps have in common.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::exit::Exit;
use crate::report::analyze::{AnalyzeOptions, Format, analyze};

/// Tell what the newest memory dumps of a folder have in common
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct AnalyzeArgs {
    /// The folder of the dumps, or one that holds them in memory-dumps or storage/logs/memory-dumps
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Only so many dumps, the newest
    #[arg(long, value_name = "N", default_value_t = 10)]
    recent: usize,
    /// Print the summary; it is also printed without --details
    #[arg(long)]
    summary: bool,
    /// Print each dump
    #[arg(long)]
    details: bool,
    /// Print the dumps that hold this text, as it stands in their JSON
    #[arg(long, value_name = "TEXT")]
    pattern: Option<String>,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
    /// Without the findings, as the analyzer script of in-app profilers prints it
    #[arg(long)]
    classic: bool,
}

/// The bar while dumps are read.
const PROGRESS: &str = "{bar:40} {human_pos} of {human_len} dumps, {eta} left";

const EXAMPLES: &str = "\
EXAMPLES:
  memprof analyze /var/log/memprof/www
  memprof analyze /var/www/app --recent 50 --details
  memprof analyze --pattern permissions_cache
  memprof analyze --json | jq '.finding.title // empty'

After what the analyzer script of in-app profilers prints come the findings: what fills the heap, with the figures that
show it, and where to look next.";

impl AnalyzeArgs {
    pub(super) fn run(self, quiet: bool) -> anyhow::Result<Exit> {
        let options = AnalyzeOptions {
            directory: self.directory,
            recent: self.recent,
            summary: self.summary,
            details: self.details,
            pattern: self.pattern,
            format: if self.json {
                Format::JsonLines
            } else {
                Format::Classic
            },
            findings: !self.classic,
        };
        let mut stdout = std::io::stdout().lock();
        // On stderr, and only where that is a terminal.
        let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(PROGRESS)?);
        if quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        analyze(&options, &mut stdout, |read, of| {
            bar.set_length(of as u64);
            bar.set_position(read as u64);
            if read == of {
                bar.finish_and_clear();
            }
        })?;
        stdout.flush()?;
        Ok(Exit::Done)
    }
}
