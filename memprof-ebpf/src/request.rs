//! Program `request`: the moments of a request. A dozen hits each; sits in every worker of the binary.

use core::ffi::c_void;

use memprof_ebpf::{
    CheckpointEvent, EventKind, Moment, NAME_BYTES, PATH_BYTES, RequestEvent, Worker, cookie,
};

use crate::{
    fastcgi::{REQUEST_METHOD, Variable, environment},
    freeze,
    heap::checkpoint,
    hit::{Program, in_worker},
    maps::{EVENTS, header, send},
    read::{read, read_c_string, read_text},
    registers::{Registers, spread_register},
    stack::identify,
    target::{Choice, choose, stop},
};

/// `SG(request_info).path_translated`, in every version.
const PATH_TRANSLATED: u64 = 40;

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
    let choice = choose(pid, worker);
    worker.state.recorded = u32::from(choice != Choice::None);
    freeze::hold_for_end(worker, pid);
    send_request(worker, pid);
    moment(pid, worker, Moment::RequestStart);
    if choice == Choice::Forced {
        stop(pid, worker);
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
            let uri = environment(worker, server_context, Variable::RequestUri);
            (*event).uri_length =
                text::<{ PATH_BYTES as u64 }>(worker, (&raw mut (*event).uri).cast(), uri);
            let host = environment(worker, server_context, Variable::HttpHost);
            (*event).host_length =
                text::<{ NAME_BYTES as u64 }>(worker, (&raw mut (*event).host).cast(), host);
            // Any value but "off" counts as it does for PHP frameworks; "off" alone has 3 letters.
            let https = environment(worker, server_context, Variable::Https);
            (*event).https = u32::from(https.is_some_and(|(_, length)| length != 0 && length != 3));
        }
    }
    EVENTS.submit(worker, event);
    0
}

/// Copies a value of the environment; its length.
#[inline(always)]
fn text<const CAPACITY: u64>(worker: &mut Worker, to: *mut u8, value: Option<(u64, u64)>) -> u32 {
    match value {
        Some((at, length)) if length != 0 => {
            read_text::<CAPACITY>(worker, to, at, length).unwrap_or(0)
        }
        _ => 0,
    }
}
