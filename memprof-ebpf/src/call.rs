//! Program `call`: the internal functions by which an application asks its database and applies its
//! scopes, as they begin and as they return. Sit only in workers whose requests are recorded in full.

use core::ffi::c_void;

use memprof_ebpf::{
    Call, EventKind, MAX_FRAMES, MAX_SUBJECTS, MAX_VARIABLES, RunningCall, SQL_BYTES, Subject,
    UNKNOWN, Worker, cookie,
};

use crate::{
    class::send_class,
    growth::CHUNK_SIZE,
    heap::{now, real_size},
    hit::{Program, in_worker},
    maps::{header, send_bytes},
    read::{read, read_string},
    registers::Registers,
    repeat::{CONTINUE, repeat},
    stack::{IS_OBJECT, OBJECT_CLASS, identify},
};

/// `zend_execute_data.This.value` and `.prev_execute_data`, in every version.
const THIS: u64 = 32;
const PREVIOUS: u64 = 48;
/// The first variable of a frame, `ZEND_CALL_FRAME_SLOT` zvals from its start, in every version.
const VARIABLES: u64 = 80;
/// `zend_object.properties_table`, in every version.
const PROPERTIES: u64 = 40;
/// A `zend_object` up to the end of its second property.
type ObjectStart = [u64; 9];
/// Where the second property is in it.
const SECOND: usize = 7;
/// Size of a zval: its value, and its type in the low byte of the second word.
const ZVAL: u64 = 16;
/// Types of a zval.
const IS_STRING: u8 = 6;
const IS_ARRAY: u8 = 7;
/// `zend_array.nNumOfElements`, in every version.
const ARRAY_COUNT: u64 = 28;

#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe.multi.s")]
extern "C" fn call(context: *mut c_void) -> u32 {
    in_worker(context, Program::Call, hit)
}

#[inline(never)]
fn hit(pid: u32, worker: &mut Worker, registers: Registers, cookie: u64) {
    if worker.state.recorded == 0 {
        return;
    }
    match cookie::kind(cookie) {
        cookie::QUERY_RETURN => returned(pid, worker, Call::Query),
        cookie::ROWS_RETURN => returned(pid, worker, Call::Rows),
        kind => entered(pid, worker, registers, kind),
    }
}

/// A handler's arguments are its frame and the zval for its result.
#[inline(always)]
fn entered(pid: u32, worker: &mut Worker, registers: Registers, kind: u64) {
    let frame = registers.argument::<0>();
    if kind == cookie::SCOPE {
        worker.state.running.start = now();
        scope_applied(pid, worker, frame);
        return;
    }
    let sql = match kind {
        cookie::EXECUTE => statement(worker, frame),
        cookie::QUERY => argument(worker, frame),
        _ => 0,
    };
    worker.state.running = RunningCall {
        frame,
        start: now(),
        sql,
        result: registers.argument::<1>(),
    };
}

/// A handler's frame is the innermost until it has returned. A fiber may be suspended within one, and calls
/// then return in another order than they began in.
#[inline(always)]
fn returned(pid: u32, worker: &mut Worker, call: Call) {
    let offset = u64::from(worker.config.offsets.current_execute_data);
    let frame = read::<u64>(worker, worker.config.executor_globals + offset).unwrap_or(0);
    let running = worker.state.running;
    worker.state.running.frame = 0;
    if running.frame == 0 || running.frame != frame {
        worker.state.nested_calls += 1;
        return;
    }
    begin(worker);
    if call == Call::Rows {
        worker.state.call.rows = rows(worker, running.result);
        finish(pid, worker, call);
        return;
    }
    let to = (&raw mut worker.state.call.sql).cast();
    if running.sql != 0 {
        worker.state.call.sql_length =
            read_string::<{ SQL_BYTES as u64 }>(worker, to, running.sql).unwrap_or(0);
    }
    finish(pid, worker, call);
}

/// Laravel's `Builder->callScope` calls `array_unshift`; its caller has the scope in a variable.
#[inline(always)]
fn scope_applied(pid: u32, worker: &mut Worker, frame: u64) {
    begin(worker);
    let caller = read::<u64>(worker, frame + PREVIOUS).unwrap_or(0);
    let outer = if caller == 0 {
        0
    } else {
        read::<u64>(worker, caller + PREVIOUS).unwrap_or(0)
    };
    if outer == 0 {
        return;
    }
    for index in 0..MAX_VARIABLES {
        let object = object(worker, outer + VARIABLES + index as u64 * ZVAL);
        worker.state.call.variables[index] = class_of(worker, pid, object);
    }
    finish(pid, worker, Call::Scope);
}

/// Clears what an event before has left.
#[inline(always)]
fn begin(worker: &mut Worker) {
    let call = &mut worker.state.call;
    call.sql_length = 0;
    call.rows = UNKNOWN;
    call.variables = [0; MAX_VARIABLES];
}

