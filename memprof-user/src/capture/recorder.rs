//! Turns events into requests, and gives each request away when it is over.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use memprof_ebpf::{Change, CheckpointEvent, GrowthEvent, Moment, RequestEvent, UNKNOWN};

use super::{ebpf::Event, names::Names, targeting::Requests, uri::request_info};
use crate::{
    profile::{Counters, HeapChange, RequestProfile, StackId, Stacks},
    record::{checkpoint::Label, frame::Frame},
};

/// Ends of the paths of watched files, and what their include says.
pub const WATCHED_FILES: [(&str, Label); 1] = [(
    // Seen on Laravel 8: loaded right before the providers register.
    "Illuminate/Foundation/Bootstrap/RegisterProviders.php",
    Label::BeforeProviders,
)];

/// What is counted for a request that still ran when memprof detached, or whose last event was lost.
const END_NOT_SEEN: &str = "requests whose end was not seen";

/// A request that is over.
#[derive(Debug)]
pub struct Finished {
    /// The worker that served it.
    pub pid: i32,
    /// Its number among the worker's requests.
    pub number: u32,
    /// Whether its growth was recorded run by run.
    pub recorded: bool,
    /// Whether its method and path are those that are recorded.
    pub is_meant: bool,
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
    profile: RequestProfile,
}

impl Recorder {
    /// `unix_offset` is what makes CLOCK_MONOTONIC Unix time, in seconds; `keep_stacks` keeps the names of
    /// stacks beyond the request that they were seen in.
    #[must_use]
    pub fn new(requests: Rc<Requests>, unix_offset: f64, keep_stacks: bool) -> Self {
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
            Event::Stack(head, frames) => {
                self.names
                    .add_stack(head.pid, head.stack, head.flags, frames, &mut self.stacks);
            }
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
        let Some(running) = running(&mut self.running, pid, event.header.request) else {
            self.count("events of a request whose start was not seen");
            return;
        };
        let profile = &mut running.profile;
        match moment {
            Moment::RequestStart => profile.checkpoint(Label::RequestStart, counters, time),
            Moment::SendHeaders => profile.checkpoint(Label::ResponseReady, counters, time),
            Moment::RequestEnd => profile.checkpoint(Label::RequestEnd, counters, time),
            Moment::Include => {
                if let Some((_, label)) = WATCHED_FILES.get(event.label as usize) {
                    profile.checkpoint(*label, counters, time);
                }
            }
            Moment::ChunkTaken => profile.chunk_taken(stack, counters),
            Moment::LimitError => profile.limit_hit(stack, counters, event.tried),
            Moment::HeapReset => {
                profile.close(counters);
                self.finish(pid);
            }
        }
    }

    fn finish(&mut self, pid: u32) {
        if let Some(running) = self.running.remove(&pid) {
            self.steps.push(Step::Finished(Box::new(Finished {
                pid: pid.cast_signed(),
                number: running.number,
                recorded: running.recorded,
                is_meant: running.is_meant,
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
