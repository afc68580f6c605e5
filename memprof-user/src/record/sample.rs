//! The sample record: what one request used, start to end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::request::UserId;
use super::units::Mib;
use super::{Level, Record};

/// The context of `Memory profile sample`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    /// Scheme, host and path, without the query.
    pub url: String,
    /// `GET`, `POST`, ...
    pub method: String,
    /// `null` for a guest and where the user could not be read.
    pub user_id: Option<UserId>,
    /// How long the request took, in milliseconds with two decimals.
    pub duration_ms: f64,
    /// End minus start; negative when the heap shrank.
    pub memory_growth_mb: Mib,
    /// `memory_get_peak_usage(true)` at the end.
    pub peak_mb: Mib,
    /// `memory_get_usage(true)` at the start.
    pub start_mb: Mib,
    /// `memory_get_usage(true)` at the end.
    pub end_mb: Mib,
}

/// The Zend heap over one request, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeapSpan {
    /// real_size at the start.
    pub start_bytes: u64,
    /// real_size at the end.
    pub end_bytes: u64,
    /// real_peak at the end.
    pub peak_bytes: u64,
}

impl SampleRecord {
    /// The record of a request that took so long and used so much.
    pub fn new(
        url: String,
        method: String,
        user_id: Option<UserId>,
        duration: Duration,
        heap: HeapSpan,
    ) -> Self {
        // Whole hundredths of a millisecond, rounded half up.
        let hundredths = duration.as_nanos().saturating_add(5_000) / 10_000;
        Self {
            url,
            method,
            user_id,
            duration_ms: hundredths as f64 / 100.0,
            memory_growth_mb: Mib::difference(heap.start_bytes, heap.end_bytes),
            peak_mb: Mib::from_bytes(heap.peak_bytes),
            start_mb: Mib::from_bytes(heap.start_bytes),
            end_mb: Mib::from_bytes(heap.end_bytes),
        }
    }
}

impl Record for SampleRecord {
    const NAME: &'static str = "sample";
    const MESSAGE: &'static str = "Memory profile sample";
    const LEVEL: Level = Level::Info;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::json::to_log_context;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn example_to_the_byte() {
        let heap = HeapSpan {
            start_bytes: 38 * MIB,
            end_bytes: 1710 * MIB,
            peak_bytes: 1712 * MIB,
        };
        let record = SampleRecord::new(
            "https://depot.example/depot".to_owned(),
            "GET".to_owned(),
            Some(UserId::Number(7)),
            Duration::from_nanos(2_846_305_000),
            heap,
        );
        let expected = r#"{"url":"https://depot.example/depot","method":"GET","user_id":7,"duration_ms":2846.31,"memory_growth_mb":1672.0,"peak_mb":1712.0,"start_mb":38.0,"end_mb":1710.0}"#;
        assert_eq!(to_log_context(&record).expect("JSON"), expected);
        assert_eq!(
            serde_json::from_str::<SampleRecord>(expected).expect("reads back"),
            record
        );
    }

    #[test]
    fn growth_may_be_negative_and_a_user_may_be_a_text() {
        let heap = HeapSpan {
            start_bytes: 10 * MIB,
            end_bytes: 4 * MIB,
            peak_bytes: 12 * MIB,
        };
        let user = Some(UserId::Text("9b2e".to_owned()));
        let record = SampleRecord::new(String::new(), "GET".to_owned(), user, Duration::ZERO, heap);
        let text = to_log_context(&record).expect("JSON");
        assert!(
            text.contains(r#""user_id":"9b2e","duration_ms":0.0,"memory_growth_mb":-6.0"#),
            "{text}"
        );
    }
}
