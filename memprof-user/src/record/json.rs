//! JSON exactly as PHP's `json_encode` writes it, in the three ways that the records need.
//!
//! | | dump file | log line | analyzer's search text |
//! |---|---|---|---|
//! | layout | pretty, 4 spaces | compact | compact |
//! | `/` | `\/` | `/` | `\/` |
//! | beyond ASCII | `\uXXXX`, lower case, surrogate pairs | as is (but U+2028 and U+2029) | `\uXXXX` |
//! | whole floats | `2048` | `2048.0` | `2048` |
//! | line breaks in strings | `\n` | a space | `\n` |
//!
//! In all of them an empty object is `[]` (PHP has one kind of array) and floats print their shortest form (ini
//! serialize_precision = -1). Checked against PHP 8.2.36.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use serde_json::{Map, Serializer, Value};

use super::number;

/// The deepest level that a log line holds, the record itself being level 0 and its context level 1 (Monolog's
/// `maxNormalizeDepth`).
const LOG_DEPTH: usize = 9;
/// The most items of an array or object that a log line holds (Monolog's `maxNormalizeItemCount`).
const LOG_ITEMS: usize = 1000;

/// A document as in a dump file: `json_encode($value, JSON_PRETTY_PRINT)`, without a final newline.
///
/// # Errors
///
/// When the value cannot be JSON at all, as a map whose keys are no strings.
pub fn to_pretty(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let layout = PrettyFormatter::with_indent(b"    ");
    let mut value = serde_json::to_value(value)?;
    empty_objects_to_arrays(&mut value);
    write(
        &value,
        PhpFormatter {
            layout,
            escaped: true,
            whole_fraction: false,
        },
    )
}

/// A document on one line, as `json_encode($value)` without flags.
///
/// # Errors
///
/// When the value cannot be JSON at all, as a map whose keys are no strings.
pub fn to_compact(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut value = serde_json::to_value(value)?;
    empty_objects_to_arrays(&mut value);
    write(
        &value,
        PhpFormatter {
            layout: CompactFormatter,
            escaped: true,
            whole_fraction: false,
        },
    )
}

/// A log line's context, as Monolog writes it, cut where it is deeper or longer than Monolog allows.
///
/// # Errors
///
/// When the value cannot be JSON at all, as a map whose keys are no strings.
pub fn to_log_context(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut value = bounded(serde_json::to_value(value)?, 1);
    empty_objects_to_arrays(&mut value);
    write(
        &value,
        PhpFormatter {
            layout: CompactFormatter,
            escaped: false,
            whole_fraction: true,
        },
    )
}

/// A document on one line with the log's strings and numbers, but whole and with its line breaks escaped.
///
/// # Errors
///
/// When the value cannot be JSON at all, as a map whose keys are no strings.
pub fn to_line(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut value = serde_json::to_value(value)?;
    empty_objects_to_arrays(&mut value);
    write(
        &value,
        PhpFormatter {
            layout: CompactFormatter,
            escaped: false,
            whole_fraction: true,
        },
    )
}

/// A line's text without line breaks: each becomes a space, as in Monolog where line breaks are not allowed.
pub(super) fn one_line(text: &str) -> String {
    text.replace("\r\n", " ").replace(['\r', '\n'], " ")
}

fn write(value: &Value, formatter: impl Formatter) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter))?;
    String::from_utf8(bytes).map_err(serde::ser::Error::custom)
}

fn empty_objects_to_arrays(value: &mut Value) {
    match value {
        Value::Object(map) if map.is_empty() => *value = Value::Array(Vec::new()),
        Value::Object(map) => map.values_mut().for_each(empty_objects_to_arrays),
        Value::Array(items) => items.iter_mut().for_each(empty_objects_to_arrays),
        _ => {}
    }
}

/// What Monolog's normalizer leaves of a value at that level, without line breaks.
fn bounded(value: Value, level: usize) -> Value {
    if level > LOG_DEPTH {
        return format!("Over {LOG_DEPTH} levels deep, aborting normalization").into();
    }
    match value {
        Value::String(text) => one_line(&text).into(),
        Value::Array(items) if items.len() > LOG_ITEMS => {
            // In PHP the marker's key turns the list into an object with numbers for keys.
            let keyed = items
                .into_iter()
                .enumerate()
                .map(|(index, item)| (index.to_string(), item));
            bounded(keyed.collect(), level)
        }
        Value::Array(items) => items
            .into_iter()
            .map(|item| bounded(item, level + 1))
            .collect(),
        Value::Object(map) => {
            let total = map.len();
            let mut kept: Map<String, Value> = map
                .into_iter()
                .take(LOG_ITEMS)
                .map(|(key, item)| (one_line(&key), bounded(item, level + 1)))
                .collect();
            if total > LOG_ITEMS {
                let marker =
                    format!("Over {LOG_ITEMS} items ({total} total), aborting normalization");
                kept.insert("...".to_owned(), marker.into());
            }
            Value::Object(kept)
        }
        scalar => scalar,
    }
}

