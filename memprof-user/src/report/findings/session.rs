//! Session bloat: which keys, and what they take.

use super::super::facts::{Facts, HolderView};
use super::super::text::size;
use super::{Finding, Rule};
use crate::record::frame::Frame;

/// A session above it is large whatever else there is, in bytes as serialized: every request reads and writes it.
const LARGE_BYTES: u64 = 1 << 20;
/// What reads a session in or writes it out.
const TRANSFERS: [&str; 6] = [
    "Illuminate\\Session\\Store->readFromHandler",
    "Illuminate\\Session\\Store->prepareForStorage",
    "Illuminate\\Session\\Store->save",
    "session_start",
    "session_write_close",
    "session_decode",
];
/// How far from the innermost frame that may be.
const NEAR: usize = 12;

/// The session, where it is large.
pub(super) fn find(facts: &Facts) -> Option<Finding> {
    let serialized = serialized_bytes(facts);
    let transfer = transfer(facts);
    let held = facts
        .top_holders()
        .iter()
        .filter(|holder| is_session(facts, holder))
        .map(|holder| holder.retained_bytes)
        .fold(0, u64::saturating_add);
    let moved = match transfer {
        Some(_) => facts.used_without(|holder| holder.is_lasting()),
        None => 0,
    };
    let bytes = held.max(moved).max(serialized.unwrap_or(0));
    if !(is_large(facts) || facts.is_much(bytes)) {
        return None;
    }
    let title = match serialized {
        Some(serialized) => format!("The session is {} when serialized", size(serialized)),
        None => "The session is large".to_owned(),
    };
    let memory = if held.max(moved) > 0 {
        format!(", and takes {}", facts.of_used(held.max(moved)))
    } else {
        String::new()
    };
    let mut evidence = Vec::new();
    if let Some(transfer) = transfer {
        evidence.push(format!(
            "it was being moved: {} is on the stack",
            transfer.function
        ));
    }
    if held > 0 {
        let paths = facts.top_holders();
        let path = paths.iter().find(|holder| is_session(facts, holder));
        evidence.extend(
            path.map(|holder| format!("{} at {}", size(holder.retained_bytes), holder.path)),
        );
    }
    let keys = facts.view.session.largest_keys.iter().flatten();
    evidence.extend(keys.clone().map(|(key, size)| format!("key {key}: {size}")));
    let largest = keys.map(|(key, _)| key.as_str()).next();
    Some(Finding {
        rule: Rule::Session,
        subject: largest.unwrap_or_default().to_owned(),
        title: title + &memory,
        evidence,
        next_step: match largest {
            Some(key) => format!(
                "every request of this user reads and writes all of it: keep an id in `{key}` and load the rest \
                 from a cache or the database when it is needed"
            ),
            None => "look at what the application puts into the session".to_owned(),
        },
        bytes,
    })
}

/// `strlen(serialize())`, as exactly as the dump has it.
fn serialized_bytes(facts: &Facts) -> Option<u64> {
    let external = facts.external.as_ref();
    let exact = external.and_then(|external| external.session.as_ref()?.bytes);
    let size_mb = facts.view.session.size_mb;
    exact.or_else(|| Some((size_mb? * f64::from(1 << 20)) as u64))
}

/// Whether a variable is the session's data: below something called session, at one of its keys; the array that PHP's own
/// sessions are in; or the largest key of a large session, wherever: arrays are shared until one of them is changed, and a
/// dump tells one path.
pub(super) fn is_session(facts: &Facts, holder: &HolderView) -> bool {
    let path = holder.path;
    let has_key = |key: &String| path.contains(&format!("['{key}']"));
    let largest = || {
        facts
            .view
            .session
            .largest_keys
            .as_ref()?
            .first()
            .map(|(key, _)| key)
    };
    path.contains("_SESSION")
        || path.to_ascii_lowercase().contains("session")
            && (path.ends_with("->attributes") || facts.session_keys.iter().any(has_key))
        || is_large(facts) && largest().is_some_and(has_key)
}

fn is_large(facts: &Facts) -> bool {
    serialized_bytes(facts).is_some_and(|serialized| serialized >= LARGE_BYTES)
}

fn transfer(facts: &Facts) -> Option<&Frame> {
    let mut near = facts.stack()?.innermost.iter().take(NEAR);
    near.find(|frame| TRANSFERS.contains(&frame.function.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{Sample, frame, holder};
    use super::*;

    const ATTRIBUTES: &str = "Illuminate\\Container\\Container::$instance->instances['session']->drivers['file']->attributes";

    #[test]
    fn what_it_takes_in_memory_is_more_than_its_length() {
        let path = format!("{ATTRIBUTES}['permissions_cache']");
        let mut sample = Sample::new(100).holders(&[holder(&path, 60)]);
        sample.json["external"]["session"] = json!({"bytes": 13_212_057});
        let finding = sample.finding(Rule::Session).expect("a session");
        assert_eq!(
            finding.title,
            "The session is 12.6 MiB when serialized, and takes 60 of the 100 MiB in use"
        );
        assert_eq!(
            finding.evidence,
            [
                format!("60 MiB at {path}"),
                "key permissions_cache: 512 KB".to_owned()
            ]
        );
        assert_eq!(sample.rules(), [Rule::Session]);
    }

    #[test]
    fn one_that_is_being_read_hangs_on_no_variable_yet() {
        let stack = json!({"innermost": [
            {"function": "unserialize"},
            frame("Illuminate\\Session\\Store->readFromHandler", "/srv/app/vendor/Store.php", 99),
        ]});
        let sample = Sample::new(120).with("stack", stack);
        let finding = sample.finding(Rule::Session).expect("a session");
        assert_eq!(finding.bytes, 120 << 20);
        assert!(finding.evidence[0].contains("readFromHandler"));
    }

    #[test]
    fn a_small_one_is_none_and_a_model_is_no_session() {
        let path = "App\\Models\\Repository::$all[3]->attributes['permissions_cache']";
        let sample = Sample::new(100).holders(&[holder(path, 60)]);
        assert_eq!(sample.rules(), [Rule::Holder]);
        // Of a large session it is the data, however it is reached.
        let mut shared =
            Sample::new(100).holders(&[holder("$all['permissions_cache'] in f()", 60)]);
        shared.json["session"]["size_mb"] = json!(2.5);
        assert_eq!(shared.rules(), [Rule::Session]);
        // Large enough by itself.
        let mut sample = Sample::new(100);
        sample.json["session"]["size_mb"] = json!(2.5);
        let finding = sample.finding(Rule::Session).expect("a session");
        assert_eq!(finding.title, "The session is 2.5 MiB when serialized");
    }
}
