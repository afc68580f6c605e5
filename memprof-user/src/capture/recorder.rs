//! Turns events into requests, and gives each request away when it is over.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use memprof_ebpf::{
    CallEvent, Change, CheckpointEvent, GrowthEvent, Header, Moment, RequestEvent, StackFrame,
    StopReason, UNKNOWN,
};

use super::{
    calls,
    ebpf::{Event, StackHead},
    names::Names,
    snapshot::{Snapshot, so_far},
    targeting::Requests,
    uri::request_info,
    watch::Watch,
};
use crate::{
    profile::{Counters, HeapChange, RequestProfile, StackId, Stacks},
    record::{checkpoint::Label, frame::Frame},
};

/// What is counted for a request that still ran when memprof detached, or whose last event was lost.
const END_NOT_SEEN: &str = "requests whose end was not seen";

/// A request that is over.
#[derive(Debug)]
pub struct Finished {
    /// The worker that served it.
    pub pid: i32,
    /// [`memprof_ebpf::WorkerState::request`]
    pub number: u32,
    /// Whether its growth was recorded run by run.
    pub recorded: bool,
    /// Whether its method and path are those that are recorded.
    pub is_meant: bool,
    /// Probe hits in it.
    pub hits: u64,
    /// What it did.
    pub profile: RequestProfile,
}

/// What the event stream made the agent do next.
#[derive(Debug)]
pub enum Step {
    /// A worker started a request.
    Started {
        /// The worker.
        pid: i32,
        /// Whether its method and path are those that are recorded.
        is_meant: bool,
    },
    /// A worker came to a moment that is worth a dump.
    AtMoment(Box<Snapshot>),
    /// A request is over.
    Finished(Box<Finished>),
}

/// The requests that run, worker by worker.
pub struct Recorder {
    requests: Rc<Requests>,
    names: Names,
    stacks: Stacks,
    /// Stands for a stack whose description was lost.
    unknown_stack: StackId,
    watch: Watch,
    /// The stacks whose first growth is a checkpoint.
    marks: HashMap<StackId, Vec<Label>>,
    running: HashMap<u32, Running>,
    steps: Vec<Step>,
    errors: BTreeMap<&'static str, u64>,
    received: u64,
    unix_offset: f64,
}

struct Running {
    number: u32,
    recorded: bool,
    is_meant: bool,
    /// The worker's hits when it began, and last.
    hits: Option<(u64, u64)>,
    profile: RequestProfile,
}

impl Recorder {
    /// `unix_offset` is what makes CLOCK_MONOTONIC Unix time, in seconds; `keep_stacks` keeps the names of
    /// stacks beyond the request that they were seen in.
    #[must_use]
    pub fn new(requests: Rc<Requests>, unix_offset: f64, keep_stacks: bool, watch: Watch) -> Self {
        let mut stacks = Stacks::default();
        let unknown_stack = stacks.intern([Frame {
            function: "[unknown stack]".to_owned(),
            file: None,
            line: None,
        }]);
        Self {
            requests,
            names: Names::new(keep_stacks),
            stacks,
            unknown_stack,
            watch,
            marks: HashMap::new(),
            running: HashMap::new(),
            steps: Vec::new(),
            errors: BTreeMap::new(),
            received: 0,
            unix_offset,
        }
    }

    /// Takes in one event.
    pub fn event(&mut self, event: Event<'_>) {
        self.received += 1;
        match event {
            Event::Request(event) => self.request(event),
            Event::Checkpoint(event) => self.checkpoint(event),
            Event::Growth(event) => self.growth(event),
            Event::Function(event) => self.names.add_function(event),
            Event::Class(event) => self.names.add_class(event),
            Event::Call(event) => self.call(event),
            Event::Stack(head, frames) => self.add_stack(head, frames),
        }
    }

    /// A forced request went on when its probes were attached, at this moment of CLOCK_MONOTONIC in
    /// seconds: what it took until then is not the application's.
    pub fn went_on(&mut self, pid: u32, request: u32, time: f64) {
        let time = time + self.unix_offset;
        if let Some(running) = running(&mut self.running, pid, request) {
            running.profile.set_start(time);
        }
    }

    /// A forced request runs without its probes: it is not recorded in full.
    pub fn give_up(&mut self, pid: u32, request: u32) {
        self.count("forced requests that ran unrecorded because their probes came too late");
        if let Some(running) = running(&mut self.running, pid, request) {
            running.recorded = false;
            running.profile.ledger = None;
        }
    }

    /// What happened since the last call.
    pub fn take_steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    /// A worker has ended, and with it the request that it served.
    pub fn forget(&mut self, pid: i32) {
        let pid = pid.unsigned_abs();
        if self.running.remove(&pid).is_some() {
            self.count("requests cut off by the end of their worker");
        }
        self.names.request_started(pid);
    }

