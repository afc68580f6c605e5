//! The model record: what Eloquent models a request loaded and wrote.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::units::Mib;
use super::{Level, Record};

/// Entries of [`ModelsRecord::top_models`].
const TOP: usize = 10;

/// One kind of event of one model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ModelCount {
    /// How often.
    pub count: u64,
    /// `memory_get_usage(true)` at the first.
    pub first_seen_mb: Mib,
    /// `memory_get_usage(true)` at the last.
    pub last_seen_mb: Mib,
}

/// The context of `Model instantiation summary`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelsRecord {
    /// `memory_get_peak_usage(true)` at the request's end.
    pub peak_mb: Mib,
    /// `memory_get_usage(true)` then.
    pub current_mb: Mib,
    /// Queries that Laravel ran.
    pub total_queries: u64,
    /// By `App\Models\Shift::retrieved`, the most frequent first.
    pub model_counts: IndexMap<String, ModelCount>,
    /// The first ten of these.
    pub top_models: IndexMap<String, ModelCount>,
    /// The sum of all counts: events, not live objects.
    pub total_model_instances: u64,
}

impl ModelsRecord {
    /// The record of a request with these heap figures in bytes and these counts, in any order.
    pub fn new(
        peak_bytes: u64,
        current_bytes: u64,
        total_queries: u64,
        counts: impl IntoIterator<Item = (String, ModelCount)>,
    ) -> Self {
        let mut model_counts: IndexMap<String, ModelCount> = counts.into_iter().collect();
        model_counts.sort_by(|_, one, _, other| other.count.cmp(&one.count));
        Self {
            peak_mb: Mib::from_bytes(peak_bytes),
            current_mb: Mib::from_bytes(current_bytes),
            total_queries,
            top_models: (model_counts.iter().take(TOP))
                .map(|(name, count)| (name.clone(), *count))
                .collect(),
            total_model_instances: model_counts.values().map(|count| count.count).sum(),
            model_counts,
        }
    }
}

impl Record for ModelsRecord {
    const NAME: &'static str = "models";
    const MESSAGE: &'static str = "Model instantiation summary";
    const LEVEL: Level = Level::Warning;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::json::to_log_context;

    #[test]
    fn example_to_the_byte() {
        const MIB: u64 = 1 << 20;
        let count = |count, first: u64, last: u64| ModelCount {
            count,
            first_seen_mb: Mib::from_bytes(first * MIB),
            last_seen_mb: Mib::from_bytes(last * MIB),
        };
        let counts = [
            (
                "App\\Models\\Depot::updated".to_owned(),
                count(1, 1710, 1710),
            ),
            (
                "App\\Models\\Shift::retrieved".to_owned(),
                count(8100, 44, 1708),
            ),
        ];
        let record = ModelsRecord::new(1712 * MIB, 1710 * MIB, 91, counts);
        let expected = r#"{"peak_mb":1712.0,"current_mb":1710.0,"total_queries":91,"model_counts":{"App\\Models\\Shift::retrieved":{"count":8100,"first_seen_mb":44.0,"last_seen_mb":1708.0},"App\\Models\\Depot::updated":{"count":1,"first_seen_mb":1710.0,"last_seen_mb":1710.0}},"top_models":{"App\\Models\\Shift::retrieved":{"count":8100,"first_seen_mb":44.0,"last_seen_mb":1708.0},"App\\Models\\Depot::updated":{"count":1,"first_seen_mb":1710.0,"last_seen_mb":1710.0}},"total_model_instances":8101}"#;
        assert_eq!(to_log_context(&record).expect("JSON"), expected);
        assert_eq!(
            serde_json::from_str::<ModelsRecord>(expected).expect("reads back"),
            record
        );
    }
}
