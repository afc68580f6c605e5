//! What both sides keep of a worker: the values of the maps.

use bytemuck::{Pod, Zeroable};

use crate::{
    CallEvent, HoldConfig, HoldOrder, MAX_FRAMES, MAX_GENERATORS, PATH_BYTES, StackEvent,
    TEXT_BYTES, TYPE_CACHE, WINDOW_WORDS,
};

/// `[start, end)` in the worker's address space.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// First address behind.
    pub end: u64,
}

/// Struct offsets that differ between PHP builds, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Offsets {
    /// `executor_globals.current_execute_data`
    pub current_execute_data: u32,
    /// `zend_op_array.opcodes`
    pub opcodes: u32,
    /// `zend_op_array.last`
    pub last: u32,
    /// `executor_globals.opline_before_exception`
    pub opline_before_exception: u32,
    /// `zend_op_array.filename`
    pub filename: u32,
    /// `zend_op_array.line_start`
    pub line_start: u32,
    /// `zend_generator.execute_data`
    pub generator_execute_data: u32,
    /// `zend_generator.node.parent`
    pub generator_parent: u32,
    /// `zend_mm_heap.size`, followed by `peak`
    pub heap_size: u32,
    /// `zend_mm_heap.real_size`, followed by `real_peak` and `limit`
    pub heap_real_size: u32,
    /// `zend_mm_heap.huge_list`, followed by `main_chunk` and `cached_chunks`
    pub heap_huge_list: u32,
    /// `zend_mm_heap.chunks_count`, followed by `peak_chunks_count` and `cached_chunks_count`
    pub heap_chunks_count: u32,
    /// `zend_mm_chunk.free_pages`
    pub chunk_free_pages: u32,
    /// `zend_mm_chunk.map`
    pub chunk_map: u32,
    /// Whether `zend_file_handle.filename` is a `zend_string *` (8.1 on) or a `char *`.
    pub filename_is_string: u32,
    /// `zend_class_entry.default_properties_count`
    pub class_properties_count: u32,
}

/// What the kernel side has to know of one worker; written by the agent, once, before its probes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct WorkerConfig {
    /// `AG(mm_heap)`
    pub heap: u64,
    /// `&executor_globals`
    pub executor_globals: u64,
    /// `&sapi_globals`
    pub sapi_globals: u64,
    /// `zend_flf_functions` (8.4 on), or 0.
    pub frameless_functions: u64,
    /// `zend_ce_generator`
    pub generator_class: u64,
    /// Tells the addresses of one php-fpm master from those of another in stack and function ids.
    pub identity: u64,
    /// Memory whose content outlives a request: opcache's shared memory, the C heap.
    /// What lies elsewhere may be another function in the next request.
    pub lasting: [Range; 2],
    /// For each length that the end of a watched file's path has, the bit of that number.
    pub watched_lengths: u64,
    /// Where the fields are.
    pub offsets: Offsets,
    /// When the worker is held still.
    pub hold: HoldConfig,
}

