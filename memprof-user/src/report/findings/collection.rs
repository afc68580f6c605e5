//! The findings of many dumps, put together: the same cause in many dumps is told once.

use indexmap::IndexMap;
use serde::Serialize;

use super::super::facts::Facts;
use super::super::text::count;
use super::route::Routes;
use super::unknown::Gaps;
use super::{Finding, Rule, of_dump, sort};

/// Causes that are told apart. Beyond them new ones are only counted: memory is not the dumps' to choose.
const MAX_CASES: usize = 1000;
/// Routes named with a case.
const MAX_ROUTES: usize = 5;

/// Takes dumps one at a time, the newest first.
#[derive(Debug, Default)]
pub(in crate::report) struct Collection {
    dumps: u64,
    cases: IndexMap<(Rule, String), Case>,
    not_told_apart: u64,
    routes: Routes,
    gaps: Gaps,
}

/// One cause, in all dumps that show it.
#[derive(Debug, Serialize)]
pub(in crate::report) struct Case {
    /// Of the dump in which it explains most.
    #[serde(flatten)]
    pub(super) finding: Finding,
    /// How many dumps show it.
    pub(super) dumps: u64,
    /// The dump that `finding` is of.
    pub(super) file: String,
    /// Routes that show it, at most 5.
    pub(super) routes: Vec<String>,
    #[serde(skip)]
    score: f64,
}

/// What is to be told of all the dumps.
#[derive(Debug)]
pub(in crate::report) struct Findings {
    /// How many dumps were looked at.
    pub(super) dumps: u64,
    /// What explains most first.
    pub(in crate::report) cases: Vec<Case>,
    /// What the dumps do not tell, a line each.
    pub(in crate::report) unknown: Vec<String>,
}

impl Collection {
    /// Adds a dump.
    pub(in crate::report) fn add(&mut self, facts: &Facts) {
        self.dumps += 1;
        self.routes.add(facts);
        self.gaps.add(facts);
        for finding in of_dump(facts) {
            self.add_finding(finding, facts);
        }
    }

    fn add_finding(&mut self, finding: Finding, facts: &Facts) {
        let key = (finding.rule, finding.subject.clone());
        let is_full = self.cases.len() >= MAX_CASES;
        match self.cases.get_mut(&key) {
            Some(case) => case.add(finding, facts),
            None if is_full => self.not_told_apart += 1,
            None => {
                self.cases.insert(key, Case::new(finding, facts));
            }
        }
    }

    /// Adds a dump that could not be read, and why.
    pub(in crate::report) fn add_unreadable(&mut self, reason: &str) {
        self.gaps.add_unreadable(reason);
    }

    /// What is to be told; `load` reads a dump by its name once more.
    pub(in crate::report) fn findings(self, load: impl Fn(&str) -> Option<Facts>) -> Findings {
        let mut cases: Vec<Case> = self.cases.into_values().collect();
        cases.extend(self.routes.findings(load).into_iter().map(Case::of_route));
        sort(&mut cases, |case| case.score, |case| case.finding.rule);
        let mut unknown = self.gaps.lines(self.dumps);
        if self.not_told_apart > 0 {
            unknown.push(format!(
                "{} findings are not listed: more than {MAX_CASES} causes are not told apart",
                count(self.not_told_apart)
            ));
        }
        Findings {
            dumps: self.dumps,
            cases,
            unknown,
        }
    }
}

impl Case {
    fn new(finding: Finding, facts: &Facts) -> Self {
        Self {
            score: finding.score(),
            finding,
            dumps: 1,
            file: facts.file.clone(),
            routes: facts.route().into_iter().collect(),
        }
    }

    /// A route's finding is about two dumps, and names them itself.
    fn of_route(finding: Finding) -> Self {
        Self {
            score: finding.score(),
            dumps: 2,
            file: String::new(),
            routes: vec![finding.subject.clone()],
            finding,
        }
    }

    fn add(&mut self, finding: Finding, facts: &Facts) {
        self.dumps += 1;
        // What shows in many dumps counts by all that it explains in them.
        self.score += finding.score();
        if finding.bytes > self.finding.bytes {
            self.finding = finding;
            self.file.clone_from(&facts.file);
        }
        if let Some(route) = facts.route()
            && self.routes.len() < MAX_ROUTES
            && !self.routes.contains(&route)
        {
            self.routes.push(route);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Sample, holder};
    use super::*;

    fn sample(path: &str, mib: u64) -> Facts {
        Sample::new(120).holders(&[holder(path, mib)]).facts()
    }

    #[test]
    fn one_cause_in_many_dumps_is_told_once() {
        let mut collection = Collection::default();
        for (path, mib) in [("A::$a[3]", 50), ("A::$b", 100), ("A::$a[7]", 60)] {
            collection.add(&sample(path, mib));
        }
        let findings = collection.findings(|_| None);
        let told: Vec<(&str, u64)> = findings
            .cases
            .iter()
            .map(|case| (case.finding.title.as_str(), case.dumps))
            .collect();
        assert_eq!(told.len(), 2);
        // 50 + 60 MiB are more than 100; the larger one is told.
        assert!(
            told[0].0.starts_with("A::$a[7] holds 60") && told[0].1 == 2,
            "{told:?}"
        );
        assert_eq!(findings.cases[0].routes, ["GET /admin"]);
    }

    #[test]
    fn causes_are_bounded_and_counted() {
        let mut collection = Collection::default();
        for number in 0..MAX_CASES + 5 {
            collection.add(&sample(&format!("A::$b{number}"), 50));
        }
        let findings = collection.findings(|_| None);
        assert_eq!(findings.cases.len(), MAX_CASES);
        let not_listed = "5 findings are not listed";
        assert!(
            findings
                .unknown
                .iter()
                .any(|line| line.starts_with(not_listed))
        );
    }

    #[test]
    fn a_route_that_hit_its_limit_once_is_compared_with_itself() {
        let mut small = Sample::new(30).holders(&[holder("A::$b", 5)]);
        small.json["context"] = "forced".into();
        let large = Sample::new(120).holders(&[holder("A::$b", 95)]);
        let named = |sample: &Sample, file: &str| Facts {
            file: file.to_owned(),
            ..sample.facts()
        };
        let mut collection = Collection::default();
        collection.add(&named(&large, "large.json"));
        collection.add(&named(&small, "small.json"));
        let findings = collection.findings(|file| {
            let sample = if file == "small.json" { &small } else { &large };
            Some(named(sample, file))
        });
        let route = findings
            .cases
            .iter()
            .find(|case| case.finding.rule == Rule::Route)
            .expect("a route");
        assert_eq!(
            route.finding.title,
            "GET /admin hit its limit of 128 MiB, and at another time it had only 30 MiB in use"
        );
        assert_eq!(route.finding.evidence, ["A::$b: 90 MiB more"]);
        assert_eq!(
            route.finding.next_step,
            "memprof diff small.json large.json tells the rest"
        );
        assert_eq!(findings.cases[0].finding.rule, Rule::Holder);
    }
}
