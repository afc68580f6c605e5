//! The line of `--json`: one record a line on standard output, for programs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Level, Record, json, time};

/// A record with everything around it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Which record it is: `checkpoint`, `sample`, `dump`, `oom`, `dump_failed`, `summary`.
    pub record: String,
    /// When, in UTC.
    #[serde(with = "time")]
    pub time: Timestamp,
    /// The level of the log line.
    pub level: Level,
    /// The message of the log line.
    pub message: String,
    /// The record itself, with the keys of its log line.
    pub context: Value,
    /// What surrounds it: pid, pool, mode, request, ...
    pub external: Value,
}

impl Event {
    /// The event that a record was made.
    ///
    /// # Errors
    ///
    /// When one of the two cannot be JSON, as a map whose keys are no strings.
    pub fn new<R: Record>(
        time: Timestamp,
        record: &R,
        external: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            record: R::NAME.to_owned(),
            time,
            level: R::LEVEL,
            message: R::MESSAGE.to_owned(),
            context: serde_json::to_value(record)?,
            external: serde_json::to_value(external)?,
        })
    }

    /// The line, with its line feed. Numbers and texts are written as in the log.
    ///
    /// # Errors
    ///
    /// When it cannot be JSON.
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        Ok(json::to_line(self)? + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::super::oom::DumpFailedRecord;
    use super::*;
    use serde_json::json;

    #[test]
    fn one_line_that_reads_back() {
        let time = Timestamp::from_microsecond(1_770_091_506_250_000).expect("in range");
        let record = DumpFailedRecord {
            exception: "a\nb /é".to_owned(),
        };
        let external = json!({"pid": 7, "pool": "www", "share": 2.0, "nothing": {}});
        let event = Event::new(time, &record, &external).expect("JSON");
        let line = event.to_line().expect("JSON");
        let expected = concat!(
            r#"{"record":"dump_failed","time":"2026-02-03T04:05:06.250000Z","level":"CRITICAL","#,
            r#""message":"Failed to dump memory state during OOM","context":{"exception":"a\nb /é"},"#,
            r#""external":{"pid":7,"pool":"www","share":2.0,"nothing":[]}}"#,
            "\n"
        );
        assert_eq!(line, expected);
        let back: Event = serde_json::from_str(&line).expect("reads back");
        assert_eq!(
            (back.time, back.level, back.context),
            (event.time, event.level, event.context)
        );
    }
}
