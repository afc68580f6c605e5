//! What the failed allocation was for: PHP's message tells only its size.
//!
//! PHP doubles its list of all objects (8 bytes a slot) and each array that is full: a packed one has 16 bytes an element
//! (32 before PHP 8.2) and 8 for its hash, one with keys 32 and 8 for the hash (zend_objects_API.c, zend_hash.h). PHP
//! 8.2.36 tells the size rounded up to pages (measured).

use super::super::facts::Facts;
use super::super::text::{count, part, size};
use super::{Finding, Rule};

/// Bytes of an element of an array with keys, with its part of the hash.
const KEYED_BYTES: u64 = 40;
const PAGE_BYTES: u64 = 4096;
const CHUNK_BYTES: u64 = 2 << 20;
/// Smaller arrays are not worth a word.
const LEAST_ELEMENTS: u64 = 1 << 15;
/// The list of objects is full when it doubles: all but some slots have a live object.
const NEARLY_FULL: f64 = 0.99;

/// What an allocation was, as far as its size tells.
#[derive(Debug, PartialEq)]
enum Purpose {
    /// The list of all objects, to so many slots.
    ObjectStore { slots: u64 },
    /// An array, to so many elements.
    Array { elements: u64, has_keys: bool },
    /// One more chunk, for whatever came next.
    Chunk,
    /// One piece of data.
    Block,
}

/// What the failed allocation was for.
pub(super) fn find(facts: &Facts) -> Option<Finding> {
    let tried = facts
        .external
        .as_ref()?
        .tried_bytes
        .filter(|tried| *tried > 0)?;
    let purpose = Purpose::of(tried, facts);
    let (what, evidence, next_step) = match purpose {
        Purpose::ObjectStore { slots } => (
            format!(
                "was PHP's list of all objects growing to {} places, not a piece of data",
                count(slots)
            ),
            format!(
                "{} × 8 bytes; {} objects were live",
                count(slots),
                live(facts)
            ),
            "too many objects live: what makes and keeps them is the cause, not the line of the error",
        ),
        Purpose::Array { elements, has_keys } => (
            format!("was an array growing to {} places", count(elements)),
            format!(
                "{} × {} bytes and its hash; it had about {} elements{}",
                count(elements),
                tried / elements,
                count(elements / 2),
                if has_keys { ", with keys" } else { "" }
            ),
            "an array that is full doubles, and the old one is there until the new one is filled",
        ),
        Purpose::Chunk => (
            "was one more chunk of the heap, for whatever small thing came next".to_owned(),
            "it says nothing about what filled the heap".to_owned(),
            "the line of the error is where the last straw fell, not the cause",
        ),
        Purpose::Block if is_large(tried, facts) => (
            format!("was one block{}", asked_for(facts)),
            "one large piece of data was made here: a string, a file or an answer read as a whole"
                .to_owned(),
            "read or make it in pieces",
        ),
        Purpose::Block => return None,
    };
    let bytes = match purpose {
        // What is held of it until it has grown.
        Purpose::ObjectStore { .. } | Purpose::Array { .. } => tried / 2,
        Purpose::Chunk => 0,
        Purpose::Block => tried,
    };
    Some(Finding {
        rule: Rule::TriedToAllocate,
        subject: format!("{purpose:?}"),
        title: format!("“Tried to allocate {tried} bytes” ({}) {what}", size(tried)),
        evidence: vec![evidence],
        next_step: next_step.to_owned(),
        bytes,
    })
}

impl Purpose {
    fn of(tried: u64, facts: &Facts) -> Self {
        if let Some(slots) = object_store(tried, facts) {
            return Self::ObjectStore { slots };
        }
        if tried == CHUNK_BYTES {
            return Self::Chunk;
        }
        if let Some(elements) = exact(tried, KEYED_BYTES) {
            return Self::Array {
                elements,
                has_keys: true,
            };
        }
        let each = packed_bytes(facts);
        // 8 bytes for the hash, or the page that they were rounded up to.
        let packed = [8, PAGE_BYTES]
            .iter()
            .find_map(|hash| exact(tried.checked_sub(*hash)?, each));
        if let Some(elements) = packed {
            return Self::Array {
                elements,
                has_keys: false,
            };
        }
        Self::Block
    }
}

/// The slots that the list of objects was to have, when it was about to double to that size.
fn object_store(tried: u64, facts: &Facts) -> Option<u64> {
    let slots = tried / 8;
    if !tried.is_multiple_of(8) || !slots.is_power_of_two() {
        return None;
    }
    let external = facts.external.as_ref()?;
    let had = external.object_store.as_ref().and_then(|store| store.slots);
    if had.is_some_and(|had| had.checked_mul(2) != Some(slots)) {
        return None;
    }
    // It doubles when no slot is free.
    let total = external.objects.as_ref().and_then(|objects| objects.total);
    let is_doubling = match total {
        Some(total) => total <= slots / 2 && total as f64 >= (slots / 2) as f64 * NEARLY_FULL,
        // A chunk has a size that fits as well.
        None => had.is_some() && tried != CHUNK_BYTES,
    };
    is_doubling.then_some(slots)
}

