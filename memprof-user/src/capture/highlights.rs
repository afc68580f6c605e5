//! The requests that took most memory, for the end of a run: by path, with who held it.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    path::{Path, PathBuf},
};

use super::{
    output::NO_PHP_CODE,
    recorder::{Finished, Recorder},
};
use crate::{
    profile::{
        RequestInfo, RequestProfile, StackId,
        recursion::{self, Recursion},
    },
    record::{checkpoint::Label, frame::Frame, units::Mib},
};

/// Paths that are kept; the highest stay.
const MOST_PATHS: usize = 1000;
/// Paths that are shown.
const SHOWN_PATHS: usize = 5;
/// Functions that are shown of a path.
const SHOWN_FUNCTIONS: usize = 5;
/// Functions that are shown of a recursion.
const SHOWN_CIRCLE: usize = 24;
/// A function is shown from this share of the whole on.
const LEAST_SHARE: f64 = 0.02;
/// Callers that are shown of a function.
const SHOWN_CALLERS: usize = 4;

/// The highest request of each path so far.
#[derive(Debug, Default)]
pub struct Highlights {
    requests: HashMap<String, Highlight>,
    /// The last dump of each path.
    dumps: HashMap<String, PathBuf>,
}

/// One request.
#[derive(Debug)]
struct Highlight {
    peak_bytes: u64,
    start_bytes: Option<u64>,
    limit_hit: bool,
    /// Whether `functions` were seen run by run, or chunk by chunk.
    recorded: bool,
    functions: Vec<Holder>,
}

/// What one function did by itself, and its heaviest stack.
#[derive(Debug)]
struct Holder {
    bytes: u64,
    stack: Vec<Frame>,
}

impl Highlights {
    /// Keeps the request if it is the highest of its path.
    pub fn add(&mut self, finished: &Finished, recorder: &Recorder) {
        let profile = &finished.profile;
        let Some(peak_bytes) = profile.real_peak() else {
            return;
        };
        let path = key(&profile.info);
        let rank = (peak_bytes, finished.recorded);
        match self.requests.get(&path) {
            Some(known) if (known.peak_bytes, known.recorded) >= rank => return,
            None if self.requests.len() >= MOST_PATHS => return,
            _ => {}
        }
        let start = profile.at(&Label::RequestStart);
        let highlight = Highlight {
            peak_bytes,
            start_bytes: start.map(|start| start.counters.real_size),
            limit_hit: profile.limit_error.is_some(),
            recorded: finished.recorded,
            functions: functions(profile, recorder),
        };
        self.requests.insert(path, highlight);
    }

    /// A request was dumped.
    pub fn add_dump(&mut self, info: &RequestInfo, path: &Path) {
        let key = key(info);
        if self.dumps.len() < MOST_PATHS || self.dumps.contains_key(&key) {
            self.dumps.insert(key, path.to_owned());
        }
    }
}

/// By what requests are told apart.
fn key(info: &RequestInfo) -> String {
    shown(&format!("{} {}", info.method, info.path))
}

/// What the request's functions held at its high-water mark by themselves or, where it was not
/// recorded in full, the growth of the heap from within them; the heaviest first.
fn functions(profile: &RequestProfile, recorder: &Recorder) -> Vec<Holder> {
    let stacks: Vec<(StackId, u64)> = match &profile.ledger {
        Some(ledger) => ledger
            .stacks()
            .map(|(stack, totals)| (stack, totals.peak_bytes))
            .collect(),
        None => profile
            .chunk_growth
            .iter()
            .map(|(&stack, growth)| (stack, growth.bytes))
            .collect(),
    };
    let mut functions: HashMap<String, (u64, u64, StackId)> = HashMap::new();
    for (stack, bytes) in stacks {
        let innermost = recorder.innermost(stack).unwrap_or_default();
        let (sum, heaviest, of) = functions.entry(innermost).or_insert((0, 0, stack));
        *sum += bytes;
        if bytes > *heaviest {
            (*heaviest, *of) = (bytes, stack);
        }
    }
    let total: u64 = functions.values().map(|holder| holder.0).sum();
    let least = (total as f64 * LEAST_SHARE).max(1.0);
    let mut holders: Vec<_> = functions
        .into_values()
        .filter(|holder| holder.0 as f64 >= least)
        .collect();
    holders.sort_unstable_by_key(|&(bytes, _, stack)| std::cmp::Reverse((bytes, stack)));
    holders.truncate(SHOWN_FUNCTIONS);
    let holder = |(bytes, _, stack)| Holder {
        bytes,
        stack: recorder.frames(stack),
    };
    holders.into_iter().map(holder).collect()
}

