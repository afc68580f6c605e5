//! The log line: Monolog's envelope as Laravel configures it, written and read back.
//!
//! `[2026-02-03 04:05:06] production.WARNING: High memory usage detected {"peak_mb":1712.0} ` and a line feed: seconds
//! of the application's time zone, the environment as channel, the context as compact JSON, and one space where
//! Monolog's empty "extra" was.

use jiff::civil::DateTime;
use jiff::fmt::strtime;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Level, Record, json};

mod file;
mod read;

pub use file::{LogError, LogFile};
pub use read::LogReader;

/// The longest line that is written, and the longest that is read back, in bytes with its line feed.
pub const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

const TIME_FORMAT: &str = "%Y-%m-%d %H:%M:%S";
/// How many places of a line are tried as the start of its context: a message may hold braces of its own.
const MAX_CONTEXT_STARTS: usize = 16;

/// One line of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogLine {
    /// When, in the application's time zone; written to the second.
    pub time: DateTime,
    /// The application's environment, as `production`: Laravel's log channel name.
    pub environment: String,
    /// How serious it is.
    pub level: Level,
    /// The message.
    pub message: String,
    /// The record, as it was read or will be written.
    pub context: Value,
}

impl LogLine {
    /// The line that announces a record.
    ///
    /// # Errors
    ///
    /// When the record cannot be JSON, as a map whose keys are no strings.
    pub fn new<R: Record>(
        time: DateTime,
        environment: &str,
        record: &R,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            time,
            environment: environment.to_owned(),
            level: R::LEVEL,
            message: R::MESSAGE.to_owned(),
            context: serde_json::to_value(record)?,
        })
    }

    /// The line as it is written, with its line feed.
    ///
    /// # Errors
    ///
    /// When the context cannot be JSON.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        let time = self.time.strftime(TIME_FORMAT);
        let environment = json::one_line(&self.environment);
        let message = json::one_line(&self.message);
        let context = json::to_log_context(&self.context)?;
        Ok(format!(
            "[{time}] {environment}.{}: {message} {context} \n",
            self.level.name()
        ))
    }

    /// The line that this text is; `None` when it is none that memprof writes (another level, no context, a stack
    /// trace's next line).
    pub fn parse(text: &str) -> Option<Self> {
        let (time, rest) = text.strip_prefix('[')?.split_once("] ")?;
        let (channel, rest) = rest.split_once(": ")?;
        let (environment, level) = channel.rsplit_once('.')?;
        let (message, context) = split_context(rest)?;
        Some(Self {
            time: strtime::parse(TIME_FORMAT, time)
                .and_then(|parsed| parsed.to_datetime())
                .ok()?,
            environment: environment.to_owned(),
            level: Level::from_name(level)?,
            message: message.to_owned(),
            context,
        })
    }

    /// The record that this line announces: `None` when its message is another record's.
    ///
    /// # Errors
    ///
    /// When the message is this record's and the context is not.
    pub fn record<R: Record + DeserializeOwned>(&self) -> Option<Result<R, serde_json::Error>> {
        (self.message == R::MESSAGE).then(|| R::deserialize(&self.context))
    }
}

/// The message, and the context behind it: the first place from which on the line is JSON.
fn split_context(rest: &str) -> Option<(&str, Value)> {
    let starts = rest.match_indices([' ']).filter(|(at, _)| {
        let next = rest.as_bytes().get(at + 1);
        matches!(next, Some(b'{' | b'['))
    });
    starts.take(MAX_CONTEXT_STARTS).find_map(|(at, _)| {
        let (message, context) = (rest.get(..at)?, rest.get(at + 1..)?);
        Some((message, serde_json::from_str(context).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(context: Value) -> LogLine {
        LogLine {
            time: "2026-02-03T04:05:06".parse().expect("a date"),
            environment: "production".to_owned(),
            level: Level::Warning,
            message: "High memory usage detected".to_owned(),
            context,
        }
    }

    #[test]
    fn envelope_to_the_byte() {
        let line = line(json!({"peak_mb": 1712.0, "uri": "/dépôt?page=2"}));
        let text = line.to_text().expect("JSON");
        assert_eq!(
            text,
            "[2026-02-03 04:05:06] production.WARNING: High memory usage detected \
             {\"peak_mb\":1712.0,\"uri\":\"/dépôt?page=2\"} \n"
        );
        assert_eq!(LogLine::parse(&text), Some(line));
    }

    #[test]
    fn a_line_stays_one_line() {
        let mut line = line(json!({"a": "b\nc"}));
        line.environment = "pro\nduction".to_owned();
        line.message = "x\r\ny".to_owned();
        let text = line.to_text().expect("JSON");
        assert_eq!(
            text,
            "[2026-02-03 04:05:06] pro duction.WARNING: x y {\"a\":\"b c\"} \n"
        );
    }

    #[test]
    fn braces_in_a_message_are_not_the_context() {
        let text = "[2026-02-03 04:05:06] my.env.INFO: a [b] {c} {\"d\":[1]} \n";
        let line = LogLine::parse(text).expect("a line");
        assert_eq!(
            (line.environment.as_str(), line.message.as_str()),
            ("my.env", "a [b] {c}")
        );
        assert_eq!(line.context, json!({"d": [1]}));
    }

    #[test]
    fn whole_floats_may_lack_their_fraction() {
        let text =
            "[2026-02-03 04:05:06] production.INFO: Memory profile sample {\"peak_mb\":2048}";
        assert_eq!(
            LogLine::parse(text).expect("a line").context["peak_mb"].as_f64(),
            Some(2048.0)
        );
    }

    #[test]
    fn other_lines_are_none() {
        for text in [
            "",
            "#0 /var/www/app/Shift.php(91): expand()",
            "[2026-02-03 04:05:06] production.DEBUG: x {\"a\":1} ",
            "[2026-02-03 04:05:06] production.INFO: no context  ",
            "[2026-02-03 04:05:06] production.INFO: cut {\"a\":1",
            "[2026-02-30 04:05:06] production.INFO: no such day {\"a\":1} ",
            "[] {",
        ] {
            assert_eq!(LogLine::parse(text), None, "{text}");
        }
    }
}
