//! One run of `memprof attach`: attach, watch, detach, write.

mod error;
mod start;
mod steer;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::IsTerminal,
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use indexmap::IndexMap;
use jiff::Timestamp;

use super::{
    closing::{self, overhead},
    counts::Counts,
    dumps::{Dumps, slowlog_notes},
    ebpf::{Engine, Room, trap_ns},
    highlights::Highlights,
    options::{AttachOptions, Mode},
    output::Output,
    privileges::give_up_unneeded,
    recorder::{Recorder, Step},
    targeting::Requests,
    tracer::prepare_signals,
    watch::Watch,
    workers::{FollowError, Workers},
};
use crate::{
    fpm::{Follower, in_first_pid_namespace},
    record::summary::{Events, Summary},
};
pub use error::AttachError;
use start::{attach_kind, monotonic_seconds, sink, stop_flag, unix_offset};
use steer::Steering;

/// How often the ring is emptied: at a million events a second, 50 ms fill 3 MiB of it.
const LOOK_AT_EVENTS: Duration = Duration::from_millis(50);
/// Events taken before anything else is looked at: a tenth of a second's at a million a second.
const EVENTS_AT_ONCE: usize = 100_000;
/// How often /proc is looked at for workers that came or went.
const LOOK_AT_WORKERS: Duration = Duration::from_millis(250);
/// How often stacks are described anew. opcache_reset() and a restart of opcache put other code at
/// the addresses by which the kernel side knows functions, and nothing tells of it.
const DESCRIBE_ANEW: Duration = Duration::from_secs(60);
/// The time in which `--force-limit` forced requests are recorded at most; as often the folder is tidied.
const PERMIT_FORCED: Duration = Duration::from_secs(60);
/// How often the line on the terminal is renewed.
const STATUS: Duration = Duration::from_secs(1);

/// Attaches to the workers, records until the time is up or a signal comes, and writes the results.
///
/// # Errors
/// Nothing to attach to, nothing that can be attached to, or nowhere to write.
pub fn attach(options: &AttachOptions) -> Result<(), AttachError> {
    if in_first_pid_namespace() == Some(false) {
        return Err(AttachError::PidNamespace);
    }
    let stop = stop_flag()?;
    prepare_signals().map_err(AttachError::Signals)?;
    let privileges = give_up_unneeded(attach_kind(options));
    let steering = Steering::start(options)?;
    let (mut follower, found) = Follower::start(options.target.clone())?;
    let started = Timestamp::now();
    let mut run = Run::begin(options, steering, started)?;
    if let Err(error) = privileges {
        run.count_cause(&error);
    }
    run.warn_of_exact();
    run.engine.permit_forced(options.force.most_a_minute)?;
    run.output.tidy();
    run.follow_schedule()?;
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
    steering: Steering,
    /// Whether people know of the mode.
    is_announced: bool,
    /// What the trap of one hit costs, in ns; `None` where it could not be measured.
    trap_ns: Option<f64>,
    /// What the program of one hit takes, in ns, as timed so far.
    program_ns: f64,
    requests_recorded: u64,
    errors: BTreeMap<String, u64>,
}

impl<'a> Run<'a> {
    /// Loads the programs and opens the records; nothing is attached yet.
    fn begin(
        options: &'a AttachOptions,
        steering: Steering,
        started: Timestamp,
    ) -> Result<Self, AttachError> {
        let requests = Rc::new(Requests::new(options)?);
        let watch = Watch::new(&options.checkpoints);
        let tails: Vec<Vec<u8>> = watch.tails().map(<[u8]>::to_vec).collect();
        let watched_lengths = watch.tail_lengths();
        let recorder = Rc::new(RefCell::new(Recorder::new(
            Rc::clone(&requests),
            unix_offset(),
            options.mode == Mode::Exact,
            watch,
        )));
        let engine = Engine::load(
            attach_kind(options),
            Room {
                ring_bytes: options.ring_size_bytes,
                exact: options.mode == Mode::Exact,
            },
            sink(&recorder),
        )?;
        // Only now: a run that is not permitted leaves no folder behind.
        let output = Output::open(options, started)?;
        for (number, tail) in (0..).zip(&tails) {
            engine.watch(tail, number)?;
        }
        let trap_ns = trap_ns(&engine)?;
        let dumps = Dumps::start(engine.hold_maps()?, options.dumps.as_ref())
            .map_err(AttachError::Threads)?;
        Ok(Self {
            options,
            workers: Workers::new(
                options,
                requests,
                watched_lengths,
                dumps.keeper(),
                started.as_nanosecond() as u64,
            ),
            dumps,
            engine,
            recorder,
            output,
            highlights: Highlights::default(),
            steering,
            is_announced: false,
            trap_ns,
            program_ns: 0.0,
            requests_recorded: 0,
            errors: BTreeMap::new(),
        })
    }
}

