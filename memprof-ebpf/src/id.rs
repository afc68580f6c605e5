//! Ids of stacks and functions, and how long they mean the same.

use memprof_ebpf::{Range, Worker};

/// Folds a word into an id (the multiplier is that of splitmix64).
#[inline(always)]
pub fn mix(id: u64, word: u64) -> u64 {
    let mixed = (id ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 29)
}

/// What makes an id one of this request alone.
///
/// The worker is part of it, because the heaps of a master's workers all have the same address.
#[inline(always)]
pub fn request_salt(worker: &Worker, pid: u32) -> u64 {
    mix(mix(u64::from(pid), 0), u64::from(worker.state.request))
}

/// Whether a pointer is null, or leads to what is still there in the next request.
#[inline(always)]
pub fn stays(worker: &Worker, pointer: u64) -> bool {
    pointer == 0 || is_lasting(worker, pointer)
}

/// Whether what lies at `address` is still there in the next request.
#[inline(always)]
pub fn is_lasting(worker: &Worker, address: u64) -> bool {
    let within = |range: Range| address >= range.start && address < range.end;
    within(worker.config.lasting[0]) || within(worker.config.lasting[1])
}