/// Adds what every call's event has, and sends it.
#[inline(never)]
fn finish(pid: u32, worker: &mut Worker, call: Call) {
    worker.state.call.header = header(EventKind::Call, pid, worker);
    worker.state.call.call = call as u32;
    worker.state.call.start = worker.state.running.start;
    worker.state.call.end = now();
    worker.state.call.real_size = real_size(worker);
    worker.state.call.stack = identify(worker, pid);
    let mut subjects = Subjects {
        worker,
        pid,
        this: 0,
        subject: Subject::default(),
    };
    repeat(MAX_SUBJECTS as u32, look_at, &mut subjects);
    let event = (&raw const worker.state.call).cast();
    send_bytes(worker, event, size_of::<memprof_ebpf::CallEvent>() as u64);
}

/// Whose frames' objects are looked at.
struct Subjects {
    worker: *mut Worker,
    pid: u32,
    /// The last frame's object and what it is: methods of one object often call each other.
    this: u64,
    subject: Subject,
}

/// One frame's object.
extern "C" fn look_at(index: u64, subjects: *mut Subjects) -> i64 {
    // SAFETY: the subjects and their worker outlive the loop.
    let (subjects, worker) = unsafe { (&mut *subjects, &mut *(*subjects).worker) };
    let this = if index < u64::from(worker.state.depth) {
        worker.state.frames[index as usize & (MAX_FRAMES - 1)].this
    } else {
        0
    };
    if this != subjects.this {
        subjects.this = this;
        subjects.subject = subject(worker, subjects.pid, this);
    }
    if let Some(to) = worker.state.call.subjects.get_mut(index as usize) {
        *to = subjects.subject;
    }
    CONTINUE
}

/// An object by its class and that of the object in its second property; read at once, because each
/// read costs more than what it brings.
#[inline(always)]
fn subject(worker: &mut Worker, pid: u32, this: u64) -> Subject {
    let mut subject = Subject::default();
    // One that ends nearer to its chunk's end has no second property.
    if this & (CHUNK_SIZE - 1) > CHUNK_SIZE - size_of::<ObjectStart>() as u64 {
        subject.class = class_of(worker, pid, this);
        return subject;
    }
    if this == 0 {
        return subject;
    }
    let Some(object) = read::<ObjectStart>(worker, this) else {
        return subject;
    };
    let class = object[OBJECT_CLASS as usize / 8];
    if class == 0 {
        return subject;
    }
    subject.class = send_class(worker, pid, class);
    if subject.class != 0 && object[SECOND + 1] as u8 == IS_OBJECT && slots(worker, class) > 1 {
        subject.second = class_of(worker, pid, object[SECOND]);
    }
    subject
}

/// The id of an object's class; 0 without an object.
#[inline(never)]
fn class_of(worker: &mut Worker, pid: u32, object: u64) -> u64 {
    if object == 0 {
        return 0;
    }
    match read::<u64>(worker, object + OBJECT_CLASS) {
        None | Some(0) => 0,
        Some(class) => send_class(worker, pid, class),
    }
}

/// How many property slots the objects of a class have.
#[inline(always)]
fn slots(worker: &mut Worker, class: u64) -> u32 {
    let count = class + u64::from(worker.config.offsets.class_properties_count);
    read::<u32>(worker, count).unwrap_or(0)
}

/// The object in a zval, or 0.
#[inline(always)]
fn object(worker: &mut Worker, zval: u64) -> u64 {
    of_type(worker, zval, IS_OBJECT)
}

/// The string in a zval, or 0.
#[inline(always)]
fn string(worker: &mut Worker, zval: u64) -> u64 {
    of_type(worker, zval, IS_STRING)
}

#[inline(always)]
fn of_type(worker: &mut Worker, zval: u64, wanted: u8) -> u64 {
    match read::<[u64; 2]>(worker, zval) {
        Some([value, kind]) if kind as u8 == wanted => value,
        _ => 0,
    }
}

/// The query of a statement: `PDOStatement::$queryString`, its first property, in every version.
#[inline(always)]
fn statement(worker: &mut Worker, frame: u64) -> u64 {
    match read::<u64>(worker, frame + THIS) {
        None | Some(0) => 0,
        Some(this) => string(worker, this + PROPERTIES),
    }
}

/// The first argument, or the second where the first is the connection.
#[inline(always)]
fn argument(worker: &mut Worker, frame: u64) -> u64 {
    match string(worker, frame + VARIABLES) {
        0 => string(worker, frame + VARIABLES + ZVAL),
        first => first,
    }
}

/// The elements of the array in a zval, or [`UNKNOWN`].
#[inline(always)]
fn rows(worker: &mut Worker, zval: u64) -> u64 {
    let array = of_type(worker, zval, IS_ARRAY);
    if array == 0 {
        return UNKNOWN;
    }
    read::<u32>(worker, array + ARRAY_COUNT).map_or(UNKNOWN, u64::from)
}
