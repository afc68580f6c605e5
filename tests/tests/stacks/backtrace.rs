//! What `debug_backtrace()` says, as the frames that a profile has.

use memprof_user::record::frame::{Frame, MAIN};
use serde::Deserialize;

/// The most frames that are recorded of a stack.
const MOST_FRAMES: usize = 128;
/// What stands for those further out.
const CUT: &str = "[deeper frames not recorded]";

/// What PHP said at one point where memory was taken.
#[derive(Deserialize)]
pub struct Answer {
    pub bytes: u64,
    file: String,
    line: u32,
    stack: Vec<Called>,
}

/// A frame of `debug_backtrace()`: a function and the place it was called from.
#[derive(Deserialize)]
struct Called {
    class: Option<String>,
    #[serde(rename = "type")]
    arrow: Option<String>,
    function: String,
    file: Option<String>,
    line: Option<u32>,
}

impl Called {
    fn name(&self) -> String {
        let function = shown(&self.function);
        match (&self.class, &self.arrow) {
            (Some(class), Some(arrow)) => format!("{}{arrow}{function}", shown(class)),
            _ => function,
        }
    }

    /// An include that only opens its file, by a stream wrapper, has run no line of it: PHP tells it from the including
    /// function's frame, which stands for itself already.
    fn is_opening(&self, line_inside: Option<&(String, u32)>) -> bool {
        self.class.is_none()
            && self.function.starts_with("include")
            && line_inside.is_some()
            && line_inside == self.place().as_ref()
    }

    fn place(&self) -> Option<(String, u32)> {
        Some((self.file.clone()?, self.line?))
    }
}

impl Answer {
    /// The frames as a profile has them: not where each function was called, but the line that it runs.
    pub fn frames(&self) -> Vec<Frame> {
        let frame = |function: &str, place: Option<&(String, u32)>| Frame {
            function: function.to_owned(),
            file: place.map(|(file, _)| file.clone()),
            line: place.map(|(_, line)| *line),
        };
        let mut frames = vec![frame("str_repeat", None)];
        let mut place = Some((self.file.clone(), self.line));
        for called in &self.stack {
            if !called.is_opening(place.as_ref()) {
                frames.push(frame(&called.name(), place.as_ref()));
            }
            place = called.place();
        }
        // What PHP calls when the script is over has no {main} around it.
        if place.is_some() {
            frames.push(frame(MAIN, place.as_ref()));
        }
        if frames.len() > MOST_FRAMES {
            frames.truncate(MOST_FRAMES);
            frames.push(frame(CUT, None));
        }
        frames
    }
}

/// A name without what PHP hides in that of an anonymous class: its place, from a NUL on.
fn shown(name: &str) -> String {
    let Some((shown, hidden)) = name.split_once('\0') else {
        return name.to_owned();
    };
    match hidden.split_once("::") {
        Some((_, method)) => format!("{shown}::{method}"),
        None => shown.to_owned(),
    }
}
