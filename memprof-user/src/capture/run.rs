//! One run of `memprof attach`: attach, watch, detach, write.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::IsTerminal,
    path::Path,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indexmap::IndexMap;
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use super::{
    dumps::{Dumps, slowlog_notes},
    ebpf::{Attach, Engine, EngineError, Sink, trap_ns},
    highlights::Highlights,
    options::{AttachOptions, Mode},
    output::{Output, OutputError},
    recorder::{Recorder, Step},
    watch::Watch,
    workers::{Counts, FollowError, Workers},
};
use crate::{
    fpm::{Follower, FpmError, in_first_pid_namespace},
    record::summary::{Events, Overhead, Summary},
};

/// How often the ring is emptied: at a million events a second, 50 ms fill 3 MiB of it.
const LOOK_AT_EVENTS: Duration = Duration::from_millis(50);
/// Events taken before anything else is looked at: a tenth of a second's at a million a second.
const EVENTS_AT_ONCE: usize = 100_000;
/// How often /proc is looked at for workers that came or went.
const LOOK_AT_WORKERS: Duration = Duration::from_millis(250);
/// How often stacks are described anew. opcache_reset() and a restart of opcache put other code at
/// the addresses by which the kernel side knows functions, and nothing tells of it.
const DESCRIBE_ANEW: Duration = Duration::from_secs(60);
/// How often the line on the terminal is renewed.
const STATUS: Duration = Duration::from_secs(1);
/// Linux 6.6, the first with uprobe_multi.
const UPROBE_MULTI_KERNEL: (u64, u64) = (6, 6);

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The workers can't be found.
    #[error(transparent)]
    Process(#[from] FpmError),
    /// The kernel does not do what is needed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// None of the workers can be followed; this is why the first can't.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The records can't be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Workers can't be held.
    #[error("no thread can be started that would hold workers for their dumps")]
    Threads(#[source] std::io::Error),
    /// Probes would not know the workers by the ids that memprof knows.
    #[error(
        "memprof runs in a pid namespace of its own, where process ids are not those that probes \
         see: run it on the host, or in a container with --pid=host"
    )]
    PidNamespace,
    /// The signals can't be caught.
    #[error("signal handlers can't be installed")]
    Signals(#[source] std::io::Error),
}

/// Attaches to the workers, records until the time is up or a signal comes, and writes the results.
///
/// # Errors
/// Nothing to attach to, nothing that can be attached to, or nowhere to write.
pub fn attach(options: &AttachOptions) -> Result<(), AttachError> {
    if in_first_pid_namespace() == Some(false) {
        return Err(AttachError::PidNamespace);
    }
    let stop = stop_flag()?;
    let (mut follower, found) = Follower::start(options.target.clone())?;
    let started = Timestamp::now();
    let watch = Watch::new(&options.checkpoints);
    let tails: Vec<Vec<u8>> = watch.tails().map(<[u8]>::to_vec).collect();
    let watched_lengths = watch.tail_lengths();
    let recorder = Rc::new(RefCell::new(Recorder::new(
        unix_offset(),
        options.mode == Mode::Exact,
        watch,
    )));
    let engine = Engine::load(
        attach_kind(options),
        options.ring_size_bytes,
        options.mode == Mode::Exact,
        sink(&recorder),
    )?;
    // Only now: a run that is not permitted leaves no folder behind.
    let output = Output::open(options, started)?;
    for (number, tail) in (0..).zip(&tails) {
        engine.watch(tail, number)?;
    }
    let trap_ns = trap_ns(&engine)?;
    let mut run = Run {
        options,
        dumps: Dumps::start(engine.hold_maps()?, options.dumps.as_ref())
            .map_err(AttachError::Threads)?,
        workers: Workers::new(options, watched_lengths, started.as_nanosecond() as u64),
        engine,
        recorder,
        output,
        highlights: Highlights::default(),
        trap_ns,
        requests_recorded: 0,
        errors: BTreeMap::new(),
    };
    run.warn_of_exact();
    run.follow_first(&found)?;
    run.note_slowlogs(&found);
    run.announce();
    run.watch(&mut follower, &stop)?;
    run.finish(started)
}

