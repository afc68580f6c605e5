//! One route at two times: what takes more in one dump than in another of the same request path.

use indexmap::IndexMap;

use super::super::diff::{Row, compare_dumps};
use super::super::facts::Facts;
use super::super::text::size;
use super::{Finding, Rule};

/// Routes that are told apart; the paths are the visitors' choice, and memory is not.
const MAX_ROUTES: usize = 1000;
/// Routes whose dumps are compared.
const COMPARED: usize = 5;
/// A smaller growth is not worth a word, in bytes.
const LEAST_GROWTH: u64 = 4 << 20;
/// And one below this share of the larger dump.
const LEAST_SHARE: f64 = 0.1;
/// What is not worth a line of the evidence, in bytes.
const LEAST_ROW: u64 = 1 << 20;
/// Rows of each table in the evidence.
const ROWS: usize = 3;

/// The dumps of each route, of which only the smallest and the largest are remembered.
#[derive(Debug, Default)]
pub(super) struct Routes {
    routes: IndexMap<String, Ends>,
}

#[derive(Debug)]
struct Ends {
    dumps: u64,
    smallest: End,
    largest: End,
}

/// A dump of a route.
#[derive(Debug, Clone)]
struct End {
    file: String,
    used_bytes: u64,
    is_out_of_memory: bool,
    /// What tells the request from others: pid, and when it began.
    request: (Option<i64>, Option<f64>),
}

impl Routes {
    /// Adds a dump.
    pub(super) fn add(&mut self, facts: &Facts) {
        let Some(route) = facts.route() else { return };
        let end = End::new(facts);
        let is_full = self.routes.len() >= MAX_ROUTES;
        match self.routes.get_mut(&route) {
            Some(ends) => ends.add(end),
            None if is_full => {}
            None => {
                let ends = Ends {
                    dumps: 1,
                    smallest: end.clone(),
                    largest: end,
                };
                self.routes.insert(route, ends);
            }
        }
    }

    /// What the routes that grew most have more in their largest dump than in their smallest; `load` reads a dump by its
    /// name once more.
    pub(super) fn findings(&self, load: impl Fn(&str) -> Option<Facts>) -> Vec<Finding> {
        let mut grown: Vec<(&String, &Ends)> = self
            .routes
            .iter()
            .filter(|(_, ends)| ends.is_growth())
            .collect();
        grown.sort_by_key(|(_, ends)| std::cmp::Reverse(ends.growth()));
        let find = |(route, ends): (&String, &Ends)| {
            let (before, after) = (load(&ends.smallest.file)?, load(&ends.largest.file)?);
            Some(ends.finding(route, &before, &after))
        };
        grown.into_iter().take(COMPARED).filter_map(find).collect()
    }
}

impl End {
    fn new(facts: &Facts) -> Self {
        let external = facts.external.as_ref();
        Self {
            file: facts.file.clone(),
            used_bytes: facts.used_bytes(),
            is_out_of_memory: facts.is_out_of_memory(),
            request: (
                external.and_then(|external| external.pid),
                external.and_then(|external| external.started),
            ),
        }
    }
}

impl Ends {
    fn add(&mut self, end: End) {
        self.dumps += 1;
        if end.used_bytes < self.smallest.used_bytes {
            self.smallest = end.clone();
        }
        if end.used_bytes > self.largest.used_bytes {
            self.largest = end;
        }
    }

    fn growth(&self) -> u64 {
        self.largest.used_bytes - self.smallest.used_bytes
    }

    /// Two moments of one request are no two requests.
    fn is_growth(&self) -> bool {
        let is_one_request =
            self.smallest.request.1.is_some() && self.smallest.request == self.largest.request;
        let growth = self.growth();
        growth >= LEAST_GROWTH
            && growth as f64 >= self.largest.used_bytes as f64 * LEAST_SHARE
            && !is_one_request
    }

    fn finding(&self, route: &str, before: &Facts, after: &Facts) -> Finding {
        let (small, large) = (&self.smallest, &self.largest);
        let title = if large.is_out_of_memory && !small.is_out_of_memory {
            let limit = after
                .limit_bytes()
                .map_or(String::new(), |limit| format!(" of {}", size(limit)));
            format!(
                "{route} hit its limit{limit}, and at another time it had only {} in use",
                size(small.used_bytes)
            )
        } else {
            format!(
                "{route} has {} in use at one time and {} at another",
                size(small.used_bytes),
                size(large.used_bytes)
            )
        };
        let comparison = compare_dumps(before, after);
        let mut evidence = Vec::new();
        for section in comparison.iter().filter(|section| section.is_cause) {
            evidence.extend(section.rows.iter().filter_map(describe).take(ROWS));
        }
        Finding {
            rule: Rule::Route,
            subject: route.to_owned(),
            title,
            evidence,
            next_step: format!("memprof diff {} {} tells the rest", small.file, large.file),
            bytes: self.growth(),
        }
    }
}

/// `App\Foo::$rows: 90 MiB more`; nothing where there is no growth worth a word.
fn describe(row: &Row) -> Option<String> {
    let (growth, is_known) = row.growth().filter(|(growth, _)| *growth >= LEAST_ROW)?;
    let up_to = if is_known { "" } else { "up to " };
    Some(format!("{}: {up_to}{} more", row.name, size(growth)))
}
