//! The query record: a database query after which the heap had grown.

use serde::{Deserialize, Serialize};

use super::units::Mib;
use super::{Level, Record};

/// The context of `Large memory jump after query`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueryRecord {
    /// The text, with `?` for every literal.
    pub query: String,
    /// How many values were bound, by the placeholders of the text as far as it was read: their number stands
    /// for them, which may be personal.
    pub bindings: u64,
    /// How long the query and the fetching of its rows took, in ms.
    pub time: f64,
    /// What `memory_get_usage(true)` gained since the query before.
    pub delta_mb: Mib,
    /// `memory_get_usage(true)` after the query.
    pub current_mb: Mib,
}

impl Record for QueryRecord {
    const NAME: &'static str = "query";
    const MESSAGE: &'static str = "Large memory jump after query";
    const LEVEL: Level = Level::Warning;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::json::to_log_context;

    #[test]
    fn example_to_the_byte() {
        const MIB: u64 = 1 << 20;
        let record = QueryRecord {
            query: "select * from `shifts` where `depot_id` = ?".to_owned(),
            bindings: 1,
            time: 812.4,
            delta_mb: Mib::difference(44 * MIB, 1504 * MIB),
            current_mb: Mib::from_bytes(1504 * MIB),
        };
        let expected = r#"{"query":"select * from `shifts` where `depot_id` = ?","bindings":1,"time":812.4,"delta_mb":1460.0,"current_mb":1504.0}"#;
        assert_eq!(to_log_context(&record).expect("JSON"), expected);
    }
}
