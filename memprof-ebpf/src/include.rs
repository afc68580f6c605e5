//! Program `include`: files as they are loaded; those that are watched make a checkpoint.

use core::ffi::c_void;

use memprof_ebpf::{Moment, PATH_BYTES, WATCHED_TAIL, Worker};

use crate::{
    heap::checkpoint,
    maps::{WATCHED_FILES, send},
    read::{read, read_c_string},
    registers::Registers,
    request::in_worker,
};

/// `zend_file_handle.filename`, 7.4 to 8.6.
const HANDLE_FILENAME: u64 = 40;
/// `zend_string.len` and `.val`, in every version.
const STRING_LENGTH: u64 = 16;
const STRING_VALUE: u64 = 24;

#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe.multi.s")]
extern "C" fn include(context: *mut c_void) -> u32 {
    in_worker(context, hit)
}

fn hit(pid: u32, worker: &mut Worker, registers: Registers, _cookie: u64) {
    if worker.state.recorded == 0 {
        return;
    }
    let Some((start, length)) = path(worker, registers.argument::<0>()) else {
        return;
    };
    let Some(before_tail) = length.checked_sub(WATCHED_TAIL as u64) else {
        return;
    };
    let Some(tail) = read::<[u8; WATCHED_TAIL]>(worker, start + before_tail) else {
        return;
    };
    // SAFETY: one word, copied at once.
    let Some(label) = (unsafe { WATCHED_FILES.get(tail).copied() }) else {
        return;
    };
    let mut event = checkpoint(worker, pid, Moment::Include);
    event.label = label;
    send(worker, &event);
}

/// Where the path of a `zend_file_handle` is, and its length.
#[inline(always)]
fn path(worker: &mut Worker, handle: u64) -> Option<(u64, u64)> {
    let name = read::<u64>(worker, handle + HANDLE_FILENAME)?;
    if worker.config.offsets.filename_is_string != 0 {
        let length = read::<u64>(worker, name + STRING_LENGTH)?;
        return Some((name + STRING_VALUE, length));
    }
    let to = (&raw mut worker.state.path).cast();
    let length = read_c_string::<{ PATH_BYTES as u64 }>(worker, to, name)?;
    Some((name, u64::from(length)))
}
