//! What a run says at its end.

use std::path::Path;

use super::counts::Counts;
use crate::record::summary::{Overhead, Summary};

/// Hits times cost: the trap as calibrated, the program as timed on a sample of the hits. `None` where the
/// trap's cost, in ns, is not known.
#[must_use]
pub fn overhead(trap_ns: Option<f64>, counts: &Counts) -> Option<Overhead> {
    let trap = trap_ns?;
    let program = counts.program_ns();
    let method = format!(
        "{trap:.0} ns for the trap (measured at attach on an emulated instruction), {program:.0} ns \
         for the program (measured on {} hits); what they displace from the processor's caches \
         is not in it",
        counts.timed_hits
    );
    Some(Overhead::new(
        counts.hits,
        trap + program,
        method,
        counts.requests,
    ))
}

/// Prints the summary for people.
pub fn print(summary: &Summary, out: &Path) {
    eprintln!(
        "{} requests seen, {} recorded in full; records in {}",
        summary.requests_seen,
        summary.requests_recorded,
        out.display()
    );
    for (record, count) in &summary.records {
        eprintln!("  {count} {record} records");
    }
    let lost = summary.lost_events.iter().flatten();
    for (cause, count) in lost {
        eprintln!(
            "  lost: {count} of {} events ({cause})",
            summary.events.sent
        );
    }
    for (cause, count) in &summary.errors {
        eprintln!("  error: {count} x {cause}");
    }
    if let Some(overhead) = &summary.overhead {
        let per_request = overhead
            .ms_per_request
            .map_or(String::new(), |ms| format!(", {ms:.3} ms a request"));
        eprintln!(
            "  overhead: {} hits at {:.0} ns{per_request}: {}",
            overhead.hits, overhead.ns_per_hit, overhead.method
        );
    }
}
