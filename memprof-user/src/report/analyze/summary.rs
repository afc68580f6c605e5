//! What the dumps have in common: sums kept while they pass by.

use indexmap::IndexMap;
use serde::Serialize;

use crate::record::number::round2;
use crate::report::dump_view::DumpView;

const TOP_SESSION_KEYS: usize = 10;
const TOP_FRAMES: usize = 15;
/// A session above it is large, in MiB.
const LARGE_SESSION_MB: f64 = 50.0;
/// Usage whose population variance is below it is always the same, in MiB².
const LOW_VARIANCE: f64 = 100.0;
/// From so many dumps on there is a trend.
const TREND_DUMPS: u64 = 3;

/// What is kept of the dumps seen so far; they come newest first.
#[derive(Debug, Default)]
pub(super) struct Totals {
    current: Series,
    peak_max_mb: f64,
    newest_mb: f64,
    oldest_mb: f64,
    contexts: IndexMap<String, u64>,
    /// The sessions that are not empty.
    sessions: Series,
    session_keys: IndexMap<String, u64>,
    frames: IndexMap<String, u64>,
}

/// A row of numbers of which only these are kept.
#[derive(Debug, Default)]
struct Series {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    mean: f64,
    /// The squared distances from the mean, summed (Welford's method).
    squares: f64,
}

impl Series {
    fn add(&mut self, value: f64) {
        let first = self.count == 0;
        self.count += 1;
        self.sum += value;
        self.min = if first { value } else { self.min.min(value) };
        self.max = if first { value } else { self.max.max(value) };
        let distance = value - self.mean;
        self.mean += distance / self.count as f64;
        self.squares += distance * (value - self.mean);
    }

    fn average(&self) -> f64 {
        round2(self.sum / self.count as f64)
    }

    fn variance(&self) -> f64 {
        self.squares / self.count as f64
    }
}

/// The summary of some dumps.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// How many dumps it is about.
    pub(super) dumps: u64,
    pub(super) memory: MemorySummary,
    /// Most frequent first, as all counts here.
    pub(super) contexts: Vec<Count>,
    /// `None` when no dump has a session with data.
    pub(super) session: Option<SessionSummary>,
    pub(super) frames: Vec<Count>,
    pub(super) insights: Vec<Insight>,
}

/// The heaps of the dumps, in MiB.
#[derive(Debug, Serialize)]
pub(super) struct MemorySummary {
    pub(super) average_mb: f64,
    pub(super) min_mb: f64,
    pub(super) max_mb: f64,
    pub(super) peak_max_mb: f64,
}

/// The sessions with data, in MiB.
#[derive(Debug, Serialize)]
pub(super) struct SessionSummary {
    pub(super) average_mb: f64,
    pub(super) max_mb: f64,
    pub(super) largest_keys: Vec<Count>,
}

/// How often something was seen.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Count {
    pub(super) name: String,
    pub(super) count: u64,
}

/// What the figures suggest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Insight {
    /// A session has more than 50 MiB.
    LargeSession,
    /// The newest of at least three dumps is larger than the oldest.
    TrendingUpward,
    /// All dumps are about the same size.
    LowVariance,
    /// They are not.
    HighVariance,
}

impl Totals {
    /// Adds a dump, older than those before.
    pub(super) fn add(&mut self, dump: &DumpView) {
        let current_mb = dump.memory.current_mb;
        if self.current.count == 0 {
            self.newest_mb = current_mb;
            self.peak_max_mb = dump.memory.peak_mb;
        }
        self.oldest_mb = current_mb;
        self.peak_max_mb = self.peak_max_mb.max(dump.memory.peak_mb);
        self.current.add(current_mb);
        if let Some(size_mb) = dump.session.size_mb.filter(|size_mb| *size_mb != 0.0) {
            self.sessions.add(size_mb);
        }
        count(&mut self.contexts, &dump.context);
        for (key, _) in dump.session.largest_keys.iter().flatten() {
            count(&mut self.session_keys, key);
        }
        for function in &dump.frames {
            count(&mut self.frames, function);
        }
    }

