//! Why a dump is taken, and what was recorded of the request until then.

use serde::Serialize;

use crate::profile::Query;
use crate::record::checkpoint::Label;
use crate::record::dump::CONTEXT_FORCED;

/// Why a dump is taken.
#[derive(Debug)]
pub(in crate::capture) struct Occasion {
    /// One of the contexts of `record::dump`.
    pub(in crate::capture) context: &'static str,
    /// Bytes asked for when the limit was hit.
    pub(in crate::capture) tried_bytes: Option<u64>,
    /// `None` where the request was not recorded.
    pub(in crate::capture) so_far: Option<SoFar>,
}

impl Occasion {
    /// Somebody asked for it.
    pub(super) fn forced() -> Occasion {
        Occasion {
            context: CONTEXT_FORCED,
            tried_bytes: None,
            so_far: None,
        }
    }
}

/// What was recorded of a request until now.
#[derive(Debug)]
pub(in crate::capture) struct SoFar {
    /// When it started, in Unix seconds; `None` where that was not seen.
    pub(in crate::capture) started: Option<f64>,
    pub(in crate::capture) checkpoints: Vec<CheckpointLine>,
    /// `None` where the request is not recorded in full.
    pub(in crate::capture) growth: Option<GrowthSoFar>,
    /// The queries run last; `None` where queries are not recorded.
    pub(in crate::capture) queries: Option<Vec<Query>>,
}

/// The heap at a checkpoint, to the byte.
#[derive(Debug, Serialize)]
pub(in crate::capture) struct CheckpointLine {
    pub(in crate::capture) label: Label,
    /// `memory_get_usage(true)`
    pub(in crate::capture) current_bytes: u64,
    /// `memory_get_peak_usage(true)`
    pub(in crate::capture) peak_bytes: u64,
    /// Page runs and huge blocks in use, as the heap counts them itself.
    pub(in crate::capture) used_bytes: Option<u64>,
    /// Page runs and huge blocks taken in this request so far, less those freed, as the probes saw them.
    pub(in crate::capture) held_bytes: Option<i64>,
}

/// Page runs and huge blocks of a request that still runs, in bytes.
#[derive(Debug, Serialize)]
pub(in crate::capture) struct GrowthSoFar {
    pub(in crate::capture) taken_bytes: u64,
    pub(in crate::capture) freed_bytes: u64,
    /// Taken less freed.
    pub(in crate::capture) held_bytes: i64,
    /// In use by the heap's own count, and not held.
    pub(in crate::capture) unattributed_bytes: Option<i64>,
    /// Runs and blocks freed or resized that were taken before the request, whose size is not known.
    pub(in crate::capture) unknown_size_count: u64,
    /// The stacks that hold most.
    pub(in crate::capture) top: Vec<HeldByStack>,
}

/// What one stack holds, in bytes.
#[derive(Debug, Serialize)]
pub(in crate::capture) struct HeldByStack {
    pub(in crate::capture) held_bytes: u64,
    pub(in crate::capture) taken_bytes: u64,
    pub(in crate::capture) taken_count: u64,
    /// Innermost first.
    pub(in crate::capture) stack: Vec<String>,
}
