//! Program `exact`: every allocation call, counted by stack. Only ever for a short while.

use core::ffi::c_void;

use memprof_ebpf::{ExactCount, ExactKey, Worker, cookie};

use crate::{
    hit::{Program, in_worker},
    maps::EXACT,
    registers::Registers,
    stack::identify,
};

#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe.multi.s")]
extern "C" fn exact(context: *mut c_void) -> u32 {
    in_worker(context, Program::Exact, hit)
}

#[inline(never)]
fn hit(pid: u32, worker: &mut Worker, registers: Registers, cookie: u64) {
    if worker.state.recorded == 0 {
        return;
    }
    let bytes = match cookie >> 8 & 3 {
        cookie::SIZE_FIXED => cookie >> 32,
        cookie::SIZE_FIRST => registers.argument::<0>(),
        _ => registers.argument::<1>(),
    };
    let key = ExactKey {
        stack: identify(worker, pid),
        pid,
        request: worker.state.request,
    };
    if let Some(count) = EXACT.get_ptr_mut(key) {
        // SAFETY: the key holds the pid, and the worker has one thread.
        unsafe {
            (*count).calls += 1;
            (*count).bytes += bytes;
        }
    } else if EXACT
        .insert(key, ExactCount { calls: 1, bytes }, 0)
        .is_err()
    {
        worker.state.uncounted += 1;
    }
}
