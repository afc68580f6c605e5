//! The eBPF engine: loads the programs, attaches them, and hands on what they send.

mod calibrate;
mod cookies;
mod detach;
mod event;
mod holds;

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use bytemuck::{Zeroable, bytes_of};
use libbpf_rs::{
    ErrorKind, Link, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, ProgramAttachType,
    RingBuffer, RingBufferBuilder, UprobeMultiOpts, UprobeOpts,
};
use memprof_ebpf::{
    ARMED_ONCE, ExactCount, ExactKey, ForcedStart, Targeting, WATCHED_TAIL, Worker, WorkerConfig,
    WorkerState,
};

pub use calibrate::trap_ns;
pub use cookies::{Program, cookie_of, program_of};
pub use detach::Detacher;
pub use event::{Event, StackHead};
pub use holds::HoldMaps;

use crate::binary::ProbeSite;

/// The BPF object for this machine.
static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/programs.o"));

/// What went wrong between memprof and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The kernel took the object but refused a part of it.
    #[error(
        "the kernel refused memprof's BPF programs ({0}). They need CAP_BPF and CAP_PERFMON \
         (run as root), and kernel 6.0 or later; `memprof doctor` shows what is missing"
    )]
    Load(#[source] libbpf_rs::Error),
    /// A map or program is not in the object: the agent and the object were built apart.
    #[error("the embedded BPF object has no {0}: build both parts with `cargo xtask build`")]
    Missing(&'static str),
    /// A probe could not be attached.
    #[error("attaching the `{program}` probes to {path} failed ({count} sites, worker {pid:?})")]
    Attach {
        /// The BPF program.
        program: &'static str,
        /// The file they are in.
        path: PathBuf,
        /// How many sites.
        count: usize,
        /// The worker, where the probes are only for one.
        pid: Option<i32>,
        /// What the kernel said.
        #[source]
        source: libbpf_rs::Error,
    },
    /// Workers can't be held at the start of forced requests.
    #[error("the thread that holds workers at the start of forced requests can't be started")]
    Tracer(#[source] std::io::Error),
    /// A map could not be read or written.
    #[error("the BPF map `{0}` could not be used")]
    Map(&'static str, #[source] libbpf_rs::Error),
}

impl EngineError {
    /// Whether it is a capability that is missing.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Load(error) | Self::Map(_, error) | Self::Attach { source: error, .. } => {
                error.kind() == ErrorKind::PermissionDenied
            }
            Self::Missing(_) | Self::Tracer(_) => false,
        }
    }
}

/// How probes are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// All sites of a file in one call (kernel 6.6 on).
    Multi,
    /// One by one.
    Single,
}

