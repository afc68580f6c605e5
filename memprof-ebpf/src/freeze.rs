//! Stops the worker at a moment that is worth a dump; `memprof_ebpf::hold` says how.
//!
//! Program `hold` waits at the memory limit until the agent traces the worker. It is apart from `request`,
//! and each of its functions has next to no stack: above 48 bytes a kernel from 6.13 on gives a
//! program one stack a processor, which another worker's run of the program overwrites while this one
//! sleeps. What it has to remember is in the worker's state.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_copy_from_user_task, bpf_get_current_task_btf, bpf_send_signal,
};
use memprof_ebpf::{
    CheckpointEvent, Hold, HoldOrder, Level, OrderKind, StopReason, UNKNOWN, Worker,
};

use crate::{
    heap::now,
    maps::{HELD, HOLD_ORDERS, current_worker},
    repeat::{BREAK, CONTINUE, repeat},
};

/// The signal that a traced worker stops at. What is not traced ignores it, unless it handles it.
const SIGURG: u32 = 23;
/// How long a worker that dies waits for the agent to trace it, in ns. A heap that grows fast passes
/// from nearly nothing to its limit in one allocation, and then nobody had asked before.
const PATIENCE_NS: u64 = 250_000_000;
/// Turns of that wait, which end by the clock; a turn takes some 500 ns.
const MOST_TURNS: u32 = 1 << 20;
/// Bytes of a chunk of the Zend heap, as a power of two.
const CHUNK_SHIFT: u32 = 21;

/// At the memory-limit error. The first of a request stops the worker for a dump; what an
/// application's own shutdown code does after it may hit the limit again.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe.multi.s")]
extern "C" fn hold(_context: *mut c_void) -> u32 {
    let Some((pid, worker)) = current_worker() else {
        return 0;
    };
    if worker.config.hold.wanted == 0 || worker.state.limit_stopped != 0 {
        return 0;
    }
    worker.state.limit_stopped = 1;
    worker.state.stop_time = now();
    if !is_held(pid) {
        // What was refused before may be granted now.
        let _ = HELD.remove(pid);
        order(worker, pid, OrderKind::Hold, StopReason::LimitError);
        let mut wait: *mut Worker = worker;
        repeat(MOST_TURNS, look_again, &mut wait);
    }
    stop_or_miss(worker, pid, StopReason::LimitError);
    0
}

/// One look. On a kernel that does not preempt itself the agent would not run if it needed this
/// processor: reading the worker's memory as another process's gives it up where it is wanted.
extern "C" fn look_again(_turn: u64, worker: *mut *mut Worker) -> i64 {
    // SAFETY: the worker and the pointer to it outlive the loop.
    let worker = unsafe { &mut **worker };
    if answer(worker.state.order.pid) != 0 || now() > worker.state.stop_time + PATIENCE_NS {
        return BREAK;
    }
    // SAFETY: `probed` has room for its own length; the task is the one that runs.
    unsafe {
        bpf_copy_from_user_task(
            (&raw mut worker.state.probed).cast(),
            size_of::<u64>() as u32,
            worker.config.heap as *const _,
            bpf_get_current_task_btf().cast(),
            0,
        );
    }
    CONTINUE
}

/// Asks the agent to trace a worker whose heap has grown above a share of its limit.
#[inline(always)]
pub fn hold_if_grown(worker: &mut Worker, pid: u32, seen: &CheckpointEvent) {
    if worker.state.hold_asked == 0 && is_above(worker.config.hold.hold, seen) {
        order(worker, pid, OrderKind::Hold, StopReason::LimitError);
    }
}

/// Whether the heap is above the critical level, for the first time in this request.
#[inline(always)]
pub fn is_newly_critical(worker: &mut Worker, seen: &CheckpointEvent) -> bool {
    if worker.config.hold.wanted == 0
        || worker.state.critical_seen != 0
        || worker.state.limit_stopped != 0
        || !is_above(worker.config.hold.critical, seen)
    {
        return false;
    }
    worker.state.critical_seen = 1;
    true
}

