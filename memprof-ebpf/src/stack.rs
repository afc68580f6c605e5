//! The walk over the PHP stack, and the id that tells one stack from another.

use memprof_ebpf::{
    MAX_FRAMES, MAX_GENERATORS, TYPE_CACHE, UNKNOWN, WINDOW_WORDS, WalkedFrame, Worker,
    frame_flags, stack_flags,
};

use crate::{
    id::{is_lasting, mix, request_salt, stays},
    maps::SEEN,
    read::{FRAME, read, read_window},
    repeat::{BREAK, CONTINUE, repeat},
    resolve::{self, FunctionStart},
};

/// The first 56 bytes of a `zend_execute_data`, the same in every version from 7.4 to 8.6.
type ExecuteData = [u64; 7];
const OPLINE: usize = 0;
const FUNCTION: usize = 3;
const THIS: usize = 4;
const THIS_TYPE: usize = 5;
const PREVIOUS: usize = 6;

/// `IS_OBJECT`, the type byte of a zval.
pub const IS_OBJECT: u8 = 8;
/// `ZEND_INTERNAL_FUNCTION`; user functions have another type.
const INTERNAL_FUNCTION: u8 = 1;
/// Larger than `executor_globals` of any version (1,664 to 2,200 bytes, 7.4 to 8.6).
const EXECUTOR_GLOBALS_BYTES: u64 = 4096;
/// `zend_op.lineno`, in every version.
const OP_LINE: u64 = 24;
/// `zend_object.ce`, in every version.
pub const OBJECT_CLASS: u64 = 16;

/// Walks the stack, sends it if it is new, and returns its id: 0 where no PHP code runs,
/// [`UNKNOWN`] where it could not be sent.
///
/// A global function, one with external linkage, is verified once for itself and not again at each call: without
/// that the programs need most of the million steps that the verifier of kernel 6.1 takes. Its arguments may be
/// anything then, so it has to look for null.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn identify(worker: *mut Worker, pid: u32) -> u64 {
    // SAFETY: the callers pass the map's value; the verifier checks it.
    let Some(worker) = (unsafe { worker.as_mut() }) else {
        return UNKNOWN;
    };
    let (id, flags) = walk(worker, pid);
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
    UNKNOWN
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
fn walk(worker: &mut Worker, pid: u32) -> (u64, u32) {
    let offset = u64::from(worker.config.offsets.current_execute_data);
    let current: Option<u64> = read(worker, worker.config.executor_globals + offset);
    worker.state.depth = 0;
    worker.state.waiting = 0;
    worker.state.window_start = 0;
    worker.state.window_end = 0;
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
        id = mix(id, request_salt(worker, pid));
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
    // A frame that can't be read leaves the stack cut: there was more.
    let Some(frame) = read_frame(worker, at) else {
        return BREAK;
    };
    if !from_chain {
        walk.next = frame[PREVIOUS];
    }
    if frame[FUNCTION] == 0 {
        generator_chain(worker, frame[THIS], frame[THIS_TYPE] as u8);
        return CONTINUE;
    }
    let (walked, id) = describe(worker, &frame, walk.id);
    walk.id = id;
    walk.passing |= walked.flags & frame_flags::PASSING;
    worker.state.frames[worker.state.depth as usize & (MAX_FRAMES - 1)] = walked;
    worker.state.depth += 1;
    CONTINUE
}

/// The frame at `at`: out of the window, which moves where it does not hold the frame. Callers lie
/// below, so the window ends with the frame that it was moved for.
#[inline(always)]
fn read_frame(worker: &mut Worker, at: u64) -> Option<ExecuteData> {
    let is_there =
        at >= worker.state.window_start && at.saturating_add(FRAME) <= worker.state.window_end;
    if !is_there && !read_window(worker, at) {
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

/// What kind of frame this is, and the stack's id with it.
#[inline(always)]
fn describe(worker: &mut Worker, frame: &ExecuteData, id: u64) -> (WalkedFrame, u64) {
    let function = frame[FUNCTION];
    // Addresses are even: with an object a method has another name than without.
    let with_object = frame[THIS_TYPE] as u8 == IS_OBJECT;
    let (mut id, flags) = add_function(worker, function, id ^ u64::from(with_object));
    let mut walked = WalkedFrame {
        function,
        opline: frame[OPLINE],
        flags,
        type_info: frame[THIS_TYPE] as u32,
        this: if with_object { frame[THIS] } else { 0 },
    };
    if flags & frame_flags::INTERNAL == 0 {
        if walked.opline.wrapping_sub(worker.config.executor_globals) < EXECUTOR_GLOBALS_BYTES {
            walked.opline = before_exception(worker);
        }
        id = mix(id, walked.opline);
        if !is_lasting(worker, walked.opline) {
            walked.flags |= frame_flags::PASSING;
            id = add_place(worker, function, walked.opline, id);
        }
    }
    (walked, id)
}

/// Adds to a stack's id the file and the line of code that passes. A file's own code is freed when its
/// include is over, and within the same request another file's may lie at its addresses; the file's name
/// stays until the request's end.
#[inline(never)]
fn add_place(worker: &mut Worker, function: u64, opline: u64, id: u64) -> u64 {
    let file = read(worker, function + u64::from(worker.config.offsets.filename)).unwrap_or(0);
    // A frame that is being made has none yet.
    let line = match opline {
        0 => 0,
        opline => read::<u32>(worker, opline + OP_LINE).unwrap_or(0),
    };
    mix(mix(id, file), u64::from(line))
}

/// While an exception unwinds, the frame stands at an instruction of the engine's, which lies in
/// `executor_globals`; this is the one of its own that it came from.
#[inline(never)]
fn before_exception(worker: &mut Worker) -> u64 {
    let offset = u64::from(worker.config.offsets.opline_before_exception);
    read(worker, worker.config.executor_globals + offset).unwrap_or(0)
}

/// Adds to a stack's id what tells a function from others; with it the function's [`frame_flags`].
///
/// A function that stays where it is is known by its address, any other user function by its name's
/// and its class's: copies of one closure or trait method share their code and differ in these.
///
/// An internal function's frame has no opline (the field holds what was there before), so the type
/// has to be known of every frame; the cache saves the read for functions that stay.
#[inline(always)]
fn add_function(worker: &mut Worker, function: u64, id: u64) -> (u64, u32) {
    let slot = (function >> 5) as usize & (TYPE_CACHE - 1);
    let cached = worker.state.function_types[slot];
    if cached & !1 == function {
        return (mix(id, function), cached as u32 & frame_flags::INTERNAL);
    }
    let [start, name, class] = read::<FunctionStart>(worker, function).unwrap_or_default();
    let internal = start as u8 == INTERNAL_FUNCTION;
    let flags = u32::from(internal) * frame_flags::INTERNAL;
    if is_lasting(worker, function) {
        worker.state.function_types[slot] = function | u64::from(internal);
        return (mix(id, function), flags);
    }
    if internal {
        return (mix(id, function), flags | frame_flags::PASSING);
    }
    let passes = !stays(worker, name) || !stays(worker, class);
    let passing = u32::from(passes) * frame_flags::PASSING;
    (mix(mix(id, name), class), flags | passing)
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