impl fmt::Display for Highlights {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut paths: Vec<_> = self.requests.iter().collect();
        paths.sort_by_key(|(path, highlight)| (std::cmp::Reverse(highlight.peak_bytes), *path));
        for (path, highlight) in paths.into_iter().take(SHOWN_PATHS) {
            let start = highlight.start_bytes.map_or("?".to_owned(), mib);
            let limit = if highlight.limit_hit {
                ", hit memory_limit"
            } else {
                ""
            };
            let peak = mib(highlight.peak_bytes);
            let what = if highlight.recorded {
                "held at the high-water mark, in MiB"
            } else {
                "growth of the heap, in MiB"
            };
            writeln!(to, "{path}: from {start} to {peak} MiB{limit}; {what}:")?;
            if let Some(dump) = self.dumps.get(path) {
                writeln!(to, "  dump: {}", dump.display())?;
            }
            let mut told = BTreeSet::new();
            for holder in &highlight.functions {
                write_holder(to, holder, &mut told)?;
            }
        }
        Ok(())
    }
}

/// `told` holds the functions of the recursion that was written before, which is not repeated.
fn write_holder<'a>(
    to: &mut fmt::Formatter<'_>,
    holder: &'a Holder,
    told: &mut BTreeSet<&'a str>,
) -> fmt::Result {
    let mut frames = holder.stack.iter();
    let innermost = frames.next().map_or(NO_PHP_CODE.to_owned(), line);
    writeln!(to, "{:>9}  {innermost}", mib(holder.bytes))?;
    if let Some(recursion) = recursion::find(&holder.stack) {
        let circle = || {
            holder
                .stack
                .iter()
                .skip(recursion.start)
                .take(recursion.length)
        };
        let functions = circle().map(|frame| frame.function.as_str()).collect();
        if *told == functions {
            return writeln!(to, "             in the same recursion");
        }
        *told = functions;
        return write_recursion(to, circle(), recursion);
    }
    for caller in frames.by_ref().take(SHOWN_CALLERS) {
        writeln!(to, "             < {}", line(caller))?;
    }
    match frames.count() {
        0 => Ok(()),
        more => writeln!(to, "             < {more} more"),
    }
}

/// A recursion is told as the circle that it is, not as the few frames that happen to be innermost.
fn write_recursion<'a>(
    to: &mut fmt::Formatter<'_>,
    circle: impl Iterator<Item = &'a Frame> + Clone,
    recursion: Recursion,
) -> fmt::Result {
    let Recursion { length, times, .. } = recursion;
    writeln!(
        to,
        "             in a recursion of {length} functions, at least {times} times:"
    )?;
    for caller in circle.clone().take(SHOWN_CIRCLE) {
        writeln!(to, "             < {}", line(caller))?;
    }
    match circle.skip(SHOWN_CIRCLE).count() {
        0 => Ok(()),
        more => writeln!(to, "             < {more} more, and again"),
    }
}

/// `App\Foo->bar Foo.php:12`
fn line(frame: &Frame) -> String {
    let file = frame
        .file
        .as_deref()
        .and_then(|file| file.rsplit('/').next());
    let text = match (file, frame.line) {
        (Some(file), Some(line)) => format!("{} {file}:{line}", frame.function),
        (Some(file), None) => format!("{} {file}", frame.function),
        (None, _) => frame.function.clone(),
    };
    shown(&text)
}

/// What comes from outside must not steer the terminal.
fn shown(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

fn mib(bytes: u64) -> String {
    format!("{:.2}", Mib::from_bytes(bytes).get())
}
