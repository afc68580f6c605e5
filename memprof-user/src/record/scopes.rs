//! The scope record: which global scopes were applied to which models.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::units::Mib;
use super::{Level, Record};

/// Entries of [`ScopesRecord::top_scopes`].
const TOP: usize = 20;

/// One scope of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScopeCount {
    /// The model's class.
    pub model: String,
    /// The scope's class; `Closure` for a closure.
    pub scope: String,
    /// How often it was applied.
    pub apply_count: u64,
    /// `memory_get_usage(true)` the first time.
    pub first_seen_mb: Mib,
    /// Always false: a closure is an object, and is filed by its class.
    pub is_closure: bool,
    /// `memory_get_usage(true)` the last time.
    pub last_seen_mb: Mib,
}

/// The context of `Global scope profiling report`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScopesRecord {
    /// Different pairs of model and scope.
    pub total_unique_scopes: usize,
    /// The twenty applied most, by `App\Models\Shift::App\Scopes\DepotScope`.
    pub top_scopes: IndexMap<String, ScopeCount>,
    /// Those with `is_closure`: none.
    pub closure_scopes: Vec<ScopeCount>,
}

impl ScopesRecord {
    /// The record of these counts, in any order.
    pub fn new(mut counts: Vec<ScopeCount>) -> Self {
        counts.sort_by_key(|count| std::cmp::Reverse(count.apply_count));
        let key = |count: &ScopeCount| format!("{}::{}", count.model, count.scope);
        Self {
            total_unique_scopes: counts.len(),
            top_scopes: (counts.into_iter().take(TOP))
                .map(|count| (key(&count), count))
                .collect(),
            closure_scopes: Vec::new(),
        }
    }
}

impl Record for ScopesRecord {
    const NAME: &'static str = "scopes";
    const MESSAGE: &'static str = "Global scope profiling report";
    const LEVEL: Level = Level::Info;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::json::to_log_context;

    #[test]
    fn example_to_the_byte() {
        const MIB: u64 = 1 << 20;
        let record = ScopesRecord::new(vec![ScopeCount {
            model: "App\\Models\\Shift".to_owned(),
            scope: "App\\Scopes\\DepotScope".to_owned(),
            apply_count: 640,
            first_seen_mb: Mib::from_bytes(44 * MIB),
            is_closure: false,
            last_seen_mb: Mib::from_bytes(1502 * MIB),
        }]);
        let expected = r#"{"total_unique_scopes":1,"top_scopes":{"App\\Models\\Shift::App\\Scopes\\DepotScope":{"model":"App\\Models\\Shift","scope":"App\\Scopes\\DepotScope","apply_count":640,"first_seen_mb":44.0,"is_closure":false,"last_seen_mb":1502.0}},"closure_scopes":[]}"#;
        assert_eq!(to_log_context(&record).expect("JSON"), expected);
    }
}
