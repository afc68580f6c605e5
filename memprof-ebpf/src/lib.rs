//! What the BPF programs and the agent share: the maps' values and the events.
//!
//! Every type is plain old data with a C layout and no padding, so that both sides read the same
//! bytes. Addresses are addresses in the worker; sizes are bytes unless a name says pages.

#![no_std]

use bytemuck::{Pod, Zeroable};

/// Frames recorded of a stack, counted from the innermost; what lies further out is marked as cut.
pub const MAX_FRAMES: usize = 128;

/// `yield from` chains are followed this far.
pub const MAX_GENERATORS: usize = 16;

/// Slots of [`WorkerState::function_types`].
pub const TYPE_CACHE: usize = 256;

/// One hit in so many is timed.
pub const TIMED_EVERY: u64 = 64;

/// Bytes at the end of an included file's path by which a watched file is recognised.
pub const WATCHED_TAIL: usize = 24;

/// Names of functions and classes are read up to this many bytes.
pub const NAME_BYTES: usize = 128;

/// File paths and URIs are read up to this many bytes.
pub const PATH_BYTES: usize = 256;

/// An order to record the worker's next request and no other. Any other order is the share of its
/// requests to record, in 1 / 2^32.
pub const ARMED_ONCE: u32 = 1;

/// Stands for a number that could not be read.
pub const UNKNOWN: u64 = u64::MAX;

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
    /// Keeps the struct's size a multiple of eight.
    pub reserved: u32,
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
    /// The worker's process id: workers of one master have their heaps at the same address, so that alone would not
    /// tell what is one worker's from what is another's.
    pub pid: u64,
    /// Memory whose content outlives a request: opcache's shared memory, the C heap.
    /// What lies elsewhere may be another function in the next request.
    pub lasting: [Range; 2],
    /// Where the fields are.
    pub offsets: Offsets,
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
    /// Events lost because the ring buffer was full.
    pub lost: u64,
    /// Reads of the worker's memory that failed.
    pub unreadable: u64,
    /// Hits whose time was measured: one in [`TIMED_EVERY`].
    pub timed_hits: u64,
    /// Nanoseconds that these spent in the programs; the trap itself is not in it.
    pub timed_ns: u64,
    /// The last stack walked, innermost first.
    pub frames: [WalkedFrame; MAX_FRAMES],
    /// Frames of a `yield from` chain that wait for their turn, outermost first.
    pub generators: [u64; MAX_GENERATORS],
    /// Function addresses whose type is known; the low bit says internal.
    pub function_types: [u64; TYPE_CACHE],
    /// The registers at the probe, where one of them is named by number.
    pub registers: [u64; 32],
    /// A path that has to be measured.
    pub path: [u8; PATH_BYTES],
    /// Where a stack's event is put together.
    pub stack: StackEvent,
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
    /// `zend_op *`; meaningless for an internal function.
    pub opline: u64,
    /// [`frame_flags`]
    pub flags: u32,
    /// `This.u1.type_info`
    pub type_info: u32,
}

/// Bits of [`WalkedFrame::flags`], [`StackFrame::flags`] and [`FunctionEvent::flags`].
pub mod frame_flags {
    /// A function written in C.
    pub const INTERNAL: u32 = 1;
    /// Its address means something else in the next request.
    pub const PASSING: u32 = 2;
    /// The line could not be read.
    pub const NO_LINE: u32 = 4;
}

/// Bits of [`StackEvent::flags`].
pub mod stack_flags {
    /// Frames further out were left out.
    pub const CUT: u32 = 1;
    /// The id means something else in the next request.
    pub const PASSING: u32 = 2;
}

/// What kind of event follows; the first field of every event.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// [`RequestEvent`]
    Request = 1,
    /// [`CheckpointEvent`]
    Checkpoint = 2,
    /// [`GrowthEvent`]
    Growth = 3,
    /// [`StackEvent`]
    Stack = 4,
    /// [`FunctionEvent`]
    Function = 5,
}

impl EventKind {
    /// The kind by its number, or `None` where it is not one of ours.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Request,
            2 => Self::Checkpoint,
            3 => Self::Growth,
            4 => Self::Stack,
            5 => Self::Function,
            _ => return None,
        })
    }
}

/// What every event starts with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Header {
    /// [`EventKind`]
    pub kind: u32,
    /// Process id of the worker.
    pub pid: u32,
    /// [`WorkerState::request`]
    pub request: u32,
    /// [`WorkerState::recorded`]
    pub recorded: u32,
}