/// Everything that a run has in hand.
struct Run<'a> {
    options: &'a AttachOptions,
    engine: Engine,
    workers: Workers,
    recorder: Rc<RefCell<Recorder>>,
    output: Output,
    dumps: Dumps,
    highlights: Highlights,
    /// What the trap of one hit costs, in ns; `None` where it could not be measured.
    trap_ns: Option<f64>,
    requests_recorded: u64,
    errors: BTreeMap<String, u64>,
}

impl Run<'_> {
    /// Attaches to the workers that are there; it is an error only if none of them will do.
    fn follow_first(&mut self, found: &[crate::fpm::Worker]) -> Result<(), AttachError> {
        let mut first_error = None;
        for worker in found {
            if let Err(error) = self.follow(worker) {
                self.count_error(&error);
                first_error.get_or_insert(error);
            }
        }
        match first_error {
            Some(error) if self.workers.len() == 0 => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn follow(&mut self, worker: &crate::fpm::Worker) -> Result<(), FollowError> {
        self.workers.follow(&self.engine, worker)?;
        if let Some(live) = self.workers.live(worker.process.pid) {
            self.dumps.follow(worker, live);
        }
        Ok(())
    }

    fn announce(&self) {
        if self.options.quiet {
            return;
        }
        let versions: Vec<String> = self
            .workers
            .versions()
            .iter()
            .map(|version| format!("{}.{}.{}", version.major, version.minor, version.patch))
            .collect();
        let mode = self.options.mode.as_str();
        let out = self.options.out.display();
        match self.workers.len() {
            0 => eprintln!(
                "attached in {mode} mode, to no worker yet: there is none, each is followed as it \
                 comes; records go to {out}"
            ),
            count => eprintln!(
                "attached to {count} workers (PHP {}) in {mode} mode; records go to {out}",
                versions.join(", ")
            ),
        }
    }

    /// Before a worker is held: what php-fpm's own tracing means for that.
    fn note_slowlogs(&self, found: &[crate::fpm::Worker]) {
        if !self.options.quiet && self.options.dumps.is_some() {
            for note in slowlog_notes(found) {
                eprintln!("{note}");
            }
        }
    }

    /// Before exact mode starts: what it will cost.
    fn warn_of_exact(&self) {
        if self.options.mode == Mode::Exact
            && let Some(trap_ns) = self.trap_ns
        {
            eprintln!(
                "exact mode stops the workers at every allocation: about {:.0} ms for 100,000 of \
                 them in traps alone, and the stack walks come on top",
                trap_ns / 10.0
            );
        }
    }

    /// Watches until the time is up or a signal comes.
    fn watch(&mut self, follower: &mut Follower, stop: &AtomicBool) -> Result<(), AttachError> {
        let start = Instant::now();
        let mut looked = start;
        let mut described = start;
        let mut shown = start;
        let status = !self.options.quiet && std::io::stderr().is_terminal();
        while !stop.load(Ordering::Relaxed)
            && self
                .options
                .duration
                .is_none_or(|limit| start.elapsed() < limit)
        {
            let taken = self.take_events()?;
            self.settle_dumps()?;
            if looked.elapsed() >= LOOK_AT_WORKERS {
                looked = Instant::now();
                self.look_at_workers(follower)?;
            }
            if described.elapsed() >= DESCRIBE_ANEW {
                described = Instant::now();
                self.engine.forget_seen();
            }
            if status && shown.elapsed() >= STATUS {
                shown = Instant::now();
                self.show_status();
            }
            if taken < EVENTS_AT_ONCE {
                std::thread::sleep(LOOK_AT_EVENTS);
            }
        }
        if status {
            eprintln!();
        }
        Ok(())
    }

    /// Takes in what is in the ring, [`EVENTS_AT_ONCE`] at most; how many events there were.
    fn take_events(&mut self) -> Result<usize, AttachError> {
        let taken = self.engine.drain(EVENTS_AT_ONCE)?;
        let steps = self.recorder.borrow_mut().take_steps();
        for step in steps {
            match step {
                Step::Started { pid } => {
                    if let Err(error) = self.workers.request_started(&self.engine, pid) {
                        self.count_error(&FollowError::from(error));
                    }
                }
                Step::AtMoment(snapshot) => {
                    let pid = snapshot.pid;
                    let live = self.workers.live(pid).map(|live| &**live);
                    let worker = self.workers.get(pid).zip(live);
                    self.dumps.at_moment(snapshot, worker, &mut self.output)?;
                }
                Step::Finished(finished) => {
                    self.workers
                        .request_finished(finished.pid, finished.recorded);
                    self.requests_recorded += u64::from(finished.recorded);
                    let worker = self.workers.get(finished.pid);
                    let recorder = self.recorder.borrow();
                    self.highlights.add(&finished, &recorder);
                    let facts = self.dumps.facts(finished.pid, finished.number);
                    self.output.finished(&finished, worker, facts, &recorder)?;
                }
            }
        }
        Ok(taken)
    }

    /// Writes the dumps that were read, each with what was recorded until its moment.
    fn settle_dumps(&mut self) -> Result<(), AttachError> {
        let outcomes = self.dumps.outcomes();
        if !outcomes.is_empty() {
            self.take_all_events()?;
        }
        for outcome in outcomes {
            self.dumps
                .settle(outcome, &mut self.output, &mut self.highlights)?;
        }
        Ok(())
    }

    /// Takes in all that is in the ring; for when nobody fills it any more.
    fn take_all_events(&mut self) -> Result<(), AttachError> {
        while self.take_events()? == EVENTS_AT_ONCE {}
        Ok(())
    }

    fn look_at_workers(&mut self, follower: &mut Follower) -> Result<(), AttachError> {
        let change = follower.look()?;
        if !change.gone.is_empty() {
            // Their last requests may still be in the ring.
            self.take_all_events()?;
        }
        for worker in change.gone {
            self.dumps.forget(worker.process.pid);
            self.workers.forget(&self.engine, worker.process.pid);
            self.recorder.borrow_mut().forget(worker.process.pid);
        }
        for worker in change.appeared {
            if let Err(error) = self.follow(&worker) {
                self.count_error(&error);
            }
        }
        self.workers.give_up_waiting(&self.engine);
        Ok(())
    }

    fn count_error(&mut self, error: &FollowError) {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        *self.errors.entry(text).or_default() += 1;
    }

    fn show_status(&self) {
        let counts = self.workers.counts(&self.engine);
        eprint!(
            "\r{} workers, {} requests, {} recorded, {} events, {} lost\x1b[K",
            self.workers.len(),
            counts.requests,
            self.requests_recorded,
            counts.sent,
            counts.lost,
        );
    }

    /// Detaches first, then takes what is left in the ring, and writes.
    fn finish(mut self, started: Timestamp) -> Result<(), AttachError> {
        self.workers.detach();
        self.dumps.finish();
        self.take_all_events()?;
        self.settle_dumps()?;
        self.dumps.close();
        self.recorder.borrow_mut().close();
        if self.options.mode == Mode::Exact {
            self.add_exact()?;
        }
        let counts = self.workers.counts(&self.engine);
        let summary = self.summary(started, &counts);
        let duration = Duration::try_from(summary.ended.duration_since(started));
        if !self.options.quiet {
            eprint!("{}", self.highlights);
            print_summary(&summary, &self.options.out);
        }
        self.output.close(duration.unwrap_or_default(), &summary)?;
        Ok(())
    }

    fn add_exact(&mut self) -> Result<(), AttachError> {
        let mut recorder = self.recorder.borrow_mut();
        for (key, count) in self.engine.take_exact()? {
            let stack = recorder.named(key.pid, key.stack);
            self.output.add_exact(&recorder, stack, key.pid, count);
        }
        Ok(())
    }

    fn summary(&self, started: Timestamp, counts: &Counts) -> Summary {
        let recorder = self.recorder.borrow();
        let mut errors: IndexMap<String, u64> = recorder
            .errors()
            .iter()
            .map(|(cause, count)| ((*cause).to_owned(), *count))
            .collect();
        for (cause, count) in (self.errors.iter())
            .chain(self.output.errors())
            .chain(self.dumps.missed())
        {
            *errors.entry(cause.clone()).or_default() += count;
        }
        if counts.uncounted > 0 {
            let cause = "allocation calls that exact mode had no room to count";
            errors.insert(cause.to_owned(), counts.uncounted);
        }
        if counts.unreadable > 0 {
            errors.insert("reads of worker memory".to_owned(), counts.unreadable);
        }
        if counts.nested_calls > 0 {
            let cause = "queries around another one, whose own end was not seen";
            errors.insert(cause.to_owned(), counts.nested_calls);
        }
        if self.workers.without_calls() > 0 {
            let cause = "workers whose queries and models are not seen: they run under a seccomp filter, \
                         which Linux 6.11 to 6.13 would have kill them";
            errors.insert(cause.to_owned(), self.workers.without_calls());
        }
        let mut lost = IndexMap::new();
        if counts.lost > 0 {
            lost.insert("the ring buffer was full".to_owned(), counts.lost);
        }
        Summary {
            started,
            ended: Timestamp::now(),
            mode: self.options.mode.as_str().to_owned(),
            requests_seen: counts.requests,
            requests_recorded: self.requests_recorded,
            records: self.output.records().clone(),
            events: Events {
                sent: counts.sent + counts.lost,
                received: recorder.received(),
                lost: counts.lost,
            },
            lost_events: Some(lost),
            errors,
            overhead: self.overhead(counts),
        }
    }

    /// Hits times cost: the trap as calibrated, the program as timed on a sample of the hits.
    fn overhead(&self, counts: &Counts) -> Option<Overhead> {
        let trap = self.trap_ns?;
        let program = if counts.timed_hits == 0 {
            0.0
        } else {
            counts.timed_ns as f64 / counts.timed_hits as f64
        };
        let method = format!(
            "{trap:.0} ns for the trap (measured at attach on an emulated instruction), {program:.0} ns \
             for the program (measured on {} hits); what they displace from the processor's caches \
             is not in it",
            counts.timed_hits
        );
        Some(Overhead::new(
            counts.hits,
            trap + program,
            method,
            counts.requests,
        ))
    }
}

fn print_summary(summary: &Summary, out: &Path) {
    eprintln!(
        "{} requests seen, {} recorded in full; records in {}",
        summary.requests_seen,
        summary.requests_recorded,
        out.display()
    );
    for (record, count) in &summary.records {
        eprintln!("  {count} {record} records");
    }
    let lost = summary.lost_events.iter().flatten();
    for (cause, count) in lost {
        eprintln!(
            "  lost: {count} of {} events ({cause})",
            summary.events.sent
        );
    }
    for (cause, count) in &summary.errors {
        eprintln!("  error: {count} x {cause}");
    }
    if let Some(overhead) = &summary.overhead {
        let per_request = overhead
            .ms_per_request
            .map_or(String::new(), |ms| format!(", {ms:.3} ms a request"));
        eprintln!(
            "  overhead: {} hits at {:.0} ns{per_request}: {}",
            overhead.hits, overhead.ns_per_hit, overhead.method
        );
    }
}

/// Set by the first Ctrl-C or SIGTERM; the second ends the process at once.
fn stop_flag() -> Result<Arc<AtomicBool>, AttachError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(AttachError::Signals)?;
    }
    Ok(stop)
}

fn sink(recorder: &Rc<RefCell<Recorder>>) -> Sink {
    let recorder = Rc::clone(recorder);
    Rc::new(RefCell::new(move |event: super::ebpf::Event<'_>| {
        recorder.borrow_mut().event(event);
    }))
}

fn attach_kind(options: &AttachOptions) -> Attach {
    let release = nix::sys::utsname::uname();
    let release = release
        .ok()
        .and_then(|name| name.release().to_str().map(str::to_owned));
    let mut numbers = release
        .as_deref()
        .unwrap_or_default()
        .split(|letter: char| !letter.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if options.single_uprobes || version < UPROBE_MULTI_KERNEL {
        Attach::Single
    } else {
        Attach::Multi
    }
}

/// Seconds from the start of CLOCK_MONOTONIC to 1970, negated: adding it makes Unix time.
fn unix_offset() -> f64 {
    let seconds = |clock| {
        clock_gettime(clock).map_or(0.0, |time| {
            time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
        })
    };
    seconds(ClockId::CLOCK_REALTIME) - seconds(ClockId::CLOCK_MONOTONIC)
}
