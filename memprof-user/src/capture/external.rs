//! What surrounds a record in a line of `--json`: who served it, and where its memory grew.

use std::cmp::Reverse;

use serde::Serialize;

use super::{
    dump::CheckpointLine,
    options::{Mode, finite},
    output::frames_or_none,
    recorder::{Finished, Recorder},
};
use crate::{
    fpm::Worker,
    profile::{Checkpoint, Ledger, RequestProfile, StackId, StackTotals},
    record::frame::Frame,
};

/// Stacks shown with a record.
const TOP_STACKS: usize = 10;

/// What surrounds a record in a line of `--json`.
#[derive(Debug, Serialize)]
pub struct External<'a> {
    pid: i32,
    pool: Option<&'a str>,
    mode: &'a str,
    /// Whether growth was recorded run by run.
    recorded: bool,
    /// Resident memory of the worker when the record was written, shared pages included; `null` where
    /// it has ended.
    rss_bytes: Option<u64>,
    request: Asked<'a>,
    /// `null` without a limit.
    memory_limit_bytes: Option<u64>,
    /// The highest threshold that the peak is above.
    above: Option<&'static str>,
    /// Bytes asked for when the limit was hit.
    limit_error_tried_bytes: Option<u64>,
    /// Events of this request that were lost: what is told of it is incomplete where this is not 0.
    lost_events: u64,
    checkpoints: Vec<CheckpointLine>,
    growth: Option<Growth>,
    chunk_growth: Vec<ChunkGrowthLine>,
}

#[derive(Debug, Serialize)]
struct Asked<'a> {
    method: &'a str,
    uri: &'a str,
    script: &'a str,
}

/// Page runs and huge blocks of one request, in bytes.
#[derive(Debug, Serialize)]
struct Growth {
    taken_bytes: u64,
    freed_bytes: u64,
    held_at_peak_bytes: u64,
    unattributed_at_peak_bytes: Option<i64>,
    /// Runs and blocks freed or resized that were taken before the request, whose size is not known.
    unknown_size_count: u64,
    top: Vec<StackLine>,
}

#[derive(Debug, Serialize)]
struct StackLine {
    held_at_peak_bytes: u64,
    taken_bytes: u64,
    taken_count: u64,
    stack: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ChunkGrowthLine {
    bytes: u64,
    count: u64,
    stack: Vec<String>,
}

impl<'a> External<'a> {
    /// Of a request that `worker` served; it is `None` where that has ended.
    #[must_use]
    pub fn new(
        finished: &'a Finished,
        worker: Option<&'a Worker>,
        mode: Mode,
        above: Option<&'static str>,
        recorder: &Recorder,
    ) -> Self {
        let profile = &finished.profile;
        Self {
            pid: finished.pid,
            pool: worker.and_then(|worker| worker.pool.as_deref()),
            mode: mode.as_str(),
            recorded: finished.recorded,
            rss_bytes: worker.and_then(|worker| worker.process.rss_bytes().ok()),
            request: Asked {
                method: &profile.info.method,
                uri: &profile.info.uri,
                script: &profile.info.script,
            },
            memory_limit_bytes: profile.last().and_then(|last| finite(last.limit)),
            above,
            limit_error_tried_bytes: profile.limit_error.map(|(tried, _)| tried),
            lost_events: profile.lost_events(),
            checkpoints: checkpoint_lines(profile),
            growth: growth(profile, recorder),
            chunk_growth: chunk_growth(profile, recorder),
        }
    }
}

/// The checkpoints so far.
pub(super) fn checkpoint_lines(profile: &RequestProfile) -> Vec<CheckpointLine> {
    let line = |seen: &Checkpoint| CheckpointLine {
        label: seen.label.clone(),
        current_bytes: seen.counters.real_size,
        peak_bytes: seen.counters.real_peak,
        used_bytes: seen.counters.used_bytes(),
        held_bytes: seen.ledger_bytes,
    };
    profile.checkpoints.iter().map(line).collect()
}

/// The stacks with the most of these bytes, and among equals those that took most.
pub(super) fn top_stacks(
    ledger: &Ledger,
    bytes: impl Fn(&StackTotals) -> u64,
) -> impl Iterator<Item = (StackId, StackTotals)> {
    let mut stacks: Vec<_> = (ledger.stacks())
        .map(|(stack, totals)| (stack, *totals))
        .collect();
    stacks.sort_by_key(|(stack, totals)| Reverse((bytes(totals), totals.taken_bytes, *stack)));
    stacks.into_iter().take(TOP_STACKS)
}

fn growth(profile: &RequestProfile, recorder: &Recorder) -> Option<Growth> {
    let ledger = profile.ledger.as_ref()?;
    let top = top_stacks(ledger, |totals| totals.peak_bytes).map(|(stack, totals)| StackLine {
        held_at_peak_bytes: totals.peak_bytes,
        taken_bytes: totals.taken_bytes,
        taken_count: totals.taken_count,
        stack: lines(recorder, stack),
    });
    Some(Growth {
        taken_bytes: ledger.taken_bytes(),
        freed_bytes: ledger.freed_bytes(),
        held_at_peak_bytes: ledger.peak_bytes(),
        unattributed_at_peak_bytes: profile.unattributed_bytes(),
        unknown_size_count: ledger.freed_unknown(),
        top: top.collect(),
    })
}

fn chunk_growth(profile: &RequestProfile, recorder: &Recorder) -> Vec<ChunkGrowthLine> {
    let mut stacks: Vec<_> = profile.chunk_growth.iter().collect();
    stacks.sort_by_key(|(_, growth)| Reverse(growth.bytes));
    stacks
        .into_iter()
        .take(TOP_STACKS)
        .map(|(stack, growth)| ChunkGrowthLine {
            bytes: growth.bytes,
            count: growth.count,
            stack: lines(recorder, *stack),
        })
        .collect()
}

/// `App\Foo->bar /srv/app/Foo.php:12`, innermost first.
pub(super) fn lines(recorder: &Recorder, stack: StackId) -> Vec<String> {
    let line = |frame: Frame| match (frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{} {file}:{line}", frame.function),
        (Some(file), None) => format!("{} {file}", frame.function),
        (None, _) => frame.function,
    };
    frames_or_none(recorder, stack)
        .into_iter()
        .map(line)
        .collect()
}
