//! What the analysis looks at in a dump.
//!
//! Looser than [`Dump`](crate::record::dump::Dump): dumps of an in-app profiler, and cut-down ones, count as well.

use serde::Serialize;
use serde_json::Value;

use super::text::printable;
use crate::record::number;

/// The keys of a dump that the analysis needs or prints. Texts are safe to print on a terminal.
#[derive(Debug, Serialize)]
pub(super) struct DumpView {
    pub(super) context: String,
    pub(super) timestamp: String,
    pub(super) memory: MemoryView,
    pub(super) session: SessionView,
    /// The functions of the backtrace, innermost first.
    pub(super) frames: Vec<String>,
}

/// The dump's heap.
#[derive(Debug, Serialize)]
pub(super) struct MemoryView {
    pub(super) current_mb: f64,
    pub(super) peak_mb: f64,
    pub(super) limit_mb: f64,
    pub(super) usage_percent: f64,
}

/// The dump's session; what is `None` is not in the dump.
#[derive(Debug, Serialize)]
pub(super) struct SessionView {
    pub(super) size_mb: Option<f64>,
    /// Keys and sizes, the largest first.
    pub(super) largest_keys: Option<Vec<(String, String)>>,
}

impl DumpView {
    /// The view of a dump, or the key that it lacks.
    pub(super) fn new(dump: &Value) -> Result<Self, &'static str> {
        let number =
            |pointer: &'static str| dump.pointer(pointer).and_then(Value::as_f64).ok_or(pointer);
        let text = |pointer: &'static str| dump.pointer(pointer).and_then(text).ok_or(pointer);
        Ok(Self {
            context: text("/context")?,
            timestamp: text("/timestamp")?,
            memory: MemoryView {
                current_mb: number("/memory/current_mb")?,
                peak_mb: number("/memory/peak_mb")?,
                limit_mb: number("/memory/limit_mb")?,
                usage_percent: number("/memory/usage_percent")?,
            },
            session: SessionView {
                size_mb: number("/session/size_mb").ok(),
                largest_keys: dump.pointer("/session/largest_keys").and_then(pairs),
            },
            frames: frames(dump).iter().map(function).collect(),
        })
    }
}

/// The frames of a dump's backtrace.
pub(super) fn frames(dump: &Value) -> &[Value] {
    dump.get("backtrace")
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The function of a frame.
pub(super) fn function(frame: &Value) -> String {
    frame
        .get("function")
        .and_then(text)
        .unwrap_or_else(|| "unknown".to_owned())
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(printable(text)),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        Value::Number(number) => number.as_f64().map(number::echo),
        _ => None,
    }
}

/// An array of PHP's with texts: an object, or a list when it is empty or its keys are 0, 1, ...
fn pairs(value: &Value) -> Option<Vec<(String, String)>> {
    let pair = |key: &str, value: &Value| (printable(key), text(value).unwrap_or_default());
    match value {
        Value::Object(map) => Some(map.iter().map(|(key, value)| pair(key, value)).collect()),
        Value::Array(items) => Some(
            items
                .iter()
                .enumerate()
                .map(|(index, value)| pair(&index.to_string(), value))
                .collect(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_what_is_missing() {
        let mut dump = json!({"context": "forced", "timestamp": "t", "memory": {"current_mb": 1, "peak_mb": 2.5}});
        assert_eq!(DumpView::new(&dump).err(), Some("/memory/limit_mb"));
        dump["memory"]["limit_mb"] = json!("2048");
        assert_eq!(DumpView::new(&dump).err(), Some("/memory/limit_mb"));
        assert_eq!(DumpView::new(&json!([1])).err(), Some("/context"));
    }

    #[test]
    fn odd_shapes_are_no_trouble() {
        let dump = json!({
            "context": 3, "timestamp": 1.5, "backtrace": [7, {"function": "a\u{1b}[2J"}, {}],
            "memory": {"current_mb": 1, "peak_mb": 2.5, "limit_mb": 3, "usage_percent": 4},
            "session": {"size_mb": "big", "largest_keys": ["1 KB", 2.0]}
        });
        let view = DumpView::new(&dump).expect("a view");
        assert_eq!(
            (view.context.as_str(), view.timestamp.as_str()),
            ("3", "1.5")
        );
        assert_eq!(view.frames, ["unknown", "a\u{fffd}[2J", "unknown"]);
        assert_eq!(view.session.size_mb, None);
        let keys = view.session.largest_keys.expect("a list");
        assert_eq!(
            keys,
            [
                ("0".to_owned(), "1 KB".to_owned()),
                ("1".to_owned(), "2".to_owned())
            ]
        );
    }
}
