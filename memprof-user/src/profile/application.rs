//! What a request asked of its database and of its models.

use indexmap::IndexMap;

use crate::framework::laravel::ModelEvent;

/// Different models and scopes that are told apart in a request.
const MOST_NAMES: usize = 10_000;
/// Queries whose growth is kept, the first of a request.
const MOST_JUMPS: usize = 100;
/// Queries kept as the last ones.
const LAST_QUERIES: usize = 5;
/// From this growth on (not included) a query is a jump: 10 MiB.
const JUMP_BYTES: u64 = 10 << 20;

/// How often something happened, and the heap at the first and the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How often.
    pub count: u64,
    /// `memory_get_usage(true)` the first time, in bytes.
    pub first_bytes: u64,
    /// The same the last time.
    pub last_bytes: u64,
}

/// A model's class and what happened to it.
pub type ModelKey = (String, ModelEvent);
/// A model's class and the scope's.
pub type ScopeKey = (String, String);

/// A query that has been run.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Its text, literals replaced.
    pub sql: String,
    /// How many values were bound to it, by its placeholders.
    pub bindings: u64,
    /// When it began, in ns of CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// When it, and the fetching of its rows where that was seen, had ended.
    pub end_ns: u64,
    /// `memory_get_usage(true)` then, in bytes.
    pub bytes: u64,
    /// Rows fetched at once; `None` where that was not seen.
    pub rows: Option<u64>,
}

/// A query by which the heap grew.
#[derive(Clone, Debug, PartialEq)]
pub struct Jump {
    /// The query.
    pub query: Query,
    /// `memory_get_usage(true)` after the query before.
    pub before_bytes: u64,
}

/// Queries, models and scopes of one request.
#[derive(Debug, Default)]
pub struct Application {
    /// Queries that Laravel announces as `QueryExecuted`.
    pub laravel_queries: u64,
    /// Model events, in the order of their first.
    pub models: IndexMap<ModelKey, Times>,
    /// Scopes applied.
    pub scopes: IndexMap<ScopeKey, Times>,
    /// Queries after which the heap was more than 10 MiB above what it was after the query before.
    pub jumps: Vec<Jump>,
    /// Jumps beyond those kept.
    pub more_jumps: u64,
    /// Events of models and scopes beyond those told apart.
    pub more_names: u64,
    last: Vec<Query>,
    before_bytes: Option<u64>,
}

impl Application {
    /// A query was run; its rows, if any, are yet to be fetched.
    pub fn query(&mut self, query: Query, is_laravel: bool) {
        self.settle();
        self.laravel_queries += u64::from(is_laravel);
        if self.last.len() == LAST_QUERIES {
            self.last.remove(0);
        }
        self.last.push(query);
    }

    /// The rows of the last query were fetched.
    pub fn fetched(&mut self, end_ns: u64, bytes: u64, rows: Option<u64>) {
        if let Some(query) = self.last.last_mut() {
            query.end_ns = end_ns;
            query.bytes = bytes;
            query.rows = rows;
        }
    }

    /// Something happened to `count` models of a class.
    pub fn model(&mut self, class: &str, event: ModelEvent, count: u64, bytes: u64) {
        let key = (class.to_owned(), event);
        self.more_names += add(&mut self.models, key, count, bytes);
    }

    /// A scope was applied to a model's query.
    pub fn scope(&mut self, model: &str, scope: &str, bytes: u64) {
        let key = (model.to_owned(), scope.to_owned());
        self.more_names += add(&mut self.scopes, key, 1, bytes);
    }

    /// No query follows.
    pub fn close(&mut self) {
        self.settle();
        self.before_bytes = None;
    }

    /// The queries run last, the newest last.
    #[must_use]
    pub fn last_queries(&self) -> &[Query] {
        &self.last
    }

    /// The last query is over: what did the heap gain by it? There is nothing to compare the first with.
    fn settle(&mut self) {
        let Some(query) = self.last.last() else {
            return;
        };
        let before = self.before_bytes.replace(query.bytes);
        let Some(before_bytes) = before else { return };
        if query.bytes.saturating_sub(before_bytes) <= JUMP_BYTES {
            return;
        }
        if self.jumps.len() == MOST_JUMPS {
            self.more_jumps += 1;
            return;
        }
        self.jumps.push(Jump {
            query: query.clone(),
            before_bytes,
        });
    }
}

/// Counts what happened; how much of it there was no room to tell.
fn add<K: std::hash::Hash + Eq>(
    to: &mut IndexMap<K, Times>,
    key: K,
    count: u64,
    bytes: u64,
) -> u64 {
    if count == 0 {
        return 0;
    }
    if to.len() >= MOST_NAMES && !to.contains_key(&key) {
        return count;
    }
    let times = to.entry(key).or_insert(Times {
        count: 0,
        first_bytes: bytes,
        last_bytes: bytes,
    });
    times.count += count;
    times.last_bytes = bytes;
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn query(bytes: u64) -> Query {
        Query {
            sql: "select ?".to_owned(),
            bindings: 1,
            start_ns: 0,
            end_ns: 1,
            bytes,
            rows: None,
        }
    }

    #[test]
    fn a_jump_is_against_the_query_before() {
        let mut application = Application::default();
        // The first is compared with nothing, whatever the heap is then.
        application.query(query(30 * MIB), true);
        application.query(query(30 * MIB), true);
        application.fetched(2, 40 * MIB, Some(7));
        application.query(query(40 * MIB), false);
        application.fetched(3, 50 * MIB + 1, Some(8));
        application.query(query(20 * MIB), false);
        application.close();
        let jumps: Vec<_> = application
            .jumps
            .iter()
            .map(|jump| (jump.before_bytes, jump.query.bytes, jump.query.rows))
            .collect();
        assert_eq!(jumps, [(40 * MIB, 50 * MIB + 1, Some(8))]);
        assert_eq!(application.laravel_queries, 2);
    }

    #[test]
    fn what_happened_is_counted_with_the_heap_then() {
        let mut application = Application::default();
        for bytes in [2 * MIB, 6 * MIB] {
            application.model("App\\Call", ModelEvent::Retrieved, 5, bytes);
            application.model("App\\User", ModelEvent::Retrieved, 0, bytes);
            application.scope("App\\Call", "App\\Scope", bytes);
        }
        let calls = application.models[&("App\\Call".to_owned(), ModelEvent::Retrieved)];
        assert_eq!(
            (calls.count, calls.first_bytes, calls.last_bytes),
            (10, 2 * MIB, 6 * MIB)
        );
        assert_eq!(application.models.len(), 1);
        assert_eq!(application.scopes[0].count, 2);
    }
}
