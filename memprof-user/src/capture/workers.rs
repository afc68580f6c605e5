//! The workers that are followed, and the probes in them.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use memprof_ebpf::{ForcedStart, HoldConfig};
use nix::libc;
use nix::time::{ClockId, clock_gettime};

use super::{
    counts::Counts,
    ebpf::{Attached, Detacher, Engine, EngineError},
    followed::{Armed, FileId, Followed},
    hold::Keeper,
    options::{AttachOptions, Mode},
    sampler::Sampler,
    targeting::Requests,
    tracer::{MOST_HELD, Tracer},
    worker::config,
};
use crate::{
    binary::PhpVersion,
    fpm::{Builds, LiveError, LivePhp, Worker},
};

/// Up to this share of the requests, growth probes come and go with each recorded request; above
/// it they stay, and the kernel side chooses.
const MOST_SAMPLED: f64 = 0.1;
/// A chosen worker that serves no request for so long gives up its place.
const ARMED_FOR: Duration = Duration::from_secs(30);

/// All followed workers.
pub struct Workers {
    /// `None` while no probe is held.
    mode: Option<Mode>,
    /// One sample in so many is taken of those configured.
    one_in: u32,
    options: AttachOptions,
    requests: Rc<Requests>,
    /// As [`Watch::tail_lengths`](super::watch::Watch::tail_lengths) has them.
    watched_lengths: u64,
    sampler: Sampler,
    builds: Builds,
    hold: HoldConfig,
    detacher: Detacher,
    /// Dumps what the tracer traces; `None` where no dumps are wanted.
    keeper: Option<Keeper>,
    /// In targeted mode.
    tracer: Option<Tracer>,
    /// The request probes of each executable, which sit in every process that maps it.
    request: HashMap<FileId, Vec<Attached>>,
    followed: BTreeMap<i32, Followed>,
    /// PHP functions of workers that should be watched and can't be probed.
    unwatched_calls: u64,
    ended: Counts,
}

impl Workers {
    /// None so far, and no probe.
    #[must_use]
    pub fn new(
        options: &AttachOptions,
        requests: Rc<Requests>,
        watched_lengths: u64,
        keeper: Option<Keeper>,
        seed: u64,
    ) -> Self {
        Self {
            mode: None,
            one_in: 1,
            options: options.clone(),
            requests,
            watched_lengths,
            sampler: Sampler::new(options.sample_rate_in(Mode::Light), seed),
            builds: Builds::default(),
            hold: options.hold_config(),
            detacher: Detacher::start(),
            keeper,
            tracer: None,
            request: HashMap::new(),
            followed: BTreeMap::new(),
            unwatched_calls: 0,
            ended: Counts::default(),
        }
    }

    /// Reads a worker, proves its layout, and attaches to it as the mode has it.
    ///
    /// # Errors
    /// It can't be read or is not understood, or the kernel refuses a probe.
    pub fn follow(&mut self, engine: &Engine, worker: &Worker) -> Result<(), FollowError> {
        let live = self.builds.live(worker.process)?;
        let mut followed = Followed::new(worker, live)?;
        if let Some(mode) = self.mode {
            self.probe(engine, &mut followed, mode)?;
        }
        self.followed.insert(worker.process.pid, followed);
        Ok(())
    }

    /// Attaches to a worker; all of it or, where something is refused, nothing.
    fn probe(
        &mut self,
        engine: &Engine,
        followed: &mut Followed,
        mode: Mode,
    ) -> Result<(), FollowError> {
        let pid = followed.worker.process.pid;
        let mut known = config(&followed.live, followed.worker.parent, self.hold)?;
        known.watched_lengths = self.watched_lengths;
        engine.follow(pid, known)?;
        if mode != Mode::Light {
            self.unwatched_calls += followed.call_sites().unwatched;
        }
        let probed = self
            .probe_requests(engine, followed)
            .and_then(|()| self.arm(engine, followed, mode));
        if probed.is_err() {
            // Else its request probes would go on, and nobody would take in what they send.
            engine.forget(pid);
            followed.detach_growth(&self.detacher);
        }
        Ok(probed?)
    }