/// What the kernel side keeps of one worker between hits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct WorkerState {
    /// Requests started since the agent came; the number of the running one.
    pub request: u32,
    /// 1 while a request runs that is recorded in full.
    pub recorded: u32,
    /// 1 between a request's start and the heap's reset.
    pub in_request: u32,
    /// Frames in `frames`. These counts stand here and not on the programs' stack, where the
    /// verifier would follow every value that they can take.
    pub depth: u32,
    /// Frames in `stack.frames`.
    pub described: u32,
    /// Entries of `generators` that wait for their turn.
    pub waiting: u32,
    /// Hits of any probe in this worker.
    pub hits: u64,
    /// Events handed to the ring buffer.
    pub sent: u64,
    /// Events lost, because the ring buffer was full or the program busy.
    pub lost: u64,
    /// Of these, hits that found the program under way on their processor.
    pub busy: u64,
    /// Calls that exact mode had no room to count.
    pub uncounted: u64,
    /// Reads of the worker's memory that failed.
    pub unreadable: u64,
    /// Forced requests past the number that is recorded in a minute.
    pub refused: u64,
    /// Forced requests that could not be stopped, because the agent does not trace the worker.
    pub untraced: u64,
    /// Hits whose time was measured: one in [`crate::TIMED_EVERY`].
    pub timed_hits: u64,
    /// Nanoseconds that these spent in the programs; the trap itself is not in it.
    pub timed_ns: u64,
    /// 1 from when the agent is asked to hold the worker until the request is over.
    pub hold_asked: u32,
    /// 1 once the worker was stopped at its memory limit in this request, or should have been.
    pub limit_stopped: u32,
    /// 1 once the heap was above the critical level in this request.
    pub critical_seen: u32,
    /// Why the worker was last stopped: [`crate::StopReason`].
    pub stop_reason: u32,
    /// Times that it was stopped.
    pub stops: u64,
    /// When the last stop began, the wait for it included: CLOCK_MONOTONIC in ns.
    pub stop_time: u64,
    /// The last order to the agent.
    pub order: HoldOrder,
    /// Where the worker's memory is read to by the wait for the agent.
    pub probed: u64,
    /// The last stack walked, innermost first.
    pub frames: [WalkedFrame; MAX_FRAMES],
    /// Frames of a `yield from` chain that wait for their turn, outermost first.
    pub generators: [u64; MAX_GENERATORS],
    /// Function addresses whose type is known; the low bit says internal.
    pub function_types: [u64; TYPE_CACHE],
    /// Where `window` starts in the worker's memory.
    pub window_start: u64,
    /// The first address behind what it holds; where it starts if it holds nothing.
    pub window_end: u64,
    /// A piece of the VM stack, and room for a frame that begins at its last word.
    pub window: [u64; WINDOW_WORDS + 8],
    /// Where the value of the FastCGI variable that was looked for is, and its length.
    pub variable: [u64; 2],
    /// The registers at the probe, where one of them is named by number.
    pub registers: [u64; 32],
    /// A path that has to be measured or compared.
    pub path: [u8; PATH_BYTES],
    /// A text that is compared.
    pub text: [u64; TEXT_BYTES / 8],
    /// Where a stack's event is put together.
    pub stack: StackEvent,
    /// The watched call that runs.
    pub running: RunningCall,
    /// Watched calls whose end came after another one had begun: nothing is told of them.
    pub nested_calls: u64,
    /// Where a call's event is put together.
    pub call: CallEvent,
}

/// A watched internal function between its begin and its return.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct RunningCall {
    /// Its `zend_execute_data`; 0 where none runs.
    pub frame: u64,
    /// CLOCK_MONOTONIC in ns when it began.
    pub start: u64,
    /// The query's `zend_string`, or 0.
    pub sql: u64,
    /// The zval that its result goes to.
    pub result: u64,
}

/// The value of the workers' map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Worker {
    /// Written by the agent.
    pub config: WorkerConfig,
    /// Written by the kernel side.
    pub state: WorkerState,
}

/// One frame as the walk found it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct WalkedFrame {
    /// `zend_function *`
    pub function: u64,
    /// `zend_op *`, while an exception unwinds the one it came from; meaningless for an internal
    /// function.
    pub opline: u64,
    /// [`crate::frame_flags`]
    pub flags: u32,
    /// `This.u1.type_info`
    pub type_info: u32,
    /// `$this`; 0 without an object.
    pub this: u64,
}

/// What the allocation calls under one stack asked for, in exact mode.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct ExactCount {
    /// Calls.
    pub calls: u64,
    /// Bytes asked for.
    pub bytes: u64,
}

/// Key of the exact counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct ExactKey {
    /// The stack's id.
    pub stack: u64,
    /// Process id of the worker.
    pub pid: u32,
    /// [`WorkerState::request`]
    pub request: u32,
}
