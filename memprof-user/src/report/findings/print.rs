//! The findings as people read them.

use std::io::{self, Write};

use super::collection::{Case, Findings};
use crate::report::text::count;

const RULE: &str =
    "================================================================================";
/// Findings that are printed; `--json` has them all.
const PRINTED: usize = 8;

/// Prints the findings below the classic analysis.
pub(in crate::report) fn print(findings: &Findings, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{RULE}\n🧭 FINDINGS\n{RULE}\n")?;
    if findings.cases.is_empty() {
        writeln!(out, "Nothing stands out in what these dumps tell.\n")?;
    }
    for (number, case) in (1..).zip(findings.cases.iter().take(PRINTED)) {
        print_case(number, case, findings.dumps, out)?;
    }
    let more = findings.cases.len().saturating_sub(PRINTED) as u64;
    if more > 0 {
        writeln!(out, "{} more explain less; --json has them.\n", count(more))?;
    }
    if !findings.unknown.is_empty() {
        writeln!(out, "What these dumps do not tell:")?;
        for line in &findings.unknown {
            writeln!(out, "  - {line}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn print_case(number: usize, case: &Case, dumps: u64, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{number}. {}", case.finding.title)?;
    if !case.file.is_empty() {
        let seen = match case.dumps {
            1 => format!("in {}", case.file),
            seen => format!(
                "in {} of {} dumps; the figures are of {}",
                count(seen),
                count(dumps),
                case.file
            ),
        };
        let routes = match case.routes.as_slice() {
            [] => String::new(),
            routes => format!(" ({})", routes.join(", ")),
        };
        writeln!(out, "   {seen}{routes}")?;
    }
    for line in &case.finding.evidence {
        writeln!(out, "   {line}")?;
    }
    writeln!(out, "   → {}\n", case.finding.next_step)
}
