//! A stack seen for the first time: lines, functions, names.

use memprof_ebpf::{
    EventKind, FunctionEvent, MAX_FRAMES, NAME_BYTES, PATH_BYTES, StackEvent, StackFrame, Worker,
    frame_flags, stack_flags,
};

use crate::{
    id::{is_lasting, mix, request_salt, stays},
    maps::{EVENTS, SEEN, header, send_bytes},
    read::{read, read_string},
    repeat::{BREAK, CONTINUE, repeat},
};

/// `zend_function.common`: type and `fn_flags`, `function_name`, `scope`; the same in every version.
pub type FunctionStart = [u64; 3];
/// `zend_class_entry.name`, in every version.
pub const CLASS_NAME: u64 = 8;
/// A `zend_op`, in every version.
type Op = [u32; 8];
const OP_EXTENDED_VALUE: usize = 5;
const OP_LINE: usize = 6;
const OP_CODE: usize = 7;

/// `ZEND_INCLUDE_OR_EVAL`
const INCLUDE_OR_EVAL: u32 = 73;
/// `ZEND_FRAMELESS_ICALL_0` to `_3` (8.4 on)
const FRAMELESS_FIRST: u32 = 204;
const FRAMELESS_LAST: u32 = 207;

/// Bytes of a stack's event in front of its frames.
const STACK_START: u64 = (size_of::<StackEvent>() - size_of::<[StackFrame; MAX_FRAMES]>()) as u64;

/// Where the description of a stack stands.
struct Description {
    worker: *mut Worker,
    pid: u32,
    /// [`stack_flags`]
    flags: u32,
    failed: u32,
}

/// Sends the functions that are new and the stack of the worker's walked frames; whether all of it
/// was taken.
#[inline(never)]
pub fn send_stack(worker: &mut Worker, pid: u32, id: u64, flags: u32) -> bool {
    worker.state.described = 0;
    let mut description = Description {
        worker,
        pid,
        flags,
        failed: 0,
    };
    repeat(worker.state.depth, describe, &mut description);
    if description.failed != 0 {
        return false;
    }
    worker.state.stack.header = header(EventKind::Stack, pid, worker);
    worker.state.stack.stack = id;
    worker.state.stack.depth = worker.state.described;
    worker.state.stack.flags = description.flags;
    // The minimum tells the verifier what the loop's bound already says.
    let frames = u64::from(worker.state.described.min(MAX_FRAMES as u32));
    let length = STACK_START + frames * size_of::<StackFrame>() as u64;
    let event = (&raw const worker.state.stack).cast();
    send_bytes(worker, event, length)
}

/// One walked frame: its function, its line, and the frameless call that it makes, if any.
extern "C" fn describe(index: u64, description: *mut Description) -> i64 {
    // SAFETY: the description and its worker outlive the loop.
    let (description, worker) = unsafe { (&mut *description, &mut *(*description).worker) };
    let pid = description.pid;
    let walked = worker.state.frames[index as usize & (MAX_FRAMES - 1)];
    let mut frame = StackFrame {
        function: 0,
        line: 0,
        flags: walked.flags,
        type_info: walked.type_info,
        include: 0,
    };
    if walked.flags & frame_flags::INTERNAL == 0 {
        match current_op(worker, walked.function, walked.opline) {
            Some(op) => describe_op(description, worker, &mut frame, &op),
            None => frame.flags |= frame_flags::NO_LINE,
        }
    }
    frame.function = send_function(worker, pid, walked.function, walked.flags);
    if frame.function == 0 {
        description.failed = 1;
        return BREAK;
    }
    push(description, worker, frame);
    CONTINUE
}

/// The instruction that a user function is at. `None` where the pointer does not lead into the
/// function, as it may while the frame is made.
#[inline(never)]
fn current_op(worker: &mut Worker, function: u64, opline: u64) -> Option<Op> {
    let offsets = worker.config.offsets;
    let start = read::<u64>(worker, function + u64::from(offsets.opcodes))?;
    let count = read::<u32>(worker, function + u64::from(offsets.last))?;
    let within = opline.wrapping_sub(start);
    if within >= u64::from(count) * size_of::<Op>() as u64 {
        return None;
    }
    read::<Op>(worker, opline)
}

/// What a user function's current instruction tells: its line, an include, a frameless call, which
/// has no frame of its own.
#[inline(always)]
fn describe_op(
    description: &mut Description,
    worker: &mut Worker,
    frame: &mut StackFrame,
    op: &Op,
) {
    frame.line = op[OP_LINE];
    let code = op[OP_CODE] & 0xff;
    if code == INCLUDE_OR_EVAL {
        frame.include = op[OP_EXTENDED_VALUE];
    }
    if (FRAMELESS_FIRST..=FRAMELESS_LAST).contains(&code) {
        let function = frameless(worker, description.pid, op[OP_EXTENDED_VALUE]);
        if function != 0 {
            let flags = frame_flags::INTERNAL;
            let called = StackFrame {
                function,
                line: 0,
                flags,
                type_info: 0,
                include: 0,
            };
            push(description, worker, called);
        }
    }
}