/// PHP's way to write strings and numbers, on top of a layout.
struct PhpFormatter<L> {
    layout: L,
    /// `/` and everything beyond ASCII is escaped.
    escaped: bool,
    /// Whole floats keep their `.0`.
    whole_fraction: bool,
}

impl<L: Formatter> Formatter for PhpFormatter<L> {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let text = number::shortest(value);
        writer.write_all(text.as_bytes())?;
        // With an exponent PHP always has a point.
        if self.whole_fraction && !text.contains('.') {
            writer.write_all(b".0")?;
        }
        Ok(())
    }

    fn write_u64<W: ?Sized + Write>(&mut self, writer: &mut W, value: u64) -> io::Result<()> {
        // PHP's integers end at 2^63 - 1; beyond, it has floats.
        match i64::try_from(value) {
            Ok(value) => self.write_i64(writer, value),
            Err(_) => self.write_f64(writer, value as f64),
        }
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut unescaped = 0;
        for (at, character) in fragment.char_indices() {
            let escape = match character {
                '/' => self.escaped,
                '\u{2028}' | '\u{2029}' => true,
                _ => self.escaped && !character.is_ascii(),
            };
            if !escape {
                continue;
            }
            writer.write_all(fragment.as_bytes().get(unescaped..at).unwrap_or_default())?;
            unescaped = at + character.len_utf8();
            if character == '/' {
                writer.write_all(b"\\/")?;
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        writer.write_all(fragment.as_bytes().get(unescaped..).unwrap_or_default())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.layout.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.layout.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pretty(value: Value) -> String {
        to_pretty(&value).expect("JSON")
    }

    fn compact(value: Value) -> String {
        to_compact(&value).expect("JSON")
    }

    fn log(value: Value) -> String {
        to_log_context(&value).expect("JSON")
    }

    #[test]
    fn pretty_layout_and_empty_arrays() {
        let value = json!({"a": [], "b": {}, "c": [1, [2, {"x": null}]], "d": true});
        let expected = "{\n    \"a\": [],\n    \"b\": [],\n    \"c\": [\n        1,\n        [\n            2,\n            \
                        {\n                \"x\": null\n            }\n        ]\n    ],\n    \"d\": true\n}";
        assert_eq!(pretty(value), expected);
        assert_eq!(pretty(json!({})), "[]");
    }

    // What PHP 8.2.36 printed for "a/bé😀\x7f\x01\t\"\\\u{2028}<>", with and without the two unescaping flags.
    #[test]
    fn strings() {
        let text = json!("a/b\u{e9}\u{1F600}\u{7f}\u{1}\t\"\\\u{2028}<>");
        assert_eq!(
            compact(text.clone()),
            "\"a\\/b\\u00e9\\ud83d\\ude00\u{7f}\\u0001\\t\\\"\\\\\\u2028<>\""
        );
        assert_eq!(log(text), "\"a/bé😀\u{7f}\\u0001\\t\\\"\\\\\\u2028<>\"");
        assert_eq!(compact(json!({"ü/": 1})), r#"{"\u00fc\/":1}"#);
    }

    // What PHP 8.2.36 printed, without and with JSON_PRESERVE_ZERO_FRACTION.
    #[test]
    fn numbers() {
        for (value, plain, preserved) in [
            (2048.0, "2048", "2048.0"),
            (1e16, "10000000000000000", "10000000000000000.0"),
            (1e17, "1.0e+17", "1.0e+17"),
            (1860.25, "1860.25", "1860.25"),
            (-0.0, "-0", "-0.0"),
        ] {
            assert_eq!(compact(json!(value)), plain);
            assert_eq!(log(json!(value)), preserved);
        }
        assert_eq!(compact(json!(u64::MAX)), "1.8446744073709552e+19");
        assert_eq!(
            compact(json!([i64::MAX, i64::MIN])),
            "[9223372036854775807,-9223372036854775808]"
        );
    }

    #[test]
    fn a_log_context_is_one_line() {
        assert_eq!(
            log(json!({"sql\n": "select *\r\nfrom a\rwhere\nb"})),
            r#"{"sql ":"select * from a where b"}"#
        );
    }

    #[test]
    fn a_log_context_is_cut_below_nine_levels() {
        // The context is level 1, so eight arrays below it are whole and what the ninth holds is cut.
        let nested = |depth: usize| (0..depth).fold(json!("x"), |inner, _| json!([inner]));
        assert_eq!(
            log(nested(8)),
            format!("{}\"x\"{}", "[".repeat(8), "]".repeat(8))
        );
        let cut = "\"Over 9 levels deep, aborting normalization\"";
        assert_eq!(
            log(nested(9)),
            format!("{}{cut}{}", "[".repeat(9), "]".repeat(9))
        );
    }

    #[test]
    fn a_log_context_is_cut_after_a_thousand_items() {
        let whole: Value = (0..1000).map(Value::from).collect();
        assert!(log(whole).ends_with(",998,999]"));
        let long: Value = (0..1001).map(Value::from).collect();
        let text = log(long);
        assert!(text.starts_with(r#"{"0":0,"1":1,"#));
        assert!(text.ends_with(
            r#","999":999,"...":"Over 1000 items (1001 total), aborting normalization"}"#
        ));
    }
}
