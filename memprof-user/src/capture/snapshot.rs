//! What was recorded of a request at a moment that is worth a dump.

use memprof_ebpf::StopReason;

use super::{
    dump::{GrowthSoFar, HeldByStack, SoFar},
    external::{checkpoint_lines, lines, top_stacks},
    recorder::Recorder,
};
use crate::{
    profile::{Counters, RequestInfo, RequestProfile},
    record::{checkpoint::Label, frame::Frame},
};

/// One worker at such a moment.
#[derive(Debug)]
pub struct Snapshot {
    /// The worker.
    pub pid: i32,
    /// [`memprof_ebpf::WorkerState::request`]
    pub request: u32,
    /// Which moment it is.
    pub reason: StopReason,
    /// Bytes asked for, at the memory limit.
    pub tried_bytes: Option<u64>,
    /// `memory_limit` as the heap has it; [`u64::MAX`] where it is not known.
    pub limit: u64,
    /// `memory_get_peak_usage(true)`
    pub peak_bytes: u64,
    /// The stack, innermost first; empty at other moments than the memory limit's.
    pub stack: Vec<Frame>,
    /// What the request is; `None` where its start was not seen.
    pub info: Option<RequestInfo>,
    /// The request until then; `None` where its start was not seen.
    pub so_far: Option<SoFar>,
}

impl Snapshot {
    /// Of a moment whose event was lost.
    pub fn unseen(pid: i32, request: u32, reason: StopReason) -> Snapshot {
        Snapshot {
            pid,
            request,
            reason,
            tried_bytes: None,
            limit: u64::MAX,
            peak_bytes: 0,
            stack: Vec::new(),
            info: None,
            so_far: None,
        }
    }
}

/// What is known of a request that still runs.
pub fn so_far(profile: &RequestProfile, counters: Counters, recorder: &Recorder) -> SoFar {
    SoFar {
        started: profile.at(&Label::RequestStart).map(|start| start.time),
        checkpoints: checkpoint_lines(profile),
        growth: growth(profile, counters, recorder),
        queries: (profile.ledger.is_some()).then(|| profile.application.last_queries().to_vec()),
    }
}

fn growth(
    profile: &RequestProfile,
    counters: Counters,
    recorder: &Recorder,
) -> Option<GrowthSoFar> {
    let ledger = profile.ledger.as_ref()?;
    let top = top_stacks(ledger, |totals| totals.held_bytes).map(|(stack, totals)| HeldByStack {
        held_bytes: totals.held_bytes,
        taken_bytes: totals.taken_bytes,
        taken_count: totals.taken_count,
        stack: lines(recorder, stack),
    });
    Some(GrowthSoFar {
        taken_bytes: ledger.taken_bytes(),
        freed_bytes: ledger.freed_bytes(),
        held_bytes: ledger.held_bytes(),
        unattributed_bytes: profile.gap(counters),
        unknown_size_count: ledger.freed_unknown(),
        top: top.collect(),
    })
}