    /// The summary; `None` of no dump.
    pub(super) fn summary(&self) -> Option<Summary> {
        (self.current.count > 0).then(|| Summary {
            dumps: self.current.count,
            memory: MemorySummary {
                average_mb: self.current.average(),
                min_mb: self.current.min,
                max_mb: self.current.max,
                peak_max_mb: self.peak_max_mb,
            },
            contexts: top(&self.contexts, usize::MAX),
            session: (self.sessions.count > 0).then(|| SessionSummary {
                average_mb: self.sessions.average(),
                max_mb: self.sessions.max,
                largest_keys: top(&self.session_keys, TOP_SESSION_KEYS),
            }),
            frames: top(&self.frames, TOP_FRAMES),
            insights: self.insights(),
        })
    }

    fn insights(&self) -> Vec<Insight> {
        let mut insights = Vec::new();
        if self.sessions.count > 0 && self.sessions.max > LARGE_SESSION_MB {
            insights.push(Insight::LargeSession);
        }
        if self.current.count >= TREND_DUMPS && self.newest_mb > self.oldest_mb {
            insights.push(Insight::TrendingUpward);
        }
        let low = self.current.variance() < LOW_VARIANCE;
        insights.push(if low {
            Insight::LowVariance
        } else {
            Insight::HighVariance
        });
        insights
    }
}

fn count(counts: &mut IndexMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(counts.insert(name.to_owned(), 1)),
    }
}

/// The most frequent; of equals, the one seen first.
fn top(counts: &IndexMap<String, u64>, most: usize) -> Vec<Count> {
    let mut sorted: Vec<(&String, &u64)> = counts.iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let count = |(name, count): (&String, &u64)| Count {
        name: name.clone(),
        count: *count,
    };
    sorted.into_iter().take(most).map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The totals of dumps with that usage and that session, newest first.
    fn totals(dumps: &[(f64, f64)]) -> Totals {
        let mut totals = Totals::default();
        for (current_mb, session_mb) in dumps {
            let json = json!({
                "context": format!("c{current_mb}"), "timestamp": "t",
                "memory": {"current_mb": current_mb, "peak_mb": -1, "limit_mb": 3, "usage_percent": 4},
                "session": {"size_mb": session_mb, "largest_keys": {"k": "1 KB"}},
            });
            totals.add(&DumpView::new(&json).expect("a view"));
        }
        totals
    }

    #[test]
    fn thresholds_of_the_insights_are_strict() {
        use Insight::{HighVariance, LargeSession, LowVariance, TrendingUpward};
        // The variance of two values 20 apart is 100.
        assert_eq!(
            totals(&[(120.0, 50.0), (100.0, 0.0)]).insights(),
            [HighVariance]
        );
        assert_eq!(
            totals(&[(119.98, 50.01), (100.0, 0.0)]).insights(),
            [LargeSession, LowVariance]
        );
        assert_eq!(
            totals(&[(3.0, 0.0), (9.0, 0.0), (2.0, 0.0)]).insights(),
            [TrendingUpward, LowVariance]
        );
        assert_eq!(
            totals(&[(2.0, 0.0), (9.0, 0.0), (2.0, 0.0)]).insights(),
            [LowVariance]
        );
    }

    #[test]
    fn empty_sessions_do_not_count() {
        let summary = totals(&[(1.0, 0.0), (1.0, 3.0), (1.0, 2.01)])
            .summary()
            .expect("a summary");
        let session = summary.session.expect("a session");
        assert_eq!((session.average_mb, session.max_mb), (2.51, 3.0));
        assert_eq!(
            session.largest_keys,
            [Count {
                name: "k".to_owned(),
                count: 3
            }]
        );
        assert!(
            totals(&[(1.0, 0.0)])
                .summary()
                .expect("a summary")
                .session
                .is_none()
        );
    }

    #[test]
    fn counts_descend_and_ties_keep_their_order() {
        let dumps = [(2.0, 0.0), (1.0, 0.0), (3.0, 0.0), (1.0, 0.0)];
        let contexts = totals(&dumps).summary().expect("a summary").contexts;
        let names: Vec<&str> = contexts.iter().map(|count| count.name.as_str()).collect();
        assert_eq!(names, ["c1", "c2", "c3"]);
    }

    #[test]
    fn peaks_below_zero_are_not_zero() {
        assert_eq!(
            totals(&[(1.0, 0.0)])
                .summary()
                .expect("a summary")
                .memory
                .peak_max_mb,
            -1.0
        );
        assert!(totals(&[]).summary().is_none());
    }
}
