//! Stops the worker at a moment that is worth a dump; `memprof_ebpf::hold` says how.

use aya_ebpf::helpers::generated::{
    bpf_copy_from_user_task, bpf_get_current_task_btf, bpf_ktime_get_ns, bpf_send_signal,
};
use memprof_ebpf::{CheckpointEvent, Hold, HoldOrder, Level, StopReason, UNKNOWN, Worker};

use crate::{
    maps::{HELD, HOLD_ORDERS},
    repeat::{BREAK, CONTINUE, repeat},
};

/// The signal that a traced worker stops at. What is not traced ignores it, unless it handles it.
const SIGURG: u32 = 23;
/// How long a worker that dies waits for the agent to trace it, in ns. A heap that grows fast passes
/// from nearly nothing to its limit in one allocation, and then nobody had asked before.
const PATIENCE_NS: u64 = 50_000_000;
/// Turns of that wait, which end by the clock; a turn takes some 500 ns.
const MOST_TURNS: u32 = 1 << 20;
/// Bytes of a chunk of the Zend heap.
const CHUNK_SHIFT: u32 = 21;

/// Asks the agent to trace a worker whose heap has grown above a share of its limit.
#[inline(always)]
pub fn hold_if_grown(worker: &mut Worker, pid: u32, seen: &CheckpointEvent) {
    if worker.state.hold_asked == 0 && is_above(worker.config.hold.hold, seen) {
        ask(worker, pid);
    }
}

/// Whether the heap is above the critical level, for the first time in this request.
#[inline(always)]
pub fn is_newly_critical(worker: &mut Worker, seen: &CheckpointEvent) -> bool {
    if worker.config.hold.wanted == 0
        || worker.state.critical_seen != 0
        || !is_above(worker.config.hold.critical, seen)
    {
        return false;
    }
    worker.state.critical_seen = 1;
    true
}

/// What a request needs is its heap without the chunks that are kept from an earlier one.
#[inline(always)]
fn is_above(level: Level, seen: &CheckpointEvent) -> bool {
    let kept = u64::from(seen.cached_chunks) << CHUNK_SHIFT;
    seen.real_size != UNKNOWN && seen.real_size.saturating_sub(kept) > level.bytes(seen.limit)
}

/// Whether the agent traces this worker, as a number of [`Hold`]; waits a little until it does.
#[inline(never)]
pub fn wait_until_held(worker: &mut Worker, pid: u32) -> u32 {
    if worker.config.hold.wanted == 0 {
        return Hold::NotWanted as u32;
    }
    // SAFETY: a helper without arguments.
    let start = unsafe { bpf_ktime_get_ns() };
    worker.state.stop_time = start;
    if answer(pid) == Hold::Held as u32 {
        return Hold::Held as u32;
    }
    // What was refused before may be granted now.
    let _ = HELD.remove(pid);
    ask(worker, pid);
    let mut wait = Wait {
        pid,
        answer: 0,
        deadline: start + PATIENCE_NS,
        probed: worker.config.heap,
    };
    repeat(MOST_TURNS, look_again, &mut wait);
    // SAFETY: a helper without arguments.
    worker.state.waited_ns += unsafe { bpf_ktime_get_ns() } - start;
    wait.answer
}

/// Stops a worker that is held, before its next instruction.
#[inline(always)]
pub fn stop(worker: &mut Worker, reason: StopReason) {
    worker.state.stop_reason = reason as u32;
    worker.state.stops = worker.state.stops.wrapping_add(1);
    // SAFETY: the signal reaches the worker itself, which is traced and does not get to see it.
    unsafe { bpf_send_signal(SIGURG) };
}

/// The request is over: the tracing ends, and an answer from it does not stand for the next.
#[inline(always)]
pub fn let_go(worker: &mut Worker, pid: u32) {
    worker.state.hold_asked = 0;
    match answer(pid) {
        0 => {}
        held if held == Hold::Held as u32 => {
            // SAFETY: a helper without arguments.
            worker.state.stop_time = unsafe { bpf_ktime_get_ns() };
            stop(worker, StopReason::RequestOver);
        }
        _ => {
            let _ = HELD.remove(pid);
        }
    }
}

#[inline(always)]
fn ask(worker: &mut Worker, pid: u32) {
    worker.state.hold_asked = 1;
    let order = HoldOrder {
        pid,
        request: worker.state.request,
    };
    HOLD_ORDERS.wake(&order);
}

/// What the agent said of this worker, as a number of [`Hold`]; 0 for nothing.
#[inline(always)]
fn answer(pid: u32) -> u32 {
    // SAFETY: one word, copied at once.
    unsafe { HELD.get(pid).copied() }.unwrap_or(0)
}

/// Where the wait for the agent stands.
struct Wait {
    pid: u32,
    answer: u32,
    deadline: u64,
    /// An address of the worker's.
    probed: u64,
}

/// One look. On a kernel that does not preempt itself the agent would not run if it needed this
/// processor: reading the worker's memory as another process's gives it up where it is wanted.
extern "C" fn look_again(_turn: u64, wait: *mut Wait) -> i64 {
    // SAFETY: the wait outlives the loop.
    let wait = unsafe { &mut *wait };
    wait.answer = answer(wait.pid);
    // SAFETY: a helper without arguments.
    if wait.answer != 0 || unsafe { bpf_ktime_get_ns() } > wait.deadline {
        return BREAK;
    }
    let mut word = 0_u64;
    // SAFETY: `word` has room for its own length; the task is the one that runs.
    unsafe {
        bpf_copy_from_user_task(
            (&raw mut word).cast(),
            size_of::<u64>() as u32,
            wait.probed as *const _,
            bpf_get_current_task_btf().cast(),
            0,
        );
    }
    CONTINUE
}
