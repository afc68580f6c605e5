//! The summary of a run: what was seen, what was lost, and what the watching cost.

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Level, Record, time};

/// What one run saw, for `summary.json` and the last line of `--json`. A `null` is unknown, never 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// When the run began.
    #[serde(with = "time")]
    pub started: Timestamp,
    /// When it ended.
    #[serde(with = "time")]
    pub ended: Timestamp,
    /// The mode, as `light`.
    pub mode: String,
    /// Requests that started while the run watched.
    pub requests_seen: u64,
    /// Those of them that were recorded in full.
    pub requests_recorded: u64,
    /// How many records were written, by [`Record::NAME`].
    pub records: IndexMap<String, u64>,
    /// How many events the probes made, and what became of them.
    pub events: Events,
    /// Events that did not arrive, by cause; empty when none was lost, `null` when they could not be counted.
    pub lost_events: Option<IndexMap<String, u64>>,
    /// What went wrong, by cause.
    pub errors: IndexMap<String, u64>,
    /// What the probes cost the workers; `null` when it was not measured.
    pub overhead: Option<Overhead>,
    /// What the overhead guard found, and stepped down or thinned its samples for.
    #[serde(default)]
    pub guard: Vec<String>,
}

impl Record for Summary {
    const NAME: &'static str = "summary";
    const MESSAGE: &'static str = "memprof summary";
    const LEVEL: Level = Level::Info;
}

/// The way of the events from the probes to memprof: `sent` is `received` and `lost`, all counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// What the ring took and what it had no room for, counted in the kernel.
    pub sent: u64,
    /// What arrived, counted by memprof.
    pub received: u64,
    /// What the ring had no room for, counted in the kernel.
    pub lost: u64,
}

/// What the probes cost the workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overhead {
    /// How often a probe was hit.
    pub hits: u64,
    /// What a hit costs, in nanoseconds.
    pub ns_per_hit: f64,
    /// How the cost of a hit was got, in words.
    pub method: String,
    /// Hits times cost, spread over the requests seen, in milliseconds; `null` when no request was seen.
    pub ms_per_request: Option<f64>,
}

impl Overhead {
    /// So many hits at that cost, over so many requests.
    pub fn new(hits: u64, ns_per_hit: f64, method: String, requests: u64) -> Self {
        let total_ms = hits as f64 * ns_per_hit / 1e6;
        Self {
            hits,
            ns_per_hit,
            method,
            ms_per_request: (requests > 0).then(|| total_ms / requests as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::json::to_pretty;

    #[test]
    fn overhead_is_hits_times_cost() {
        let overhead = Overhead::new(46_000, 500.0, "measured".to_owned(), 20);
        assert_eq!(overhead.ms_per_request, Some(1.15));
        assert_eq!(
            Overhead::new(46_000, 500.0, "measured".to_owned(), 0).ms_per_request,
            None
        );
    }

    #[test]
    fn reads_back_and_tells_unknown_from_none() {
        let second = |second| Timestamp::from_second(second).expect("in range");
        let summary = Summary {
            started: second(1_770_091_500),
            ended: second(1_770_091_560),
            mode: "light".to_owned(),
            requests_seen: 20,
            requests_recorded: 1,
            records: IndexMap::from([("checkpoint".to_owned(), 1)]),
            events: Events {
                sent: 40,
                received: 38,
                lost: 2,
            },
            lost_events: None,
            errors: IndexMap::from([("layout".to_owned(), 2)]),
            overhead: None,
            guard: Vec::new(),
        };
        let text = to_pretty(&summary).expect("JSON");
        assert!(
            text.contains("\"lost_events\": null,") && text.contains("\"overhead\": null"),
            "{text}"
        );
        assert_eq!(
            serde_json::from_str::<Summary>(&text).expect("reads back"),
            summary
        );
    }
}
