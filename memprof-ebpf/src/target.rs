//! Whether a request is to be recorded in full: by its path and method, by its header, by chance.

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_send_signal};
use memprof_ebpf::{
    ARMED_ONCE, ForcedStart, MOST_STEPS, Matching, PATH_BYTES, TEXT_BYTES, Targeting, Text, Worker,
};

use crate::{
    atomic,
    fastcgi::{REQUEST_METHOD, Variable, environment},
    maps::{ARMED, PERMITS, TARGETING, URGENT},
    read::{read, read_c_string, read_text},
    repeat::{BREAK, CONTINUE, repeat},
};

/// The signal that a traced worker stops at. What is not traced ignores it, unless it handles it.
const SIGURG: u32 = 23;

/// Whether the request that starts is to be recorded in full.
#[inline(always)]
pub fn choose(pid: u32, worker: &mut Worker) -> Choice {
    let Some(targeting) = TARGETING.get(0) else {
        return Choice::None;
    };
    let request = read::<u64>(worker, worker.config.sapi_globals).unwrap_or(0);
    if !has_method(worker, targeting) || !has_path(worker, request, targeting) {
        return Choice::None;
    }
    if targeting.header.length == 0 {
        return if armed(pid) {
            Choice::Recorded
        } else {
            Choice::None
        };
    }
    if !is_forced(worker, request, targeting) || !is_honoured(worker, targeting) {
        return Choice::None;
    }
    // SAFETY: the value is not looked at.
    if unsafe { ARMED.get(pid) }.is_none() {
        worker.state.untraced += 1;
        return Choice::None;
    }
    Choice::Forced
}

/// How a request is recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// By its checkpoints alone.
    None,
    /// In full, by probes that are there.
    Recorded,
    /// In full, by probes that come now.
    Forced,
}

/// Stops the worker, which the agent traces, before its next instruction, until its probes are
/// attached: that takes longer than many a request.
#[inline(always)]
pub fn stop(pid: u32, worker: &mut Worker) {
    // SAFETY: a helper without arguments.
    let time = unsafe { bpf_ktime_get_ns() };
    let start = ForcedStart {
        time,
        pid,
        request: worker.state.request,
    };
    URGENT.wake(&start);
    // SAFETY: the signal reaches the worker itself, which is traced and does not get to see it.
    unsafe { bpf_send_signal(SIGURG) };
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

#[inline(always)]
fn has_method(worker: &mut Worker, targeting: &Targeting) -> bool {
    if targeting.has_method == 0 {
        return true;
    }
    let at = worker.config.sapi_globals + REQUEST_METHOD;
    let method = read::<u64>(worker, at).unwrap_or(0);
    let mut found = [0; 16];
    read_c_string::<16>(worker, (&raw mut found).cast(), method);
    found == targeting.method
}

#[inline(always)]
fn has_path(worker: &mut Worker, request: u64, targeting: &Targeting) -> bool {
    if targeting.path.length == 0 {
        return true;
    }
    let Some((uri, length)) = environment(worker, request, Variable::RequestUri) else {
        return false;
    };
    let to = (&raw mut worker.state.path).cast();
    let Some(length) = read_text::<{ PATH_BYTES as u64 }>(worker, to, uri, length) else {
        return false;
    };
    let mut search = Search {
        worker,
        targeting,
        length: length as usize,
        matching: Matching::default(),
        matches: false,
    };
    repeat(MOST_STEPS, match_on, &mut search);
    search.matches
}

/// A match of a path that goes on.
struct Search {
    worker: *const Worker,
    targeting: *const Targeting,
    length: usize,
    matching: Matching,
    matches: bool,
}

extern "C" fn match_on(_turn: u64, search: *mut Search) -> i64 {
    // SAFETY: the search, its worker and the map's value outlive the loop.
    let (search, worker, targeting) =
        unsafe { (&mut *search, &*(*search).worker, &*(*search).targeting) };
    let path = &worker.state.path;
    match search.matching.step(&targeting.path, path, search.length) {
        None => CONTINUE,
        Some(matches) => {
            search.matches = matches;
            BREAK
        }
    }
}

/// Whether the request has the header, and its value where one is set.
#[inline(always)]
fn is_forced(worker: &mut Worker, request: u64, targeting: &Targeting) -> bool {
    let Some((value, length)) = environment(worker, request, Variable::Forcing) else {
        return false;
    };
    targeting.value.length == 0
        || length == u64::from(targeting.value.length) && is_text(worker, value, &targeting.value)
}

/// Whether the text at `address` is this one. All of it is compared always, so that the time that it
/// takes tells nothing of where a wrong value differs.
#[inline(always)]
pub fn is_text(worker: &mut Worker, address: u64, text: &Text) -> bool {
    worker.state.text = [0; TEXT_BYTES / 8];
    let to = (&raw mut worker.state.text).cast();
    let length = u64::from(text.length);
    if read_text::<{ TEXT_BYTES as u64 }>(worker, to, address, length).is_none() {
        return false;
    }
    let mut difference = 0;
    for (found, wanted) in worker.state.text.iter().zip(&text.words) {
        difference |= found ^ wanted;
    }
    difference == 0
}

/// Whether this forced request is within the minute's number; one that is not is counted.
#[inline(always)]
fn is_honoured(worker: &mut Worker, targeting: &Targeting) -> bool {
    let is_honoured = targeting.is_limited == 0 || is_permitted();
    worker.state.refused += u64::from(!is_honoured);
    is_honoured
}

/// Takes one of the minute's permits; whether there was one.
#[inline(always)]
fn is_permitted() -> bool {
    PERMITS
        .get_ptr_mut(0)
        .is_some_and(|permits| atomic::add(permits, -1) > 0)
}