    fn probe_requests(&mut self, engine: &Engine, followed: &Followed) -> Result<(), EngineError> {
        if let Entry::Vacant(unprobed) = self.request.entry(followed.file) {
            unprobed.insert(followed.attach_request(engine)?);
        }
        Ok(())
    }

    /// Has a worker's requests recorded in full as the mode has it.
    fn arm(&self, engine: &Engine, followed: &mut Followed, mode: Mode) -> Result<(), EngineError> {
        let pid = followed.worker.process.pid;
        if self.stays_armed(mode) {
            followed.attach_growth(engine, mode)?;
            followed.armed = None;
            return engine.arm_share(pid, self.sample_rate(mode));
        }
        engine.disarm(pid);
        followed.release_growth(engine, &self.detacher);
        match &self.tracer {
            // What blocks or handles the signal would not stop at it.
            Some(tracer)
                if followed.live.process.leaves_alone(libc::SIGURG)
                    && tracer.seize(pid).is_ok() =>
            {
                engine.arm_share(pid, 1.0)
            }
            // What is forced in it is counted as untraced.
            _ => Ok(()),
        }
    }

    /// The share of the requests that are recorded in full now, 0 to 1.
    fn sample_rate(&self, mode: Mode) -> f64 {
        self.options.sample_rate_in(mode) / f64::from(self.one_in)
    }

    /// Takes one sample in so many of those configured, from now on.
    ///
    /// # Errors
    /// The kernel side can't be told.
    pub fn thin(&mut self, engine: &Engine, one_in: u32) -> Result<(), EngineError> {
        self.one_in = one_in;
        self.sampler.set_rate(self.sample_rate(Mode::Light));
        let Some(mode) = self.mode.filter(|mode| self.stays_armed(*mode)) else {
            return Ok(());
        };
        for pid in self.followed.keys() {
            engine.arm_share(*pid, self.sample_rate(mode))?;
        }
        Ok(())
    }

    fn stays_armed(&self, mode: Mode) -> bool {
        match mode {
            Mode::Aggressive | Mode::Exact => true,
            Mode::Light => self.options.sample_rate_in(mode) > MOST_SAMPLED,
            Mode::Targeted => false,
        }
    }

    /// Goes over to another mode, or takes all probes away. Workers that can't follow are given up;
    /// the errors say why.
    ///
    /// # Errors
    /// The kernel side can't be told.
    pub fn switch(
        &mut self,
        engine: &Engine,
        mode: Option<Mode>,
    ) -> Result<Vec<(i32, FollowError)>, EngineError> {
        let before = std::mem::replace(&mut self.mode, mode);
        // What the one before held goes on.
        self.tracer = None;
        if mode == Some(Mode::Targeted) {
            self.tracer = Some(Tracer::start(self.keeper.clone()).map_err(EngineError::Tracer)?);
        }
        let Some(mode) = mode else {
            self.detach_soon();
            for pid in self.followed.keys() {
                self.ended.forget(engine, *pid);
            }
            return Ok(Vec::new());
        };
        engine.target(&self.requests.in_mode(mode))?;
        let mut errors = Vec::new();
        for (pid, mut followed) in std::mem::take(&mut self.followed) {
            let switched = match before {
                None => self.probe(engine, &mut followed, mode),
                Some(_) => self.arm(engine, &mut followed, mode).map_err(Into::into),
            };
            match switched {
                Ok(()) => {
                    self.followed.insert(pid, followed);
                }
                Err(error) => {
                    self.ended.forget(engine, pid);
                    errors.push((pid, error));
                }
            }
        }
        Ok(errors)
    }

    /// A worker has ended.
    pub fn forget(&mut self, engine: &Engine, pid: i32) {
        self.ended.forget(engine, pid);
        if let Some(gone) = self.followed.remove(&pid) {
            let file = gone.file;
            if !self.followed.values().any(|other| other.file == file) {
                self.detacher
                    .detach(self.request.remove(&file).unwrap_or_default());
            }
        }
    }