impl Run<'_> {
    /// Attaches to the workers that are there; it is an error only if none of them will do. One that has
    /// ended meanwhile is none: its successor will be followed.
    fn follow_first(&mut self, found: &[crate::fpm::Worker]) -> Result<(), AttachError> {
        let mut first_error = None;
        for worker in found {
            if let Err(error) = self.follow(worker) {
                self.count_cause(&error);
                if worker.process.is_running() {
                    first_error.get_or_insert(error);
                }
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

    fn announce(&mut self) {
        self.is_announced = true;
        if self.options.quiet {
            return;
        }
        let versions: Vec<String> = self
            .workers
            .versions()
            .iter()
            .map(|version| format!("{}.{}.{}", version.major, version.minor, version.patch))
            .collect();
        if let Some(error) = &self.steering.unreachable {
            eprintln!("`memprof mode` and `memprof disable` can't reach this run: {error}");
        }
        let out = self.options.out.display();
        let Some(mode) = self.workers.mode() else {
            let reason = self.steering.reason();
            eprintln!("not attached yet: {reason}; records go to {out}");
            return;
        };
        let mode = mode.as_str();
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
        let mut permitted = start;
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
                self.steer()?;
            }
            if described.elapsed() >= DESCRIBE_ANEW {
                described = Instant::now();
                self.engine.forget_seen();
            }
            if permitted.elapsed() >= PERMIT_FORCED {
                permitted = Instant::now();
                self.engine
                    .permit_forced(self.options.force.most_a_minute)?;
                self.output.tidy();
            }
            if status && shown.elapsed() >= STATUS {
                shown = Instant::now();
                self.show_status();
            }
            let is_drained = taken < EVENTS_AT_ONCE;
            self.wait(if is_drained {
                LOOK_AT_EVENTS
            } else {
                Duration::ZERO
            })?;
        }
        if status {
            eprintln!();
        }
        Ok(())
    }

    /// Waits for workers that stop for a forced request, and lets them go on.
    fn wait(&mut self, patience: Duration) -> Result<(), AttachError> {
        for start in self.engine.wait(patience)? {
            let in_time = self.workers.request_forced(&self.engine, start);
            let went_on = monotonic_seconds();
            // Its start is in the ring by now.
            self.take_all_events()?;
            let is_recorded = in_time.unwrap_or_else(|error| {
                self.count_cause(&error);
                false
            });
            let mut recorder = self.recorder.borrow_mut();
            if is_recorded {
                recorder.went_on(start.pid, start.request, went_on);
            } else {
                recorder.give_up(start.pid, start.request);
            }
        }
        Ok(())
    }

    /// Takes in what is in the ring, [`EVENTS_AT_ONCE`] at most; how many events there were.
    fn take_events(&mut self) -> Result<usize, AttachError> {
        let taken = self.engine.drain(EVENTS_AT_ONCE)?;
        let steps = self.recorder.borrow_mut().take_steps();
        for step in steps {
            match step {
                Step::Started { pid, is_meant } => {
                    if !is_meant {
                        continue;
                    }
                    if let Err(error) = self.workers.request_started(&self.engine, pid) {
                        self.count_cause(&error);
                    }
                }
                Step::AtMoment(snapshot) => {
                    let pid = snapshot.pid;
                    let live = self.workers.live(pid).map(|live| &**live);
                    let worker = self.workers.get(pid).zip(live);
                    self.dumps.at_moment(snapshot, worker, &mut self.output)?;
                }
                Step::Finished(finished) => {
                    if finished.recorded {
                        self.workers.request_finished(finished.pid, finished.number);
                    }
                    self.requests_recorded += u64::from(finished.recorded);
                    if !finished.is_meant {
                        continue;
                    }
                    self.judge(&finished);
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
                self.count_cause(&error);
            }
        }
        self.workers.give_up_waiting(&self.engine);
        Ok(())
    }

    /// Counts an error by its text.
    fn count_cause(&mut self, error: &dyn std::error::Error) {
        let mut text = error.to_string();
        let mut source = error.source();
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
            closing::print(&summary, &self.options.out);
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
        errors.extend(
            counts
                .errors()
                .map(|(cause, count)| (cause.to_owned(), count)),
        );
        if self.workers.unwatched_calls() > 0 {
            let cause = "database functions that can't be probed: what they do is not seen";
            errors.insert(cause.to_owned(), self.workers.unwatched_calls());
        }
        let mut lost = IndexMap::new();
        let causes = [
            ("the ring buffer was full", counts.lost - counts.busy),
            (
                "another worker's hit was under way on the processor",
                counts.busy,
            ),
        ];
        for (cause, count) in causes.into_iter().filter(|(_, count)| *count > 0) {
            lost.insert(cause.to_owned(), count);
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
            overhead: overhead(self.trap_ns, counts),
            guard: self.steering.findings().to_vec(),
        }
    }
}
