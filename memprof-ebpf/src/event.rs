//! The events, as they lie in the ring.

use bytemuck::{Pod, Zeroable};

use crate::{MAX_FRAMES, MAX_SUBJECTS, MAX_VARIABLES, NAME_BYTES, PATH_BYTES, SQL_BYTES};

/// Bits of [`crate::WalkedFrame::flags`], [`StackFrame::flags`] and [`FunctionEvent::flags`].
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
    /// [`ClassEvent`]
    Class = 6,
    /// [`CallEvent`]
    Call = 7,
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
            6 => Self::Class,
            7 => Self::Call,
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
    /// [`crate::WorkerState::request`]
    pub request: u32,
    /// [`crate::WorkerState::recorded`]
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
    /// The heap is above the critical level, for the first time in the request.
    Critical = 8,
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
            8 => Self::Critical,
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
    /// `zend_mm_heap.size`, or [`crate::UNKNOWN`] like each of the five.
    pub size: u64,
    /// `zend_mm_heap.peak`
    pub peak: u64,
    /// `zend_mm_heap.real_size`
    pub real_size: u64,
    /// `zend_mm_heap.real_peak`
    pub real_peak: u64,
    /// `zend_mm_heap.limit`
    pub limit: u64,
    /// Pages in use, each chunk's own first page included, or [`crate::UNKNOWN`].
    pub used_pages: u64,
    /// Bytes in huge blocks, or [`crate::UNKNOWN`].
    pub huge_bytes: u64,
    /// Chunks in use.
    pub chunks: u32,
    /// Chunks kept for later; they count in `real_size`, in PHP 7.4 until a request reuses them.
    pub cached_chunks: u32,
    /// [`crate::WorkerState::lost`]
    pub lost: u64,
    /// [`crate::WorkerState::hits`]
    pub hits: u64,
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
    /// Its size, new size where it was resized, or [`crate::UNKNOWN`] for a freed huge block.
    pub bytes: u64,
    /// The stack's id, 0 where none was walked or none was there, or [`crate::UNKNOWN`].
    pub stack: u64,
    /// CLOCK_MONOTONIC in ns; 0 where no stack was walked, as with the next.
    pub time: u64,
    /// `zend_mm_heap.real_size`, or [`crate::UNKNOWN`].
    pub real_size: u64,
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

/// A class seen for the first time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ClassEvent {
    /// Common part.
    pub header: Header,
    /// The id by which other events name it.
    pub class: u64,
    /// [`frame_flags::PASSING`], or 0.
    pub flags: u32,
    /// Bytes in `name` that are filled; 0 where it could not be read.
    pub name_length: u32,
    /// `name`
    pub name: [u8; NAME_BYTES],
}

/// Which internal function a [`CallEvent`] is about.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A query was run.
    Query = 1,
    /// The rows of a result were fetched all at once.
    Rows = 2,
    /// `array_unshift` begins: Laravel calls it for each scope that it applies.
    Scope = 3,
}

impl Call {
    /// The call by its number, or `None` where it is not one of ours.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Query,
            2 => Self::Rows,
            3 => Self::Scope,
            _ => return None,
        })
    }
}

/// The object that a frame's method runs on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Subject {
    /// The class of `$this`, as [`ClassEvent::class`]; 0 without an object.
    pub class: u64,
    /// The class of the object in the second property slot of `$this`; 0 without one.
    pub second: u64,
}

/// An internal function was called.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct CallEvent {
    /// Common part.
    pub header: Header,
    /// [`Call`]
    pub call: u32,
    /// Bytes in `sql` that are filled.
    pub sql_length: u32,
    /// CLOCK_MONOTONIC in ns when it began.
    pub start: u64,
    /// CLOCK_MONOTONIC in ns when it ended; for [`Call::Scope`] when it began.
    pub end: u64,
    /// `zend_mm_heap.real_size` then, or [`crate::UNKNOWN`].
    pub real_size: u64,
    /// For [`Call::Rows`]: how many; [`crate::UNKNOWN`] where it was no array.
    pub rows: u64,
    /// The stack, the called function first.
    pub stack: u64,
    /// By frame, as far as they are looked at.
    pub subjects: [Subject; MAX_SUBJECTS],
    /// For [`Call::Scope`]: the classes of the objects in the first variables of the caller's caller.
    pub variables: [u64; MAX_VARIABLES],
    /// For [`Call::Query`]: the text with its placeholders, cut.
    pub sql: [u8; SQL_BYTES],
}
