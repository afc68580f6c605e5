//! The maps, and the few things that every program does with them.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::bpf_map_type::BPF_MAP_TYPE_RINGBUF,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray},
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_ringbuf_output, bpf_ringbuf_reserve, bpf_ringbuf_submit},
    },
    macros::btf_map,
};
use bytemuck::Pod;
use memprof_ebpf::{ExactCount, ExactKey, Header, Targeting, WATCHED_TAIL, Worker};

/// The workers that the agent follows, by process id.
#[btf_map]
pub static WORKERS: HashMap<u32, Worker, 1024> = HashMap::new();

/// Workers whose requests are recorded in full: [`memprof_ebpf::ARMED_ONCE`], or their share.
#[btf_map]
pub static ARMED: HashMap<u32, u32, 1024> = HashMap::new();

/// Which requests may be recorded.
#[btf_map]
pub static TARGETING: Array<Targeting, 1> = Array::new();
/// Whether the agent traces a worker: [`memprof_ebpf::Hold`] by process id.
#[btf_map]
pub static HELD: HashMap<u32, u32, 1024> = HashMap::new();

/// Stacks and functions whose event was sent, so that it is sent once.
#[btf_map]
pub static SEEN: LruHashMap<u64, u32, 65536> = LruHashMap::new();

/// Ends of the paths of the files whose include is a checkpoint, zeros in front of the shorter, and the
/// checkpoint's number.
#[btf_map]
pub static WATCHED_FILES: HashMap<[u8; WATCHED_TAIL], u32, 64> = HashMap::new();

/// Exact mode: what was asked for, by stack.
#[btf_map]
pub static EXACT: HashMap<ExactKey, ExactCount, 262144> = HashMap::new();

/// Whether a program runs on this processor, by its number.
#[btf_map]
pub static BUSY: PerCpuArray<u64, 8> = PerCpuArray::new();

/// The events. The agent sets the size before loading.
#[unsafe(link_section = ".maps")]
#[unsafe(no_mangle)]
pub static EVENTS: Ring<{ 32 << 20 }> = Ring::new();

/// Workers that stop for a forced request: what the agent has to look at now.
#[unsafe(link_section = ".maps")]
#[unsafe(no_mangle)]
pub static URGENT: Ring<4096> = Ring::new();

/// Workers to hold: [`memprof_ebpf::HoldOrder`]. Apart from the events, because it wakes the agent.
#[unsafe(link_section = ".maps")]
#[unsafe(no_mangle)]
pub static HOLD_ORDERS: Ring<{ 64 << 10 }> = Ring::new();

/// A ring buffer's definition as libbpf reads it from the type information: each number is the
/// length of an array. aya-ebpf's own has a key of type `()`, an integer without bytes, for which
/// the kernel refuses the object's whole type information.
#[repr(C)]
pub struct Ring<const BYTES: usize> {
    r#type: *const [i32; BPF_MAP_TYPE_RINGBUF as usize],
    max_entries: *const [i32; BYTES],
}

// SAFETY: the fields are never looked at.
unsafe impl<const BYTES: usize> Sync for Ring<BYTES> {}

impl<const BYTES: usize> Ring<BYTES> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            max_entries: core::ptr::null(),
        }
    }

    fn map(&self) -> *mut c_void {
        (&raw const *self).cast_mut().cast()
    }

    /// Room for one `T`, to be [submitted](Self::submit); null where the ring is full.
    #[inline(always)]
    pub fn reserve<T>(&self) -> *mut T {
        // SAFETY: the kernel returns room for a `T`, or null.
        unsafe { bpf_ringbuf_reserve(self.map(), size_of::<T>() as u64, 0).cast() }
    }

    /// Hands a reserved record, which is not null, to the agent.
    #[inline(always)]
    pub fn submit<T>(&self, worker: &mut Worker, record: *mut T) {
        // SAFETY: the record was reserved; the verifier checks it.
        unsafe { bpf_ringbuf_submit(record.cast(), NO_WAKEUP) };
        worker.state.sent += 1;
    }

    /// Copies `length` bytes into the ring; whether there was room.
    #[inline(always)]
    fn output(&self, bytes: *const u8, length: u64, flags: u64) -> bool {
        // SAFETY: the callers pass a pointer to at least `length` bytes; the verifier checks it.
        unsafe { bpf_ringbuf_output(self.map(), bytes.cast_mut().cast(), length, flags) == 0 }
    }

    /// Hands the agent a record, and wakes it. A ring that is full has woken it already.
    #[inline(always)]
    pub fn wake<T: Pod>(&self, record: &T) {
        let bytes = (record as *const T).cast();
        self.output(bytes, size_of::<T>() as u64, FORCE_WAKEUP);
    }
}

/// How many forced requests may yet be recorded in this minute; below 0 where more came.
#[btf_map]
pub static PERMITS: Array<i64, 1> = Array::new();

/// `BPF_RB_NO_WAKEUP`: the agent looks by itself; a wake-up an event would cost more than the event.
const NO_WAKEUP: u64 = 1;
/// `BPF_RB_FORCE_WAKEUP`
const FORCE_WAKEUP: u64 = 2;

/// The worker that the program runs in, if the agent follows it.
#[inline(always)]
pub fn current_worker() -> Option<(u32, &'static mut Worker)> {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let worker = WORKERS.get_ptr_mut(pid)?;
    // SAFETY: the map's value lives as long as the program runs; php-fpm workers have one thread,
    // so no other program holds this worker's entry.
    let worker = unsafe { &mut *worker };
    worker.state.hits += 1;
    Some((pid, worker))
}

/// The common part of an event of this worker.
#[inline(always)]
pub fn header(kind: memprof_ebpf::EventKind, pid: u32, worker: &Worker) -> Header {
    Header {
        kind: kind as u32,
        pid,
        request: worker.state.request,
        recorded: worker.state.recorded,
    }
}

/// Sends an event of a fixed size; whether it was taken. What was not is counted.
#[inline(always)]
pub fn send<T: Pod>(worker: &mut Worker, event: &T) -> bool {
    send_bytes(worker, (event as *const T).cast(), size_of::<T>() as u64)
}

/// Sends `length` bytes at `event`; whether they were taken. What was not is counted.
#[inline(always)]
pub fn send_bytes(worker: &mut Worker, event: *const u8, length: u64) -> bool {
    let taken = EVENTS.output(event, length, NO_WAKEUP);
    if taken {
        worker.state.sent += 1;
    } else {
        worker.state.lost += 1;
    }
    taken
}