/// A request starts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct RequestEvent {
    /// Common part.
    pub header: Header,
    /// Bytes in `uri` that are filled.
    pub uri_length: u32,
    /// Bytes in `host` that are filled.
    pub host_length: u32,
    /// Bytes in `script` that are filled.
    pub script_length: u32,
    /// 1 if the FastCGI environment has HTTPS=on.
    pub https: u32,
    /// `SG(request_info).request_method`, up to 15 bytes and a zero.
    pub method: [u8; 16],
    /// REQUEST_URI of the FastCGI environment.
    pub uri: [u8; PATH_BYTES],
    /// HTTP_HOST of the FastCGI environment.
    pub host: [u8; NAME_BYTES],
    /// `SG(request_info).path_translated`
    pub script: [u8; PATH_BYTES],
}

/// Which moment a [`CheckpointEvent`] records.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// `php_request_startup`
    RequestStart = 1,
    /// A watched file is about to be loaded.
    Include = 2,
    /// `sapi_send_headers`
    SendHeaders = 3,
    /// `php_request_shutdown`
    RequestEnd = 4,
    /// The heap is about to be reset.
    HeapReset = 5,
    /// The memory-limit error.
    LimitError = 6,
    /// Memory for a chunk or a huge block is about to be mapped; the counters are those before.
    ChunkTaken = 7,
}

impl Moment {
    /// The moment by its number, or `None` where it is not one of ours.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::RequestStart,
            2 => Self::Include,
            3 => Self::SendHeaders,
            4 => Self::RequestEnd,
            5 => Self::HeapReset,
            6 => Self::LimitError,
            7 => Self::ChunkTaken,
            _ => return None,
        })
    }
}

/// The heap's own counters at one moment of a request.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct CheckpointEvent {
    /// Common part.
    pub header: Header,
    /// [`Moment`]
    pub moment: u32,
    /// For [`Moment::Include`]: which watched file.
    pub label: u32,
    /// CLOCK_MONOTONIC in ns.
    pub time: u64,
    /// `zend_mm_heap.size`, or [`UNKNOWN`] like each of the five.
    pub size: u64,
    /// `zend_mm_heap.peak`
    pub peak: u64,
    /// `zend_mm_heap.real_size`
    pub real_size: u64,
    /// `zend_mm_heap.real_peak`
    pub real_peak: u64,
    /// `zend_mm_heap.limit`
    pub limit: u64,
    /// Pages in use, each chunk's own first page included, or [`UNKNOWN`].
    pub used_pages: u64,
    /// Bytes in huge blocks, or [`UNKNOWN`].
    pub huge_bytes: u64,
    /// Chunks in use.
    pub chunks: u32,
    /// Chunks kept for later; they count in `real_size`.
    pub cached_chunks: u32,
    /// [`WorkerState::lost`]
    pub lost: u64,
    /// For [`Moment::LimitError`]: the bytes asked for.
    pub tried: u64,
    /// For [`Moment::LimitError`] and [`Moment::ChunkTaken`]: the stack, or 0.
    pub stack: u64,
}

/// What happened to the heap in a [`GrowthEvent`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A page run was taken.
    PagesTaken = 1,
    /// A page run was freed.
    PagesFreed = 2,
    /// A page run changed its length in place.
    PagesResized = 3,
    /// A huge block was taken.
    HugeTaken = 4,
    /// A huge block was freed.
    HugeFreed = 5,
    /// A huge block changed its size in place.
    HugeResized = 6,
}

impl Change {
    /// The change by its number, or `None` where it is not one of ours.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::PagesTaken,
            2 => Self::PagesFreed,
            3 => Self::PagesResized,
            4 => Self::HugeTaken,
            5 => Self::HugeFreed,
            6 => Self::HugeResized,
            _ => return None,
        })
    }
}

/// The heap grew or shrank.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct GrowthEvent {
    /// Common part.
    pub header: Header,
    /// [`Change`]
    pub change: u32,
    /// Keeps the struct's size a multiple of eight.
    pub reserved: u32,
    /// Address of the run or block.
    pub address: u64,
    /// Its size, new size where it was resized, or [`UNKNOWN`] for a freed huge block.
    pub bytes: u64,
    /// The stack's id, or 0 where none was walked or none was there.
    pub stack: u64,
}

