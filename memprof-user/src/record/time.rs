//! Moments as the records print them.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// UTC, ISO 8601 with six digits of microseconds: `2026-02-03T04:05:06.250000Z`.
pub fn iso8601(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// Writes a moment as [`iso8601`]; for serde's `with`.
///
/// # Errors
///
/// Only the serializer's own.
pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.6}"))
}

/// Reads any ISO 8601 moment with an offset back; for serde's `with`.
///
/// # Errors
///
/// When the text is not such a moment.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    String::deserialize(deserializer)?
        .parse()
        .map_err(Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn always_six_digits() {
        let time = Timestamp::from_microsecond(1_770_091_506_250_000).expect("in range");
        assert_eq!(iso8601(time), "2026-02-03T04:05:06.250000Z");
        let whole = Timestamp::from_second(1_770_091_506).expect("in range");
        assert_eq!(iso8601(whole), "2026-02-03T04:05:06.000000Z");
    }
}
