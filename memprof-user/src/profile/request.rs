//! One request from its start to the reset of the heap.

use indexmap::IndexMap;

use super::{Application, HeapChange, Ledger, StackId};
use crate::record::checkpoint::Label;

/// Bytes of a page of the Zend heap.
const PAGE_SIZE: u64 = 4096;

/// What a request is, as far as it may be recorded: names, never values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// `GET`
    pub method: String,
    /// The path, and the names of the query string's parameters: `/depot?page&sort`.
    pub uri: String,
    /// Scheme, host and path, without the query string.
    pub url: String,
    /// The path alone.
    pub path: String,
    /// The script that php-fpm was told to run.
    pub script: String,
}

/// The heap's own counters at one moment; bytes unless a name says pages or chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// `memory_get_usage()`
    pub size: u64,
    /// `memory_get_peak_usage()`
    pub peak: u64,
    /// `memory_get_usage(true)`
    pub real_size: u64,
    /// `memory_get_peak_usage(true)`
    pub real_peak: u64,
    /// `memory_limit`
    pub limit: u64,
    /// Pages in use, each chunk's own first page included; `None` where they could not be counted.
    pub used_pages: Option<u64>,
    /// Bytes in huge blocks; `None` where they could not be counted.
    pub huge_bytes: Option<u64>,
    /// Chunks in use.
    pub chunks: u32,
    /// Chunks kept for later; they count in `real_size`, in PHP 7.4 until a request reuses them.
    pub cached_chunks: u32,
    /// Events of this worker that were lost so far, in this request and before it.
    pub lost_events: u64,
}

impl Counters {
    /// Bytes of page runs and huge blocks that are in use: what a ledger accounts for.
    #[must_use]
    pub fn used_bytes(&self) -> Option<u64> {
        let runs = self.used_pages?.checked_sub(u64::from(self.chunks))?;
        Some(runs * PAGE_SIZE + self.huge_bytes?)
    }
}

/// A named moment of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Its name.
    pub label: Label,
    /// The heap then.
    pub counters: Counters,
    /// Unix time in seconds.
    pub time: f64,
    /// Taken less freed, as the ledger has it at this moment; `None` where growth is not recorded.
    pub ledger_bytes: Option<i64>,
}

/// How much the heap grew by whole chunks and huge blocks from one stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkGrowth {
    /// Times that memory was mapped.
    pub count: u64,
    /// By how much `real_size` grew, in bytes.
    pub bytes: u64,
}

/// What is known of one request.
#[derive(Debug)]
pub struct RequestProfile {
    /// What it is.
    pub info: RequestInfo,
    /// The named moments, in time order.
    pub checkpoints: Vec<Checkpoint>,
    /// The account of page runs and huge blocks; `None` where the request is not recorded in full.
    pub ledger: Option<Ledger>,
    /// Growth of `real_size` by stack, seen for every request.
    pub chunk_growth: IndexMap<StackId, ChunkGrowth>,
    /// What was asked of database and models; empty where the request is not recorded in full.
    pub application: Application,
    /// The memory limit was hit: bytes asked for, and the stack of the first time.
    pub limit_error: Option<(u64, StackId)>,
    /// What no probe saw, at the high-water mark; see [`RequestProfile::unattributed_bytes`].
    unattributed: Option<i64>,
    last_gap: i64,
    peak_at_last_gap: u64,
    mapping: Option<(StackId, u64)>,
    last: Option<Counters>,
}

impl RequestProfile {
    /// A request that starts now; `recorded` says whether its growth is seen run by run.
    #[must_use]
    pub fn new(info: RequestInfo, recorded: bool) -> Self {
        Self {
            info,
            checkpoints: Vec::new(),
            ledger: recorded.then(Ledger::default),
            chunk_growth: IndexMap::new(),
            application: Application::default(),
            limit_error: None,
            unattributed: None,
            last_gap: 0,
            peak_at_last_gap: 0,
            mapping: None,
            last: None,
        }
    }