/// Bytes of an element of a packed array: 32 up to PHP 8.1, 16 from 8.2 on.
fn packed_bytes(facts: &Facts) -> u64 {
    let version = facts
        .external
        .as_ref()
        .and_then(|external| external.php_version.as_deref());
    let is_old = ["7.", "8.0", "8.1"]
        .iter()
        .any(|old| version.is_some_and(|version| version.starts_with(old)));
    if is_old { 32 } else { 16 }
}

/// So many elements of that size, where they are a power of two and worth a word.
fn exact(bytes: u64, bytes_each: u64) -> Option<u64> {
    let elements = bytes / bytes_each;
    let is_exact = bytes.is_multiple_of(bytes_each);
    (is_exact && elements >= LEAST_ELEMENTS && elements.is_power_of_two()).then_some(elements)
}

/// Whether it is a good part of the limit.
fn is_large(tried: u64, facts: &Facts) -> bool {
    tried > CHUNK_BYTES && tried >= facts.limit_bytes().unwrap_or(u64::MAX) / 10
}

fn live(facts: &Facts) -> String {
    let objects = facts
        .external
        .as_ref()
        .and_then(|external| external.objects.as_ref()?.total);
    objects.map_or("an unknown number of".to_owned(), count)
}

/// ` that json_decode asked for; 90 of the 128 MiB of the limit`
fn asked_for(facts: &Facts) -> String {
    let external = facts.external.as_ref();
    let tried = external
        .and_then(|external| external.tried_bytes)
        .unwrap_or(0);
    let by = facts
        .stack()
        .and_then(|stack| stack.innermost.first())
        .map_or(String::new(), |frame| {
            format!(" that {} asked for", frame.function)
        });
    let of = facts.limit_bytes().map_or(String::new(), |limit| {
        format!(": {} of the limit", part(tried, limit))
    });
    by + &of
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::Sample;
    use super::*;

    fn purpose(tried: u64, had: Option<u64>, live: Option<u64>) -> Purpose {
        let sample = Sample::new(120)
            .with("object_store", json!({"slots": had}))
            .with("objects", json!({"total": live}));
        Purpose::of(tried, &sample.facts())
    }

    #[test]
    fn the_storys_two_sizes_are_the_list_of_objects() {
        for (tried, slots) in [(8_388_608, 1 << 20), (33_554_432, 1 << 22)] {
            let store = Purpose::ObjectStore { slots };
            assert_eq!(purpose(tried, Some(slots / 2), None), store);
            assert_eq!(purpose(tried, None, Some(slots / 2 - 9)), store);
            // Another size than its double, or too few objects: it is something else.
            assert_eq!(
                purpose(tried, Some(slots / 4), Some(slots / 2)),
                Purpose::Block
            );
            assert_eq!(purpose(tried, None, Some(slots / 8)), Purpose::Block);
        }
        // A list of the right size that still has free slots does not double: it was a chunk.
        let slots = CHUNK_BYTES / 16;
        assert_eq!(
            purpose(CHUNK_BYTES, Some(slots), Some(119_826)),
            Purpose::Chunk
        );
        assert_eq!(purpose(CHUNK_BYTES, Some(slots), None), Purpose::Chunk);
    }

    #[test]
    fn arrays_are_told_by_their_size() {
        let array = |elements, has_keys| Purpose::Array { elements, has_keys };
        for (tried, expected) in [
            // PHP 8.2.36, measured: 16 bytes an element, rounded up to pages.
            (536_875_008, array(1 << 25, false)),
            (536_870_920, array(1 << 25, false)),
            // With keys, measured on both.
            (167_772_160, array(1 << 22, true)),
            // Not rounded up, not a power of two.
            (536_870_912, Purpose::Block),
            (480_000_008, Purpose::Block),
            (CHUNK_BYTES, Purpose::Chunk),
            (1, Purpose::Block),
            (u64::MAX, Purpose::Block),
        ] {
            assert_eq!(purpose(tried, None, None), expected, "{tried}");
        }
        // PHP 7.4, measured: 32 bytes an element.
        let old = Sample::new(120).with("php_version", json!("7.4.33"));
        assert_eq!(
            Purpose::of(268_435_464, &old.facts()),
            array(1 << 23, false)
        );
    }

    #[test]
    fn one_large_block_is_told_with_who_asked_for_it() {
        let stack = json!({"innermost": [{"function": "file_get_contents"}]});
        let sample = |tried: u64| {
            Sample::new(30)
                .with("tried_bytes", json!(tried))
                .with("stack", stack.clone())
        };
        let finding = sample(100_000_000)
            .finding(Rule::TriedToAllocate)
            .expect("found");
        assert_eq!(
            finding.title,
            "“Tried to allocate 100000000 bytes” (95.4 MiB) was one block that file_get_contents asked for: \
             95.4 of the 128 MiB of the limit"
        );
        assert_eq!(sample(4_000_000).finding(Rule::TriedToAllocate), None);
    }
}
