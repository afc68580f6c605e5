//! What both sides say to each other about holding a worker still at a moment that is worth a dump.
//!
//! The agent traces a worker when it is asked to, and puts a [`Hold`] beside its process id. The
//! kernel side then stops it by a signal, SIGURG, which only a traced worker stops at: any other
//! ignores it. The tracing ends with the request, again at a stop, so that no system call of the
//! worker is ever interrupted.

use bytemuck::{Pod, Zeroable};

/// A size of the heap, as a share of memory_limit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Level {
    /// Never less than this many bytes.
    pub floor: u64,
    /// In 1 / 2^32 of memory_limit.
    pub share: u64,
    /// Bytes where there is no limit.
    pub without_limit: u64,
}

impl Level {
    /// Above every heap.
    pub const NEVER: Self = Self {
        floor: u64::MAX,
        share: 0,
        without_limit: u64::MAX,
    };

    /// In bytes, for a heap with this limit; exact for limits of whole pages up to 16 TiB.
    #[must_use]
    pub const fn bytes(self, limit: u64) -> u64 {
        if limit >= i64::MAX as u64 {
            return self.without_limit;
        }
        let share = ((limit >> 12).wrapping_mul(self.share)) >> 20;
        if share > self.floor {
            share
        } else {
            self.floor
        }
    }
}

/// When a worker is held and stopped; written by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct HoldConfig {
    /// 1 where dumps are wanted at all.
    pub wanted: u64,
    /// The agent is asked to trace the worker when its heap is above this.
    pub hold: Level,
    /// The worker is stopped, once a request, when its heap is above this.
    pub critical: Level,
    /// The worker is stopped at the end of a request whose peak is above this.
    pub end: Level,
    /// 1 where it is also stopped at the end of every request that is recorded in full.
    pub end_of_recorded: u64,
}

/// Whether the agent traces a worker. 0, or no entry, says that it does not, or not yet.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It does, until this request ends.
    Held = 1,
    /// The kernel refused: most often because another process traces it, as php-fpm's slowlog does.
    Refused = 2,
    /// The worker has a use of its own for SIGURG, or blocks it.
    SignalTaken = 3,
    /// It does, all the time.
    Kept = 4,
}

impl Hold {
    /// The answer by its number, or `None` where there is none yet.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Held,
            2 => Self::Refused,
            3 => Self::SignalTaken,
            4 => Self::Kept,
            _ => return None,
        })
    }
}

/// Why a worker was stopped.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// The memory-limit error.
    LimitError = 1,
    /// Its heap is above [`HoldConfig::critical`].
    Critical = 2,
    /// The request is over: it is to be let go.
    RequestOver = 3,
    /// The script has ended, and there will be a record of the request.
    RequestEnd = 4,
}

impl StopReason {
    /// The reason by its number, or `None` where it is not one of ours.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::LimitError,
            2 => Self::Critical,
            3 => Self::RequestOver,
            4 => Self::RequestEnd,
            _ => return None,
        })
    }
}

/// What an order is.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderKind {
    /// The worker is to be traced.
    Hold = 1,
    /// It came to a moment that is worth a dump, and did not stop.
    Missed = 2,
}

/// Tells the agent of a worker that is to be held, or should have been; the record of a ring of its
/// own, which wakes the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct HoldOrder {
    /// [`OrderKind`]
    pub kind: u32,
    /// Process id of the worker.
    pub pid: u32,
    /// [`crate::WorkerState::request`]
    pub request: u32,
    /// For [`OrderKind::Missed`]: [`StopReason`].
    pub reason: u32,
    /// What the agent had said: [`Hold`].
    pub answer: u32,
    /// Keeps the struct's size a multiple of eight.
    pub reserved: u32,
}
