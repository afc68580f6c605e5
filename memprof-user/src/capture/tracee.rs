//! One process under PTRACE_SEIZE: its stops, and how it goes on from each.
//!
//! Not by nix's `waitpid` and `detach`, which take a real-time signal for an error.

use std::io;
use std::marker::PhantomData;
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::unistd::Pid;

/// The signals that stop all of a process (signal(7)).
const STOPPING: [libc::c_int; 4] = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// A process that is traced by the thread that seized it, until that thread lets it go or ends.
#[derive(Debug)]
pub(super) struct Tracee {
    process: Pid,
    /// Keeps it in its thread, as ptrace has it.
    thread: PhantomData<*const ()>,
}

/// How a traced process stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// This signal is about to be delivered: it goes on with it, or without.
    Signal(libc::c_int),
    /// All of it is stopped, by SIGSTOP for example.
    Group,
    /// A stop of ptrace's own.
    Own,
}

impl Tracee {
    /// Begins to trace; the process runs on.
    ///
    /// # Errors
    /// What the kernel says: EPERM where it is traced already, or the capability is missing.
    pub(super) fn seize(pid: i32) -> Result<Tracee, Errno> {
        let process = Pid::from_raw(pid);
        ptrace::seize(process, ptrace::Options::empty())?;
        Ok(Tracee {
            process,
            thread: PhantomData,
        })
    }

    /// Has the process stop.
    ///
    /// # Errors
    /// ESRCH where it has ended.
    pub(super) fn interrupt(&self) -> Result<(), Errno> {
        ptrace::interrupt(self.process)
    }

    /// Waits until the process stands still; `None` when it has ended.
    ///
    /// # Errors
    /// What the kernel says.
    #[cfg(feature = "ebpf")]
    pub(super) fn wait(&self) -> Result<Option<Stop>, Errno> {
        match self.wait_with(0) {
            Ok(Some(status)) => Ok(stop_of(status)),
            // Without WNOHANG there is always a status.
            Ok(None) | Err(Errno::ECHILD) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the process stands still by now, and how.
    ///
    /// # Errors
    /// ESRCH when it has ended.
    pub(super) fn look(&self) -> Result<Option<Stop>, Errno> {
        match self.wait_with(libc::WNOHANG)? {
            None => Ok(None),
            Some(status) => stop_of(status).map(Some).ok_or(Errno::ESRCH),
        }
    }

    fn wait_with(&self, flags: libc::c_int) -> Result<Option<libc::c_int>, Errno> {
        loop {
            let mut status = 0;
            // SAFETY: `status` is a live int for the kernel to write to.
            let pid = unsafe {
                libc::waitpid(self.process.as_raw(), &raw mut status, libc::__WALL | flags)
            };
            match pid {
                0 => return Ok(None),
                -1 if Errno::last() == Errno::EINTR => {}
                -1 => return Err(Errno::last()),
                _ => return Ok(Some(status)),
            }
        }
    }

    /// Where the signal comes from that the process stands still at: the `si_code` of sigaction(2).
    ///
    /// # Errors
    /// What the kernel says.
    #[cfg(feature = "ebpf")]
    pub(super) fn signal_code(&self) -> Result<libc::c_int, Errno> {
        Ok(ptrace::getsiginfo(self.process)?.si_code)
    }

    /// Goes on, with that signal delivered; 0 for none.
    ///
    /// # Errors
    /// ESRCH where it was killed meanwhile.
    #[cfg(feature = "ebpf")]
    pub(super) fn go_on(&self, signal: libc::c_int) -> io::Result<()> {
        self.request(libc::PTRACE_CONT, signal)
    }

    /// Stays in the stop of all of the process, and tells when that ends.
    ///
    /// # Errors
    /// ESRCH where it was killed meanwhile.
    #[cfg(feature = "ebpf")]
    pub(super) fn listen(&self) -> io::Result<()> {
        self.request(libc::PTRACE_LISTEN, 0)
    }

    /// Lets a process that stands still go, with that signal delivered; 0 for none.
    ///
    /// # Errors
    /// ESRCH where it was killed meanwhile.
    pub(super) fn detach(self, signal: libc::c_int) -> io::Result<()> {
        self.request(libc::PTRACE_DETACH, signal)
    }

    fn request(&self, request: libc::c_uint, signal: libc::c_int) -> io::Result<()> {
        // SAFETY: none of the requests takes an address, and none touches memory of ours.
        let result = unsafe {
            libc::ptrace(
                request,
                self.process.as_raw(),
                ptr::null_mut::<libc::c_void>(),
                libc::c_long::from(signal),
            )
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// `None` for the status of a process that has ended.
fn stop_of(status: libc::c_int) -> Option<Stop> {
    if !libc::WIFSTOPPED(status) {
        return None;
    }
    let signal = libc::WSTOPSIG(status);
    // A stop of ptrace's own has an event in the upper bits; one without is a signal on its way.
    Some(match status >> 16 {
        0 => Stop::Signal(signal),
        libc::PTRACE_EVENT_STOP if STOPPING.contains(&signal) => Stop::Group,
        _ => Stop::Own,
    })
}
