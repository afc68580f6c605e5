//! The heap's own counters.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use memprof_ebpf::{CheckpointEvent, EventKind, Moment, UNKNOWN, Worker};

use crate::{
    maps::header,
    read::read,
    repeat::{BREAK, CONTINUE, repeat},
};

/// Chunks followed when used pages are counted: 4 GiB of heap. A larger heap's are unknown.
const MAX_CHUNKS: u32 = 2048;
/// Huge blocks followed when their bytes are counted. Those of a longer list are unknown.
const MAX_HUGE: u32 = 2048;
/// The first words of a `zend_mm_chunk`: heap, next, previous, and two of which one starts with
/// `free_pages` (0x18 up to 8.5, 0x20 in 8.6).
type ChunkStart = [u64; 5];
/// Pages of 4 KiB in a chunk of 2 MiB.
const PAGES_IN_CHUNK: u64 = 512;

/// CLOCK_MONOTONIC in ns.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// `zend_mm_heap.real_size`, or [`UNKNOWN`].
#[inline(always)]
pub fn real_size(worker: &mut Worker) -> u64 {
    let at = worker.config.heap + u64::from(worker.config.offsets.heap_real_size);
    read(worker, at).unwrap_or(UNKNOWN)
}

/// What the heap says of itself now.
#[inline(always)]
pub fn checkpoint(worker: &mut Worker, pid: u32, moment: Moment) -> CheckpointEvent {
    let heap = worker.config.heap;
    let offsets = worker.config.offsets;
    let time = now();
    let [size, peak]: [u64; 2] =
        read(worker, heap + u64::from(offsets.heap_size)).unwrap_or([UNKNOWN; 2]);
    let [real_size, real_peak, limit]: [u64; 3] =
        read(worker, heap + u64::from(offsets.heap_real_size)).unwrap_or([UNKNOWN; 3]);
    let counts: Option<[u32; 3]> = read(worker, heap + u64::from(offsets.heap_chunks_count));
    let [chunks, _peak_chunks, cached_chunks] = counts.unwrap_or_default();
    CheckpointEvent {
        header: header(EventKind::Checkpoint, pid, worker),
        moment: moment as u32,
        label: 0,
        time,
        size,
        peak,
        real_size,
        real_peak,
        limit,
        // Without the number of chunks, the pages that they take for themselves are not known.
        used_pages: if counts.is_some() {
            used_pages(worker)
        } else {
            UNKNOWN
        },
        huge_bytes: huge_bytes(worker),
        chunks,
        cached_chunks,
        lost: worker.state.lost,
        hits: worker.state.hits,
        tried: UNKNOWN,
        stack: 0,
    }
}

/// Pages in use over all chunks, or [`UNKNOWN`].
///
/// A global function (see [`crate::stack::identify`]).
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn used_pages(worker: *mut Worker) -> u64 {
    // SAFETY: the caller passes the map's value; the verifier checks it.
    let Some(worker) = (unsafe { worker.as_mut() }) else {
        return UNKNOWN;
    };
    let main: Option<u64> = read(
        worker,
        worker.config.heap + u64::from(worker.config.offsets.heap_huge_list) + 8,
    );
    let Some(main) = main else { return UNKNOWN };
    let mut count = PageCount {
        worker,
        main,
        chunk: main,
        used: 0,
        complete: false,
    };
    repeat(MAX_CHUNKS, count_chunk, &mut count);
    if count.complete { count.used } else { UNKNOWN }
}

/// Where the count over the chunks' ring stands.
struct PageCount {
    worker: *mut Worker,
    main: u64,
    chunk: u64,
    used: u64,
    complete: bool,
}

/// One chunk of the count.
extern "C" fn count_chunk(_turn: u64, count: *mut PageCount) -> i64 {
    // SAFETY: the count and its worker outlive the loop.
    let (count, worker) = unsafe { (&mut *count, &mut *(*count).worker) };
    let Some(start) = read::<ChunkStart>(worker, count.chunk) else {
        return BREAK;
    };
    let third = worker.config.offsets.chunk_free_pages == 0x18;
    let free = if third { start[3] } else { start[4] } & 0xffff_ffff;
    count.used += PAGES_IN_CHUNK.wrapping_sub(free);
    count.chunk = start[1];
    if count.chunk == count.main {
        count.complete = true;
        return BREAK;
    }
    CONTINUE
}

/// Bytes in huge blocks, or [`UNKNOWN`].
///
/// A global function (see [`crate::stack::identify`]).
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn huge_bytes(worker: *mut Worker) -> u64 {
    // SAFETY: the caller passes the map's value; the verifier checks it.
    let Some(worker) = (unsafe { worker.as_mut() }) else {
        return UNKNOWN;
    };
    let list = worker.config.heap + u64::from(worker.config.offsets.heap_huge_list);
    let Some(node) = read::<u64>(worker, list) else {
        return UNKNOWN;
    };
    let mut sum = HugeSum {
        worker,
        node,
        bytes: 0,
    };
    repeat(MAX_HUGE, add_huge, &mut sum);
    if sum.node == 0 { sum.bytes } else { UNKNOWN }
}

/// Where the sum over the huge blocks stands.
struct HugeSum {
    worker: *mut Worker,
    /// 0 behind the last.
    node: u64,
    bytes: u64,
}

/// One huge block of the sum.
extern "C" fn add_huge(_turn: u64, sum: *mut HugeSum) -> i64 {
    // SAFETY: the sum and its worker outlive the loop.
    let (sum, worker) = unsafe { (&mut *sum, &mut *(*sum).worker) };
    if sum.node == 0 {
        return BREAK;
    }
    // ptr, size, next
    let Some([_, size, next]) = read::<[u64; 3]>(worker, sum.node) else {
        return BREAK;
    };
    sum.bytes += size;
    sum.node = next;
    CONTINUE
}
