//! The circle that a deep stack turns in, and how often.

use super::frame::RawFrame;
use crate::profile::recursion;

/// Innermost frames among which a circle is looked for: it may have a third of them.
pub(super) const WINDOW: usize = 600;

/// Functions that call each other in a circle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recursion {
    /// The frames of one turn, innermost first.
    pub cycle: Vec<RawFrame>,
    /// Whole turns.
    pub times: u64,
    /// Frames of all turns, the last of which need not be whole.
    pub frames: u64,
}

/// A frame in the window.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    /// Where the frame is.
    pub(super) address: u64,
    /// Its function.
    pub(super) function: u64,
    /// What the copies of one function have in common: its code.
    pub(super) code: u64,
}

/// Counts the turns of a circle while the stack is walked from its innermost frame.
pub(super) struct Turns {
    /// Frames in front of the first turn.
    before: usize,
    /// The functions of a turn; `None` for a closure, which is another function each time.
    functions: Vec<Option<u64>>,
    /// Where the frames of the first turn are.
    first: Vec<u64>,
    frames: u64,
    is_over: bool,
}

impl Turns {
    /// The circle in the innermost frames of a stack.
    pub(super) fn find(window: &[Seen]) -> Option<Turns> {
        let circle = recursion::find_by(window.len(), |one, other| {
            window[one].code == window[other].code
        })?;
        let turn = |index: usize| &window[circle.start + index * circle.length..][..circle.length];
        let functions = (0..circle.length).map(|place| {
            let function = turn(0)[place].function;
            let is_same = |index: usize| turn(index)[place].function == function;
            (1..circle.times).all(is_same).then_some(function)
        });
        Some(Turns {
            before: circle.start,
            functions: functions.collect(),
            first: turn(0).iter().map(|seen| seen.address).collect(),
            frames: 0,
            is_over: false,
        })
    }

    /// The function of the next frame outwards.
    pub(super) fn next(&mut self, function: u64) {
        if self.before > 0 {
            self.before -= 1;
            return;
        }
        if self.is_over {
            return;
        }
        let place = (self.frames % self.functions.len() as u64) as usize;
        match self.functions[place] {
            Some(wanted) if wanted != function => self.is_over = true,
            _ => self.frames += 1,
        }
    }

    /// Where the frames of one turn are, innermost first.
    pub(super) fn first_turn(&self) -> &[u64] {
        &self.first
    }

    /// What was counted, with the frames of one turn.
    pub(super) fn into_recursion(self, cycle: Vec<RawFrame>) -> Recursion {
        Recursion {
            cycle,
            times: self.frames / self.functions.len() as u64,
            frames: self.frames,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of a function, by letter; each capital is a closure of its own with the same code.
    fn seen(functions: &str) -> Vec<Seen> {
        let frame = |(index, letter): (usize, char)| Seen {
            address: index as u64,
            function: letter as u64
                + if letter.is_uppercase() {
                    1000 * index as u64
                } else {
                    0
                },
            code: letter as u64,
        };
        functions.chars().enumerate().map(frame).collect()
    }

    /// Whole turns, frames of all turns, and where the first turn is.
    fn counted(functions: &str, window: usize) -> Option<(u64, u64, Vec<u64>)> {
        let stack = seen(functions);
        let mut turns = Turns::find(&stack[..window.min(stack.len())])?;
        stack.iter().for_each(|frame| turns.next(frame.function));
        let first = turns.first_turn().to_vec();
        let recursion = turns.into_recursion(Vec::new());
        Some((recursion.times, recursion.frames, first))
    }

    #[test]
    fn turns_are_counted_beyond_the_window() {
        let stack = format!("xy{}m", "abC".repeat(50));
        assert_eq!(counted(&stack, 12), Some((50, 150, vec![2, 3, 4])));
    }

    #[test]
    fn the_last_turn_need_not_be_whole() {
        assert_eq!(counted("abcabcabcabm", 9), Some((3, 11, vec![0, 1, 2])));
    }

    #[test]
    fn what_comes_after_the_circle_is_not_counted() {
        let stack = format!("{}zz{}", "ab".repeat(10), "ab".repeat(10));
        assert_eq!(counted(&stack, 8), Some((10, 20, vec![0, 1])));
    }

    #[test]
    fn no_circle_is_none() {
        assert_eq!(counted("abcdefgh", 8), None);
    }
}
