//! The walk over the PHP stack, and the id that tells one stack from another.

use memprof_ebpf::{
    MAX_FRAMES, MAX_GENERATORS, Range, TYPE_CACHE, WINDOW_WORDS, WalkedFrame, Worker, frame_flags,
    stack_flags,
};

use crate::{
    maps::SEEN,
    read::{read, read_window},
    repeat::{BREAK, CONTINUE, repeat},
    resolve::{self, mix},
};

/// The first 56 bytes of a `zend_execute_data`, the same in every version from 7.4 to 8.6.
type ExecuteData = [u64; 7];
const OPLINE: usize = 0;
const FUNCTION: usize = 3;
const THIS: usize = 4;
const THIS_TYPE: usize = 5;
const PREVIOUS: usize = 6;

/// `IS_OBJECT`, the type byte of a zval.
const IS_OBJECT: u8 = 8;
/// `ZEND_INTERNAL_FUNCTION`; user functions have another type.
const INTERNAL_FUNCTION: u8 = 1;
/// `zend_object.ce`, in every version.
const OBJECT_CLASS: u64 = 16;

/// Walks the stack, sends it if it is new, and returns its id: 0 where no PHP code runs, or where
/// it could not be sent.
#[inline(never)]
pub fn identify(worker: &mut Worker, pid: u32) -> u64 {
    let (id, flags) = walk(worker);
    if worker.state.depth == 0 {
        return 0;
    }
    // SAFETY: the value is not looked at.
    if unsafe { SEEN.get(id) }.is_some() {
        return id;
    }
    if resolve::send_stack(worker, pid, id, flags) {
        let _ = SEEN.insert(id, 1, 0);
        return id;
    }
    0
}

/// Where a walk stands.
struct Walk {
    worker: *mut Worker,
    /// The `zend_execute_data` that comes next.
    next: u64,
    id: u64,
    passing: u32,
}

/// Puts the frames into the worker's state, innermost first; the stack's id and [`stack_flags`].
#[inline(always)]
fn walk(worker: &mut Worker) -> (u64, u32) {
    let offset = u64::from(worker.config.offsets.current_execute_data);
    let current: Option<u64> = read(worker, worker.config.executor_globals + offset);
    worker.state.depth = 0;
    worker.state.waiting = 0;
    worker.state.window_start = 0;
    let mut walk = Walk {
        worker,
        next: current.unwrap_or(0),
        id: worker.config.identity,
        passing: 0,
    };
    repeat((MAX_FRAMES + MAX_GENERATORS) as u32, step, &mut walk);
    let mut id = walk.id;
    let mut flags = 0;
    if walk.passing != 0 {
        id = mix(id, resolve::request_salt(worker));
        flags |= stack_flags::PASSING;
    }
    if walk.next != 0 {
        flags |= stack_flags::CUT;
    }
    (id, flags)
}

/// One frame of the walk.
extern "C" fn step(_turn: u64, walk: *mut Walk) -> i64 {
    // SAFETY: the walk and its worker outlive the loop.
    let (walk, worker) = unsafe { (&mut *walk, &mut *(*walk).worker) };
    let from_chain = worker.state.waiting > 0;
    let at = if from_chain {
        worker.state.waiting -= 1;
        worker.state.generators[worker.state.waiting as usize & (MAX_GENERATORS - 1)]
    } else {
        walk.next
    };
    if at == 0 || worker.state.depth >= MAX_FRAMES as u32 {
        return BREAK;
    }
    let Some(frame) = read_frame(worker, at) else {
        walk.next = 0;
        return BREAK;
    };
    if !from_chain {
        walk.next = frame[PREVIOUS];
    }
    if frame[FUNCTION] == 0 {
        generator_chain(worker, frame[THIS], frame[THIS_TYPE] as u8);
        return CONTINUE;
    }
    let walked = describe(worker, &frame);
    let internal = walked.flags & frame_flags::INTERNAL != 0;
    walk.id = mix(
        walk.id,
        if internal {
            walked.function
        } else {
            walked.opline
        },
    );
    walk.passing |= walked.flags & frame_flags::PASSING;
    worker.state.frames[worker.state.depth as usize & (MAX_FRAMES - 1)] = walked;
    worker.state.depth += 1;
    CONTINUE
}

