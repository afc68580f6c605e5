//! What a process does, by what the kernel tells of it.

use std::fs;

use nix::libc;

/// Whether the process sleeps in a system call of PHP's `usleep()` or `time_nanosleep()`, and so has stopped
/// changing its memory.
pub fn sleeps(pid: i32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number = call
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok());
    // The numbers differ between processors.
    number.is_some_and(|number| [libc::SYS_nanosleep, libc::SYS_clock_nanosleep].contains(&number))
}
