//! Holds one process still for the milliseconds that it takes to read it.
//!
//! PTRACE_SEIZE and PTRACE_INTERRUPT, never SIGSTOP: the process's parent sees no stop, and the kernel
//! lets the process go on when memprof ends, however it ends. Signals that reach the process meanwhile
//! are delivered when it goes on.

use std::io;
use std::marker::PhantomData;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::unistd::Pid;

/// How long to wait before looking again whether the process stands still.
const PAUSE: Duration = Duration::from_micros(20);

/// Why a process could not be held still.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// The kernel refused, or the process has ended.
    #[error("ptrace cannot hold process {pid}: {}{}", .errno.desc(), cure(*.errno))]
    Refused {
        /// The process.
        pid: i32,
        /// What the kernel said.
        errno: Errno,
    },
    /// It waited in the kernel for something that cannot be interrupted, a disk for example.
    #[error("process {pid} did not come to a stop within {} ms; try again", .waited.as_millis())]
    NotStopped {
        /// The process.
        pid: i32,
        /// How long it was waited for.
        waited: Duration,
    },
}

fn cure(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => {
            "; it takes CAP_SYS_PTRACE, and a process that nothing else traces (php-fpm's slowlog, strace)"
        }
        Errno::ESRCH => "; it has ended",
        _ => "",
    }
}

/// A process that stands still; it goes on when this is dropped.
///
/// It belongs to the thread that froze it, as ptrace has it.
#[derive(Debug)]
pub struct Frozen {
    seized: Seized,
    since: Instant,
    /// Keeps it in its thread.
    thread: PhantomData<*const ()>,
}

impl Frozen {
    /// Holds a process still, within `patience`.
    ///
    /// # Errors
    /// [`FreezeError`]; the process then goes on as if nothing had been.
    pub fn freeze(pid: i32, patience: Duration) -> Result<Frozen, FreezeError> {
        let refused = |errno| FreezeError::Refused { pid, errno };
        let process = Pid::from_raw(pid);
        ptrace::seize(process, ptrace::Options::empty()).map_err(refused)?;
        let mut seized = Seized {
            process,
            signal: 0,
            is_stopped: false,
        };
        let since = Instant::now();
        ptrace::interrupt(process).map_err(refused)?;
        while !seized.look().map_err(refused)? {
            if since.elapsed() >= patience {
                return Err(FreezeError::NotStopped {
                    pid,
                    waited: patience,
                });
            }
            thread::sleep(PAUSE);
        }
        Ok(Frozen {
            seized,
            since,
            thread: PhantomData,
        })
    }

    /// When the process was told to stop.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Lets the process go on; tells for how long it was held.
    pub fn release(self) -> Duration {
        let Frozen { seized, since, .. } = self;
        drop(seized);
        since.elapsed()
    }
}

/// A process under PTRACE_SEIZE.
#[derive(Debug)]
struct Seized {
    process: Pid,
    /// The signal whose delivery the process stopped at, to be delivered when it goes on; 0 for none.
    signal: libc::c_int,
    is_stopped: bool,
}

impl Seized {
    /// Whether the process has come to a stop by now.
    ///
    /// Not by nix's `waitpid`, which takes a real-time signal for an error.
    fn look(&mut self) -> Result<bool, Errno> {
        let mut status = 0;
        // SAFETY: `status` is a live int for the kernel to write to.
        let pid = unsafe {
            libc::waitpid(
                self.process.as_raw(),
                &raw mut status,
                libc::__WALL | libc::WNOHANG,
            )
        };
        match pid {
            0 => return Ok(false),
            -1 => return Err(Errno::last()),
            _ => {}
        }
        if !libc::WIFSTOPPED(status) {
            return Err(Errno::ESRCH);
        }
        // A stop of ptrace's own has an event in the upper bits; one without is a signal on its way.
        let is_signal = status >> 16 == 0;
        self.signal = if is_signal { libc::WSTOPSIG(status) } else { 0 };
        self.is_stopped = true;
        Ok(true)
    }