    /// A named moment. A label that was seen already is left out: the first counts.
    pub fn checkpoint(&mut self, label: Label, counters: Counters, time: f64) {
        self.observe(counters);
        if self.checkpoints.iter().any(|seen| seen.label == label) {
            return;
        }
        self.checkpoints.push(Checkpoint {
            label,
            counters,
            time,
            ledger_bytes: self.ledger.as_ref().map(Ledger::held_bytes),
        });
    }

    /// The request ran from this time on, in Unix seconds, and was held before.
    pub fn set_start(&mut self, time: f64) {
        let start = self.checkpoints.iter_mut();
        let mut start = start.filter(|seen| seen.label == Label::RequestStart);
        if let Some(start) = start.next() {
            start.time = time;
        }
    }

    /// The heap grew within a function whose first growth is a checkpoint: what is known then is
    /// real_size, in bytes.
    pub fn first_growth(&mut self, label: &Label, real_size: u64, time: f64) {
        let Some(last) = self.last else { return };
        if self.at(label).is_some() {
            return;
        }
        self.checkpoints.push(Checkpoint {
            label: label.clone(),
            counters: Counters {
                real_size,
                real_peak: last.real_peak.max(real_size),
                used_pages: None,
                huge_bytes: None,
                ..last
            },
            time,
            ledger_bytes: self.ledger.as_ref().map(Ledger::held_bytes),
        });
    }

    /// The heap is about to map memory for `stack`.
    pub fn chunk_taken(&mut self, stack: StackId, before: Counters) {
        self.observe(before);
        self.mapping = Some((stack, before.real_size));
    }

    /// The memory limit was hit; the first time counts.
    pub fn limit_hit(&mut self, stack: StackId, counters: Counters, tried: u64) {
        self.observe(counters);
        self.limit_error.get_or_insert((tried, stack));
    }

    /// The heap changed.
    pub fn changed(&mut self, change: HeapChange) {
        if let Some(ledger) = &mut self.ledger {
            ledger.enter(change);
        }
    }

    /// The heap is about to be reset: its peaks are final.
    pub fn close(&mut self, counters: Counters) {
        self.observe(counters);
        self.application.close();
        if let Some(ledger) = &mut self.ledger {
            ledger.close();
        }
    }

    /// Takes note of the heap's counters: what was mapped since the last look, and what the ledger
    /// does not explain of what is in use.
    pub fn observe(&mut self, counters: Counters) {
        if let Some((stack, before)) = self.mapping.take() {
            let growth = self.chunk_growth.entry(stack).or_default();
            growth.count += 1;
            growth.bytes += counters.real_size.saturating_sub(before);
        }
        self.last = Some(counters);
        let (Some(gap), Some(ledger)) = (self.gap(counters), &self.ledger) else {
            return;
        };
        if ledger.peak_bytes() != self.peak_at_last_gap {
            // The peak lies between two looks: what was missing then is not more than at one of them.
            let larger = if gap.abs() >= self.last_gap.abs() {
                gap
            } else {
                self.last_gap
            };
            self.unattributed = Some(larger);
        }
        self.last_gap = gap;
        self.peak_at_last_gap = ledger.peak_bytes();
    }

    /// Bytes in use with these counters, and not at the request's start, that no probe saw being
    /// taken. `None` as for [`RequestProfile::unattributed_bytes`].
    #[must_use]
    pub fn gap(&self, counters: Counters) -> Option<i64> {
        let start = self
            .checkpoints
            .first()
            .map_or(counters, |first| first.counters);
        let held = self.ledger.as_ref()?.held_bytes();
        Some(signed(counters.used_bytes()?) - signed(start.used_bytes()?) - held)
    }

