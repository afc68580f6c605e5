//! Reading the worker's memory.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{bpf_copy_from_user, bpf_probe_read_user};
use bytemuck::Pod;
use memprof_ebpf::{WINDOW_WORDS, Worker};

/// `zend_string.len`, in every version.
const STRING_LENGTH: u64 = 16;
/// `zend_string.val`, in every version.
const STRING_VALUE: u64 = 24;

/// Bytes of the window without the room for a frame at its end: a page.
const WINDOW: u64 = WINDOW_WORDS as u64 * 8;
/// Bytes that are read of a frame, and a word.
pub const FRAME: u64 = 64;

/// A value at `address`; a failure is counted.
#[inline(always)]
pub fn read<T: Pod>(worker: &mut Worker, address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    if read_bytes(value.as_mut_ptr().cast(), address, size_of::<T>() as u64) {
        // SAFETY: the whole value was written, and any bytes are a `T`.
        Some(unsafe { value.assume_init() })
    } else {
        worker.state.unreadable += 1;
        None
    }
}

/// Fills the worker's window with the frame at `address` and what lies before it in its page; whether it was there.
///
/// Not with what lies before the page: that need not be there, and a read that fails costs several that don't.
#[inline(always)]
pub fn read_window(worker: &mut Worker, address: u64) -> bool {
    let to = (&raw mut worker.state.window).cast();
    let start = address & !(WINDOW - 1);
    let length = (address & (WINDOW - 1)) + FRAME;
    // SAFETY: the window has room for a page and a frame.
    let read = unsafe { bpf_probe_read_user(to, length as u32, start as *const _) == 0 };
    worker.state.window_start = start;
    worker.state.window_end = if read { address + FRAME } else { start };
    read
}

/// Copies `length` bytes; a page that is not there is brought in on the second try.
#[inline(always)]
fn read_bytes(to: *mut u8, address: u64, length: u64) -> bool {
    // SAFETY: `to` has room for `length` bytes, which the verifier checks.
    unsafe {
        bpf_probe_read_user(to.cast(), length as u32, address as *const _) == 0
            || bpf_copy_from_user(to.cast(), length as u32, address as *const _) == 0
    }
}

/// Copies a `zend_string`'s first `CAPACITY` bytes; how many, or `None` where it can't be read.
#[inline(always)]
pub fn read_string<const CAPACITY: u64>(
    worker: &mut Worker,
    to: *mut u8,
    string: u64,
) -> Option<u32> {
    let length: u64 = read(worker, string + STRING_LENGTH)?;
    read_text::<CAPACITY>(worker, to, string + STRING_VALUE, length)
}

/// Copies `length` bytes of text, `CAPACITY` at most; how many.
#[inline(always)]
pub fn read_text<const CAPACITY: u64>(
    worker: &mut Worker,
    to: *mut u8,
    address: u64,
    length: u64,
) -> Option<u32> {
    let length = if length > CAPACITY { CAPACITY } else { length };
    if read_bytes(to, address, length) {
        Some(length as u32)
    } else {
        worker.state.unreadable += 1;
        None
    }
}

/// Copies a C string of the C runtime, `CAPACITY` bytes with its zero at most; its length.
#[inline(always)]
pub fn read_c_string<const CAPACITY: u64>(
    worker: &mut Worker,
    to: *mut u8,
    address: u64,
) -> Option<u32> {
    // SAFETY: `to` has room for `CAPACITY` bytes, which the verifier checks.
    let length = unsafe {
        aya_ebpf::helpers::generated::bpf_probe_read_user_str(
            to.cast(),
            CAPACITY as u32,
            address as *const _,
        )
    };
    if length < 1 {
        worker.state.unreadable += 1;
        return None;
    }
    Some(length as u32 - 1)
}
