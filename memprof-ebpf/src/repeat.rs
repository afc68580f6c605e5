//! Loops that the verifier looks at once, instead of once a turn.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;

/// Goes on with the loop.
pub const CONTINUE: i64 = 0;
/// Leaves the loop.
pub const BREAK: i64 = 1;

/// Calls `step` up to `times` times, until it returns [`BREAK`].
#[inline(always)]
pub fn repeat<C>(times: u32, step: extern "C" fn(u64, *mut C) -> i64, context: &mut C) {
    let context: *mut C = context;
    // SAFETY: the kernel calls `step` with the context given, while this frame stands.
    unsafe {
        bpf_loop(times, step as *const () as *mut c_void, context.cast(), 0);
    }
}
