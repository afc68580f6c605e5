//! What the dumps do not tell, so that nobody takes silence for an answer.

use indexmap::IndexMap;

use super::super::facts::Facts;
use super::super::text::{count, size};

/// Memory without an owner above this share of the heap is worth a word.
const UNATTRIBUTED_SHARE: f64 = 0.2;
/// Different reasons that are told.
const MAX_REASONS: usize = 10;

/// What was missing, counted.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    without_external: u64,
    without_holders: u64,
    incomplete: u64,
    inconsistent: u64,
    unattributed: u64,
    /// The largest unattributed part, and the heap that it is of.
    most_unattributed: (u64, u64),
    left_out: IndexMap<String, u64>,
    unreadable: IndexMap<String, u64>,
}

impl Gaps {
    /// Adds a dump.
    pub(super) fn add(&mut self, facts: &Facts) {
        let Some(external) = &facts.external else {
            self.without_external += 1;
            return;
        };
        if external.consistent == Some(false) {
            self.inconsistent += 1;
        }
        for reason in &external.left_out {
            count_reason(&mut self.left_out, reason);
        }
        let Some(holders) = &external.holders else {
            self.without_holders += 1;
            return;
        };
        if holders.complete == Some(false) {
            self.incomplete += 1;
        }
        let unattributed = holders.unattributed_bytes.unwrap_or(0);
        let unattributed = u64::try_from(unattributed).unwrap_or(0);
        let used = facts.used_bytes();
        if unattributed as f64 > used as f64 * UNATTRIBUTED_SHARE {
            self.unattributed += 1;
            self.most_unattributed = self.most_unattributed.max((unattributed, used));
        }
    }

    /// Adds a file that could not be read.
    pub(super) fn add_unreadable(&mut self, reason: &str) {
        count_reason(&mut self.unreadable, reason);
    }

    /// A line for each gap; `dumps` is how many were looked at.
    pub(super) fn lines(&self, dumps: u64) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = |number: u64, text: &str| {
            if number > 0 {
                lines.push(format!(
                    "{} of {} dumps {text}",
                    count(number),
                    count(dumps)
                ));
            }
        };
        line(
            self.without_external,
            "are an in-app profiler's: they tell no request, objects or variables; `memprof dump --pid PID` takes one \
             that does",
        );
        line(
            self.without_holders,
            "do not tell which variables hold the memory",
        );
        line(
            self.incomplete,
            "tell a part of the variables: the time to hold the process was over (--max-stop)",
        );
        line(
            self.inconsistent,
            "were read while the process ran on: their parts may be of different moments",
        );
        let (bytes, used) = self.most_unattributed;
        let most = format!(
            "have memory that no variable was found for, at most {} of {}: extensions, buffers, or what is being made",
            size(bytes),
            size(used)
        );
        line(self.unattributed, &most);
        for (reason, number) in &self.left_out {
            lines.push(format!("left out of {}: {reason}", dumps_text(*number)));
        }
        for (reason, number) in &self.unreadable {
            let times = if *number > 1 {
                format!(" (and {} more)", count(number - 1))
            } else {
                String::new()
            };
            lines.push(format!("not read: {reason}{times}"));
        }
        lines
    }
}

fn dumps_text(number: u64) -> String {
    match number {
        1 => "one dump".to_owned(),
        _ => format!("{} dumps", count(number)),
    }
}

/// Counts a reason; past the most that are told apart, with the last.
fn count_reason(reasons: &mut IndexMap<String, u64>, reason: &str) {
    let is_full = reasons.len() >= MAX_REASONS;
    if let Some(number) = reasons.get_mut(reason) {
        *number += 1;
    } else if !is_full {
        reasons.insert(reason.to_owned(), 1);
    } else if let Some((_, number)) = reasons.last_mut() {
        *number += 1;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::Sample;
    use super::*;

    #[test]
    fn each_gap_is_told_with_its_number() {
        let mut gaps = Gaps::default();
        let mut in_app = Sample::new(100);
        in_app.json["external"] = json!(null);
        gaps.add(&in_app.facts());
        let holders =
            json!({"heap_bytes": 100 << 20, "complete": false, "unattributed_bytes": 40 << 20});
        let cut = Sample::new(100)
            .with("holders", holders)
            .with("consistent", json!(false))
            .with("left_out", json!(["the session: it is torn"]));
        gaps.add(&cut.facts());
        gaps.add(&Sample::new(100).facts());
        for _ in 0..3 {
            gaps.add_unreadable("memory-dump-1.json: Permission denied");
        }
        let lines = gaps.lines(3);
        for (line, start) in lines.iter().zip([
            "1 of 3 dumps are an in-app profiler's",
            "1 of 3 dumps do not tell which variables",
            "1 of 3 dumps tell a part",
            "1 of 3 dumps were read while",
            "1 of 3 dumps have memory that no variable was found for, at most 40 MiB of 100 MiB",
            "left out of one dump: the session",
            "not read: memory-dump-1.json: Permission denied (and 2 more)",
        ]) {
            assert!(line.starts_with(start), "{line}");
        }
        assert_eq!(lines.len(), 7);
        assert!(Gaps::default().lines(3).is_empty());
    }

    #[test]
    fn reasons_are_bounded() {
        let mut gaps = Gaps::default();
        for number in 0..1000 {
            gaps.add_unreadable(&format!("file {number}"));
        }
        let lines = gaps.lines(0);
        assert_eq!(lines.len(), MAX_REASONS);
        assert_eq!(lines[9], "not read: file 9 (and 990 more)");
    }
}
