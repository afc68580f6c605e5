//! One variable that holds a good part of the heap.

use super::super::facts::{Facts, HolderView, NOT_REACHED};
use super::super::text::{count, size};
use super::{Finding, Rule, session};

/// From so many elements on they are many.
const MANY_ELEMENTS: u64 = 1000;

/// Each variable that holds much, and is not the session.
pub(super) fn find(facts: &Facts) -> Vec<Finding> {
    let top = facts.top_holders();
    top.iter()
        .filter(|holder| facts.is_much(holder.retained_bytes))
        .filter(|holder| !session::is_session(facts, holder))
        .map(|holder| finding(facts, holder))
        .collect()
}

fn finding(facts: &Facts, holder: &HolderView) -> Finding {
    let bytes = holder.retained_bytes;
    let elements = holder.holder.elements.filter(|elements| *elements > 0);
    let in_elements = elements.map_or(String::new(), |elements| {
        format!(", in {} elements", count(elements))
    });
    let mut evidence = Vec::new();
    if let Some(elements) = elements {
        evidence.push(shape(elements, bytes));
    }
    if let Some(own) = holder.holder.own_bytes {
        let kind = match (&holder.holder.class, &holder.holder.kind) {
            (Some(class), _) => class.as_str(),
            (None, Some(kind)) => kind.as_str(),
            (None, None) => "block",
        };
        evidence.push(format!(
            "the {kind} itself has {}; the rest is what it refers to",
            size(own)
        ));
    }
    if bytes >= facts.used_bytes() / 2 {
        evidence.extend(facts.strings());
    }
    Finding {
        rule: Rule::Holder,
        subject: without_indexes(holder.path),
        title: format!(
            "{} holds {}{in_elements}",
            holder.path,
            facts.of_used(bytes)
        ),
        evidence,
        next_step: next_step(holder, elements),
        bytes,
    }
}

/// Whether it is many things or a few large ones.
fn shape(elements: u64, bytes: u64) -> String {
    let each = size(bytes / elements);
    if elements >= MANY_ELEMENTS {
        format!("many things of {each} each on average: it was filled bit by bit")
    } else {
        format!("{each} for each element on average")
    }
}

fn next_step(holder: &HolderView, elements: Option<u64>) -> String {
    let path = holder.path;
    if path.ends_with(NOT_REACHED) {
        return "no variable leads to it any more: objects that refer to each other wait for the cycle collector \
                (gc_collect_cycles), or an extension holds it"
            .to_owned();
    }
    if path.starts_with('{') {
        return "it is in no variable: PHP or an extension works on it at the moment of the dump"
            .to_owned();
    }
    let name = path.split(['[', ' ']).next().unwrap_or(path);
    match (holder.is_local(), holder.function) {
        (true, Some(function)) => {
            let cure = if elements.is_some() {
                "read it in pieces, or unset() it when it is done with"
            } else {
                "unset() it when it is done with"
            };
            format!("look at {name} in {function}: {cure}")
        }
        (_, Some(function)) => format!(
            "a static variable lives as long as the request: look at what {function} adds to it and when it is emptied"
        ),
        (_, None) if path.starts_with("$GLOBALS") => {
            "a global lives as long as the request: unset() it, or make it local to what needs it"
                .to_owned()
        }
        (_, None) if path.contains("::$") && elements.is_some() => format!(
            "a static property lives as long as the request: look at what adds to {name} and never takes away"
        ),
        (_, None) => format!("look at what fills {name}"),
    }
}

/// The path with `[17]` as `[*]`: it is the same place in the code whatever the index. Names stay.
pub(in crate::report) fn without_indexes(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, inside)) = rest.split_once('[') {
        text.push_str(before);
        let digits = inside
            .trim_start_matches('-')
            .trim_start_matches(|c: char| c.is_ascii_digit());
        rest = match digits.strip_prefix(']') {
            Some(after) if digits.len() < inside.len() => {
                text.push_str("[*]");
                after
            }
            _ => {
                text.push('[');
                inside
            }
        };
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{Sample, holder};
    use super::*;

    #[test]
    fn a_static_property_that_grows() {
        let sample = Sample::new(120).holders(&[holder("App\\Scopes\\CompanyScope::$kept", 96)]);
        let finding = sample.finding(Rule::Holder).expect("a holder");
        assert_eq!(
            finding.title,
            "App\\Scopes\\CompanyScope::$kept holds 96 of the 120 MiB in use, in 2,000 elements"
        );
        assert_eq!(
            finding.evidence,
            [
                "many things of 49.2 KiB each on average: it was filled bit by bit",
                "the array itself has 64 KiB; the rest is what it refers to"
            ]
        );
        assert_eq!(
            finding.next_step,
            "a static property lives as long as the request: look at what adds to \
             App\\Scopes\\CompanyScope::$kept and never takes away"
        );
    }

    #[test]
    fn each_kind_of_variable_has_its_cure() {
        for (path, cure) in [
            (
                "$rows in App\\Foo->bar()",
                "look at $rows in App\\Foo->bar: read it in pieces",
            ),
            ("static $cache in App\\f()[3]", "what App\\f adds to it"),
            ("$GLOBALS['rows']", "a global lives"),
            (
                "object #12 of App\\Foo (not reached from any root)",
                "no variable leads to it",
            ),
            (
                "App\\Foo::LIMITS['x']",
                "look at what fills App\\Foo::LIMITS",
            ),
        ] {
            let finding = Sample::new(120)
                .holders(&[holder(path, 96)])
                .finding(Rule::Holder)
                .expect("a holder");
            assert!(finding.next_step.contains(cure), "{}", finding.next_step);
        }
    }

    #[test]
    fn little_is_no_finding_and_no_elements_are_no_division() {
        let mut few = holder("A::$b", 96);
        few["elements"] = json!(0);
        let sample = Sample::new(120).holders(&[few, holder("A::$c", 5)]);
        assert_eq!(sample.rules(), [Rule::Holder]);
    }

    #[test]
    fn indexes_are_folded_and_names_are_not() {
        for (path, folded) in [
            ("A::$b[17]->c['x'][3]", "A::$b[*]->c['x'][*]"),
            ("A::$b[-1]", "A::$b[*]"),
            ("A::$b['a[3'][]", "A::$b['a[3'][]"),
            ("[", "["),
            ("A::$b[12", "A::$b[12"),
        ] {
            assert_eq!(without_indexes(path), folded);
        }
    }
}
