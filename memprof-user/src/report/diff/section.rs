//! Tables of what is different: a name, what there was, what there is.

use indexmap::IndexMap;
use serde::Serialize;

/// The most rows of a table; profiles may have 100,000 stacks.
const MAX_ROWS: usize = 1000;

/// What the numbers of a table count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things.
    Number,
}

/// One table: what changed most comes first, in whichever direction.
#[derive(Debug, Serialize)]
pub struct Section {
    /// What it is about, as `objects by class`.
    pub title: &'static str,
    /// What the rows' counts count, as `objects`; `None` where they have none.
    pub counted: Option<&'static str>,
    /// The rows.
    pub rows: Vec<Row>,
    /// Rows that are left out, those that changed least.
    pub omitted: usize,
    /// Whether it names things in the code, as classes and variables.
    #[serde(skip)]
    pub(in crate::report) is_cause: bool,
}

/// One row. What is unknown is `None`: not listed in a record that lists only the largest.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Of what.
    pub name: String,
    /// What `before`, `after` and `change` count.
    pub unit: Unit,
    /// In the first record.
    pub before: Option<u64>,
    /// In the second.
    pub after: Option<u64>,
    /// The second less the first.
    pub change: Option<i64>,
    /// How many things that were in the first record, where things are counted beside bytes.
    pub count_before: Option<u64>,
    /// How many in the second.
    pub count_after: Option<u64>,
}

/// Bytes and how many things have them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) bytes: Option<u64>,
    pub(super) count: Option<u64>,
}

/// What one record lists, by name.
#[derive(Debug, Default)]
pub(super) struct List {
    amounts: IndexMap<String, Amount>,
    /// Whether what is not listed is not there.
    is_complete: bool,
}

impl Row {
    /// A row without counts.
    pub(super) fn new(name: &str, unit: Unit, before: Option<u64>, after: Option<u64>) -> Self {
        Self {
            name: name.to_owned(),
            unit,
            before,
            after,
            change: difference(before, after),
            count_before: None,
            count_after: None,
        }
    }

    /// How much more there is in the second record, and whether that is known or the most that it can be.
    pub(in crate::report) fn growth(&self) -> Option<(u64, bool)> {
        match (self.before, self.after) {
            (Some(before), Some(after)) => Some((after.checked_sub(before)?, true)),
            (None, Some(after)) => Some((after, false)),
            _ => None,
        }
        .filter(|(growth, _)| *growth > 0)
    }

    /// How far apart the two records are at most, in `unit` and by count.
    pub fn distance(&self) -> (u64, u64) {
        let distance = |before: Option<u64>, after: Option<u64>| {
            before.unwrap_or(0).abs_diff(after.unwrap_or(0))
        };
        (
            distance(self.before, self.after),
            distance(self.count_before, self.count_after),
        )
    }
}

fn difference(before: Option<u64>, after: Option<u64>) -> Option<i64> {
    i64::try_from(i128::from(after?) - i128::from(before?)).ok()
}

impl List {
    /// An empty list; `is_complete` when what is not listed is not there.
    pub(super) fn new(is_complete: bool) -> Self {
        Self {
            amounts: IndexMap::new(),
            is_complete,
        }
    }

    /// Adds to what the list has under that name.
    pub(super) fn add(&mut self, name: String, amount: Amount) {
        let sum = |one: Option<u64>, more: Option<u64>| match (one, more) {
            (Some(one), Some(more)) => Some(one.saturating_add(more)),
            (one, more) => one.or(more),
        };
        let known = self.amounts.entry(name).or_default();
        known.bytes = sum(known.bytes, amount.bytes);
        known.count = sum(known.count, amount.count);
    }

    /// What it has under that name; 0 where that is known not to be there.
    fn get(&self, name: &str) -> Amount {
        let none = Amount {
            bytes: self.is_complete.then_some(0),
            count: self.is_complete.then_some(0),
        };
        self.amounts.get(name).copied().unwrap_or(none)
    }

    /// What is different in another list; rows that are equal are left out.
    pub(super) fn compare(
        &self,
        after: &Self,
        title: &'static str,
        counted: Option<&'static str>,
    ) -> Section {
        let more = after
            .amounts
            .keys()
            .filter(|name| !self.amounts.contains_key(*name));
        let rows = self.amounts.keys().chain(more).map(|name| {
            let (before, after) = (self.get(name), after.get(name));
            Row {
                count_before: before.count.filter(|_| counted.is_some()),
                count_after: after.count.filter(|_| counted.is_some()),
                ..Row::new(name, Unit::Bytes, before.bytes, after.bytes)
            }
        });
        let mut rows: Vec<Row> = rows.filter(|row| row.distance() != (0, 0)).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.distance()));
        let omitted = rows.len().saturating_sub(MAX_ROWS);
        rows.truncate(MAX_ROWS);
        Section {
            title,
            counted,
            rows,
            omitted,
            is_cause: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(is_complete: bool, amounts: &[(&str, u64)]) -> List {
        let mut list = List::new(is_complete);
        for (name, bytes) in amounts {
            let amount = Amount {
                bytes: Some(*bytes),
                count: Some(1),
            };
            list.add((*name).to_owned(), amount);
        }
        list
    }

    #[test]
    fn what_changed_most_is_first_whichever_way() {
        let before = list(true, &[("a", 5), ("b", 100), ("same", 7), ("b", 10)]);
        let after = list(true, &[("c", 50), ("a", 6), ("same", 7)]);
        let section = before.compare(&after, "t", Some("things"));
        let rows: Vec<(&str, Option<i64>)> = section
            .rows
            .iter()
            .map(|row| (row.name.as_str(), row.change))
            .collect();
        assert_eq!(rows, [("b", Some(-110)), ("c", Some(50)), ("a", Some(1))]);
        assert_eq!(section.rows[0].count_before, Some(2));
    }

    #[test]
    fn what_is_not_listed_is_unknown_and_not_0() {
        let before = list(false, &[]);
        let section = before.compare(&list(true, &[("a", 5)]), "t", None);
        let row = &section.rows[0];
        assert_eq!((row.before, row.after, row.change), (None, Some(5), None));
        assert_eq!(row.growth(), Some((5, false)));
        assert_eq!(row.count_after, None);
    }

    #[test]
    fn large_numbers_do_not_overflow() {
        let row = Row::new("a", Unit::Bytes, Some(0), Some(u64::MAX));
        assert_eq!(row.change, None);
        let full = list(true, &[("a", u64::MAX), ("a", 1)]);
        assert_eq!(full.get("a").bytes, Some(u64::MAX));
    }
}