/// Probes that stay until this is dropped.
#[derive(Debug)]
pub struct Attached(#[expect(dead_code, reason = "dropping a link detaches it")] Vec<Link>);

/// Takes the events as they come out of the ring.
pub type Sink = Rc<RefCell<dyn FnMut(Event<'_>)>>;

/// The loaded programs and their maps.
pub struct Engine {
    object: Object,
    attach: Attach,
    ring: RingBuffer<'static>,
    workers: MapHandle,
    armed: MapHandle,
    exact: MapHandle,
    seen: MapHandle,
    targeting: MapHandle,
    permits: MapHandle,
    /// Workers that stop for a forced request and were not asked for yet.
    forced: Rc<RefCell<Vec<ForcedStart>>>,
}

/// How much room the maps have.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// The events' ring in bytes, a power of two.
    pub ring_bytes: u32,
    /// Whether exact counts are made.
    pub exact: bool,
}

impl Engine {
    /// Loads the programs.
    ///
    /// # Errors
    /// The kernel refuses the programs, for want of a capability or because it is too old.
    pub fn load(attach: Attach, room: Room, sink: Sink) -> Result<Self, EngineError> {
        let mut open = ObjectBuilder::default()
            .open_memory(OBJECT)
            .map_err(EngineError::Load)?;
        for mut map in open.maps_mut() {
            let entries = match map.name().to_str() {
                Some("EVENTS") => room.ring_bytes,
                Some("EXACT") if !room.exact => 1,
                _ => continue,
            };
            map.set_max_entries(entries).map_err(EngineError::Load)?;
        }
        if attach == Attach::Single {
            for mut program in open.progs_mut() {
                program.set_attach_type(ProgramAttachType::CgroupInetIngress);
            }
        }
        let object = open.load().map_err(EngineError::Load)?;
        let forced = Rc::new(RefCell::new(Vec::new()));
        let ring = ring(&object, sink, &forced)?;
        Ok(Self {
            attach,
            ring,
            workers: handle(&object, "WORKERS")?,
            armed: handle(&object, "ARMED")?,
            exact: handle(&object, "EXACT")?,
            seen: handle(&object, "SEEN")?,
            targeting: handle(&object, "TARGETING")?,
            permits: handle(&object, "PERMITS")?,
            forced,
            object,
        })
    }

    /// Hands what is in the ring to the sink, `most` events at a time; how many there were.
    ///
    /// Without a bound it would not return while the workers fill the ring as fast as it is emptied.
    ///
    /// # Errors
    /// The ring can't be read.
    pub fn drain(&self, most: usize) -> Result<usize, EngineError> {
        let taken = self.ring.consume_raw_n(most);
        usize::try_from(taken)
            .map_err(|_| EngineError::Map("EVENTS", libbpf_rs::Error::from_raw_os_error(-taken)))
    }

    /// Waits until a worker stops for a forced request, `patience` at most; those that have.
    ///
    /// # Errors
    /// The ring can't be waited for.
    pub fn wait(&self, patience: Duration) -> Result<Vec<ForcedStart>, EngineError> {
        match self.ring.poll(patience) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                Err(EngineError::Map("URGENT", error))
            }
            _ => Ok(self.forced.take()),
        }
    }

    /// Says which requests may be recorded in full.
    ///
    /// # Errors
    /// The map can't be written.
    pub fn target(&self, targeting: &Targeting) -> Result<(), EngineError> {
        self.targeting
            .update(&key(0), bytes_of(targeting), MapFlags::ANY)
            .map_err(|error| EngineError::Map("TARGETING", error))
    }

    /// Permits so many forced requests from now on.
    ///
    /// # Errors
    /// The map can't be written.
    pub fn permit_forced(&self, count: u32) -> Result<(), EngineError> {
        self.permits
            .update(&key(0), bytes_of(&i64::from(count)), MapFlags::ANY)
            .map_err(|error| EngineError::Map("PERMITS", error))
    }

    /// Attaches a program at `sites` of the file at `path`, in one worker or in all that map it.
    ///
    /// # Errors
    /// The kernel refuses a site.
    pub fn attach(
        &self,
        program: Program,
        path: &Path,
        pid: Option<i32>,
        sites: &[ProbeSite],
    ) -> Result<Attached, EngineError> {
        let failed = |source| EngineError::Attach {
            program: program.name(),
            path: path.to_owned(),
            count: sites.len(),
            pid,
            source,
        };
        let bpf = self
            .object
            .progs_mut()
            .find(|found| found.name() == program.name())
            .ok_or(EngineError::Missing(program.name()))?;
        let offsets = sites.iter().map(|site| site.file_offset as usize);
        let cookies = sites.iter().map(cookie_of);
        let pid_filter = pid.unwrap_or(-1);
        let links = match self.attach {
            Attach::Multi => {
                let options = UprobeMultiOpts {
                    offsets: offsets.collect(),
                    cookies: cookies.collect(),
                    ..UprobeMultiOpts::default()
                };
                vec![
                    bpf.attach_uprobe_multi_with_opts(pid_filter, path, "", options)
                        .map_err(failed)?,
                ]
            }
            Attach::Single => offsets
                .zip(cookies)
                .map(|(offset, cookie)| {
                    let options = UprobeOpts {
                        cookie,
                        ..UprobeOpts::default()
                    };
                    bpf.attach_uprobe_with_opts(pid_filter, path, offset, options)
                        .map_err(failed)
                })
                .collect::<Result<_, _>>()?,
        };
        Ok(Attached(links))
    }

    /// Tells the programs of a worker. Its counters start at 0.
    ///
    /// # Errors
    /// The map is full or can't be written.
    pub fn follow(&self, pid: i32, config: WorkerConfig) -> Result<(), EngineError> {
        let mut worker = Worker::zeroed();
        worker.config = config;
        self.workers
            .update(&key(pid), bytes_of(&worker), MapFlags::ANY)
            .map_err(|error| EngineError::Map("WORKERS", error))
    }

    /// Forgets a worker; its probes do nothing from now on.
    pub fn forget(&self, pid: i32) {
        // It is gone already where this fails.
        let _ = self.workers.delete(&key(pid));
        self.disarm(pid);
    }

    /// Has the worker's next request recorded in full.
    ///
    /// # Errors
    /// The map is full or can't be written.
    pub fn arm_once(&self, pid: i32) -> Result<(), EngineError> {
        self.order(pid, ARMED_ONCE)
    }

    /// Has a share of the worker's requests recorded in full, 0 to 1, from the next on.
    ///
    /// # Errors
    /// The map is full or can't be written.
    pub fn arm_share(&self, pid: i32, share: f64) -> Result<(), EngineError> {
        let order = (share * f64::from(u32::MAX)) as u32;
        self.order(pid, order.max(ARMED_ONCE + 1))
    }

    /// Takes back what [`Engine::arm_once`] and [`Engine::arm_share`] ordered.
    pub fn disarm(&self, pid: i32) {
        // Used up already where this fails.
        let _ = self.armed.delete(&key(pid));
    }

    fn order(&self, pid: i32, order: u32) -> Result<(), EngineError> {
        self.armed
            .update(&key(pid), bytes_of(&order), MapFlags::ANY)
            .map_err(|error| EngineError::Map("ARMED", error))
    }

    /// What the programs count in a worker; `None` if it is not followed.
    #[must_use]
    pub fn state(&self, pid: i32) -> Option<Box<WorkerState>> {
        holds::state(&self.workers, pid)
    }

    /// Has a file's include make a checkpoint: `tail` is the end of its path, [`WATCHED_TAIL`] bytes
    /// at most.
    ///
    /// # Errors
    /// There are more than 64 files, or the map can't be written.
    pub fn watch(&self, tail: &[u8], number: u32) -> Result<(), EngineError> {
        let mut key = [0; WATCHED_TAIL];
        if let Some(to) = key.get_mut(WATCHED_TAIL.saturating_sub(tail.len())..) {
            to.copy_from_slice(tail);
        }
        handle(&self.object, "WATCHED_FILES")?
            .update(&key, bytes_of(&number), MapFlags::ANY)
            .map_err(|error| EngineError::Map("WATCHED_FILES", error))
    }

    /// Has every stack and function described anew at its next sight.
    pub fn forget_seen(&self) {
        for key in self.seen.keys() {
            // The kernel side dropped it meanwhile where this fails.
            let _ = self.seen.delete(&key);
        }
    }

    /// Takes the exact counts out of the kernel.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn take_exact(&self) -> Result<Vec<(ExactKey, ExactCount)>, EngineError> {
        let failed = |error| EngineError::Map("EXACT", error);
        let mut counts = Vec::new();
        for bytes in self.exact.keys() {
            let value = self.exact.lookup(&bytes, MapFlags::ANY).map_err(failed)?;
            let key = bytemuck::try_pod_read_unaligned(&bytes);
            let count = value.as_deref().map(bytemuck::try_pod_read_unaligned);
            if let (Ok(key), Some(Ok(count))) = (key, count) {
                counts.push((key, count));
            }
        }
        Ok(counts)
    }
}

