//! The mode of a run: as the schedule, operators and the guard have it.

use std::time::{Duration, Instant};

use jiff::Zoned;

use super::{AttachError, Run};
use crate::{
    capture::{
        control::{ControlError, Folder, Request, Server, State},
        guard::{Finding, Guard},
        options::{AttachOptions, Mode},
        recorder::Finished,
        schedule::{Decision, Schedule},
    },
    fpm::Target,
};

/// Findings of the guard that the summary tells.
const MOST_FINDINGS: usize = 100;

/// By what a run is steered.
pub(super) struct Steering {
    /// `None` where operators can't reach this run.
    reached: Option<(Folder, Server)>,
    /// Why they can't.
    pub(super) unreachable: Option<ControlError>,
    schedule: Schedule,
    guard: Guard,
    /// What the guard found since the last look.
    found: Option<Finding>,
    /// What the guard found, in words.
    findings: Vec<String>,
    is_disabled: bool,
    /// Why the run is in its mode.
    reason: String,
}

impl Steering {
    /// Begins to listen to operators.
    ///
    /// # Errors
    /// memprof is disabled.
    pub(super) fn start(options: &AttachOptions) -> Result<Self, AttachError> {
        let mut steering = Self {
            reached: None,
            unreachable: None,
            schedule: Schedule::new(options),
            guard: Guard::new(options.guard),
            found: None,
            findings: Vec::new(),
            is_disabled: false,
            reason: String::new(),
        };
        let folder = match Folder::open(&options.run_folder) {
            Ok(folder) => folder,
            Err(error) => {
                steering.unreachable = Some(error);
                return Ok(steering);
            }
        };
        match folder.disabled() {
            Ok(Some(disabled)) => return Err(AttachError::Disabled(disabled)),
            Ok(None) => match Server::listen(&folder) {
                Ok(server) => steering.reached = Some((folder, server)),
                Err(error) => steering.unreachable = Some(error),
            },
            Err(error) => steering.unreachable = Some(error),
        }
        Ok(steering)
    }

    /// Why the run is in its mode.
    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    /// What the guard found, in words.
    pub(super) fn findings(&self) -> &[String] {
        &self.findings
    }
}

impl Run<'_> {
    /// Does what operators ask, and goes over to the mode that it is time for.
    pub(super) fn steer(&mut self) -> Result<(), AttachError> {
        self.look_at_flag();
        self.look_at_guard()?;
        let now = Instant::now();
        for (size, limit) in self.recorder.borrow().heaps() {
            self.steering.schedule.seen(now, size, limit);
        }
        self.follow_schedule()?;
        let reached = self.steering.reached.as_ref();
        if let Some(asked) = reached.and_then(|(_, server)| server.asked()) {
            let refused = self.obey(asked.request);
            self.follow_schedule()?;
            asked.answer(&self.state(refused));
        }
        Ok(())
    }

    /// A request is over.
    pub(super) fn judge(&mut self, finished: &Finished) {
        let steering = &mut self.steering;
        if let Some(last) = finished.profile.last() {
            let now = Instant::now();
            steering.schedule.seen(now, last.real_peak, last.limit);
        }
        if let (Some(mode), Some(trap_ns)) = (self.workers.mode(), self.trap_ns) {
            let ms = finished.hits as f64 * (trap_ns + self.program_ns) / 1e6;
            steering.found = steering.guard.finished(mode, ms).or(steering.found);
        }
    }

    /// Does what the guard calls for.
    fn look_at_guard(&mut self) -> Result<(), AttachError> {
        self.program_ns = self.workers.counts(&self.engine).program_ns();
        let found = self.steering.found.take();
        let Some(found) = found.or_else(|| self.steering.guard.look()) else {
            return Ok(());
        };
        match (found, self.workers.mode()) {
            (Finding::Cpu { one_in, .. }, _) => self.workers.thin(&self.engine, one_in)?,
            // It is not the requests of these modes that take it, but their dumps: to be told, not to be without.
            (Finding::Memory { .. }, Some(Mode::Light | Mode::Targeted)) => {}
            (_, Some(mode)) => self.steering.schedule.step_down(mode),
            (_, None) => return Ok(()),
        }
        let text = found.to_string();
        if !self.options.quiet {
            eprintln!("guard: {text}");
        }
        if self.steering.findings.len() < MOST_FINDINGS {
            self.steering.findings.push(text.clone());
        }
        Ok(self.output.guard_found(text)?)
    }

    fn look_at_flag(&mut self) {
        let Some((folder, _)) = &self.steering.reached else {
            return;
        };
        match folder.disabled() {
            Ok(disabled) => self.steering.is_disabled = disabled.is_some(),
            // What was last known stands.
            Err(error) => self.count_cause(&error),
        }
    }

    /// Does what an operator asks; why not, where it does not.
    fn obey(&mut self, request: Request) -> Option<String> {
        let schedule = &mut self.steering.schedule;
        match request {
            Request::State => {}
            Request::Configured => schedule.withdraw_order(),
            Request::Mode {
                mode: Mode::Exact, ..
            } if self.options.mode != Mode::Exact => {
                return Some(
                    "exact mode needs more memory in the kernel than this run has: end it, and start one \
                     with --mode exact"
                        .to_owned(),
                );
            }
            Request::Mode { mode, seconds } => {
                let until = seconds
                    .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
                schedule.order(mode, until);
            }
        }
        let is_disabled = self.steering.is_disabled && request != Request::State;
        is_disabled.then(|| "memprof is disabled: `memprof enable` first".to_owned())
    }

    fn state(&self, refused: Option<String>) -> State {
        State {
            pid: std::process::id().cast_signed(),
            target: match &self.options.target {
                Target::All => "all pools".to_owned(),
                Target::Pools(pools) => format!("pool {}", pools.join(", ")),
                Target::Pids(pids) => format!("{} processes", pids.len()),
            },
            mode: self.workers.mode(),
            reason: self.steering.reason.clone(),
            refused,
        }
    }

    /// Goes over to the mode that it is time for.
    pub(super) fn follow_schedule(&mut self) -> Result<(), AttachError> {
        let time = Zoned::now().time();
        let is_disabled = self.steering.is_disabled;
        let decision = self
            .steering
            .schedule
            .decide(Instant::now(), time, is_disabled);
        self.steering.reason = decision.reason.to_string();
        if decision.mode == self.workers.mode() {
            return Ok(());
        }
        self.go_over(&decision)
    }

    fn go_over(&mut self, to: &Decision) -> Result<(), AttachError> {
        let before = self.workers.mode();
        // What is over was recorded in the mode before.
        self.take_all_events()?;
        for (pid, error) in self.workers.switch(&self.engine, to.mode)? {
            self.dumps.forget(pid);
            self.recorder.borrow_mut().forget(pid);
            self.count_cause(&error);
        }
        if to.mode.is_none() {
            self.take_all_events()?;
            self.recorder.borrow_mut().close();
        }
        if before.is_none() {
            // Other code may lie where functions were before.
            self.engine.forget_seen();
        }
        self.tell(before, to)
    }

    /// Tells of a change of mode, but not of the first mode, which the announcement has.
    fn tell(&mut self, before: Option<Mode>, to: &Decision) -> Result<(), AttachError> {
        if !self.is_announced {
            self.output.begin(to.mode);
            return Ok(());
        }
        let reason = &self.steering.reason;
        if !self.options.quiet {
            let name = |mode: Option<Mode>| mode.map_or("no probe", Mode::as_str);
            eprintln!("mode: {} -> {}: {reason}", name(before), name(to.mode));
        }
        Ok(self.output.change_mode(before, to.mode, reason)?)
    }
}