/// The frame at `at`: out of the window, which moves where it does not hold the frame. Callers lie
/// below, so the window ends with the frame that it was moved for.
#[inline(always)]
fn read_frame(worker: &mut Worker, at: u64) -> Option<ExecuteData> {
    const WINDOW: u64 = WINDOW_WORDS as u64 * 8;
    if at.wrapping_sub(worker.state.window_start) > WINDOW
        && !read_window(worker, at.wrapping_sub(WINDOW))
    {
        return read(worker, at);
    }
    let word = (at.wrapping_sub(worker.state.window_start) / 8) as usize;
    if word > WINDOW_WORDS {
        return read(worker, at);
    }
    let mut frame = [0; 7];
    for (index, to) in frame.iter_mut().enumerate() {
        *to = worker.state.window[word + index];
    }
    Some(frame)
}

/// What kind of frame this is.
#[inline(always)]
fn describe(worker: &mut Worker, frame: &ExecuteData) -> WalkedFrame {
    let function = frame[FUNCTION];
    let opline = frame[OPLINE];
    let internal = is_internal(worker, function);
    let mut flags = 0;
    if internal {
        flags |= frame_flags::INTERNAL;
    }
    if !is_lasting(worker, if internal { function } else { opline }) {
        flags |= frame_flags::PASSING;
    }
    WalkedFrame {
        function,
        opline,
        flags,
        type_info: frame[THIS_TYPE] as u32,
    }
}

/// Whether a function is written in C. An internal function's frame has no opline (the field holds
/// what was there before), so this has to be known of every frame; the cache saves the read for
/// functions that stay where they are.
#[inline(always)]
fn is_internal(worker: &mut Worker, function: u64) -> bool {
    let slot = (function >> 5) as usize & (TYPE_CACHE - 1);
    let cached = worker.state.function_types[slot];
    if cached & !1 == function {
        return cached & 1 != 0;
    }
    let internal = read::<u8>(worker, function) == Some(INTERNAL_FUNCTION);
    if is_lasting(worker, function) {
        worker.state.function_types[slot] = function | u64::from(internal);
    }
    internal
}

/// Whether what lies at `address` is still there in the next request.
#[inline(always)]
pub fn is_lasting(worker: &Worker, address: u64) -> bool {
    let within = |range: Range| address >= range.start && address < range.end;
    within(worker.config.lasting[0]) || within(worker.config.lasting[1])
}

/// Where the climb through a `yield from` chain stands.
struct Chain {
    worker: *mut Worker,
    generator: u64,
}

/// A frame without a function stands for the generators between `this` and the one that runs
/// (`yield from`). Puts their frames aside, outermost first.
#[inline(never)]
fn generator_chain(worker: &mut Worker, this: u64, this_type: u8) {
    if this_type != IS_OBJECT
        || read::<u64>(worker, this + OBJECT_CLASS) != Some(worker.config.generator_class)
    {
        return;
    }
    let mut chain = Chain {
        worker,
        generator: this,
    };
    repeat(MAX_GENERATORS as u32, climb, &mut chain);
}

/// One generator of the chain. The root is left out: it runs, so its frame is on the stack already.
extern "C" fn climb(_turn: u64, chain: *mut Chain) -> i64 {
    // SAFETY: the chain and its worker outlive the loop.
    let (chain, worker) = unsafe { (&mut *chain, &mut *(*chain).worker) };
    let offsets = worker.config.offsets;
    let parent_at = chain.generator + u64::from(offsets.generator_parent);
    let parent = read::<u64>(worker, parent_at).unwrap_or(0);
    if parent == 0 {
        return BREAK;
    }
    let frame_at = chain.generator + u64::from(offsets.generator_execute_data);
    let frame = read::<u64>(worker, frame_at).unwrap_or(0);
    worker.state.generators[worker.state.waiting as usize & (MAX_GENERATORS - 1)] = frame;
    worker.state.waiting += 1;
    chain.generator = parent;
    CONTINUE
}
