//! The analysis as the analyzer script prints it.

use std::io::{self, Write};

use super::Printer;
use super::log_routes::LogRoute;
use super::pattern::Match;
use super::select::Selection;
use super::summary::{Insight, SessionSummary, Summary};
use crate::record::number::echo;
use crate::report::dump_view::DumpView;
use crate::report::findings::{self, Findings};
use crate::report::text;

const RULE: &str =
    "================================================================================";

/// Prints to this.
pub(super) struct Classic<W>(pub(super) W);

impl<W: Write> Printer for Classic<W> {
    fn begin(&mut self, selection: &Selection) -> io::Result<()> {
        if selection.found == 0 {
            return writeln!(
                self.0,
                "📭 No memory dumps found in {}",
                selection.directory.display()
            );
        }
        writeln!(
            self.0,
            "📊 Analyzing {} memory dumps\n{RULE}\n",
            selection.len()
        )
    }

    fn unreadable(&mut self, name: &str, _reason: &str) -> io::Result<()> {
        writeln!(self.0, "⚠️  Failed to parse: {name}")
    }

    fn dump(&mut self, name: &str, dump: &DumpView) -> io::Result<()> {
        let memory = &dump.memory;
        let (current, limit) = (echo(memory.current_mb), echo(memory.limit_mb));
        writeln!(self.0, "📄 {name}")?;
        writeln!(self.0, "   Context: {}", dump.context)?;
        writeln!(self.0, "   Time: {}", dump.timestamp)?;
        writeln!(
            self.0,
            "   Memory: {current} MB / {limit} MB ({}%)",
            echo(memory.usage_percent)
        )?;
        writeln!(self.0, "   Peak: {} MB", echo(memory.peak_mb))?;
        if let Some(size_mb) = dump.session.size_mb {
            writeln!(self.0, "   Session: {} MB", echo(size_mb))?;
        }
        if let Some(keys) = &dump.session.largest_keys {
            writeln!(self.0, "   Largest session keys:")?;
            for (key, size) in keys {
                writeln!(self.0, "     - {key}: {size}")?;
            }
        }
        writeln!(self.0)
    }

    fn summary(&mut self, summary: Option<&Summary>) -> io::Result<()> {
        writeln!(self.0, "{RULE}\n📈 SUMMARY ANALYSIS\n{RULE}\n")?;
        let Some(summary) = summary else {
            return writeln!(
                self.0,
                "No dump could be read: there is nothing to sum up.\n"
            );
        };
        let memory = &summary.memory;
        writeln!(self.0, "Memory Statistics:")?;
        writeln!(self.0, "  Average: {} MB", echo(memory.average_mb))?;
        writeln!(self.0, "  Min: {} MB", echo(memory.min_mb))?;
        writeln!(self.0, "  Max: {} MB", echo(memory.max_mb))?;
        writeln!(self.0, "  Peak Max: {} MB\n", echo(memory.peak_max_mb))?;
        writeln!(self.0, "Contexts:")?;
        for context in &summary.contexts {
            writeln!(self.0, "  {}: {} times", context.name, context.count)?;
        }
        writeln!(self.0)?;
        if let Some(session) = &summary.session {
            self.session(session)?;
        }
        if !summary.frames.is_empty() {
            writeln!(self.0, "Most common stack frames:")?;
            for frame in &summary.frames {
                writeln!(self.0, "  {}: {} occurrences", frame.name, frame.count)?;
            }
            writeln!(self.0)?;
        }
        self.insights(summary)
    }

    fn pattern(&mut self, pattern: &str) -> io::Result<()> {
        let pattern = text::printable(pattern);
        writeln!(
            self.0,
            "{RULE}\n🔎 SEARCHING FOR PATTERN: {pattern}\n{RULE}\n"
        )
    }

    fn found(&mut self, _name: &str, dump: &DumpView, found: &Match) -> io::Result<()> {
        writeln!(
            self.0,
            "✅ Found in dump: {} ({})",
            dump.timestamp, dump.context
        )?;
        for (key, size) in &found.session_keys {
            writeln!(self.0, "   Session key match: {key} = {size}")?;
        }
        for function in &found.frames {
            writeln!(self.0, "   Backtrace match: {function}")?;
        }
        writeln!(self.0)
    }

    fn findings(&mut self, findings: &Findings) -> io::Result<()> {
        findings::print(findings, &mut self.0)
    }

    fn log_routes(&mut self, routes: &[LogRoute]) -> io::Result<()> {
        if routes.is_empty() {
            return Ok(());
        }
        writeln!(self.0, "Highest routes in memprof.log, by peak:")?;
        for route in routes {
            let (peak, requests) = (echo(route.peak_mb), route.requests);
            writeln!(self.0, "  {peak} MB  {} ({requests} times)", route.route)?;
        }
        writeln!(self.0)
    }
}

impl<W: Write> Classic<W> {
    fn session(&mut self, session: &SessionSummary) -> io::Result<()> {
        writeln!(self.0, "Session Statistics:")?;
        writeln!(self.0, "  Average: {} MB", echo(session.average_mb))?;
        writeln!(self.0, "  Max: {} MB\n", echo(session.max_mb))?;
        if session.largest_keys.is_empty() {
            return Ok(());
        }
        writeln!(self.0, "Most common large session keys:")?;
        for key in &session.largest_keys {
            writeln!(self.0, "  {}: appears in {} dumps", key.name, key.count)?;
        }
        writeln!(self.0)
    }

    fn insights(&mut self, summary: &Summary) -> io::Result<()> {
        writeln!(self.0, "🔍 INSIGHTS:")?;
        for insight in &summary.insights {
            let (finding, advice) = match insight {
                Insight::LargeSession => {
                    let max_mb = summary
                        .session
                        .as_ref()
                        .map_or(0.0, |session| session.max_mb);
                    let finding = format!("⚠️  Large session detected (max: {} MB)", echo(max_mb));
                    (finding, "Consider session data optimization")
                }
                Insight::TrendingUpward => (
                    "⚠️  Memory usage trending upward over time".to_owned(),
                    "Possible memory leak or accumulation",
                ),
                Insight::LowVariance => (
                    "✅ Memory usage is consistent (low variance)".to_owned(),
                    "Issue is deterministic, not random",
                ),
                Insight::HighVariance => (
                    "⚠️  High memory variance detected".to_owned(),
                    "Issue may be state-dependent",
                ),
            };
            writeln!(self.0, "  {finding}\n      → {advice}")?;
        }
        writeln!(self.0)
    }
}