    /// Nothing follows any more: what still runs has no end.
    pub fn close(&mut self) {
        for _ in std::mem::take(&mut self.running) {
            self.count(END_NOT_SEEN);
        }
    }

    /// The heaps of the requests that run: `memory_get_peak_usage(true)` and the limit, in bytes.
    pub fn heaps(&self) -> impl Iterator<Item = (u64, u64)> {
        let running = self.running.values();
        running
            .filter_map(|running| running.profile.last())
            .map(|last| (last.real_peak, last.limit))
    }

    /// The frames of a stack, innermost first.
    pub fn frames(&self, stack: StackId) -> Vec<Frame> {
        self.stacks.frames(stack).cloned().collect()
    }

    /// The function that runs in a stack; `None` where no PHP code ran.
    #[must_use]
    pub fn innermost(&self, stack: StackId) -> Option<String> {
        let frame = self.stacks.frames(stack).next()?;
        Some(frame.function.clone())
    }

    /// What went wrong so far, by cause.
    #[must_use]
    pub fn errors(&self) -> &BTreeMap<&'static str, u64> {
        &self.errors
    }

    /// How many events were taken in.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    fn count(&mut self, cause: &'static str) {
        *self.errors.entry(cause).or_default() += 1;
    }

    fn request(&mut self, event: &RequestEvent) {
        let pid = event.header.pid;
        self.names.request_started(pid);
        let part = |bytes: &[u8], length: u32| {
            let filled = bytes.get(..length as usize).unwrap_or_default();
            String::from_utf8_lossy(filled).into_owned()
        };
        let method = event
            .method
            .split(|&byte| byte == 0)
            .next()
            .unwrap_or_default();
        let info = request_info(
            &String::from_utf8_lossy(method),
            &part(&event.uri, event.uri_length),
            event.uri_length as usize == event.uri.len(),
            if event.https == 0 { "http" } else { "https" },
            &part(&event.host, event.host_length),
            &part(&event.script, event.script_length),
        );
        let recorded = event.header.recorded != 0;
        let is_meant = self.requests.include(&info.method, &info.path);
        let running = Running {
            number: event.header.request,
            recorded,
            is_meant,
            hits: None,
            profile: RequestProfile::new(info, recorded),
        };
        if self.running.insert(pid, running).is_some() {
            self.count(END_NOT_SEEN);
        }
        self.steps.push(Step::Started {
            pid: pid.cast_signed(),
            is_meant,
        });
    }

    fn checkpoint(&mut self, event: &CheckpointEvent) {
        let Some(moment) = Moment::from_number(event.moment) else {
            self.count("events of an unknown kind");
            return;
        };
        let pid = event.header.pid;
        let Some(counters) = counters(event) else {
            self.count("heap counters that could not be read");
            return;
        };
        let stack = self.named(pid, event.stack);
        let time = event.time as f64 / 1e9 + self.unix_offset;
        if let Some(reason) = worth_a_dump(moment) {
            let snapshot = self.snapshot(event, reason, stack, counters);
            self.steps.extend(snapshot.map(Step::AtMoment));
        }
        let Some(running) = running(&mut self.running, pid, event.header.request) else {
            self.count("events of a request whose start was not seen");
            return;
        };
        let (first, _) = running.hits.unwrap_or((event.hits, 0));
        running.hits = Some((first, event.hits));
        let profile = &mut running.profile;
        match moment {
            Moment::RequestStart => profile.checkpoint(Label::RequestStart, counters, time),
            Moment::SendHeaders => profile.checkpoint(Label::ResponseReady, counters, time),
            Moment::RequestEnd => profile.checkpoint(Label::RequestEnd, counters, time),
            Moment::Include => {
                if let Some(label) = self.watch.file(event.label) {
                    profile.checkpoint(label.clone(), counters, time);
                }
            }
            Moment::ChunkTaken => {
                for label in self.marks.get(&stack).into_iter().flatten() {
                    profile.checkpoint(label.clone(), counters, time);
                }
                profile.chunk_taken(stack, counters);
            }
            Moment::LimitError => profile.limit_hit(stack, counters, event.tried),
            Moment::Critical => {}
            Moment::HeapReset => {
                profile.close(counters);
                self.finish(pid);
            }
        }
    }

    /// `None` where the request came to this moment before: it is told once.
    fn snapshot(
        &self,
        event: &CheckpointEvent,
        reason: StopReason,
        stack: StackId,
        counters: Counters,
    ) -> Option<Box<Snapshot>> {
        let Header { pid, request, .. } = event.header;
        let running = self.running.get(&pid);
        let profile = running
            .filter(|running| running.number == request)
            .map(|running| &running.profile);
        let is_limit = reason == StopReason::LimitError;
        if is_limit && profile.is_some_and(|profile| profile.limit_error.is_some()) {
            return None;
        }
        Some(Box::new(Snapshot {
            pid: pid.cast_signed(),
            request,
            reason,
            tried_bytes: (is_limit && event.tried != UNKNOWN).then_some(event.tried),
            counters,
            stack: self.frames(stack),
            info: profile.map(|profile| profile.info.clone()),
            so_far: profile.map(|profile| so_far(profile, counters, self)),
        }))
    }

    fn finish(&mut self, pid: u32) {
        if let Some(running) = self.running.remove(&pid) {
            self.steps.push(Step::Finished(Box::new(Finished {
                pid: pid.cast_signed(),
                number: running.number,
                recorded: running.recorded,
                is_meant: running.is_meant,
                hits: running
                    .hits
                    .map_or(0, |(first, last)| last.saturating_sub(first)),
                profile: running.profile,
            })));
        }
    }

    fn growth(&mut self, event: &GrowthEvent) {
        let pid = event.header.pid;
        let Some(change) = Change::from_number(event.change) else {
            self.count("events of an unknown kind");
            return;
        };
        let stack = self.named(pid, event.stack);
        let Some(running) = running(&mut self.running, pid, event.header.request) else {
            self.count("events of a request whose start was not seen");
            return;
        };
        let bytes = (event.bytes != UNKNOWN).then_some(event.bytes);
        let address = event.address;
        let change = match (change, bytes) {
            (Change::PagesTaken | Change::HugeTaken, Some(bytes)) => HeapChange::Taken {
                address,
                bytes,
                stack,
            },
            (Change::PagesResized | Change::HugeResized, Some(bytes)) => HeapChange::Resized {
                address,
                bytes,
                stack,
            },
            (Change::PagesFreed | Change::HugeFreed, bytes) => HeapChange::Freed { address, bytes },
            (_, None) => {
                self.count("page runs and huge blocks whose size could not be read");
                return;
            }
        };
        running.profile.changed(change);
        if event.real_size != UNKNOWN {
            for label in self.marks.get(&stack).into_iter().flatten() {
                let time = event.time as f64 / 1e9 + self.unix_offset;
                running.profile.first_growth(label, event.real_size, time);
            }
        }
    }

    fn add_stack(&mut self, head: StackHead, frames: &[StackFrame]) {
        let stack =
            self.names
                .add_stack(head.pid, head.stack, head.flags, frames, &mut self.stacks);
        let labels = self.watch.functions(self.stacks.frames(stack));
        if !labels.is_empty() {
            self.marks.insert(stack, labels);
        }
    }

    fn call(&mut self, event: &CallEvent) {
        let pid = event.header.pid;
        let stack = self.named(pid, event.stack);
        let Some(running) = running(&mut self.running, pid, event.header.request) else {
            self.count("events of a request whose start was not seen");
            return;
        };
        let application = &mut running.profile.application;
        if let Err(cause) = calls::enter(event, stack, &self.names, &self.stacks, application) {
            self.count(cause);
        }
    }

    /// The stack that the kernel side names: known until the worker's next request starts or, where
    /// stacks are kept, always. One whose description was lost is counted.
    pub fn named(&mut self, pid: u32, id: u64) -> StackId {
        self.names.stack(pid, id).unwrap_or_else(|| {
            self.count("stacks whose description was lost");
            self.unknown_stack
        })
    }
}

fn worth_a_dump(moment: Moment) -> Option<StopReason> {
    match moment {
        Moment::LimitError => Some(StopReason::LimitError),
        Moment::Critical => Some(StopReason::Critical),
        _ => None,
    }
}

/// The request that an event belongs to.
fn running(of: &mut HashMap<u32, Running>, pid: u32, number: u32) -> Option<&mut Running> {
    of.get_mut(&pid).filter(|running| running.number == number)
}

fn counters(event: &CheckpointEvent) -> Option<Counters> {
    let known = |bytes: u64| (bytes != UNKNOWN).then_some(bytes);
    Some(Counters {
        size: known(event.size)?,
        peak: known(event.peak)?,
        real_size: known(event.real_size)?,
        real_peak: known(event.real_peak)?,
        // Read with real_size. Without a limit it is the highest number there is.
        limit: event.limit,
        used_pages: known(event.used_pages),
        huge_bytes: known(event.huge_bytes),
        chunks: event.chunks,
        cached_chunks: event.cached_chunks,
        lost_events: event.lost,
    })
}