/// Puts a frame behind the others, or marks the stack as cut where there is no room.
#[inline(always)]
fn push(description: &mut Description, worker: &mut Worker, frame: StackFrame) {
    if worker.state.described >= MAX_FRAMES as u32 {
        description.flags |= stack_flags::CUT;
        return;
    }
    worker.state.stack.frames[worker.state.described as usize & (MAX_FRAMES - 1)] = frame;
    worker.state.described += 1;
}

/// The id of the function that a frameless call calls, or 0.
#[inline(never)]
fn frameless(worker: &mut Worker, pid: u32, index: u32) -> u64 {
    let table = worker.config.frameless_functions;
    if table == 0 {
        return 0;
    }
    let Some(function) = read::<u64>(worker, table + u64::from(index) * 8) else {
        return 0;
    };
    send_function(worker, pid, function, frame_flags::INTERNAL)
}

/// The function's id, after its event was sent if it is new; 0 where that failed.
///
/// A user function is known by its opcodes, name and class: closures and their copies share the
/// first, trait methods the first two.
#[inline(never)]
fn send_function(worker: &mut Worker, pid: u32, function: u64, flags: u32) -> u64 {
    let internal = flags & frame_flags::INTERNAL != 0;
    let mut id = worker.config.identity ^ 1;
    let is_passing = if internal {
        id = mix(id, function);
        !is_lasting(worker, function)
    } else {
        let at = function + u64::from(worker.config.offsets.opcodes);
        let opcodes = read::<u64>(worker, at).unwrap_or(0);
        let [_, name, class] = read::<FunctionStart>(worker, function).unwrap_or_default();
        id = mix(mix(mix(id, opcodes), name), class);
        let passes = !is_lasting(worker, opcodes);
        if passes {
            // Another file's code may have been there before in this request.
            let at = function + u64::from(worker.config.offsets.filename);
            id = mix(id, read(worker, at).unwrap_or(0));
        }
        passes || !stays(worker, name) || !stays(worker, class)
    };
    let mut flags = flags & frame_flags::INTERNAL;
    if is_passing {
        id = mix(id, request_salt(worker, pid));
        flags |= frame_flags::PASSING;
    }
    // SAFETY: the value is not looked at.
    if unsafe { SEEN.get(id) }.is_some() {
        return id;
    }
    let event = EVENTS.reserve::<FunctionEvent>();
    if event.is_null() {
        worker.state.lost += 1;
        return 0;
    }
    // SAFETY: the reserved record is as large as the event; its fields are written through it.
    unsafe {
        (*event).header = header(EventKind::Function, pid, worker);
        (*event).function = id;
        (*event).flags = flags;
        fill_function(worker, event, function, internal);
    }
    EVENTS.submit(worker, event);
    let _ = SEEN.insert(id, 1, 0);
    id
}

/// Reads what names a function.
///
/// # Safety
/// `event` points to a whole event.
#[inline(always)]
unsafe fn fill_function(
    worker: &mut Worker,
    event: *mut FunctionEvent,
    function: u64,
    internal: bool,
) {
    let offsets = worker.config.offsets;
    let mut incomplete = 0;
    let mut name_length = 0;
    let mut class_length = 0;
    let mut file_length = 0;
    let mut line_start = 0;
    let mut fn_flags = 0;
    // SAFETY: as the caller says.
    let (name_to, class_to, file_to) = unsafe {
        (
            (&raw mut (*event).name).cast(),
            (&raw mut (*event).class).cast(),
            (&raw mut (*event).file).cast(),
        )
    };
    match read::<FunctionStart>(worker, function) {
        Some([start, name, scope]) => {
            fn_flags = (start >> 32) as u32;
            if name != 0 {
                match read_string::<{ NAME_BYTES as u64 }>(worker, name_to, name) {
                    Some(length) => name_length = length,
                    None => incomplete = 1,
                }
            }
            if scope != 0 {
                let class = read::<u64>(worker, scope + CLASS_NAME).unwrap_or(0);
                match read_string::<{ NAME_BYTES as u64 }>(worker, class_to, class) {
                    Some(length) => class_length = length,
                    None => incomplete = 1,
                }
            }
        }
        None => incomplete = 1,
    }
    if !internal {
        let file = read::<u64>(worker, function + u64::from(offsets.filename)).unwrap_or(0);
        match read_string::<{ PATH_BYTES as u64 }>(worker, file_to, file) {
            Some(length) => file_length = length,
            None => incomplete = 1,
        }
        line_start = read::<u32>(worker, function + u64::from(offsets.line_start)).unwrap_or(0);
    }
    // SAFETY: as the caller says.
    unsafe {
        (*event).name_length = name_length;
        (*event).class_length = class_length;
        (*event).file_length = file_length;
        (*event).line_start = line_start;
        (*event).incomplete = incomplete;
        (*event).fn_flags = fn_flags;
    }
}
