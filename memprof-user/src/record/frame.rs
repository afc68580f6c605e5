//! Stack frames: as they execute, and as a dump prints them.

use serde::{Deserialize, Serialize};

/// The name of the frame that runs the request's script itself. PHP's own backtraces leave it out.
pub const MAIN: &str = "{main}";

/// The most frames that a dump holds.
const DUMP_FRAMES: usize = 15;

/// A frame with the line that it is executing now.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Frame {
    /// `Class->method`, `Class::method`, `function`, `include`, or [`MAIN`].
    pub function: String,
    /// The file that holds the code; `None` for a function of PHP itself.
    pub file: Option<String>,
    /// The line being executed; `None` where there is none (a function of PHP itself) or it is unknown.
    pub line: Option<u32>,
}

/// A frame with the place that called it, as `debug_backtrace()` pairs them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalledFrame {
    /// The base name of the calling file; `unknown` when a function of PHP itself called.
    pub file: String,
    /// The calling line; 0 when a function of PHP itself called.
    pub line: u32,
    /// The function that was called.
    pub function: String,
}

/// A dump's backtrace of a stack, both innermost first: each function with the place that called it, at most 15.
///
/// A function called by PHP itself (a callback of `array_map`) has `unknown` and 0, as in PHP.
pub fn backtrace(stack: &[Frame]) -> Vec<CalledFrame> {
    let callers = stack.iter().skip(1).map(Some).chain([None]);
    stack
        .iter()
        .zip(callers)
        .filter(|(frame, _)| frame.function != MAIN)
        .take(DUMP_FRAMES)
        .map(|(frame, caller)| {
            let file = caller.and_then(|caller| caller.file.as_deref());
            CalledFrame {
                file: file.map_or("unknown", base_name).to_owned(),
                line: caller.and_then(|caller| caller.line).unwrap_or(0),
                function: frame.function.clone(),
            }
        })
        .collect()
}

fn base_name(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, place: Option<(&str, u32)>) -> Frame {
        Frame {
            function: function.to_owned(),
            file: place.map(|(file, _)| file.to_owned()),
            line: place.map(|(_, line)| line),
        }
    }

    fn called(file: &str, line: u32, function: &str) -> CalledFrame {
        CalledFrame {
            file: file.to_owned(),
            line,
            function: function.to_owned(),
        }
    }

    #[test]
    fn functions_are_paired_with_their_callers() {
        let stack = [
            frame(
                "App\\Models\\Shift->expand",
                Some(("/var/www/depot/app/Shift.php", 91)),
            ),
            frame(
                "App\\Depot\\ShiftList->App\\Depot\\{closure}",
                Some(("/var/www/depot/app/ShiftList.php", 58)),
            ),
            frame("array_map", None),
            frame(
                "App\\Depot\\ShiftList::render",
                Some(("/var/www/depot/app/ShiftList.php", 56)),
            ),
            frame(MAIN, Some(("/var/www/depot/public/index.php", 20))),
        ];
        assert_eq!(
            backtrace(&stack),
            [
                called("ShiftList.php", 58, "App\\Models\\Shift->expand"),
                called("unknown", 0, "App\\Depot\\ShiftList->App\\Depot\\{closure}"),
                called("ShiftList.php", 56, "array_map"),
                called("index.php", 20, "App\\Depot\\ShiftList::render"),
            ]
        );
    }

    #[test]
    fn at_most_fifteen_innermost_first() {
        let stack: Vec<Frame> = (0..40)
            .map(|i| frame(&format!("f{i}"), Some(("a.php", i))))
            .collect();
        let trace = backtrace(&stack);
        assert_eq!(trace.len(), 15);
        assert_eq!(trace[0], called("a.php", 1, "f0"));
    }

    #[test]
    fn nothing_from_nothing() {
        assert!(backtrace(&[]).is_empty());
        assert!(backtrace(&[frame(MAIN, Some(("index.php", 3)))]).is_empty());
    }
}
