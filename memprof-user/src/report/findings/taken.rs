//! One place in the code that took a good part of the heap and still holds it, as the probes saw it.

use indexmap::IndexMap;

use super::super::external::GrowthStack;
use super::super::facts::Facts;
use super::super::text::{in_application, is_own};
use super::{Finding, Rule};

/// Lines of a stack that are shown.
const SHOWN: usize = 6;

/// A line of a stack: the function, and file and line.
struct Place<'a> {
    function: &'a str,
    /// `/srv/app/Foo.php:12`; empty where the place is in PHP itself.
    file: &'a str,
}

impl<'a> Place<'a> {
    fn of(line: &'a str) -> Self {
        let (function, file) = line.rsplit_once(" /").map_or((line, ""), |(function, _)| {
            (function, line.get(function.len() + 1..).unwrap_or(""))
        });
        Self { function, file }
    }
}

/// The place that took most: stacks with the same innermost function and the same function of the application's own.
pub(super) fn find(facts: &Facts) -> Option<Finding> {
    let growth = facts.external.as_ref()?.growth.as_ref()?;
    let mut places: IndexMap<(&str, Option<&str>), (u64, &GrowthStack)> = IndexMap::new();
    for stack in &growth.top {
        let (Some(innermost), Some(held)) = (stack.stack.first(), stack.held_bytes) else {
            continue;
        };
        let key = (Place::of(innermost).function, own_line(stack));
        let sum = places.entry(key).or_insert((0, stack));
        sum.0 = sum.0.saturating_add(held);
    }
    let ((innermost, own), (bytes, stack)) = places
        .into_iter()
        .max_by_key(|(_, (bytes, _))| *bytes)
        .filter(|(_, (bytes, _))| facts.is_much(*bytes))?;
    let own = own.map(Place::of);
    let asked = match &own {
        Some(own) if own.function != innermost => {
            let file = in_application(own.file, facts.script());
            format!(" for {} ({file})", own.function)
        }
        _ => String::new(),
    };
    let mut evidence: Vec<String> = vec!["its stack, innermost first:".to_owned()];
    evidence.extend(
        stack
            .stack
            .iter()
            .take(SHOWN)
            .map(|line| format!("  {line}")),
    );
    if stack.stack.len() > SHOWN {
        evidence.push(format!("  … {} more", stack.stack.len() - SHOWN));
    }
    Some(Finding {
        rule: Rule::Taken,
        subject: format!("{innermost} {asked}"),
        title: format!(
            "{innermost} took{asked} what still holds {}",
            facts.of_used(bytes)
        ),
        evidence,
        next_step: format!(
            "look at what is kept of what {} returns",
            own.map_or(innermost, |own| own.function)
        ),
        bytes,
    })
}

fn own_line(stack: &GrowthStack) -> Option<&str> {
    let is_own_line = |line: &&String| {
        let file = Place::of(line).file;
        !file.is_empty() && is_own(file)
    };
    stack.stack.iter().find(is_own_line).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::Sample;
    use super::*;

    #[test]
    fn stacks_of_one_place_are_summed_up() {
        let stack = |line: u32, mib: u64| {
            json!({"held_bytes": mib << 20, "stack": [
                "PDOStatement->fetchAll",
                format!("Illuminate\\Database\\Connection->select /srv/app/vendor/Connection.php:{line}"),
                "App\\Http\\CallList->rows /srv/app/app/Http/CallList.php:31",
            ]})
        };
        let other = json!({"held_bytes": 50 << 20, "stack": ["json_decode", "App\\Api->get /srv/app/app/Api.php:7"]});
        let odd = json!({"held_bytes": 60 << 20, "stack": []});
        let growth = json!({"top": [other, odd, stack(1, 40), stack(2, 30)]});
        let finding = Sample::new(120)
            .with("growth", growth)
            .finding(Rule::Taken)
            .expect("a place");
        assert_eq!(
            finding.title,
            "PDOStatement->fetchAll took for App\\Http\\CallList->rows (app/Http/CallList.php:31) what still \
             holds 70 of the 120 MiB in use"
        );
        assert_eq!(finding.evidence.len(), 4);
    }
}
