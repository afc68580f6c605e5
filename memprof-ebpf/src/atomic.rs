//! What has to be one instruction, so that an interruption or another processor comes before or after it.
//! The compiler has no such operations for this target.

use core::arch::asm;

/// Puts a value in the place of another, which it returns.
#[inline(always)]
pub fn exchange(of: *mut u64, mut value: u64) -> u64 {
    // SAFETY: the verifier checks that `of` is a map's value.
    unsafe {
        asm!(
            "{value} = xchg_64({of} + 0, {value})",
            of = in(reg) of,
            value = inout(reg) value,
        );
    }
    value
}

/// Adds to a value; what it was before.
#[inline(always)]
pub fn add(to: *mut i64, mut value: i64) -> i64 {
    // SAFETY: the verifier checks that `to` is a map's value.
    unsafe {
        asm!(
            "{value} = atomic_fetch_add((u64 *)({to} + 0), {value})",
            to = in(reg) to,
            value = inout(reg) value,
        );
    }
    value
}
