//! Holds workers at the start of a forced request, until their probes are attached.
//!
//! A thread traces the workers by PTRACE_SEIZE, which changes nothing for them. The kernel side sends
//! SIGURG where a forced request starts: a traced worker stops at it before its next instruction, any
//! other ignores it. All other signals are passed on at once. Where such a worker comes to a moment that is
//! worth a dump, it is this thread that reads it. Should memprof die, the kernel lets the
//! workers go on.

use std::{
    collections::HashMap,
    io,
    os::fd::AsFd,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        signal::{SigHandler, SigSet, Signal, signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

use super::{
    hold::Keeper,
    tracee::{Stop, Tracee},
};

/// A worker is not held for longer, whatever becomes of its probes.
pub const MOST_HELD: Duration = Duration::from_millis(500);
/// How often the workers are looked at although nothing was heard of them.
const LOOK: Duration = Duration::from_millis(250);

/// Has the tracer's thread hear of its workers, and not be suspended while it holds one; to be called
/// before any thread is started.
///
/// # Errors
/// What the kernel says.
pub fn prepare_signals() -> io::Result<()> {
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGTSTP, SigHandler::SigIgn) }?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    Ok(signals.thread_block()?)
}

/// The thread that traces, until this is dropped.
#[derive(Debug)]
pub struct Tracer {
    /// `None` only while this is dropped.
    commands: Option<Sender<Command>>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Command {
    Seize(i32, Sender<Result<(), Errno>>),
    GoOn(i32),
}

impl Tracer {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn start(keeper: Option<Keeper>) -> io::Result<Self> {
        let (sender, commands) = channel();
        let wake = Arc::new(EventFd::from_flags(
            EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC,
        )?);
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGCHLD);
        let stops = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let of_thread = Arc::clone(&wake);
        let thread = thread::Builder::new()
            .name("tracer".to_owned())
            .spawn(move || Tracing::new(commands, keeper).run(&of_thread, &stops))?;
        Ok(Self {
            commands: Some(sender),
            wake,
            thread: Some(thread),
        })
    }

    /// Begins to trace a worker.
    ///
    /// # Errors
    /// EPERM where it is traced already, by php-fpm's slowlog for example, or the capability is
    /// missing; ESRCH where it has ended.
    pub fn seize(&self, pid: i32) -> Result<(), Errno> {
        let (sender, answer) = channel();
        self.command(Command::Seize(pid, sender));
        answer.recv().unwrap_or(Err(Errno::ESRCH))
    }

    /// Lets a worker go on that stops for a forced request, now or as soon as it stops.
    pub fn go_on(&self, pid: i32) {
        self.command(Command::GoOn(pid));
    }

    fn command(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // Without its thread nothing is traced.
            let _ = commands.send(command);
            let _ = self.wake.write(1);
        }
    }
}

impl Drop for Tracer {
    /// Lets all workers go: the kernel does when the thread ends.
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.wake.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        for pid in self.traced.keys() {
            if let Some(keeper) = &self.keeper {
                keeper.give_up(*pid);
            }
        }
    }
}

/// What the thread has in hand.
struct Tracing {
    commands: Receiver<Command>,
    /// Dumps the workers; `None` where no dumps are wanted.
    keeper: Option<Keeper>,
    traced: HashMap<i32, Traced>,
}

/// One worker that is traced.
struct Traced {
    pid: i32,
    tracee: Tracee,
    /// Stops for dumps that were seen.
    stops: u64,
    /// Since when it is held.
    held: Option<Instant>,
    /// It was told to go on before its stop was seen.
    told: Option<Instant>,
}

impl Tracing {
    fn new(commands: Receiver<Command>, keeper: Option<Keeper>) -> Self {
        Self {
            commands,
            keeper,
            traced: HashMap::new(),
        }
    }

    /// Ends with the tracer.
    fn run(&mut self, wake: &EventFd, stops: &SignalFd) {
        loop {
            let mut files = [
                PollFd::new(wake.as_fd(), PollFlags::POLLIN),
                PollFd::new(stops.as_fd(), PollFlags::POLLIN),
            ];
            let patience = u16::try_from(LOOK.as_millis()).unwrap_or(u16::MAX);
            // Whatever it says, the workers are looked at.
            let _ = poll(&mut files, PollTimeout::from(patience));
            let _ = wake.read();
            while let Ok(Some(_)) = stops.read_signal() {}
            loop {
                match self.commands.try_recv() {
                    Ok(command) => self.obey(command),
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                }
            }
            let keeper = self.keeper.as_ref();
            self.traced.retain(|_, traced| traced.look(keeper).is_ok());
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Seize(pid, answer) => {
                let seized = Tracee::seize(pid).map(|tracee| {
                    let keeper = self.keeper.as_ref();
                    let traced = Traced {
                        pid,
                        tracee,
                        stops: keeper.map_or(0, |keeper| keeper.keep(pid)),
                        held: None,
                        told: None,
                    };
                    self.traced.insert(pid, traced);
                });
                // Nobody waits for it any more where this fails.
                let _ = answer.send(seized);
            }
            Command::GoOn(pid) => {
                if let Some(traced) = self.traced.get_mut(&pid) {
                    traced.told = Some(Instant::now());
                }
            }
        }
    }
}

impl Traced {
    /// Lets the worker go on from each stop that it has come to; an error when it has ended.
    fn look(&mut self, keeper: Option<&Keeper>) -> Result<(), Errno> {
        if self.held.is_none() {
            while let Some(stop) = self.tracee.look()? {
                // What fails here was killed meanwhile, and the next look tells of its end.
                let _ = match stop {
                    Stop::Signal(libc::SIGURG) if self.is_dumped(keeper) => Ok(()),
                    Stop::Signal(libc::SIGURG) if self.is_ours() => {
                        self.held = Some(Instant::now());
                        break;
                    }
                    Stop::Signal(signal) => self.tracee.go_on(signal),
                    Stop::Group => self.tracee.listen(),
                    Stop::Own => self.tracee.go_on(0),
                };
            }
        }
        let is_over = |since: Instant| since.elapsed() >= MOST_HELD;
        // What was told for a stop that never came does not stand for the next.
        self.told = self.told.filter(|told| !is_over(*told));
        if self
            .held
            .is_some_and(|held| self.told.is_some() || is_over(held))
        {
            self.held = None;
            self.told = None;
            let _ = self.tracee.go_on(0);
        }
        Ok(())
    }

    /// Whether the worker stopped for a dump; then it was read, and goes on.
    fn is_dumped(&mut self, keeper: Option<&Keeper>) -> bool {
        let Some(keeper) = keeper.filter(|_| self.is_ours()) else {
            return false;
        };
        keeper.at_stop(&self.tracee, self.pid, &mut self.stops)
    }

    /// Whether the signal comes from the kernel side and not from another process.
    fn is_ours(&self) -> bool {
        self.tracee
            .signal_code()
            .is_ok_and(|code| code == libc::SI_KERNEL)
    }
}