    /// PTRACE_DETACH; not nix's, which knows no real-time signals.
    fn detach(&self) -> io::Result<()> {
        // SAFETY: PTRACE_DETACH takes no address and a signal's number, and touches no memory of ours.
        let result = unsafe {
            libc::ptrace(
                libc::PTRACE_DETACH,
                self.process.as_raw(),
                ptr::null_mut::<libc::c_void>(),
                libc::c_long::from(self.signal),
            )
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl Drop for Seized {
    fn drop(&mut self) {
        // Only what stands still can be let go. What stops later is let go by the kernel, when this
        // thread ends; until then it has to be waited for.
        let deadline = Instant::now() + Duration::from_secs(1);
        while !self.is_stopped && Instant::now() < deadline {
            match self.look() {
                Ok(false) => thread::sleep(PAUSE),
                Ok(true) => {}
                Err(_) => return,
            }
        }
        // It fails only where the process was killed meanwhile.
        let _ = self.detach();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use nix::sys::signal::{Signal, kill};

    use super::*;

    struct Shell(Child);

    impl Shell {
        fn start(script: &str) -> Shell {
            let child = Command::new("bash")
                .args(["-c", script])
                .stdout(Stdio::piped())
                .spawn()
                .expect("bash starts");
            Shell(child)
        }

        fn pid(&self) -> i32 {
            self.0.id().cast_signed()
        }

        fn status(&self, key: &str) -> String {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
            let status = status.expect("it runs");
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.expect("a line of that key").trim().to_owned()
        }

        fn wait_for_state(&self, state: char) {
            let deadline = Instant::now() + PATIENCE;
            while !self.status("State:").starts_with(state) {
                assert!(Instant::now() < deadline, "{}", self.status("State:"));
                thread::sleep(PAUSE);
            }
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn a_process_stands_still_and_goes_on() {
        let shell = Shell::start("while :; do :; done");
        let frozen = Frozen::freeze(shell.pid(), PATIENCE).expect("ours");
        assert!(shell.status("State:").starts_with('t'));
        assert_ne!(shell.status("TracerPid:"), "0");
        assert!(matches!(
            Frozen::freeze(shell.pid(), PATIENCE),
            Err(FreezeError::Refused {
                errno: Errno::EPERM,
                ..
            })
        ));
        let held = frozen.release();
        assert!(held > Duration::ZERO && held < PATIENCE);
        assert_eq!(shell.status("TracerPid:"), "0");
        assert!(shell.status("State:").starts_with('R'));
    }

    #[test]
    fn a_signal_meanwhile_is_delivered_afterwards() {
        for signal in ["USR1", "RTMIN+3"] {
            let script =
                format!("trap 'echo caught; exit' {signal}; echo ready; while :; do :; done");
            let mut shell = Shell::start(&script);
            let mut lines = BufReader::new(shell.0.stdout.take().expect("piped")).lines();
            assert_eq!(lines.next().expect("a line").expect("text"), "ready");
            let frozen = Frozen::freeze(shell.pid(), PATIENCE).expect("ours");
            let sent = Command::new("bash")
                .args(["-c", &format!("kill -{signal} {}", shell.pid())])
                .status();
            assert!(sent.expect("bash runs").success());
            assert!(shell.status("State:").starts_with('t'));
            frozen.release();
            assert_eq!(lines.next().expect("a line").expect("text"), "caught");
        }
    }

    #[test]
    fn a_stopped_process_stays_stopped() {
        let shell = Shell::start("while :; do :; done");
        let pid = Pid::from_raw(shell.pid());
        kill(pid, Signal::SIGSTOP).expect("ours");
        shell.wait_for_state('T');
        Frozen::freeze(shell.pid(), PATIENCE)
            .expect("ours")
            .release();
        shell.wait_for_state('T');
    }

    #[test]
    fn who_has_ended_cannot_be_held() {
        let mut shell = Shell::start("exit");
        shell.0.wait().expect("it ends");
        let error = Frozen::freeze(shell.pid(), PATIENCE).expect_err("no such process");
        assert!(error.to_string().contains("it has ended"), "{error}");
    }
}
