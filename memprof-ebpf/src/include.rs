//! Program `include`: files as they are loaded; those that are watched make a checkpoint.

use core::ffi::c_void;

use memprof_ebpf::{Moment, PATH_BYTES, WATCHED_TAIL, Worker};

use crate::{
    heap::checkpoint,
    hit::{Program, in_worker},
    maps::{WATCHED_FILES, send},
    read::{read, read_c_string},
    registers::Registers,
};

/// `zend_file_handle.filename`, 7.4 to 8.6.
const HANDLE_FILENAME: u64 = 40;
/// `zend_string.len` and `.val`, in every version.
const STRING_LENGTH: u64 = 16;
const STRING_VALUE: u64 = 24;

#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe.multi.s")]
extern "C" fn include(context: *mut c_void) -> u32 {
    in_worker(context, Program::Include, hit)
}

#[inline(never)]
fn hit(pid: u32, worker: &mut Worker, registers: Registers, _cookie: u64) {
    if worker.state.recorded == 0 {
        return;
    }
    let Some((start, length)) = path(worker, registers.argument::<0>()) else {
        return;
    };
    let number = watched_file(worker, start, length);
    if number == 0 {
        return;
    }
    let mut event = checkpoint(worker, pid, Moment::Include);
    event.label = number - 1;
    send(worker, &event);
}

/// The number of the checkpoint that the loading of this file makes, and 1; 0 where it makes none.
///
/// A global function (see [`crate::stack::identify`]).
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn watched_file(worker: *mut Worker, start: u64, length: u64) -> u32 {
    // SAFETY: the caller passes the map's value; the verifier checks it.
    match unsafe { worker.as_mut() } {
        Some(worker) => label(worker, start, length).map_or(0, |number| number + 1),
        None => 0,
    }
}

/// The number of the checkpoint that the loading of this file makes, if any; the longest tail wins.
#[inline(always)]
fn label(worker: &mut Worker, start: u64, length: u64) -> Option<u32> {
    let watched = worker.config.watched_lengths;
    // In front of a shorter path lies its zend_string's header, or what the C heap has there.
    let mut tail = read::<[u8; WATCHED_TAIL]>(worker, start + length - WATCHED_TAIL as u64)?;
    for before in 0..WATCHED_TAIL {
        let tail_length = WATCHED_TAIL - before;
        let fits = tail_length as u64 <= length;
        if fits && watched >> tail_length & 1 != 0 {
            // SAFETY: one word, copied at once.
            if let Some(label) = unsafe { WATCHED_FILES.get(tail).copied() } {
                return Some(label);
            }
        }
        if let Some(first) = tail.get_mut(before) {
            *first = 0;
        }
    }
    None
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
