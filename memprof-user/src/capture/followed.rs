//! One worker that is followed, and the probes that are in it alone.

use std::{cell::OnceCell, path::PathBuf, sync::Arc, time::Instant};

use super::{
    calls::CallSites,
    ebpf::{Attached, Detacher, Engine, EngineError, Program, program_of},
    options::Mode,
};
use crate::{
    binary::{ProbeSite, Site},
    fpm::{LiveError, LivePhp, MappedSite, Worker},
};

/// An executable by its device and inode: probes belong to it and not to a process.
pub type FileId = (u64, u64);

/// One followed worker.
pub struct Followed {
    /// The process.
    pub worker: Worker,
    /// The PHP in it.
    pub live: Arc<LivePhp>,
    /// Its executable.
    pub file: FileId,
    /// Where files are compiled; `None` where that can't be probed.
    compile_file: Option<MappedSite>,
    /// The PHP functions that are watched; looked up when they are wanted.
    call_sites: OnceCell<CallSites>,
    /// Growth probes, where they are attached now.
    growth: Vec<Attached>,
    /// Probes on the PHP functions that are watched beside them.
    calls: Vec<Attached>,
    /// The one request that the growth probes are there for.
    pub armed: Option<Armed>,
}

/// A worker has growth probes for one request.
#[derive(Clone, Copy, Debug)]
pub struct Armed {
    /// Since when.
    pub since: Instant,
    /// The request's number, where it has begun.
    pub request: Option<u32>,
}

impl Followed {
    /// A worker whose layout is proven, without probes.
    ///
    /// # Errors
    /// It has ended.
    pub fn new(worker: &Worker, live: LivePhp) -> Result<Self, LiveError> {
        let executable = worker.process.executable()?;
        Ok(Self {
            worker: worker.clone(),
            file: (executable.device, executable.inode),
            compile_file: live.compile_file_site().ok(),
            live: Arc::new(live),
            call_sites: OnceCell::new(),
            growth: Vec::new(),
            calls: Vec::new(),
            armed: None,
        })
    }

    /// Opens the executable whatever happened to it on disk.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/exe", self.worker.process.pid))
    }

    /// Where a program's probes belong.
    pub fn sites(&self, program: Program) -> Vec<ProbeSite> {
        let all = self.live.binary.sites.iter();
        all.filter(|site| program_of(&site.site) == program)
            .cloned()
            .collect()
    }

    /// The probes of every request, in all processes that map the executable.
    ///
    /// # Errors
    /// The kernel refuses a probe.
    pub fn attach_request(&self, engine: &Engine) -> Result<Vec<Attached>, EngineError> {
        let path = self.path();
        let sites = self.sites(Program::Request);
        let (limit, _): (Vec<_>, Vec<_>) =
            (sites.iter().cloned()).partition(|site| matches!(site.site, Site::LimitError { .. }));
        Ok(vec![
            engine.attach(Program::Request, &path, None, &sites)?,
            engine.attach(Program::Hold, &path, None, &limit)?,
        ])
    }

    /// The probes of a request that is recorded in full, in this worker alone, as far as they are not there.
    ///
    /// # Errors
    /// The kernel refuses a probe; then no more are there than before.
    pub fn attach_growth(&mut self, engine: &Engine, mode: Mode) -> Result<(), EngineError> {
        // All or none: what is attached in part goes where one fails.
        let mut growth = Vec::new();
        let mut calls = Vec::new();
        if self.growth.is_empty() {
            self.attach_heap(engine, mode, &mut growth)?;
        }
        if self.calls.is_empty() && mode != Mode::Light {
            self.attach_calls(engine, &mut calls)?;
        }
        self.growth.append(&mut growth);
        self.calls.append(&mut calls);
        Ok(())
    }

    fn attach_heap(
        &self,
        engine: &Engine,
        mode: Mode,
        to: &mut Vec<Attached>,
    ) -> Result<(), EngineError> {
        let pid = Some(self.worker.process.pid);
        let path = self.path();
        let sites = self.sites(Program::Growth);
        to.push(engine.attach(Program::Growth, &path, pid, &sites)?);
        if let Some(MappedSite { path, site, .. }) = &self.compile_file {
            let site = std::slice::from_ref(site);
            to.push(engine.attach(Program::Include, path, pid, site)?);
        }
        if mode == Mode::Exact {
            let sites = self.sites(Program::Exact);
            to.push(engine.attach(Program::Exact, &path, pid, &sites)?);
        }
        Ok(())
    }

    fn attach_calls(&self, engine: &Engine, to: &mut Vec<Attached>) -> Result<(), EngineError> {
        let pid = Some(self.worker.process.pid);
        for (path, sites) in &self.call_sites().files {
            to.push(engine.attach(Program::Call, path, pid, sites)?);
        }
        Ok(())
    }

    /// Where the PHP functions are that are watched.
    pub fn call_sites(&self) -> &CallSites {
        self.call_sites.get_or_init(|| CallSites::of(&self.live))
    }

    /// Takes the growth probes away.
    pub fn detach_growth(&mut self, detacher: &Detacher) {
        detacher.detach(std::mem::take(&mut self.growth));
        detacher.detach(std::mem::take(&mut self.calls));
        self.armed = None;
    }

    /// Takes the growth probes away as soon as no recorded request needs them: now, or at its end.
    ///
    /// The worker must not be armed any more, so that no other such request begins.
    pub fn release_growth(&mut self, engine: &Engine, detacher: &Detacher) {
        let state = engine.state(self.worker.process.pid);
        match state.filter(|state| state.recorded != 0) {
            None => self.detach_growth(detacher),
            Some(state) => {
                self.armed = Some(Armed {
                    since: Instant::now(),
                    request: Some(state.request),
                });
            }
        }
    }

    /// A recorded request is over; where the growth probes were there for it, they go.
    pub fn request_finished(&mut self, request: u32, detacher: &Detacher) {
        if let Some(armed) = self.armed
            && armed.request.is_none_or(|number| number == request)
        {
            self.detach_growth(detacher);
        }
    }
}
