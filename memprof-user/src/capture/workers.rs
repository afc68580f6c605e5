//! The workers that are followed, and the probes in them.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use memprof_ebpf::{HoldConfig, WorkerState};

use super::{
    calls::{self, CallSites},
    ebpf::{Attached, Engine, EngineError, Program, program_of},
    options::{AttachOptions, Mode},
    sampler::Sampler,
    worker::config,
};
use crate::{
    binary::{PhpVersion, ProbeSite, Site},
    fpm::{Builds, LiveError, LivePhp, MappedSite, Worker},
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
    /// Calls that exact mode had no room to count.
    pub uncounted: u64,
    /// Reads of worker memory that failed.
    pub unreadable: u64,
    /// Watched PHP calls that ran inside another one.
    pub nested_calls: u64,
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
        self.uncounted += state.uncounted;
        self.unreadable += state.unreadable;
        self.nested_calls += state.nested_calls;
        self.requests += u64::from(state.request);
        self.timed_hits += state.timed_hits;
        self.timed_ns += state.timed_ns;
    }
}

/// An executable by its device and inode: probes belong to it and not to a process.
type FileId = (u64, u64);

/// One followed worker.
struct Followed {
    worker: Worker,
    live: Arc<LivePhp>,
    file: FileId,
    /// Where files are compiled; `None` where that can't be probed.
    compile_file: Option<MappedSite>,
    /// The PHP functions that are watched, by the file that they are in.
    calls: Vec<CallSites>,
    /// Growth probes, where they are attached now.
    growth: Vec<Attached>,
    /// Since when the worker waits for the request to record.
    armed: Option<Instant>,
}

/// All followed workers.
pub struct Workers {
    mode: Mode,
    sample_rate: f64,
    /// As [`Watch::tail_lengths`](super::watch::Watch::tail_lengths) has them.
    watched_lengths: u64,
    sampler: Sampler,
    builds: Builds,
    hold: HoldConfig,
    /// The request probes of each executable, which sit in every process that maps it.
    request: HashMap<FileId, Vec<Attached>>,
    followed: BTreeMap<i32, Followed>,
    /// Workers whose PHP functions are not watched, because that could kill them.
    without_calls: u64,
    ended: Counts,
}

impl Workers {
    /// None so far.
    #[must_use]
    pub fn new(options: &AttachOptions, watched_lengths: u64, seed: u64) -> Self {
        Self {
            mode: options.mode,
            sample_rate: options.sample_rate,
            watched_lengths,
            sampler: Sampler::new(options.sample_rate, seed),
            builds: Builds::default(),
            hold: options.hold_config(),
            request: HashMap::new(),
            followed: BTreeMap::new(),
            without_calls: 0,
            ended: Counts::default(),
        }
    }

    /// Reads a worker, proves its layout, and attaches to it.
    ///
    /// # Errors
    /// It can't be read or is not understood, or the kernel refuses a probe.
    pub fn follow(&mut self, engine: &Engine, worker: &Worker) -> Result<(), FollowError> {
        let followed = self.attach_to(engine, worker);
        match followed {
            Ok(followed) => {
                self.followed.insert(worker.process.pid, followed);
                Ok(())
            }
            Err(error) => {
                // Else its request probes would go on, and nobody would take in what they send.
                engine.forget(worker.process.pid);
                Err(error)
            }
        }
    }

    fn attach_to(&mut self, engine: &Engine, worker: &Worker) -> Result<Followed, FollowError> {
        let live = self.builds.live(worker.process)?;
        let executable = worker.process.executable().map_err(LiveError::from)?;
        let pid = worker.process.pid;
        let mut known = config(&live, worker.parent, self.hold)?;
        known.watched_lengths = self.watched_lengths;
        engine.follow(pid, known)?;
        let mut followed = Followed {
            worker: worker.clone(),
            file: (executable.device, executable.inode),
            compile_file: live.compile_file_site().ok(),
            calls: self.call_sites(&live),
            live: Arc::new(live),
            growth: Vec::new(),
            armed: None,
        };
        if let Entry::Vacant(unprobed) = self.request.entry(followed.file) {
            unprobed.insert(followed.attach_request(engine)?);
        }
        if self.stays_armed() {
            followed.attach_growth(engine, self.mode)?;
            engine.arm_share(pid, self.sample_rate)?;
        }
        Ok(followed)
    }

    /// The PHP functions to watch; none where watching could kill the worker.
    fn call_sites(&mut self, live: &LivePhp) -> Vec<CallSites> {
        if self.mode == Mode::Light {
            return Vec::new();
        }
        if calls::returns_could_kill(live.process.pid) {
            self.without_calls += 1;
            return Vec::new();
        }
        calls::sites(live)
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
            let file = gone.file;
            if !self.followed.values().any(|other| other.file == file) {
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
            followed.attach_growth(engine, self.mode)?;
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

    /// Workers whose queries and models are not seen: they run under a seccomp filter on a kernel that
    /// would kill them for it.
    #[must_use]
    pub fn without_calls(&self) -> u64 {
        self.without_calls
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
    Worker(#[from] LiveError),
    /// The kernel refuses a probe.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Followed {
    /// Opens the executable whatever happened to it on disk.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/exe", self.worker.process.pid))
    }

    fn sites(&self, program: Program) -> Vec<ProbeSite> {
        let all = self.live.binary.sites.iter();
        all.filter(|site| program_of(&site.site) == program)
            .cloned()
            .collect()
    }

    /// The probes of every request, in all processes that map the executable.
    fn attach_request(&self, engine: &Engine) -> Result<Vec<Attached>, EngineError> {
        let path = self.path();
        let sites = self.sites(Program::Request);
        let (limit, _): (Vec<_>, Vec<_>) =
            (sites.iter().cloned()).partition(|site| matches!(site.site, Site::LimitError { .. }));
        Ok(vec![
            engine.attach(Program::Request, &path, None, &sites)?,
            engine.attach(Program::Hold, &path, None, &limit)?,
        ])
    }

    /// The probes of a request that is recorded in full, in this worker alone.
    fn attach_growth(&mut self, engine: &Engine, mode: Mode) -> Result<(), EngineError> {
        let pid = Some(self.worker.process.pid);
        let path = self.path();
        let sites = self.sites(Program::Growth);
        // All or none: what is attached in part goes where one fails.
        let mut growth = vec![engine.attach(Program::Growth, &path, pid, &sites)?];
        if let Some(MappedSite { path, site, .. }) = &self.compile_file {
            let site = std::slice::from_ref(site);
            growth.push(engine.attach(Program::Include, path, pid, site)?);
        }
        for CallSites {
            path,
            begins,
            returns,
        } in &self.calls
        {
            growth.push(engine.attach(Program::Call, path, pid, begins)?);
            if !returns.is_empty() {
                growth.push(engine.attach(Program::CallReturn, path, pid, returns)?);
            }
        }
        if mode == Mode::Exact {
            let sites = self.sites(Program::Exact);
            growth.push(engine.attach(Program::Exact, &path, pid, &sites)?);
        }
        self.growth = growth;
        Ok(())
    }
}
