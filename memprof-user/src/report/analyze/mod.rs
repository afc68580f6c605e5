//! The analyzer: what a directory of memory dumps has in common.
//!
//! Its text is that of the analyzer script which Laravel applications with an in-app profiler have, byte for byte, on
//! dumps of either origin. Where that script would die (no dump selected, none that parses), this one says so and ends.
//!
//! Dumps are read one at a time, once for each section that needs them, so a hundred thousand take no more memory than
//! their names and the tables that are printed.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;

use crate::record::dump;
use crate::report::dump_view::DumpView;
use crate::report::facts::Facts;
use crate::report::findings::{Collection, Findings};
use crate::report::text;

mod classic;
mod json_lines;
mod log_routes;
mod pattern;
mod select;
mod summary;

use classic::Classic;
use json_lines::JsonLines;
use log_routes::LogRoute;
use pattern::{Match, Pattern};
use select::Selection;
use summary::{Summary, Totals};

/// What to analyze, and how to print it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnalyzeOptions {
    /// The directory with the dumps, or one that holds them in `memory-dumps` or `storage/logs/memory-dumps`.
    pub directory: PathBuf,
    /// Only so many dumps, the newest.
    pub recent: usize,
    /// Print the summary; it is also printed when `details` is not asked for.
    pub summary: bool,
    /// Print each dump.
    pub details: bool,
    /// Print the dumps that hold this text: case-insensitive, in the dump's JSON as PHP escapes it (`\/`, `\\`, `\u00e9`).
    pub pattern: Option<String>,
    /// For people or for programs.
    pub format: Format,
    /// Whether the findings follow, which the analyzer script does not have.
    pub findings: bool,
}

/// How the analysis is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As the analyzer script prints it.
    Classic,
    /// A JSON object a line: `analysis`, then as they apply `unreadable`, `dump`, `summary`, `match`, `finding`,
    /// `unknown`, `log_route`, by its `record` key.
    JsonLines,
}

/// Why there is no analysis.
#[derive(Debug, Error)]
pub enum AnalyzeError {
    /// There is no such directory. The text is the analyzer script's.
    #[error("❌ Dump directory not found: {0}")]
    DirectoryNotFound(PathBuf),
    /// The directory could not be listed.
    #[error("cannot list the dumps in {path}: {source}; run as a user who may read it")]
    List {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The analysis could not be printed.
    #[error("cannot print the analysis: {0}")]
    Print(#[from] io::Error),
}

/// Prints what the newest dumps of a directory have in common.
///
/// A dump that cannot be read, or lacks its memory figures, is named and passed over. `progress` is called after each dump
/// of the first pass with how many were read, and of how many.
///
/// # Errors
///
/// [`AnalyzeError`].
pub fn analyze(
    options: &AnalyzeOptions,
    out: &mut impl Write,
    progress: impl FnMut(usize, usize),
) -> Result<(), AnalyzeError> {
    let selection = Selection::newest(&options.directory, options.recent)?;
    match options.format {
        Format::Classic => print(options, &selection, &mut Classic(out), progress)?,
        Format::JsonLines => print(options, &selection, &mut JsonLines(out), progress)?,
    }
    Ok(())
}

/// The newest dump of a directory, or of `memory-dumps` in it; `None` when it has none.
pub(super) fn newest_dump(directory: &Path) -> Result<Option<PathBuf>, AnalyzeError> {
    Ok(Selection::newest(directory, 1)?.paths().next())
}

/// One way to print an analysis; the calls come in this order.
trait Printer {
    /// The directory, how many dumps it holds, and how many of them are selected.
    fn begin(&mut self, selection: &Selection) -> io::Result<()>;
    /// A selected dump that could not be read.
    fn unreadable(&mut self, name: &str, reason: &str) -> io::Result<()>;
    /// A dump, for the details.
    fn dump(&mut self, name: &str, dump: &DumpView) -> io::Result<()>;
    /// What the dumps have in common; `None` when none could be read.
    fn summary(&mut self, summary: Option<&Summary>) -> io::Result<()>;
    /// The search for a pattern begins.
    fn pattern(&mut self, pattern: &str) -> io::Result<()>;
    /// A dump that holds the pattern.
    fn found(&mut self, name: &str, dump: &DumpView, found: &Match) -> io::Result<()>;
    /// What the dumps' figures mean.
    fn findings(&mut self, findings: &Findings) -> io::Result<()>;
    /// The routes with the highest peaks in the run's log; none is no log, or none that was high.
    fn log_routes(&mut self, routes: &[LogRoute]) -> io::Result<()>;
}

fn print(
    options: &AnalyzeOptions,
    selection: &Selection,
    printer: &mut impl Printer,
    progress: impl FnMut(usize, usize),
) -> io::Result<()> {
    printer.begin(selection)?;
    if selection.found > 0 {
        print_dumps(options, selection, printer, progress)?;
    }
    if options.findings {
        printer.log_routes(&log_routes::highest(&selection.directory))?;
    }
    Ok(())
}

fn print_dumps(
    options: &AnalyzeOptions,
    selection: &Selection,
    printer: &mut impl Printer,
    mut progress: impl FnMut(usize, usize),
) -> io::Result<()> {
    let mut totals = Totals::default();
    let mut collection = Collection::default();
    for (read, path) in (1..).zip(selection.paths()) {
        match load(&path) {
            Ok((json, dump)) => {
                totals.add(&dump);
                if options.findings {
                    collection.add(&Facts::new(name(&path), &json, dump));
                }
            }
            Err(reason) => {
                printer.unreadable(&name(&path), &reason)?;
                collection.add_unreadable(&reason);
            }
        }
        progress(read, selection.len());
    }
    if options.details {
        for_each_dump(selection, |name, _, dump| printer.dump(name, dump))?;
    }
    if options.summary || !options.details {
        printer.summary(totals.summary().as_ref())?;
    }
    if let Some(text) = &options.pattern {
        printer.pattern(text)?;
        let pattern = Pattern::new(text);
        for_each_dump(selection, |name, json, dump| {
            match pattern.find(json, dump) {
                Some(found) => printer.found(name, dump, &found),
                None => Ok(()),
            }
        })?;
    }
    if options.findings {
        let load_again = |name: &str| {
            let (json, dump) = load(&selection.directory.join(name)).ok()?;
            Some(Facts::new(name.to_owned(), &json, dump))
        };
        printer.findings(&collection.findings(load_again))?;
    }
    Ok(())
}

/// Reads the selected dumps once more; those that cannot be read were named already.
fn for_each_dump(
    selection: &Selection,
    mut visit: impl FnMut(&str, &Value, &DumpView) -> io::Result<()>,
) -> io::Result<()> {
    for path in selection.paths() {
        if let Ok((json, dump)) = load(&path) {
            visit(&name(&path), &json, &dump)?;
        }
    }
    Ok(())
}

fn load(path: &Path) -> Result<(Value, DumpView), String> {
    let json: Value = dump::read(path).map_err(|error| error.to_string())?;
    let dump = DumpView::new(&json).map_err(|missing| format!("it has no {missing}"))?;
    Ok((json, dump))
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    text::printable(&name.to_string_lossy())
}

#[cfg(test)]
mod tests;
