//! Finds what repeats in a deep stack.

use crate::record::frame::Frame;

/// Fewer repetitions than this are no recursion worth a word.
const LEAST_TIMES: usize = 3;

/// Functions that call each other in a circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recursion {
    /// Frames in front of the first turn, counted from the innermost.
    pub start: usize,
    /// Frames of one turn.
    pub length: usize,
    /// Whole turns that the stack shows.
    pub times: usize,
}

/// The shortest circle that a stack (innermost first) turns in, with the most turns; `None` where
/// nothing repeats three times in a row. Functions are compared, not lines: a recursion that goes
/// on from another line is the same recursion.
#[must_use]
pub fn find(frames: &[Frame]) -> Option<Recursion> {
    find_by(frames.len(), |one, other| {
        is_same(&frames[one], &frames[other])
    })
}

/// The same for any row of `count` frames, of which `is_same` compares two by their places.
pub fn find_by(count: usize, is_same: impl Fn(usize, usize) -> bool) -> Option<Recursion> {
    (1..=count / LEAST_TIMES)
        .filter_map(|length| longest_run(count, length, &is_same))
        // The first of equals is the shortest circle: twice its length repeats as well.
        .reduce(|best, other| {
            let covers = |recursion: &Recursion| recursion.length * recursion.times;
            if covers(&other) > covers(&best) + best.length {
                other
            } else {
                best
            }
        })
}

/// Includes of different files are different functions, though all are called `require_once`.
fn is_same(one: &Frame, other: &Frame) -> bool {
    one.function == other.function && one.file == other.file
}

/// The longest stretch in which every frame is that of `length` frames before.
fn longest_run(
    count: usize,
    length: usize,
    is_same: impl Fn(usize, usize) -> bool,
) -> Option<Recursion> {
    let mut best: Option<Recursion> = None;
    let mut start = 0;
    for index in length..=count {
        if index < count && is_same(index, index - length) {
            continue;
        }
        let times = (index - start) / length;
        if times >= LEAST_TIMES && best.is_none_or(|best| times > best.times) {
            best = Some(Recursion {
                start,
                length,
                times,
            });
        }
        start = index + 1 - length;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(functions: &str) -> Vec<Frame> {
        let frame = |name: char| Frame {
            function: name.to_string(),
            file: None,
            line: None,
        };
        functions.chars().map(frame).collect()
    }

    fn found(functions: &str) -> Option<(usize, usize, usize)> {
        let recursion = find(&stack(functions))?;
        Some((recursion.start, recursion.length, recursion.times))
    }

    #[test]
    fn a_function_that_calls_itself() {
        assert_eq!(found("xaaaaam"), Some((1, 1, 5)));
    }

    #[test]
    fn a_circle_of_three() {
        assert_eq!(found("xabcabcabcabm"), Some((1, 3, 3)));
        assert_eq!(found("abcabcabcabcabcabc"), Some((0, 3, 6)));
    }

    #[test]
    fn a_small_circle_inside_a_large_one_does_not_hide_it() {
        assert_eq!(found("aaabcdaaabcdaaabcdaaabcd"), Some((0, 6, 4)));
    }

    #[test]
    fn files_that_include_each_other_are_no_recursion() {
        let file = |name: &str| Frame {
            function: "require_once".to_owned(),
            file: Some(name.to_owned()),
            line: Some(3),
        };
        assert_eq!(find(&[file("a"), file("b"), file("c"), file("d")]), None);
    }

    #[test]
    fn twice_is_no_recursion() {
        assert_eq!(found("abab"), None);
        assert_eq!(found("abcdef"), None);
        assert_eq!(found(""), None);
    }
}
