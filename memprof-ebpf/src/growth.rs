//! Program `growth`: page runs and huge blocks, taken, freed and resized, each with its PHP stack.
//! Sits only in workers whose requests are recorded in full.

use core::ffi::c_void;

use memprof_ebpf::{Change, EventKind, GrowthEvent, UNKNOWN, Worker, cookie};

use crate::{
    heap::{now, real_size},
    hit::{Program, in_worker},
    maps::{header, send},
    read::read,
    registers::{Registers, spread_register},
    stack::identify,
};

/// Chunks are 2 MiB, aligned.
pub const CHUNK_SIZE: u64 = 2 << 20;
/// Pages are 4 KiB.
const PAGE_SIZE: u64 = 4096;
/// Pages of a run in its page map entry, `ZEND_MM_LRUN_PAGES`.
const RUN_PAGES: u32 = 0x3ff;
/// Number of a run's bin in its page map entry, `ZEND_MM_SRUN_BIN_NUM`.
const BIN_NUMBER: u32 = 0x1f;
/// Newest huge blocks that are searched for one that was resized.
const HUGE_LIMIT: u32 = 64;

#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe.multi.s")]
extern "C" fn growth(context: *mut c_void) -> u32 {
    in_worker(context, Program::Growth, hit)
}

#[inline(never)]
fn hit(pid: u32, worker: &mut Worker, registers: Registers, cookie: u64) {
    if worker.state.recorded == 0 {
        return;
    }
    match cookie::kind(cookie) {
        cookie::PAGES_TAKEN => pages_taken(pid, worker, registers.result()),
        cookie::PAGES_FREED => {
            let (chunk, page) = (registers.argument::<1>(), registers.argument::<2>());
            let pages = registers.argument::<3>() & u64::from(RUN_PAGES);
            let run = chunk + (page & 0x1ff) * PAGE_SIZE;
            grew(pid, worker, Change::PagesFreed, run, pages * PAGE_SIZE);
        }
        cookie::PAGES_RESIZED => {
            registers.spread(worker);
            pages_resized(pid, worker, cookie);
        }
        cookie::PAGES_COLLECTED => {
            registers.spread(worker);
            pages_collected(pid, worker, cookie);
        }
        cookie::HUGE_TAKEN => huge(pid, worker, Change::HugeTaken, registers.result()),
        cookie::HUGE_RESIZED => huge(pid, worker, Change::HugeResized, registers.result()),
        cookie::HUGE_FREED => {
            let block = registers.argument::<1>();
            grew(pid, worker, Change::HugeFreed, block, UNKNOWN);
        }
        _ => {}
    }
}

/// Sends a change; what frees needs no stack.
#[inline(always)]
fn grew(pid: u32, worker: &mut Worker, change: Change, address: u64, bytes: u64) {
    let (stack, time, real_size) = match change {
        Change::PagesFreed | Change::HugeFreed => (0, 0, 0),
        _ => (identify(worker, pid), now(), real_size(worker)),
    };
    let event = GrowthEvent {
        header: header(EventKind::Growth, pid, worker),
        change: change as u32,
        reserved: 0,
        address,
        bytes,
        stack,
        time,
        real_size,
    };
    send(worker, &event);
}

/// The page allocator has a result; the run's length stands in its chunk's page map already.
#[inline(always)]
fn pages_taken(pid: u32, worker: &mut Worker, run: u64) {
    if run == 0 {
        return;
    }
    let chunk = run & !(CHUNK_SIZE - 1);
    let page = (run - chunk) / PAGE_SIZE;
    let entry = chunk + u64::from(worker.config.offsets.chunk_map) + page * 4;
    let bytes = match read::<u32>(worker, entry) {
        Some(entry) => u64::from(entry & RUN_PAGES) * PAGE_SIZE,
        None => UNKNOWN,
    };
    grew(pid, worker, Change::PagesTaken, run, bytes);
}

/// A run's new length is stored into the page map.
#[inline(always)]
fn pages_resized(pid: u32, worker: &mut Worker, cookie: u64) {
    let run = run_of_entry(worker, cookie);
    let pages = spread_register(worker, cookie >> 20) & u64::from(RUN_PAGES);
    grew(pid, worker, Change::PagesResized, run, pages * PAGE_SIZE);
}

/// A run of small blocks is about to be emptied; its old entry still tells the bin, and that the length.
#[inline(always)]
fn pages_collected(pid: u32, worker: &mut Worker, cookie: u64) {
    let run = run_of_entry(worker, cookie);
    let bytes = match read::<u32>(worker, address_of_entry(worker, cookie)) {
        Some(entry) => pages_of_bin(entry & BIN_NUMBER) * PAGE_SIZE,
        None => UNKNOWN,
    };
    grew(pid, worker, Change::PagesFreed, run, bytes);
}

/// Pages of a run of small blocks of this bin: Zend/zend_alloc_sizes.h, the same from 7.4 to 8.5.
#[inline(always)]
fn pages_of_bin(bin: u32) -> u64 {
    match bin {
        16 | 20 | 24 | 28 => 5,
        17 | 21 | 25 | 29 => 3,
        22 | 23 => 2,
        26 => 7,
        27 => 4,
        _ => 1,
    }
}

/// The run whose page map entry the site stores.
#[inline(always)]
fn run_of_entry(worker: &Worker, cookie: u64) -> u64 {
    let entry = address_of_entry(worker, cookie);
    let chunk = entry & !(CHUNK_SIZE - 1);
    let in_map = (entry - chunk).wrapping_sub(u64::from(worker.config.offsets.chunk_map));
    chunk + (in_map / 4 & 0x1ff) * PAGE_SIZE
}

/// The page map entry at `base + index * scale + displacement`.
#[inline(always)]
fn address_of_entry(worker: &Worker, cookie: u64) -> u64 {
    let base = spread_register(worker, cookie >> 8);
    let index_register = cookie >> 13 & 31;
    let index = if index_register == 31 {
        0
    } else {
        spread_register(worker, index_register) << (cookie >> 18 & 3)
    };
    let displacement = (cookie >> 32) as u32 as i32 as i64 as u64;
    base.wrapping_add(index).wrapping_add(displacement)
}

/// A huge block was taken or resized: its size stands in its node of the heap's list.
#[inline(always)]
fn huge(pid: u32, worker: &mut Worker, change: Change, block: u64) {
    if block == 0 {
        return;
    }
    let list = worker.config.heap + u64::from(worker.config.offsets.heap_huge_list);
    let mut node = read::<u64>(worker, list).unwrap_or(0);
    let mut bytes = UNKNOWN;
    for _ in 0..HUGE_LIMIT {
        if node == 0 {
            break;
        }
        // ptr, size, next
        let Some([at, size, next]) = read::<[u64; 3]>(worker, node) else {
            break;
        };
        if at == block {
            bytes = size;
            break;
        }
        node = next;
    }
    grew(pid, worker, change, block, bytes);
}
