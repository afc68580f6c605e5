//! The records of a request that ran into memory_limit.

use serde::{Deserialize, Serialize};

use super::units::Mib;
use super::{Level, Record};

/// PHP's E_ERROR, the type of the memory-limit error.
const E_ERROR: i64 = 1;

/// The error that ended the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FatalError {
    /// PHP's error type: 1, E_ERROR.
    #[serde(rename = "type")]
    pub kind: i64,
    /// `Allowed memory size of 2147483648 bytes exhausted (tried to allocate 33554432 bytes)`.
    pub message: String,
    /// The full path of the file that was executing.
    pub file: String,
    /// The line that was executing.
    pub line: u32,
}

/// The context of `OOM Shutdown Handler`: memory_limit was exhausted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutOfMemoryRecord {
    /// The error.
    pub error: FatalError,
    /// `memory_get_peak_usage(true)`.
    pub peak_mb: Mib,
    /// ini memory_limit as it is set, as `2048M`.
    pub limit: String,
}

impl OutOfMemoryRecord {
    /// The record of a failed allocation of `tried_bytes` under a limit of `limit_bytes` (written `limit` in the ini), at
    /// that place, with that real_peak.
    pub fn new(
        limit_bytes: u64,
        tried_bytes: u64,
        limit: String,
        file: String,
        line: u32,
        peak_bytes: u64,
    ) -> Self {
        let message = format!(
            "Allowed memory size of {limit_bytes} bytes exhausted (tried to allocate {tried_bytes} bytes)"
        );
        let error = FatalError {
            kind: E_ERROR,
            message,
            file,
            line,
        };
        Self {
            error,
            peak_mb: Mib::from_bytes(peak_bytes),
            limit,
        }
    }
}

impl Record for OutOfMemoryRecord {
    const NAME: &'static str = "oom";
    const MESSAGE: &'static str = "OOM Shutdown Handler";
    const LEVEL: Level = Level::Critical;
}

/// The context of `Failed to dump memory state during OOM`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpFailedRecord {
    /// Why there is no dump.
    pub exception: String,
}

impl Record for DumpFailedRecord {
    const NAME: &'static str = "dump_failed";
    const MESSAGE: &'static str = "Failed to dump memory state during OOM";
    const LEVEL: Level = Level::Critical;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::json::to_log_context;

    #[test]
    fn example_to_the_byte() {
        let record = OutOfMemoryRecord::new(
            2_147_483_648,
            33_554_432,
            "2048M".to_owned(),
            "/var/www/depot/app/Shift.php".to_owned(),
            91,
            2046 * 1024 * 1024,
        );
        let expected = r#"{"error":{"type":1,"message":"Allowed memory size of 2147483648 bytes exhausted (tried to allocate 33554432 bytes)","file":"/var/www/depot/app/Shift.php","line":91},"peak_mb":2046.0,"limit":"2048M"}"#;
        assert_eq!(to_log_context(&record).expect("JSON"), expected);
        assert_eq!(
            serde_json::from_str::<OutOfMemoryRecord>(expected).expect("reads back"),
            record
        );
    }
}