/// Asks the agent in good time to trace a worker that will be stopped at the end of its request.
#[inline(always)]
pub fn hold_for_end(worker: &mut Worker, pid: u32) {
    if is_told(worker) {
        order(worker, pid, OrderKind::Hold, StopReason::RequestEnd);
    }
}

/// Whether there will be a record of the request, whatever it takes.
#[inline(always)]
fn is_told(worker: &Worker) -> bool {
    worker.config.hold.end_of_recorded != 0 && worker.state.recorded != 0
}

/// Stops the worker at the end of a request that there will be a record of, so that the agent can read
/// whose it was and what its session holds.
#[inline(always)]
pub fn stop_at_end(worker: &mut Worker, pid: u32, seen: &CheckpointEvent) {
    let level = worker.config.hold.end;
    let is_high = seen.real_peak != UNKNOWN && seen.real_peak > level.bytes(seen.limit);
    if (is_high || is_told(worker)) && is_held(pid) {
        worker.state.stop_time = now();
        stop(worker, StopReason::RequestEnd);
    }
}

/// What a request needs is its heap without the chunks that are kept from an earlier one.
#[inline(always)]
fn is_above(level: Level, seen: &CheckpointEvent) -> bool {
    let kept = u64::from(seen.cached_chunks) << CHUNK_SHIFT;
    seen.real_size != UNKNOWN && seen.real_size.saturating_sub(kept) > level.bytes(seen.limit)
}

/// Stops a worker that is above the critical level, if the agent traces it.
#[inline(always)]
pub fn stop_critical(worker: &mut Worker, pid: u32) {
    worker.state.stop_time = now();
    stop_or_miss(worker, pid, StopReason::Critical);
}

/// The request is over: the tracing for it ends, and an answer from it does not stand for the next. A worker
/// that is traced all the time is not stopped for nothing.
#[inline(always)]
pub fn let_go(worker: &mut Worker, pid: u32) {
    worker.state.hold_asked = 0;
    match answer(pid) {
        0 => {}
        kept if kept == Hold::Kept as u32 => {}
        held if held == Hold::Held as u32 => {
            worker.state.stop_time = now();
            stop(worker, StopReason::RequestOver);
        }
        _ => {
            let _ = HELD.remove(pid);
        }
    }
}

#[inline(always)]
fn stop_or_miss(worker: &mut Worker, pid: u32, reason: StopReason) {
    if is_held(pid) {
        stop(worker, reason);
    } else {
        order(worker, pid, OrderKind::Missed, reason);
    }
}

/// Stops a worker that is held, before its next instruction.
#[inline(always)]
fn stop(worker: &mut Worker, reason: StopReason) {
    worker.state.stop_reason = reason as u32;
    worker.state.stops = worker.state.stops.wrapping_add(1);
    // SAFETY: the signal reaches the worker itself, which is traced and does not get to see it.
    unsafe { bpf_send_signal(SIGURG) };
}

#[inline(always)]
fn order(worker: &mut Worker, pid: u32, kind: OrderKind, reason: StopReason) {
    worker.state.hold_asked = 1;
    worker.state.order = HoldOrder {
        kind: kind as u32,
        pid,
        request: worker.state.request,
        reason: reason as u32,
        answer: answer(pid),
        reserved: 0,
    };
    HOLD_ORDERS.wake(&worker.state.order);
}

/// Whether this worker stops at a signal.
#[inline(always)]
fn is_held(pid: u32) -> bool {
    let answer = answer(pid);
    answer == Hold::Held as u32 || answer == Hold::Kept as u32
}

/// What the agent said of this worker, as a number of [`Hold`]; 0 for nothing.
#[inline(always)]
fn answer(pid: u32) -> u32 {
    // SAFETY: one word, copied at once.
    unsafe { HELD.get(pid).copied() }.unwrap_or(0)
}