    /// Bytes in use at the high-water mark that no probe saw being taken: what the heap counts
    /// itself, less what the ledger holds. Negative if a probe saw more than there is. `None` where
    /// the request is not recorded in full or the heap's pages could not be counted.
    #[must_use]
    pub fn unattributed_bytes(&self) -> Option<i64> {
        self.unattributed
    }

    /// The last counters seen.
    #[must_use]
    pub fn last(&self) -> Option<Counters> {
        self.last
    }

    /// Events lost between the first and the last counters seen.
    #[must_use]
    pub fn lost_events(&self) -> u64 {
        let first = self.checkpoints.first().map(|first| first.counters);
        match (first, self.last) {
            (Some(first), Some(last)) => last.lost_events.saturating_sub(first.lost_events),
            _ => 0,
        }
    }

    /// `memory_get_peak_usage(true)` at the end, in bytes.
    #[must_use]
    pub fn real_peak(&self) -> Option<u64> {
        self.last.map(|counters| counters.real_peak)
    }

    /// The checkpoint with this label.
    #[must_use]
    pub fn at(&self, label: &Label) -> Option<&Checkpoint> {
        self.checkpoints.iter().find(|seen| seen.label == *label)
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a chunk of the Zend heap.
    const CHUNK_SIZE: u64 = 2 << 20;

    fn counters(chunks: u32, used_pages: u64, huge: u64) -> Counters {
        let real_size = u64::from(chunks) * CHUNK_SIZE + huge;
        Counters {
            size: 0,
            peak: 0,
            real_size,
            real_peak: real_size,
            limit: 128 << 20,
            used_pages: Some(used_pages),
            huge_bytes: Some(huge),
            chunks,
            cached_chunks: 0,
            lost_events: 0,
        }
    }

    #[test]
    fn what_the_ledger_does_not_explain_is_unattributed() {
        let mut request = RequestProfile::new(RequestInfo::default(), true);
        request.checkpoint(Label::RequestStart, counters(1, 3, 0), 1.0);
        request.changed(HeapChange::Taken {
            address: 0x20_0000,
            bytes: 10 * PAGE_SIZE,
            stack: StackId::NONE,
        });
        // 12 pages more are in use, the chunk's own first page left aside.
        request.checkpoint(Label::RequestEnd, counters(2, 16, 0), 2.0);
        request.close(counters(2, 16, 0));
        assert_eq!(request.unattributed_bytes(), Some(2 * signed(PAGE_SIZE)));
    }

    #[test]
    fn mapped_memory_goes_to_the_stack_that_needed_it() {
        let mut request = RequestProfile::new(RequestInfo::default(), false);
        request.checkpoint(Label::RequestStart, counters(1, 3, 0), 1.0);
        request.chunk_taken(StackId::NONE, counters(1, 512, 0));
        request.chunk_taken(StackId::NONE, counters(2, 1000, 0));
        request.close(counters(2, 1000, 4 << 20));
        let growth = request.chunk_growth[&StackId::NONE];
        assert_eq!((growth.count, growth.bytes), (2, 6 << 20));
        assert_eq!(request.unattributed_bytes(), None);
    }

    #[test]
    fn events_lost_before_the_request_are_not_its_own() {
        let mut request = RequestProfile::new(RequestInfo::default(), true);
        let lost = |events| Counters {
            lost_events: events,
            ..counters(1, 3, 0)
        };
        request.checkpoint(Label::RequestStart, lost(7), 1.0);
        assert_eq!(request.lost_events(), 0);
        request.close(lost(12));
        assert_eq!(request.lost_events(), 5);
    }

    #[test]
    fn the_first_of_a_label_counts() {
        let mut request = RequestProfile::new(RequestInfo::default(), false);
        request.checkpoint(Label::ResponseReady, counters(1, 3, 0), 1.0);
        request.checkpoint(Label::ResponseReady, counters(4, 3, 0), 2.0);
        assert_eq!(request.checkpoints.len(), 1);
        assert_eq!(request.last().map(|last| last.chunks), Some(4));
    }
}
