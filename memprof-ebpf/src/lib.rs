//! What the BPF programs and the agent share: the maps' values and the events.
//!
//! Every type is plain old data with a C layout and no padding, so that both sides read the same
//! bytes. Addresses are addresses in the worker; sizes are bytes unless a name says pages.

#![no_std]

pub mod cookie;
mod event;
mod hold;
mod pattern;
mod targeting;
mod worker;

pub use event::*;
pub use hold::*;
pub use pattern::{MOST_STEPS, Matching};
pub use targeting::*;
pub use worker::*;

/// Frames recorded of a stack, counted from the innermost; what lies further out is marked as cut.
pub const MAX_FRAMES: usize = 128;

/// `yield from` chains are followed this far.
pub const MAX_GENERATORS: usize = 128;

/// Words of the VM stack that are copied at once: 4 KiB hold some 30 frames.
pub const WINDOW_WORDS: usize = 512;

/// Slots of [`WorkerState::function_types`].
pub const TYPE_CACHE: usize = 256;

/// One hit in so many is timed.
pub const TIMED_EVERY: u64 = 64;

/// Bytes at the end of an included file's path by which a watched file is recognised, at most.
pub const WATCHED_TAIL: usize = 24;

/// Names of functions and classes are read up to this many bytes.
pub const NAME_BYTES: usize = 256;

/// Frames whose objects are looked at when a watched function is called: deeper than any Laravel
/// version goes from its query builder to PDO.
pub const MAX_SUBJECTS: usize = 24;

/// Variables of a frame that are looked at.
pub const MAX_VARIABLES: usize = 4;

/// A query's text is read up to this many bytes.
pub const SQL_BYTES: usize = 1024;

/// File paths and URIs are read up to this many bytes.
pub const PATH_BYTES: usize = 256;

/// An order to record the worker's next request and no other. Any other order is the share of its
/// requests to record, in 1 / 2^32.
pub const ARMED_ONCE: u32 = 1;

/// Stands for a number that could not be read.
pub const UNKNOWN: u64 = u64::MAX;
