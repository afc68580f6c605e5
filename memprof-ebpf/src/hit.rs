//! What every program does with a hit.
//!
//! From Linux 6.13 on, a function of a program that has more than 48 bytes on its stack gets one stack a
//! processor. A program of ours may sleep, to have a page brought in, and may be preempted; another
//! worker's run of the same program would then write over what this one has there. So the entry
//! functions stay below that size, which a test holds them to, and let one run of a program at a time into
//! the rest, on each processor.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_attach_cookie, bpf_ktime_get_ns};
use memprof_ebpf::{TIMED_EVERY, Worker};

use crate::{
    atomic::exchange,
    maps::{BUSY, current_worker},
    registers::Registers,
};

/// What a program does with a hit in a followed worker.
///
/// Plain functions, not closures: the kernel refuses the names that a closure's arguments get in
/// the type information. Not inlined, for the sake of the entry function's stack.
pub type Hit = fn(pid: u32, worker: &mut Worker, registers: Registers, cookie: u64);

/// The programs, by their places in [`BUSY`].
#[derive(Clone, Copy)]
pub enum Program {
    Request,
    Growth,
    Include,
    Exact,
    Call,
}

/// Runs `hit` if the worker is followed; one hit in [`TIMED_EVERY`] is timed. A hit that finds another
/// run of the program under way on its processor counts as a lost event.
#[inline(always)]
pub fn in_worker(context: *mut c_void, program: Program, hit: Hit) -> u32 {
    let Some((pid, worker)) = current_worker() else {
        return 0;
    };
    let Some(busy) = BUSY.get_ptr_mut(program as u32) else {
        return 0;
    };
    if exchange(busy, 1) != 0 {
        worker.state.lost += 1;
        worker.state.busy += 1;
        return 0;
    }
    timed(pid, worker, context, hit);
    exchange(busy, 0);
    0
}

#[inline(always)]
fn timed(pid: u32, worker: &mut Worker, context: *mut c_void, hit: Hit) {
    let registers = Registers::of(context);
    // SAFETY: the context is the program's own.
    let cookie = unsafe { bpf_get_attach_cookie(context) };
    if worker.state.hits & (TIMED_EVERY - 1) != 0 {
        hit(pid, worker, registers, cookie);
        return;
    }
    // SAFETY: a helper without arguments.
    let start = unsafe { bpf_ktime_get_ns() };
    hit(pid, worker, registers, cookie);
    // SAFETY: as above.
    worker.state.timed_ns += unsafe { bpf_ktime_get_ns() } - start;
    worker.state.timed_hits += 1;
}
