//! The workers that are followed, and the probes in them.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use memprof_ebpf::WorkerState;

use super::{
    ebpf::{Attached, Engine, EngineError, Program, program_of},
    options::{AttachOptions, Mode},
    sampler::Sampler,
    worker::{Binaries, FileId, Ready, WorkerError},
};
use crate::{
    binary::{PhpVersion, ProbeSite},
    fpm::Worker,
};

/// Up to this share of the requests, growth probes come and go with each recorded request; above
/// it they stay, and the kernel side chooses.
const MOST_SAMPLED: f64 = 0.1;
/// A chosen worker that serves no request for so long gives up its place.
const ARMED_FOR: Duration = Duration::from_secs(30);

/// What the kernel side counted in workers, ended ones included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Probe hits.
    pub hits: u64,
    /// Events handed to the ring.
    pub sent: u64,
    /// Events lost because the ring was full.
    pub lost: u64,
    /// Reads of worker memory that failed.
    pub unreadable: u64,
    /// Requests started.
    pub requests: u64,
    /// Hits that were timed.
    pub timed_hits: u64,
    /// Nanoseconds of the timed hits, without their traps.
    pub timed_ns: u64,
}

impl Counts {
    fn add(&mut self, state: &WorkerState) {
        self.hits += state.hits;
        self.sent += state.sent;
        self.lost += state.lost;
        self.unreadable += state.unreadable;
        self.requests += u64::from(state.request);
        self.timed_hits += state.timed_hits;
        self.timed_ns += state.timed_ns;
    }
}

/// One followed worker.
struct Followed {
    ready: Ready,
    /// Growth probes, where they are attached now.
    growth: Vec<Attached>,
    /// Since when the worker waits for the request to record.
    armed: Option<Instant>,
}

/// All followed workers.
pub struct Workers {
    mode: Mode,
    sample_rate: f64,
    sampler: Sampler,
    binaries: Binaries,
    /// The request probes of each executable, which sit in every process that maps it.
    request: HashMap<FileId, Attached>,
    followed: BTreeMap<i32, Followed>,
    ended: Counts,
}

impl Workers {
    /// None so far.
    #[must_use]
    pub fn new(options: &AttachOptions, seed: u64) -> Self {
        Self {
            mode: options.mode,
            sample_rate: options.sample_rate,
            sampler: Sampler::new(options.sample_rate, seed),
            binaries: Binaries::default(),
            request: HashMap::new(),
            followed: BTreeMap::new(),
            ended: Counts::default(),
        }
    }

    /// Reads a worker, proves its layout, and attaches to it.
    ///
    /// # Errors
    /// It can't be read or is not understood, or the kernel refuses a probe.
    pub fn follow(&mut self, engine: &Engine, worker: &Worker) -> Result<(), FollowError> {
        let ready = self.binaries.ready(worker)?;
        let pid = worker.process.pid;
        engine.follow(pid, ready.config)?;
        if !self.request.contains_key(&ready.file) {
            let sites = sites(&ready, Program::Request);
            let attached = engine.attach(Program::Request, &ready.path, None, &sites)?;
            self.request.insert(ready.file, attached);
        }
        let mut followed = Followed {
            ready,
            growth: Vec::new(),
            armed: None,
        };
        if self.stays_armed() {
            followed.growth = attach_growth(engine, &followed.ready, self.mode)?;
            engine.arm_share(pid, self.sample_rate)?;
        }
        self.followed.insert(pid, followed);
        Ok(())
    }

    fn stays_armed(&self) -> bool {
        self.mode != Mode::Light || self.sample_rate > MOST_SAMPLED
    }

    /// A worker has ended.
    pub fn forget(&mut self, engine: &Engine, pid: i32) {
        if let Some(state) = engine.state(pid) {
            self.ended.add(&state);
        }
        engine.forget(pid);
        if let Some(gone) = self.followed.remove(&pid) {
            let file = gone.ready.file;
            if !self.followed.values().any(|other| other.ready.file == file) {
                self.request.remove(&file);
            }
        }
    }

    /// A worker started a request: perhaps its next one is to be recorded.
    ///
    /// # Errors
    /// The kernel refuses a probe.
    pub fn request_started(&mut self, engine: &Engine, pid: i32) -> Result<(), EngineError> {
        if self.stays_armed() || !self.sampler.choose() {
            return Ok(());
        }
        let Some(followed) = self.followed.get_mut(&pid) else {
            return Ok(());
        };
        if followed.armed.is_none() {
            followed.growth = attach_growth(engine, &followed.ready, self.mode)?;
            engine.arm_once(pid)?;
            followed.armed = Some(Instant::now());
        }
        Ok(())
    }

    /// A request is over; where it was the recorded one, its worker's growth probes go.
    pub fn request_finished(&mut self, pid: i32, recorded: bool) {
        if recorded
            && let Some(followed) = self.followed.get_mut(&pid)
            && followed.armed.take().is_some()
        {
            followed.growth.clear();
        }
    }

    /// Takes the growth probes from workers that wait too long for a request.
    pub fn give_up_waiting(&mut self, engine: &Engine) {
        for (pid, followed) in &mut self.followed {
            if followed
                .armed
                .is_some_and(|since| since.elapsed() > ARMED_FOR)
            {
                engine.disarm(*pid);
                followed.armed = None;
                followed.growth.clear();
            }
        }
    }

    /// The pool of a followed worker.
    #[must_use]
    pub fn pool(&self, pid: i32) -> Option<&str> {
        self.followed.get(&pid)?.ready.worker.pool.as_deref()
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
            .map(|followed| followed.ready.binary.version)
            .collect();
        versions.sort_unstable();
        versions.dedup();
        versions
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

    /// Takes all probes away; the counters stay readable.
    pub fn detach(&mut self) {
        for followed in self.followed.values_mut() {
            followed.growth.clear();
        }
        self.request.clear();
    }
}

/// Why a worker is not followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// It can't be read.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The kernel refuses a probe.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

fn sites(ready: &Ready, program: Program) -> Vec<ProbeSite> {
    let all = ready.binary.sites.iter();
    all.filter(|site| program_of(&site.site) == program)
        .cloned()
        .collect()
}

/// The probes of a request that is recorded in full, in this worker alone.
fn attach_growth(engine: &Engine, ready: &Ready, mode: Mode) -> Result<Vec<Attached>, EngineError> {
    let pid = Some(ready.worker.process.pid);
    let mut attached = vec![engine.attach(
        Program::Growth,
        &ready.path,
        pid,
        &sites(ready, Program::Growth),
    )?];
    if let Some((path, site)) = &ready.compile_file {
        let site = std::slice::from_ref(site);
        attached.push(engine.attach(Program::Include, path, pid, site)?);
    }
    if mode == Mode::Exact {
        let sites = sites(ready, Program::Exact);
        attached.push(engine.attach(Program::Exact, &ready.path, pid, &sites)?);
    }
    Ok(attached)
}
