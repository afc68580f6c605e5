//! Stacks by their content, each kept once.

use indexmap::IndexSet;

use crate::record::frame::Frame;

/// Different stacks that are told apart; the rest are one. Code that is compiled anew in every
/// request under names of its own could otherwise fill the agent's memory.
const MOST_STACKS: usize = 500_000;
/// What stands for the rest.
const OTHER: &str = "[other stacks]";

/// A stack in [`Stacks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId(u32);

impl StackId {
    /// No PHP code ran.
    pub const NONE: Self = Self(u32::MAX);
}

/// All stacks of a run.
#[derive(Debug, Default)]
pub struct Stacks {
    frames: IndexSet<Frame>,
    stacks: IndexSet<Box<[u32]>>,
}

impl Stacks {
    /// The id of the stack with these frames, innermost first.
    pub fn intern(&mut self, frames: impl IntoIterator<Item = Frame>) -> StackId {
        if self.stacks.len() < MOST_STACKS {
            return self.insert(frames);
        }
        self.insert([Frame {
            function: OTHER.to_owned(),
            file: None,
            line: None,
        }])
    }

    fn insert(&mut self, frames: impl IntoIterator<Item = Frame>) -> StackId {
        let frames: Box<[u32]> = frames
            .into_iter()
            .map(|frame| index(self.frames.insert_full(frame).0))
            .collect();
        if frames.is_empty() {
            return StackId::NONE;
        }
        StackId(index(self.stacks.insert_full(frames).0))
    }

    /// The frames of a stack, innermost first; none for [`StackId::NONE`].
    pub fn frames(&self, stack: StackId) -> impl Iterator<Item = &Frame> {
        self.stacks
            .get_index(stack.0 as usize)
            .into_iter()
            .flat_map(|frames| frames.iter())
            .filter_map(|&frame| self.frames.get_index(frame as usize))
    }

    /// How many different stacks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stacks.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stacks.is_empty()
    }
}

/// An index as it is stored; there are never four thousand million of them.
fn index(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, line: u32) -> Frame {
        Frame {
            function: function.into(),
            file: None,
            line: Some(line),
        }
    }

    #[test]
    fn the_same_frames_are_the_same_stack() {
        let mut stacks = Stacks::default();
        let one = stacks.intern([frame("inner", 3), frame("{main}", 9)]);
        let other = stacks.intern([frame("inner", 4), frame("{main}", 9)]);
        assert_eq!(stacks.intern([frame("inner", 3), frame("{main}", 9)]), one);
        assert_ne!(one, other);
        assert_eq!(stacks.len(), 2);
        let lines: Vec<_> = stacks.frames(other).map(|frame| frame.line).collect();
        assert_eq!(lines, [Some(4), Some(9)]);
    }

    #[test]
    fn no_frames_is_no_stack() {
        let mut stacks = Stacks::default();
        assert_eq!(stacks.intern([]), StackId::NONE);
        assert_eq!(stacks.frames(StackId::NONE).count(), 0);
    }
}
