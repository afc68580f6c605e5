//! What a dump says under its last key, `external`.
//!
//! Every field may be missing, or be of another type than it should be: dumps of another maker or of another release are
//! read as far as they go. What cannot be read is unknown, never 0. Texts are safe to print.

use indexmap::IndexMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::text::short;
use crate::record::frame::Frame;

/// The most entries that are taken of any list.
const MAX_ENTRIES: usize = 1000;

/// What a dump holds beyond the format of in-app dumps. All sizes are in bytes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct External {
    #[serde(deserialize_with = "known")]
    pub(super) pid: Option<i64>,
    #[serde(deserialize_with = "text")]
    pub(super) php_version: Option<String>,
    #[serde(deserialize_with = "known")]
    pub(super) request: Option<Request>,
    /// When the request began, in Unix seconds.
    #[serde(deserialize_with = "known")]
    pub(super) started: Option<f64>,
    #[serde(deserialize_with = "known")]
    pub(super) memory_limit_bytes: Option<u64>,
    /// Asked for when the limit was hit.
    #[serde(deserialize_with = "known")]
    pub(super) tried_bytes: Option<u64>,
    #[serde(deserialize_with = "known")]
    pub(super) heap: Option<Heap>,
    #[serde(deserialize_with = "known")]
    pub(super) rss_bytes: Option<u64>,
    /// Whether all of it is of one moment.
    #[serde(deserialize_with = "known")]
    pub(super) consistent: Option<bool>,
    #[serde(deserialize_with = "known")]
    pub(super) stack: Option<Stack>,
    #[serde(deserialize_with = "known")]
    pub(super) growth: Option<Growth>,
    #[serde(deserialize_with = "known")]
    pub(super) objects: Option<Objects>,
    #[serde(deserialize_with = "known")]
    pub(super) object_store: Option<ObjectStore>,
    #[serde(deserialize_with = "known")]
    pub(super) holders: Option<Holders>,
    #[serde(deserialize_with = "known")]
    pub(super) session: Option<Session>,
    #[serde(deserialize_with = "list")]
    pub(super) queries: Vec<Query>,
    #[serde(deserialize_with = "texts")]
    pub(super) left_out: Vec<String>,
}

/// What was asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Request {
    #[serde(deserialize_with = "text")]
    pub(super) method: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) path: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) script: Option<String>,
}

/// The Zend heap.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Heap {
    #[serde(deserialize_with = "known")]
    pub(super) size_bytes: Option<u64>,
    #[serde(deserialize_with = "known")]
    pub(super) real_size_bytes: Option<u64>,
    #[serde(deserialize_with = "known")]
    pub(super) peak_bytes: Option<u64>,
    #[serde(deserialize_with = "known")]
    pub(super) chunks: Option<u64>,
    #[serde(deserialize_with = "known")]
    pub(super) cached_chunks: Option<u64>,
    #[serde(deserialize_with = "known")]
    pub(super) huge_bytes: Option<u64>,
    #[serde(deserialize_with = "known")]
    pub(super) free_bytes_in_used_chunks: Option<u64>,
}

/// The PHP stack; functions with the line that each executes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stack {
    /// All frames.
    #[serde(deserialize_with = "known")]
    pub(super) depth: Option<u64>,
    /// Why it ends before its outermost frame.
    #[serde(deserialize_with = "text")]
    pub(super) torn: Option<String>,
    #[serde(deserialize_with = "frames")]
    pub(super) innermost: Vec<Frame>,
    #[serde(deserialize_with = "known")]
    pub(super) recursion: Option<Recursion>,
}

/// Functions that call each other in a circle.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Recursion {
    /// One turn, the outermost caller first.
    #[serde(deserialize_with = "frames")]
    pub(super) cycle: Vec<Frame>,
    /// Whole turns.
    #[serde(deserialize_with = "known")]
    pub(super) times: Option<u64>,
    /// Frames of all turns.
    #[serde(deserialize_with = "known")]
    pub(super) frames: Option<u64>,
}

/// Page runs and huge blocks by stack, as they are held now.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Growth {
    #[serde(deserialize_with = "list")]
    pub(super) top: Vec<GrowthStack>,
}

/// What one stack took.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct GrowthStack {
    #[serde(deserialize_with = "known")]
    pub(super) held_bytes: Option<u64>,
    /// How many page runs and huge blocks.
    #[serde(deserialize_with = "known")]
    pub(super) taken_count: Option<u64>,
    /// `App\Foo->bar /srv/app/Foo.php:12`, innermost first.
    #[serde(deserialize_with = "texts")]
    pub(super) stack: Vec<String>,
}

/// Live objects.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Objects {
    #[serde(deserialize_with = "known")]
    pub(super) total: Option<u64>,
    /// How many classes have any.
    #[serde(deserialize_with = "known")]
    pub(super) classes: Option<u64>,
    /// Those with the most.
    #[serde(deserialize_with = "list")]
    pub(super) by_class: Vec<ClassObjects>,
}

/// The objects of one class.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ClassObjects {
    #[serde(deserialize_with = "text")]
    pub(super) class: Option<String>,
    #[serde(deserialize_with = "known")]
    pub(super) count: Option<u64>,
    /// The objects alone, without what they refer to.
    #[serde(deserialize_with = "known")]
    pub(super) bytes: Option<u64>,
}