/// One frame of a [`StackEvent`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct StackFrame {
    /// [`FunctionEvent::function`]
    pub function: u64,
    /// The line that runs; 0 for an internal function.
    pub line: u32,
    /// [`frame_flags`]
    pub flags: u32,
    /// `This.u1.type_info`
    pub type_info: u32,
    /// `extended_value` of the include or eval that the frame's opline is, or 0.
    pub include: u32,
}

/// A stack seen for the first time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct StackEvent {
    /// Common part.
    pub header: Header,
    /// The id by which other events name it.
    pub stack: u64,
    /// Frames that follow; a shorter event ends behind the last.
    pub depth: u32,
    /// [`stack_flags`]
    pub flags: u32,
    /// Innermost first.
    pub frames: [StackFrame; MAX_FRAMES],
}

/// A function seen for the first time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct FunctionEvent {
    /// Common part.
    pub header: Header,
    /// The id by which frames name it.
    pub function: u64,
    /// [`frame_flags::INTERNAL`] and [`frame_flags::PASSING`].
    pub flags: u32,
    /// First line of a user function, or 0.
    pub line_start: u32,
    /// Bytes in `name` that are filled; 0 for a file's top-level code.
    pub name_length: u32,
    /// Bytes in `class` that are filled; 0 for a plain function.
    pub class_length: u32,
    /// Bytes in `file` that are filled; 0 for an internal function.
    pub file_length: u32,
    /// 1 if a part could not be read.
    pub incomplete: u32,
    /// `fn_flags`
    pub fn_flags: u32,
    /// Keeps the struct's size a multiple of eight.
    pub reserved: u32,
    /// `function_name`
    pub name: [u8; NAME_BYTES],
    /// `scope->name`
    pub class: [u8; NAME_BYTES],
    /// `filename`
    pub file: [u8; PATH_BYTES],
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

/// Probe cookies: what the kernel side is told of the site that was hit.
pub mod cookie {
    /// `php_request_startup`
    pub const REQUEST_START: u64 = 1;
    /// `php_request_shutdown`
    pub const REQUEST_END: u64 = 2;
    /// `zend_mm_shutdown`
    pub const HEAP_RESET: u64 = 3;
    /// `sapi_send_headers`
    pub const SEND_HEADERS: u64 = 4;
    /// Chunk allocator.
    pub const CHUNK_TAKEN: u64 = 5;
    /// The memory-limit error; the register with the bytes asked for is in bits 8 to 15.
    pub const LIMIT_ERROR: u64 = 6;
    /// Result of the page allocator.
    pub const PAGES_TAKEN: u64 = 7;
    /// `zend_mm_free_pages`
    pub const PAGES_FREED: u64 = 8;
    /// A store into the page map, see [`map_store`].
    pub const PAGES_RESIZED: u64 = 9;
    /// Return of the huge allocator.
    pub const HUGE_TAKEN: u64 = 10;
    /// `zend_mm_free_huge`
    pub const HUGE_FREED: u64 = 11;
    /// Return of the huge reallocator.
    pub const HUGE_RESIZED: u64 = 12;
    /// Target of `zend_compile_file`.
    pub const COMPILE_FILE: u64 = 13;
    /// An allocation entry; bits 8 to 9 say where the size is ([`SIZE_FIXED`] …), bits 32 on hold a fixed size.
    pub const EMALLOC: u64 = 14;
    /// A run of small blocks is about to be emptied in the page map, see [`map_store`].
    pub const PAGES_COLLECTED: u64 = 15;

    /// The size is in the cookie.
    pub const SIZE_FIXED: u64 = 0;
    /// The size is the first argument.
    pub const SIZE_FIRST: u64 = 1;
    /// The size is the second argument.
    pub const SIZE_SECOND: u64 = 2;

    /// The kind of site.
    #[must_use]
    pub const fn kind(cookie: u64) -> u64 {
        cookie & 0xff
    }

    /// Packs `[base + index * scale + displacement] = value`: register numbers, with 31 for no
    /// index, and the scale's logarithm.
    #[must_use]
    pub const fn map_store(
        kind: u64,
        base: u8,
        index: u8,
        scale_shift: u8,
        value: u8,
        displacement: i32,
    ) -> u64 {
        kind | (base as u64 & 31) << 8
            | (index as u64 & 31) << 13
            | (scale_shift as u64 & 3) << 18
            | (value as u64 & 31) << 20
            | (displacement as u32 as u64) << 32
    }
}
