//! One large result set: the request was about to fetch it, and no lasting variable explains the memory.

use super::super::facts::Facts;
use super::super::text;
use super::{Finding, Rule, recursion};
use crate::record::frame::Frame;

/// What brings rows from a database into memory.
const FETCHES: [&str; 12] = [
    "PDOStatement->fetchAll",
    "PDOStatement->fetch",
    "PDOStatement->fetchObject",
    "PDOStatement->execute",
    "mysqli_result->fetch_all",
    "mysqli_result->fetch_assoc",
    "mysqli_stmt->store_result",
    "mysqli_fetch_all",
    "mysqli_fetch_assoc",
    "mysqli_store_result",
    "pg_fetch_all",
    "SQLite3Result->fetchArray",
];
/// What makes models of the rows: the result set still lies in its variables.
const HYDRATIONS: [&str; 2] = [
    "Illuminate\\Database\\Eloquent\\Builder->hydrate",
    "Doctrine\\ORM\\Internal\\Hydration\\AbstractHydrator->hydrateAll",
];
/// How far from the innermost frame the fetching may be.
const NEAR: usize = 12;

/// The result set that is being fetched.
pub(super) fn find(facts: &Facts) -> Option<Finding> {
    let near = facts.stack()?.innermost.iter().take(NEAR);
    let names = |list: &[&str], frame: &Frame| list.contains(&frame.function.as_str());
    let fetch = near
        .clone()
        .find(|frame| names(&FETCHES, frame) || names(&HYDRATIONS, frame))?;
    // Without the variables one large result cannot be told from many that are kept, nor in a recursion.
    if facts.holders().is_none() || recursion::is_deep(facts) {
        return None;
    }
    // A result set that is being fetched hangs on no variable that outlives the call.
    let bytes = facts.used_without(|holder| holder.is_lasting());
    if !facts.is_much(bytes) || !is_few_and_large(facts) {
        return None;
    }
    let caller = facts
        .stack()?
        .innermost
        .iter()
        .find(|frame| frame.file.as_deref().is_some_and(text::is_own));
    let asked = caller.map_or(String::new(), |caller| {
        let file = text::in_application(caller.file.as_deref().unwrap_or_default(), facts.script());
        let line = caller.line.map_or(String::new(), |line| format!(":{line}"));
        format!(" for {} ({file}{line})", caller.function)
    });
    let function = &fetch.function;
    let mut evidence = vec![format!("{function} is on the stack")];
    evidence.extend(query(facts));
    evidence.extend(facts.strings());
    Some(Finding {
        rule: Rule::LargeResult,
        subject: caller.map_or(function, |caller| &caller.function).clone(),
        title: format!(
            "One large result set is being fetched{asked}: {}",
            facts.of_used(bytes)
        ),
        evidence,
        next_step: "fetch less: name the columns that are needed (select), limit or paginate, or read it in \
                    pieces (chunk, cursor)"
            .to_owned(),
        bytes,
    })
}

/// Whether strings are most of the memory, where the kinds are known.
fn is_few_and_large(facts: &Facts) -> bool {
    let strings = facts
        .holders()
        .and_then(|holders| holders.kinds.get("strings")?.bytes);
    match strings {
        Some(strings) => strings >= facts.used_bytes() / 2,
        None => true,
    }
}

/// The query that runs, or the last one that was seen.
fn query(facts: &Facts) -> Option<String> {
    let queries = &facts.external.as_ref()?.queries;
    let running = queries.iter().find(|query| query.running == Some(true));
    let query = running.or(queries.last())?;
    let which = if running.is_some() {
        "the query that runs"
    } else {
        "the last query"
    };
    Some(format!("{which}: {}", query.sql.as_deref()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{Sample, frame, holder};
    use super::*;

    fn fetching() -> Sample {
        let stack = json!({"depth": 60, "innermost": [
            {"function": "PDOStatement->fetchAll", "file": null, "line": null},
            frame("Illuminate\\Database\\Connection->select", "/srv/app/vendor/Connection.php", 360),
            frame("App\\Http\\CallList->rows", "/srv/app/app/Http/CallList.php", 31),
        ]});
        let queries = json!([{"sql": "select 1", "running": false}, {"sql": "select * from `calls`", "running": true}]);
        Sample::new(120)
            .with("stack", stack)
            .with("queries", queries)
    }

    #[test]
    fn it_is_what_no_lasting_variable_holds() {
        let mut sample = fetching().holders(&[
            holder(
                "temporary in Illuminate\\Database\\Connection->select()",
                100,
            ),
            holder("App\\Registry::$all", 15),
        ]);
        sample.json["external"]["holders"]["kinds"] =
            json!({"strings": {"count": 12_800, "bytes": 100 << 20}});
        sample = sample.with("objects", json!({"total": 412}));
        let finding = sample.finding(Rule::LargeResult).expect("a result set");
        assert_eq!(
            finding.title,
            "One large result set is being fetched for App\\Http\\CallList->rows \
             (app/Http/CallList.php:31): 105 of the 120 MiB in use"
        );
        assert_eq!(
            finding.evidence,
            [
                "PDOStatement->fetchAll is on the stack",
                "the query that runs: select * from `calls`",
                "12,800 strings, 8 KiB each on average, hold 100 MiB; 412 objects live",
            ]
        );
        assert_eq!(sample.rules()[0], Rule::LargeResult);
    }

    #[test]
    fn rows_that_a_static_property_keeps_are_an_accumulation() {
        let sample = fetching().holders(&[holder("App\\Registry::$all", 110)]);
        assert_eq!(
            sample.finding(Rule::LargeResult).map(|found| found.bytes),
            None
        );
        assert_eq!(sample.rules()[0], Rule::Holder);
    }

    #[test]
    fn without_the_variables_nobody_knows() {
        assert_eq!(fetching().finding(Rule::LargeResult), None);
    }

    #[test]
    fn many_small_blocks_are_no_result_set() {
        let mut sample = fetching().holders(&[]);
        sample.json["external"]["holders"]["kinds"] =
            json!({"strings": {"count": 100, "bytes": 1 << 20}});
        assert_eq!(sample.finding(Rule::LargeResult), None);
    }
}
