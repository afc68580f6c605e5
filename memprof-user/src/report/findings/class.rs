//! Many objects of one class.

use super::super::facts::Facts;
use super::super::text::{count, size};
use super::{Finding, Rule};

/// From so many objects of one class on it is worth a word.
const MANY: u64 = 10_000;
/// And from this share of all objects on.
const SHARE: f64 = 0.2;
/// Classes named beside the first.
const OTHERS: usize = 4;

/// The class with the most objects.
pub(super) fn find(facts: &Facts) -> Option<Finding> {
    let objects = facts.external.as_ref()?.objects.as_ref()?;
    let mut classes: Vec<(&str, u64, Option<u64>)> = objects
        .by_class
        .iter()
        .filter_map(|class| Some((class.class.as_deref()?, class.count?, class.bytes)))
        .collect();
    classes.sort_by_key(|(_, count, _)| std::cmp::Reverse(*count));
    let (class, number, bytes) = *classes.first()?;
    let listed = classes
        .iter()
        .fold(0_u64, |sum, (_, count, _)| sum.saturating_add(*count));
    let total = objects.total.unwrap_or(listed).max(number);
    if number < MANY || (number as f64) < total as f64 * SHARE {
        return None;
    }
    let own = bytes.map_or(String::new(), |bytes| {
        format!(", {} by themselves", size(bytes))
    });
    let describe = |(class, number, bytes): &(&str, u64, Option<u64>)| {
        let bytes = bytes.map_or(String::new(), |bytes| format!(" ({})", size(bytes)));
        format!("{} {class}{bytes}", count(*number))
    };
    let others: Vec<String> = classes.iter().skip(1).take(OTHERS).map(describe).collect();
    let mut evidence = vec![format!("{} objects live in all", count(total))];
    if !others.is_empty() {
        evidence.push(format!("then {}", others.join(", ")));
    }
    Some(Finding {
        rule: Rule::Class,
        subject: class.to_owned(),
        title: format!("{} objects of {class} live{own}", count(number)),
        evidence,
        next_step: format!(
            "look at what makes {class} and keeps it; what the objects refer to comes on top"
        ),
        bytes: bytes.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::Sample;
    use super::*;

    #[test]
    fn the_most_frequent_class_is_named_with_the_next() {
        let objects = json!({"total": 60_000, "classes": 3, "by_class": [
            {"class": "App\\Models\\Permission", "count": 15_000, "bytes": 4_194_304},
            {"class": "Closure", "count": 40_000, "bytes": null},
            {"class": "stdClass"},
        ]});
        let sample = Sample::new(120).with("objects", objects);
        let finding = sample.finding(Rule::Class).expect("a class");
        assert_eq!(finding.title, "40,000 objects of Closure live");
        assert_eq!(
            finding.evidence,
            [
                "60,000 objects live in all",
                "then 15,000 App\\Models\\Permission (4 MiB)"
            ]
        );
    }

    #[test]
    fn few_are_none() {
        let objects =
            json!({"total": 100_000, "by_class": [{"class": "A", "count": 15_000, "bytes": 1}]});
        assert_eq!(
            Sample::new(120)
                .with("objects", objects)
                .finding(Rule::Class),
            None
        );
    }
}
