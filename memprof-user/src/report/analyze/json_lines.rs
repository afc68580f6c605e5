//! The analysis for programs: a JSON object a line.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;

use super::Printer;
use super::log_routes::LogRoute;
use super::pattern::Match;
use super::select::Selection;
use super::summary::Summary;
use crate::record::json;
use crate::report::dump_view::DumpView;
use crate::report::findings::Findings;

/// Prints to this.
pub(super) struct JsonLines<W>(pub(super) W);

impl<W: Write> JsonLines<W> {
    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        writeln!(self.0, "{}", json::to_line(line)?)
    }
}

impl<W: Write> Printer for JsonLines<W> {
    fn begin(&mut self, selection: &Selection) -> io::Result<()> {
        let directory = selection.directory.display().to_string();
        let (found, selected) = (selection.found, selection.len());
        self.line(&json!({"record": "analysis", "directory": directory, "found": found, "selected": selected}))
    }

    fn unreadable(&mut self, name: &str, reason: &str) -> io::Result<()> {
        self.line(&json!({"record": "unreadable", "file": name, "reason": reason}))
    }

    fn dump(&mut self, name: &str, dump: &DumpView) -> io::Result<()> {
        self.line(&json!({"record": "dump", "file": name, "dump": dump}))
    }

    fn summary(&mut self, summary: Option<&Summary>) -> io::Result<()> {
        self.line(&json!({"record": "summary", "summary": summary}))
    }

    fn pattern(&mut self, _pattern: &str) -> io::Result<()> {
        Ok(())
    }

    fn found(&mut self, name: &str, dump: &DumpView, found: &Match) -> io::Result<()> {
        let DumpView {
            timestamp, context, ..
        } = dump;
        let Match {
            session_keys,
            frames,
        } = found;
        self.line(&json!({
            "record": "match", "file": name, "timestamp": timestamp, "context": context,
            "session_keys": session_keys, "frames": frames,
        }))
    }

    fn findings(&mut self, findings: &Findings) -> io::Result<()> {
        for (rank, case) in (1..).zip(&findings.cases) {
            self.line(&json!({"record": "finding", "rank": rank, "finding": case}))?;
        }
        for line in &findings.unknown {
            self.line(&json!({"record": "unknown", "text": line}))?;
        }
        Ok(())
    }

    fn log_routes(&mut self, routes: &[LogRoute]) -> io::Result<()> {
        for route in routes {
            self.line(&json!({"record": "log_route", "log_route": route}))?;
        }
        Ok(())
    }
}
