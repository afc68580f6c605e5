//! The records of what a request asked of its database and its models.

use crate::{
    profile::{RequestProfile, Times},
    record::{
        models::{ModelCount, ModelsRecord},
        query::QueryRecord,
        scopes::{ScopeCount, ScopesRecord},
        units::Mib,
    },
};

/// The models of a request that is over; `None` where none was seen.
pub fn models(profile: &RequestProfile) -> Option<ModelsRecord> {
    let application = &profile.application;
    let last = profile.last()?;
    let counts = application.models.iter().map(|((class, event), times)| {
        let Times {
            count,
            first_bytes,
            last_bytes,
        } = *times;
        let count = ModelCount {
            count,
            first_seen_mb: Mib::from_bytes(first_bytes),
            last_seen_mb: Mib::from_bytes(last_bytes),
        };
        (format!("{class}::{}", event.as_str()), count)
    });
    let record = ModelsRecord::new(
        last.real_peak,
        last.real_size,
        application.laravel_queries,
        counts,
    );
    (!application.models.is_empty()).then_some(record)
}

/// The scopes of a request that is over; `None` where none was applied.
pub fn scopes(profile: &RequestProfile) -> Option<ScopesRecord> {
    let counts = profile.application.scopes.iter();
    let count = |((model, scope), times): (&(String, String), &Times)| ScopeCount {
        model: model.clone(),
        scope: scope.clone(),
        apply_count: times.count,
        first_seen_mb: Mib::from_bytes(times.first_bytes),
        is_closure: false,
        last_seen_mb: Mib::from_bytes(times.last_bytes),
    };
    let counts: Vec<ScopeCount> = counts.map(count).collect();
    (!counts.is_empty()).then(|| ScopesRecord::new(counts))
}

/// The queries by which the heap jumped.
pub fn jumps(profile: &RequestProfile) -> impl Iterator<Item = QueryRecord> {
    profile.application.jumps.iter().map(|jump| {
        let query = &jump.query;
        // Whole microseconds, in ms.
        let micros = query.end_ns.saturating_sub(query.start_ns) / 1000;
        QueryRecord {
            query: query.sql.clone(),
            bindings: query.bindings,
            time: micros as f64 / 1000.0,
            delta_mb: Mib::difference(jump.before_bytes, query.bytes),
            current_mb: Mib::from_bytes(query.bytes),
        }
    })
}