    /// A worker started a request that may be recorded: perhaps its next one is to be.
    ///
    /// # Errors
    /// The kernel refuses a probe.
    pub fn request_started(&mut self, engine: &Engine, pid: i32) -> Result<(), EngineError> {
        let samples = self.mode == Some(Mode::Light) && !self.stays_armed(Mode::Light);
        if !samples || !self.sampler.choose() {
            return Ok(());
        }
        let Some(followed) = self.followed.get_mut(&pid) else {
            return Ok(());
        };
        if followed.armed.is_none() {
            followed.attach_growth(engine, Mode::Light)?;
            engine.arm_once(pid)?;
            followed.armed = Some(Armed {
                since: Instant::now(),
                request: None,
            });
        }
        Ok(())
    }

    /// A worker stops for a forced request: it goes on when its growth probes are there. Whether
    /// they came in time.
    ///
    /// # Errors
    /// The kernel refuses a probe; the worker goes on.
    pub fn request_forced(
        &mut self,
        engine: &Engine,
        start: ForcedStart,
    ) -> Result<bool, EngineError> {
        let pid = start.pid.cast_signed();
        let (Some(followed), Some(tracer)) = (self.followed.get_mut(&pid), &self.tracer) else {
            return Ok(false);
        };
        let attached = followed.attach_growth(engine, Mode::Targeted);
        // After that the worker went on by itself.
        let in_time = since(start.time) < MOST_HELD;
        if in_time {
            followed.armed = Some(Armed {
                since: Instant::now(),
                request: Some(start.request),
            });
            tracer.go_on(pid);
        }
        if !in_time || attached.is_err() {
            followed.detach_growth(&self.detacher);
        }
        attached.map(|()| in_time)
    }

    /// A recorded request is over.
    pub fn request_finished(&mut self, pid: i32, request: u32) {
        if let Some(followed) = self.followed.get_mut(&pid) {
            followed.request_finished(request, &self.detacher);
        }
    }

    /// Takes the growth probes from workers that wait too long for a request.
    pub fn give_up_waiting(&mut self, engine: &Engine) {
        for (pid, followed) in &mut self.followed {
            if followed
                .armed
                .is_some_and(|armed| armed.since.elapsed() > ARMED_FOR)
            {
                engine.disarm(*pid);
                followed.release_growth(engine, &self.detacher);
            }
        }
    }

    /// A followed worker.
    #[must_use]
    pub fn get(&self, pid: i32) -> Option<&Worker> {
        Some(&self.followed.get(&pid)?.worker)
    }

    /// The memory of a followed worker.
    #[must_use]
    pub fn live(&self, pid: i32) -> Option<&Arc<LivePhp>> {
        Some(&self.followed.get(&pid)?.live)
    }

    /// How many workers are followed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.followed.len()
    }

    /// The PHP versions among them.
    #[must_use]
    pub fn versions(&self) -> Vec<PhpVersion> {
        let mut versions: Vec<_> = self
            .followed
            .values()
            .map(|followed| followed.live.binary.version)
            .collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }

    /// PHP functions of workers that should be watched and can't be probed.
    #[must_use]
    pub fn unwatched_calls(&self) -> u64 {
        self.unwatched_calls
    }

    /// What the kernel side counted so far.
    #[must_use]
    pub fn counts(&self, engine: &Engine) -> Counts {
        let mut counts = self.ended;
        for pid in self.followed.keys() {
            if let Some(state) = engine.state(*pid) {
                counts.add(&state);
            }
        }
        counts
    }

    /// The mode; `None` while no probe is held.
    #[must_use]
    pub fn mode(&self) -> Option<Mode> {
        self.mode
    }

    /// Takes all probes away, and returns when they are; the counters stay readable.
    pub fn detach(&mut self) {
        self.tracer = None;
        self.detach_soon();
        // The one before waits for them when it is dropped.
        self.detacher = Detacher::start();
    }

    fn detach_soon(&mut self) {
        for followed in self.followed.values_mut() {
            followed.detach_growth(&self.detacher);
        }
        self.detacher.detach(
            self.request
                .drain()
                .flat_map(|(_, probes)| probes)
                .collect(),
        );
    }
}

/// The time since a moment of CLOCK_MONOTONIC, in ns.
fn since(moment: u64) -> Duration {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::MAX, Duration::from);
    now.saturating_sub(Duration::from_nanos(moment))
}

/// Why a worker is not followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// It can't be read.
    #[error(transparent)]
    Worker(#[from] LiveError),
    /// The kernel refuses a probe.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
