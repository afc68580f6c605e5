//! Program `request`: the moments of a request. A dozen hits each; sits in every worker of the binary.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use memprof_ebpf::{
    ARMED_ONCE, CheckpointEvent, EventKind, Moment, NAME_BYTES, PATH_BYTES, RequestEvent, Worker,
    cookie,
};

use crate::{
    freeze,
    heap::checkpoint,
    hit::{Program, in_worker},
    maps::{ARMED, EVENTS, header, send},
    read::{read, read_c_string, read_text},
    registers::{Registers, spread_register},
    stack::identify,
};

/// `SG(request_info).request_method`, in every version.
const REQUEST_METHOD: u64 = 8;
/// `SG(request_info).path_translated`, in every version.
const PATH_TRANSLATED: u64 = 40;
/// `fcgi_request.env` (main/fastcgi.c, 7.4 to 8.6): a hash table of 128 chains comes first.
const FCGI_ENVIRONMENT: u64 = 8296;
/// `FCGI_HASH_TABLE_SIZE`
const FCGI_CHAINS: u64 = 128;
/// Links of a chain that are followed.
const FCGI_CHAIN_LIMIT: u32 = 16;

#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe.multi.s")]
extern "C" fn request(context: *mut c_void) -> u32 {
    in_worker(context, Program::Request, hit)
}

/// Walks the PHP stack before it calls what has an event on its own: the kernel allows 512 bytes of stack for
/// all functions that have not returned, and 6.1 rounds up each one's to 32.
#[inline(never)]
fn hit(pid: u32, worker: &mut Worker, registers: Registers, cookie: u64) {
    match cookie::kind(cookie) {
        cookie::REQUEST_START => start(pid, worker),
        cookie::REQUEST_END => moment(pid, worker, Moment::RequestEnd),
        cookie::SEND_HEADERS => moment(pid, worker, Moment::SendHeaders),
        cookie::HEAP_RESET => {
            moment(pid, worker, Moment::HeapReset);
            worker.state.in_request = 0;
            worker.state.recorded = 0;
            freeze::let_go(worker, pid);
        }
        cookie::CHUNK_TAKEN if worker.state.in_request != 0 => {
            let stack = identify(worker, pid);
            chunk_taken(pid, worker, stack);
        }
        cookie::LIMIT_ERROR => {
            registers.spread(worker);
            let stack = identify(worker, pid);
            limit_error(pid, worker, cookie >> 8, stack);
        }
        _ => {}
    }
}

/// A new request: decides whether it is recorded in full, and says what it is.
#[inline(always)]
fn start(pid: u32, worker: &mut Worker) {
    worker.state.request = worker.state.request.wrapping_add(1);
    worker.state.in_request = 1;
    worker.state.hold_asked = 0;
    worker.state.limit_stopped = 0;
    worker.state.critical_seen = 0;
    worker.state.recorded = u32::from(armed(pid));
    freeze::hold_for_end(worker, pid);
    send_request(worker, pid);
    moment(pid, worker, Moment::RequestStart);
}

/// Whether this worker's request is to be recorded; an order for one request is used up.
#[inline(always)]
fn armed(pid: u32) -> bool {
    // SAFETY: one word, copied at once.
    match unsafe { ARMED.get(pid).copied() } {
        None => false,
        Some(ARMED_ONCE) => {
            let _ = ARMED.remove(pid);
            true
        }
        // SAFETY: a helper without arguments.
        Some(share) => unsafe { bpf_get_prandom_u32() <= share },
    }
}

/// Sends the heap's counters at this moment of a request.
#[inline(never)]
fn moment(pid: u32, worker: &mut Worker, moment: Moment) {
    if worker.state.in_request != 0 {
        let mut event = checkpoint(worker, pid, moment);
        send(worker, &event);
        let stops = worker.state.stops;
        // When the heap is reset PHP has already let go of what a dump would tell.
        if moment != Moment::HeapReset {
            critical(pid, worker, &mut event);
        }
        // One stop at a time: two signals that wait are one.
        if moment == Moment::RequestEnd && worker.state.stops == stops {
            freeze::stop_at_end(worker, pid, &event);
        }
    }
}

/// The heap is about to map memory: says from where, and what it held before.
#[inline(never)]
fn chunk_taken(pid: u32, worker: &mut Worker, stack: u64) {
    let mut event = checkpoint(worker, pid, Moment::ChunkTaken);
    event.stack = stack;
    send(worker, &event);
    freeze::hold_if_grown(worker, pid, &event);
    critical(pid, worker, &mut event);
}