/// PHP's list of all objects, `EG(objects_store)`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ObjectStore {
    #[serde(deserialize_with = "known")]
    pub(super) slots: Option<u64>,
    #[serde(deserialize_with = "known")]
    pub(super) bytes: Option<u64>,
}

/// What the heap's blocks are, and by which path they are reached.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Holders {
    /// What the heap has given out.
    #[serde(deserialize_with = "known")]
    pub(super) heap_bytes: Option<u64>,
    #[serde(deserialize_with = "known")]
    pub(super) unattributed_bytes: Option<i64>,
    #[serde(deserialize_with = "known")]
    pub(super) complete: Option<bool>,
    /// Blocks by what they are: `arrays`, `strings`, `objects`, `closures`, `vm_stack`, ...
    #[serde(deserialize_with = "kinds")]
    pub(super) kinds: IndexMap<String, Kind>,
    #[serde(deserialize_with = "list")]
    pub(super) top: Vec<Holder>,
}

/// The blocks of one kind.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default)]
pub(super) struct Kind {
    #[serde(deserialize_with = "known")]
    pub(super) count: Option<u64>,
    #[serde(deserialize_with = "known")]
    pub(super) bytes: Option<u64>,
}

/// Something that holds much.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Holder {
    /// How it is reached, in PHP's own syntax.
    #[serde(deserialize_with = "text")]
    pub(super) path: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) kind: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) class: Option<String>,
    #[serde(deserialize_with = "known")]
    pub(super) elements: Option<u64>,
    #[serde(deserialize_with = "known")]
    pub(super) own_bytes: Option<u64>,
    /// With all that was reached first through it.
    #[serde(deserialize_with = "known")]
    pub(super) retained_bytes: Option<u64>,
}

/// The session.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Session {
    /// `strlen(serialize())`.
    #[serde(deserialize_with = "known")]
    pub(super) bytes: Option<u64>,
}

/// A query of the database.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Query {
    #[serde(deserialize_with = "text")]
    pub(super) sql: Option<String>,
    #[serde(deserialize_with = "known")]
    pub(super) running: Option<bool>,
}

impl External {
    /// That of a dump; `None` when it has none.
    pub(super) fn of(dump: &Value) -> Option<Self> {
        let external = dump.get("external").filter(|value| value.is_object())?;
        Self::deserialize(external).ok()
    }
}

/// The value, or `None` when it is missing or of another type.
fn known<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(T::deserialize(Value::deserialize(deserializer)?).ok())
}

/// The entries that are of the right type.
fn list<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let entries = match Value::deserialize(deserializer)? {
        Value::Array(entries) => entries,
        _ => Vec::new(),
    };
    let entries = entries.into_iter().take(MAX_ENTRIES);
    Ok(entries
        .filter_map(|entry| T::deserialize(entry).ok())
        .collect())
}

fn kinds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IndexMap<String, Kind>, D::Error> {
    let kinds = match Value::deserialize(deserializer)? {
        Value::Object(kinds) => kinds,
        _ => serde_json::Map::new(),
    };
    let known = kinds.into_iter().take(MAX_ENTRIES);
    Ok(known
        .filter_map(|(name, kind)| Some((short(&name), Kind::deserialize(kind).ok()?)))
        .collect())
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text: Option<String> = known(deserializer)?;
    Ok(text.as_deref().map(short))
}

fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let texts: Vec<String> = list(deserializer)?;
    Ok(texts.iter().map(|text| short(text)).collect())
}

fn frames<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Frame>, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct FrameView {
        #[serde(deserialize_with = "text")]
        function: Option<String>,
        #[serde(deserialize_with = "text")]
        file: Option<String>,
        #[serde(deserialize_with = "known")]
        line: Option<u32>,
    }
    let frames: Vec<FrameView> = list(deserializer)?;
    let frame = |frame: FrameView| Frame {
        function: frame.function.unwrap_or_else(|| "unknown".to_owned()),
        file: frame.file,
        line: frame.line,
    };
    Ok(frames.into_iter().map(frame).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_of_another_type_is_unknown_and_the_rest_is_read() {
        let dump = json!({"external": {
            "pid": "seven", "started": [], "tried_bytes": -1, "heap": {"chunks": 3, "cached_chunks": 1.5},
            "stack": {"depth": 9, "innermost": [7, {"function": "f\u{1b}", "line": "x"}, {"file": "/a.php", "line": 3}]},
            "objects": {"by_class": {"a": 1}}, "holders": 3, "session": null, "left_out": ["a", 1, "b"],
        }});
        let external = External::of(&dump).expect("an external");
        assert_eq!((external.pid, external.tried_bytes), (None, None));
        let heap = external.heap.expect("a heap");
        assert_eq!((heap.chunks, heap.cached_chunks), (Some(3), None));
        let stack = external.stack.expect("a stack");
        assert_eq!(stack.innermost.len(), 2);
        assert_eq!(stack.innermost[0].function, "f\u{fffd}");
        assert_eq!(
            (
                stack.innermost[1].function.as_str(),
                stack.innermost[1].line
            ),
            ("unknown", Some(3))
        );
        assert!(external.objects.expect("objects").by_class.is_empty());
        assert!(external.holders.is_none() && external.session.is_none());
        assert_eq!(external.left_out, ["a", "b"]);
        for none in [
            json!({}),
            json!({"external": []}),
            json!({"external": null}),
            json!(3),
        ] {
            assert!(External::of(&none).is_none());
        }
    }
}
