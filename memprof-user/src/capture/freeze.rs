//! Holds one process still for the milliseconds that it takes to read it.
//!
//! PTRACE_SEIZE and PTRACE_INTERRUPT, never SIGSTOP: the process's parent sees no stop, and the kernel
//! lets the process go on when memprof ends, however it ends. Signals that reach the process meanwhile
//! are delivered when it goes on.

use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::tracee::{Stop, Tracee};

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
#[derive(Debug)]
pub struct Frozen {
    /// `None` once it was let go.
    tracee: Option<Tracee>,
    stop: Option<Stop>,
    since: Instant,
}

impl Frozen {
    /// Holds a process still, within `patience`.
    ///
    /// # Errors
    /// [`FreezeError`]; the process then goes on as if nothing had been.
    pub fn freeze(pid: i32, patience: Duration) -> Result<Frozen, FreezeError> {
        let refused = |errno| FreezeError::Refused { pid, errno };
        let mut frozen = Frozen {
            tracee: Some(Tracee::seize(pid).map_err(refused)?),
            stop: None,
            since: Instant::now(),
        };
        if let Some(tracee) = &frozen.tracee {
            tracee.interrupt().map_err(refused)?;
        }
        frozen.wait(frozen.since + patience).map_err(refused)?;
        if frozen.stop.is_none() {
            return Err(FreezeError::NotStopped {
                pid,
                waited: patience,
            });
        }
        Ok(frozen)
    }

    /// When the process was told to stop.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Lets the process go on; tells for how long it was held.
    pub fn release(mut self) -> Duration {
        self.let_go();
        self.since.elapsed()
    }

    /// Waits for the stop until `deadline`.
    fn wait(&mut self, deadline: Instant) -> Result<(), Errno> {
        let Some(tracee) = &self.tracee else {
            return Ok(());
        };
        while self.stop.is_none() {
            self.stop = tracee.look()?;
            if self.stop.is_none() {
                if Instant::now() >= deadline {
                    break;
                }
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    fn let_go(&mut self) {
        // Only what stands still can be let go. What stops later is let go by the kernel, when this
        // thread ends; until then it has to be waited for.
        let _ = self.wait(Instant::now() + Duration::from_secs(1));
        if let (Some(tracee), Some(stop)) = (self.tracee.take(), self.stop) {
            let signal = match stop {
                Stop::Signal(signal) => signal,
                Stop::Group | Stop::Own => 0,
            };
            // It fails only where the process was killed meanwhile.
            let _ = tracee.detach(signal);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if self.tracee.is_some() {
            self.let_go();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

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