/// Stops the worker for a dump where its heap is above the critical level for the first time.
#[inline(never)]
fn critical(pid: u32, worker: &mut Worker, event: &mut CheckpointEvent) {
    if freeze::is_newly_critical(worker, event) {
        event.moment = Moment::Critical as u32;
        send(worker, event);
        freeze::stop_critical(worker, pid);
    }
}

/// The memory-limit error, at the allocation that failed.
#[inline(never)]
fn limit_error(pid: u32, worker: &mut Worker, size_register: u64, stack: u64) {
    let mut event = checkpoint(worker, pid, Moment::LimitError);
    event.tried = spread_register(worker, size_register);
    event.stack = stack;
    send(worker, &event);
}

/// Sends the method, the URI, the host and the script.
///
/// A global function (see [`identify`]).
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn send_request(worker: *mut Worker, pid: u32) -> u32 {
    // SAFETY: the caller passes the map's value; the verifier checks it.
    let Some(worker) = (unsafe { worker.as_mut() }) else {
        return 0;
    };
    let event = EVENTS.reserve::<RequestEvent>();
    if event.is_null() {
        worker.state.lost += 1;
        return 0;
    }
    let sapi = worker.config.sapi_globals;
    let server_context = read::<u64>(worker, sapi).unwrap_or(0);
    let method = read::<u64>(worker, sapi + REQUEST_METHOD).unwrap_or(0);
    let script = read::<u64>(worker, sapi + PATH_TRANSLATED).unwrap_or(0);
    // SAFETY: the reserved record is as large as the event; its fields are written through it.
    unsafe {
        (*event).header = header(EventKind::Request, pid, worker);
        (*event).method = [0; 16];
        (*event).uri_length = 0;
        (*event).host_length = 0;
        (*event).script_length = 0;
        (*event).https = 0;
        if method != 0 {
            read_c_string::<16>(worker, (&raw mut (*event).method).cast(), method);
        }
        if script != 0 {
            (*event).script_length = read_c_string::<{ PATH_BYTES as u64 }>(
                worker,
                (&raw mut (*event).script).cast(),
                script,
            )
            .unwrap_or(0);
        }
        if server_context != 0 {
            let uri = environment(worker, server_context, b"REQUEST_URI");
            (*event).uri_length =
                text::<{ PATH_BYTES as u64 }>(worker, (&raw mut (*event).uri).cast(), uri);
            let host = environment(worker, server_context, b"HTTP_HOST");
            (*event).host_length =
                text::<{ NAME_BYTES as u64 }>(worker, (&raw mut (*event).host).cast(), host);
            // Any value but "off" counts as it does for PHP frameworks; "off" alone has 3 letters.
            let https = environment(worker, server_context, b"HTTPS");
            (*event).https = u32::from(https.1 != 0 && https.1 != 3);
        }
    }
    EVENTS.submit(worker, event);
    0
}

/// Copies a value of the environment; its length.
#[inline(always)]
fn text<const CAPACITY: u64>(worker: &mut Worker, to: *mut u8, (at, length): (u64, u64)) -> u32 {
    if length == 0 {
        return 0;
    }
    read_text::<CAPACITY>(worker, to, at, length).unwrap_or(0)
}

/// Where a variable's value is and how long, or zeros; as `fcgi_hash_get` of main/fastcgi.c looks it up.
#[inline(always)]
fn environment<const N: usize>(worker: &mut Worker, request: u64, name: &[u8; N]) -> (u64, u64) {
    let hash = (u32::from(name[3]) << 2)
        + (u32::from(name[N - 2]) << 4)
        + (u32::from(name[N - 1]) << 2)
        + N as u32;
    let chain = request + FCGI_ENVIRONMENT + (u64::from(hash) & (FCGI_CHAINS - 1)) * 8;
    let mut bucket = read::<u64>(worker, chain).unwrap_or(0);
    for _ in 0..FCGI_CHAIN_LIMIT {
        if bucket == 0 {
            break;
        }
        // hash_value and var_len, var, val_len, val, next
        let Some([start, variable, value_length, value, next]) = read::<[u64; 5]>(worker, bucket)
        else {
            break;
        };
        if start == u64::from(hash) | (N as u64) << 32 && is_name(worker, variable, name) {
            return (value, value_length & 0xffff_ffff);
        }
        bucket = next;
    }
    (0, 0)
}

/// Whether the `N` bytes at `address` are this name.
#[inline(always)]
fn is_name<const N: usize>(worker: &mut Worker, address: u64, name: &[u8; N]) -> bool {
    for (index, wanted) in name.iter().enumerate() {
        if read::<u8>(worker, address + index as u64) != Some(*wanted) {
            return false;
        }
    }
    true
}
