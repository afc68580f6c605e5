//! The session's part of a dump: keys and sizes, never the values.

use indexmap::IndexMap;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::units::{Mib, kib};

/// The most keys that are listed with their sizes.
const LARGEST_KEYS: usize = 5;

/// A key of a PHP array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SessionKey {
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
}

impl std::fmt::Display for SessionKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(formatter),
            Self::Text(text) => text.fmt(formatter),
        }
    }
}

/// Whether there was a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    /// No session was started, or none could be read.
    NotStarted,
}

/// The session of the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Session {
    /// A session with data.
    Started {
        /// The length of `serialize()` of all the data. `null` is unknown.
        size_mb: Option<Mib>,
        /// All keys, in the order of the session.
        keys: Vec<SessionKey>,
        /// How many keys there are.
        key_count: u64,
        /// The keys with the largest values and their sizes, as `85.23 KB`; at most 5, the largest first. Values
        /// of unknown size are not among them.
        #[serde(deserialize_with = "php_array")]
        largest_keys: IndexMap<String, String>,
    },
    /// `{"status":"not_started"}`.
    Absent {
        /// Always `not_started`.
        status: SessionStatus,
    },
}

impl Session {
    /// What a dump says when no session was started, and when none could be read.
    pub fn not_started() -> Self {
        Self::Absent {
            status: SessionStatus::NotStarted,
        }
    }

    /// A session whose data `serialize()` gives `total_bytes`, with each key and the serialized length of its value, in
    /// the session's own order. `None` is a length that is not known.
    pub fn started(total_bytes: Option<u64>, values: &[(SessionKey, Option<u64>)]) -> Self {
        let known = |(key, bytes): &(SessionKey, Option<u64>)| Some((key.to_string(), (*bytes)?));
        let mut largest: Vec<(String, u64)> = values.iter().filter_map(known).collect();
        // Stable, as PHP's arsort: keys of one size stay in the session's order.
        largest.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        Self::Started {
            size_mb: total_bytes.map(Mib::from_bytes),
            keys: values.iter().map(|(key, _)| key.clone()).collect(),
            key_count: values.len() as u64,
            largest_keys: largest
                .into_iter()
                .take(LARGEST_KEYS)
                .map(|(key, bytes)| (key, format!("{} KB", kib(bytes))))
                .collect(),
        }
    }
}

/// Reads what PHP wrote for an array with texts for keys: an object, or a list when it is empty or its keys are 0, 1, ...
fn php_array<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<IndexMap<String, String>, D::Error> {
    struct PhpArray;

    impl<'de> Visitor<'de> for PhpArray {
        type Value = IndexMap<String, String>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("an object or a list of texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut array = IndexMap::new();
            while let Some((key, value)) = map.next_entry()? {
                array.insert(key, value);
            }
            Ok(array)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut array = IndexMap::new();
            while let Some(value) = items.next_element()? {
                array.insert(array.len().to_string(), value);
            }
            Ok(array)
        }
    }

    deserializer.deserialize_any(PhpArray)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::json::to_compact;

    fn text(key: &str, bytes: u64) -> (SessionKey, Option<u64>) {
        (SessionKey::Text(key.to_owned()), Some(bytes))
    }

    fn round_trip(session: &Session, expected: &str) {
        assert_eq!(to_compact(session).expect("JSON"), expected);
        assert_eq!(
            &serde_json::from_str::<Session>(expected).expect("reads back"),
            session
        );
    }

    #[test]
    fn not_started() {
        round_trip(&Session::not_started(), r#"{"status":"not_started"}"#);
    }

    #[test]
    fn empty_is_a_list() {
        let expected = r#"{"size_mb":0,"keys":[],"key_count":0,"largest_keys":[]}"#;
        round_trip(&Session::started(Some(6), &[]), expected);
    }

    #[test]
    fn what_is_unknown_is_null_and_not_among_the_largest() {
        let values = [text("a", 50), (SessionKey::Text("b".to_owned()), None)];
        let expected = concat!(
            r#"{"size_mb":null,"keys":["a","b"],"key_count":2,"#,
            r#""largest_keys":{"a":"0.05 KB"}}"#
        );
        round_trip(&Session::started(None, &values), expected);
    }

    #[test]
    fn five_largest_first_and_equal_ones_in_order() {
        let values = [
            text("_token", 50),
            text("roster", 3_380_296),
            (SessionKey::Number(12), Some(2048)),
            text("a", 50),
            text("nav", 27_034),
            text("b", 50),
        ];
        let expected = concat!(
            r#"{"size_mb":3.25,"keys":["_token","roster",12,"a","nav","b"],"key_count":6,"#,
            r#""largest_keys":{"roster":"3301.07 KB","nav":"26.4 KB","12":"2 KB","_token":"0.05 KB","a":"0.05 KB"}}"#
        );
        round_trip(&Session::started(Some(3_410_000), &values), expected);
    }
}