/// The rings of events and of forced requests.
fn ring(
    object: &Object,
    sink: Sink,
    forced: &Rc<RefCell<Vec<ForcedStart>>>,
) -> Result<RingBuffer<'static>, EngineError> {
    let events = handle(object, "EVENTS")?;
    let urgent = handle(object, "URGENT")?;
    let forced = Rc::clone(forced);
    let mut builder = RingBufferBuilder::new();
    builder
        .add(&events, move |bytes| {
            if let Some(event) = Event::decode(bytes) {
                (sink.borrow_mut())(event);
            }
            0
        })
        .and_then(|builder| {
            builder.add(&urgent, move |bytes| {
                if let Ok(start) = bytemuck::try_pod_read_unaligned(bytes) {
                    forced.borrow_mut().push(start);
                }
                0
            })
        })
        .map_err(EngineError::Load)?;
    builder.build().map_err(EngineError::Load)
}

fn handle(object: &Object, name: &'static str) -> Result<MapHandle, EngineError> {
    let map = object
        .maps()
        .find(|map| map.name() == name)
        .ok_or(EngineError::Missing(name))?;
    MapHandle::try_from(&map).map_err(|error| EngineError::Map(name, error))
}

fn key(pid: i32) -> [u8; 4] {
    pid.to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSection, ObjectSymbol};

    use super::OBJECT;

    /// Above this a function gets a stack that another run of the program may write over: the kernel's
    /// `BPF_PRIV_STACK_MIN_SIZE` is 64, and it rounds up to 16.
    const MOST_STACK: i64 = 48;

    /// The most bytes that the instruction reaches down the stack: by an access through r10, or by an
    /// address that is made from it.
    fn stack_use(instruction: &[u8]) -> i64 {
        let [code, registers, low, high, immediate @ ..] = instruction else {
            return 0;
        };
        let offset = i64::from(i16::from_le_bytes([*low, *high]));
        let immediate = i64::from(i32::from_le_bytes(immediate.try_into().unwrap_or_default()));
        match code & 7 {
            // BPF_LDX
            1 if registers >> 4 == 10 => -offset,
            // BPF_ST and BPF_STX
            2 | 3 if registers & 15 == 10 => -offset,
            // BPF_ALU64 | BPF_ADD | BPF_K
            7 if *code == 7 => -immediate,
            _ => 0,
        }
    }

    #[test]
    fn entry_functions_need_next_to_no_stack() {
        let object = object::File::parse(OBJECT).expect("an ELF file");
        let section = object.section_by_name("uprobe.multi.s").expect("programs");
        let code = section.data().expect("code");
        let mut programs = 0;
        for symbol in object.symbols() {
            if symbol.section_index() != Some(section.index()) || symbol.size() == 0 {
                continue;
            }
            programs += 1;
            let range = symbol.address() as usize..(symbol.address() + symbol.size()) as usize;
            let used = code[range].chunks(8).map(stack_use).max();
            assert!(used <= Some(MOST_STACK), "{:?}: {used:?}", symbol.name());
        }
        assert_eq!(programs, 6);
    }
}
