//! Events as they come out of the ring.

use bytemuck::{Zeroable, bytes_of_mut};
use memprof_ebpf::{
    CallEvent, CheckpointEvent, ClassEvent, EventKind, FunctionEvent, GrowthEvent, Header,
    MAX_FRAMES, RequestEvent, StackEvent, StackFrame,
};

/// One event; large ones stay where they are.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A request starts.
    Request(&'a RequestEvent),
    /// The heap's counters at a moment.
    Checkpoint(&'a CheckpointEvent),
    /// The heap grew or shrank.
    Growth(&'a GrowthEvent),
    /// A new stack, and its frames.
    Stack(StackHead, &'a [StackFrame]),
    /// A new function.
    Function(&'a FunctionEvent),
    /// A new class.
    Class(&'a ClassEvent),
    /// A watched function was called.
    Call(&'a CallEvent),
}

/// A stack's event without its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackHead {
    /// Process id of the worker.
    pub pid: u32,
    /// The id by which other events name it.
    pub stack: u64,
    /// [`memprof_ebpf::stack_flags`]
    pub flags: u32,
}

impl<'a> Event<'a> {
    /// The event in `bytes`, or `None` where they hold none.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let kind = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
        Some(match EventKind::from_number(kind)? {
            EventKind::Request => Self::Request(bytemuck::try_from_bytes(bytes).ok()?),
            EventKind::Checkpoint => Self::Checkpoint(bytemuck::try_from_bytes(bytes).ok()?),
            EventKind::Growth => Self::Growth(bytemuck::try_from_bytes(bytes).ok()?),
            EventKind::Function => Self::Function(bytemuck::try_from_bytes(bytes).ok()?),
            EventKind::Class => Self::Class(bytemuck::try_from_bytes(bytes).ok()?),
            EventKind::Call => Self::Call(bytemuck::try_from_bytes(bytes).ok()?),
            EventKind::Stack => Self::stack(bytes)?,
        })
    }

    fn stack(bytes: &'a [u8]) -> Option<Self> {
        const START: usize = size_of::<StackEvent>() - size_of::<[StackFrame; MAX_FRAMES]>();
        let (start, frames) = bytes.split_at_checked(START)?;
        let mut event = StackEvent::zeroed();
        bytes_of_mut(&mut event)
            .get_mut(..START)?
            .copy_from_slice(start);
        let length = (event.depth as usize).checked_mul(size_of::<StackFrame>())?;
        let frames = bytemuck::try_cast_slice(frames.get(..length)?).ok()?;
        let head = StackHead {
            pid: event.header.pid,
            stack: event.stack,
            flags: event.flags,
        };
        Some(Self::Stack(head, frames))
    }

    /// The worker that it comes from.
    #[must_use]
    pub fn pid(&self) -> u32 {
        let of = |header: &Header| header.pid;
        match self {
            Self::Request(event) => of(&event.header),
            Self::Checkpoint(event) => of(&event.header),
            Self::Growth(event) => of(&event.header),
            Self::Function(event) => of(&event.header),
            Self::Class(event) => of(&event.header),
            Self::Call(event) => of(&event.header),
            Self::Stack(head, _) => head.pid,
        }
    }
}
