//! Stack frames: as they execute, and as a dump prints them.

use serde::{Deserialize, Serialize};

/// The name of the frame that runs the request's script itself. PHP's own backtraces leave it out.
pub const MAIN: &str = "{main}";

/// A function on a stack, with a place.
///
/// In a profile the place is the line that the function is executing; in a backtrace it is where the function was
/// called from, as `debug_backtrace()` pairs them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Frame {
    /// `Class->method`, `Class::method`, `function`, `include`, or [`MAIN`].
    pub function: String,
    /// The full path; `None` where the place is in PHP itself.
    pub file: Option<String>,
    /// The line in `file`; `None` where the place is in PHP itself, or the line is unknown.
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
