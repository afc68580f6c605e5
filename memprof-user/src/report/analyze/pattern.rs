//! The search for a text in dumps.

use serde::Serialize;
use serde_json::Value;

use crate::record::json;
use crate::report::dump_view::{self, DumpView};

/// A text that is searched for, ASCII letters in either case.
pub(super) struct Pattern(String);

/// What in a dump holds the pattern; both may be empty, when it is elsewhere in the dump.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Match {
    /// Session keys and their sizes.
    pub(super) session_keys: Vec<(String, String)>,
    /// Functions of the backtrace.
    pub(super) frames: Vec<String>,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_ascii_lowercase())
    }

    /// Where the dump holds the pattern; `None` when its JSON does not.
    pub(super) fn find(&self, json: &Value, dump: &DumpView) -> Option<Match> {
        if !self.is_in_json(json) {
            return None;
        }
        let keys = dump.session.largest_keys.iter().flatten();
        let frames = dump_view::frames(json)
            .iter()
            .filter(|frame| self.is_in_json(frame));
        Some(Match {
            session_keys: keys.filter(|(key, _)| self.is_in(key)).cloned().collect(),
            frames: frames.map(dump_view::function).collect(),
        })
    }

    fn is_in_json(&self, value: &Value) -> bool {
        json::to_compact(value).is_ok_and(|text| self.is_in(&text))
    }

    fn is_in(&self, text: &str) -> bool {
        text.to_ascii_lowercase().contains(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn find(text: &str) -> Option<Match> {
        let json = json!({
            "context": "forced", "timestamp": "t", "uri": "/a/café",
            "memory": {"current_mb": 1, "peak_mb": 2, "limit_mb": 3.0, "usage_percent": 4},
            "backtrace": [{"file": "Panel.php", "line": 1, "function": "Filament\\Panel->boot"}],
            "session": {"size_mb": 1, "largest_keys": {"Nav/é": "1 KB", "x": "2 KB"}}
        });
        Pattern::new(text).find(&json, &DumpView::new(&json).expect("a view"))
    }

    #[test]
    fn json_is_searched_as_php_escapes_it() {
        assert_eq!(find("filament\\panel"), None);
        assert_eq!(
            find("filament\\\\panel").expect("found").frames,
            ["Filament\\Panel->boot"]
        );
        assert_eq!(find("/a/caf"), None);
        assert!(find("\\/CAF\\u00E9").is_some());
        assert!(find("\"limit_mb\":3,").is_some());
    }

    #[test]
    fn keys_are_searched_as_they_are() {
        // The whole dump must match first, so a slash finds no key.
        assert_eq!(find("nav/"), None);
        let found = find("NAV").expect("found");
        assert_eq!(
            found.session_keys,
            [("Nav/é".to_owned(), "1 KB".to_owned())]
        );
        assert!(found.frames.is_empty());
        // A file's name is in the frame's JSON.
        assert_eq!(find("panel.php").expect("found").frames.len(), 1);
    }
}
