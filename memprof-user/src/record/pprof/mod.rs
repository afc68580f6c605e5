//! The profile of a run: memory by PHP stack, in pprof's format (`go tool pprof profile-<unix>.pb.gz`).
//!
//! Each stack has four values, under the names that Go's heap profiles made known: *taken* is `alloc_space` (bytes) and
//! `alloc_objects` (count), *held* at each request's high-water mark is `inuse_space` and `inuse_objects`.

use std::time::Duration;

use indexmap::{IndexMap, IndexSet};
use jiff::Timestamp;

use super::frame::Frame;

mod encode;
mod proto;
mod read;

pub use read::{ReadError, ReadProfile, ReadSample, read};

/// The values of a sample: name and unit.
const SAMPLE_TYPES: [(&str, &str); 4] = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
];
/// The most pairs of stack and labels that are told apart: request paths are the visitors' choice, memory is not.
/// 100,000 of 60 frames take about 30 MB beside their names.
const MAX_SAMPLES: usize = 100_000;
/// The program's name in the profile.
const PROGRAM: &str = "php";
/// The function that stands for the stacks beyond [`MAX_SAMPLES`].
const OTHER: &str = "[other stacks]";

/// What a stack took and held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amounts {
    /// Page runs and huge blocks taken, in bytes.
    pub alloc_space: u64,
    /// How many of them.
    pub alloc_objects: u64,
    /// Those held at the high-water mark, in bytes.
    pub inuse_space: u64,
    /// How many of them.
    pub inuse_objects: u64,
}

impl Amounts {
    fn add(&mut self, more: Self) {
        self.alloc_space = self.alloc_space.saturating_add(more.alloc_space);
        self.alloc_objects = self.alloc_objects.saturating_add(more.alloc_objects);
        self.inuse_space = self.inuse_space.saturating_add(more.inuse_space);
        self.inuse_objects = self.inuse_objects.saturating_add(more.inuse_objects);
    }
}

/// A profile that grows stack by stack.
#[derive(Debug)]
pub struct Profile {
    started: Timestamp,
    duration: Duration,
    comments: Vec<String>,
    strings: IndexSet<String>,
    /// Name and file, by index of the strings.
    functions: IndexSet<(Index, Index)>,
    /// Function and line, by index of the functions.
    locations: IndexSet<(Index, u32)>,
    samples: IndexMap<SampleKey, Amounts>,
    max_samples: usize,
    /// What came after `max_samples` was reached.
    other: Amounts,
}

/// What tells samples apart: the locations, innermost first, and the labels' keys and values.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SampleKey {
    stack: Box<[Index]>,
    labels: Box<[(Index, Index)]>,
}

/// A place in one of the profile's tables. [`MAX_SAMPLES`] keeps them far below 2^32 entries.
type Index = u32;

impl Profile {
    /// An empty profile of a run that began then.
    pub fn new(started: Timestamp) -> Self {
        // The format demands an empty string at index 0.
        let names = ["", PROGRAM, OTHER]
            .into_iter()
            .chain(SAMPLE_TYPES.iter().flat_map(|(kind, unit)| [*kind, *unit]));
        Self {
            started,
            duration: Duration::ZERO,
            comments: Vec::new(),
            strings: names.map(str::to_owned).collect(),
            functions: IndexSet::new(),
            locations: IndexSet::new(),
            samples: IndexMap::new(),
            max_samples: MAX_SAMPLES,
            other: Amounts::default(),
        }
    }

    /// When the run began.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// Sets how long the run took.
    pub fn set_duration(&mut self, duration: Duration) {
        self.duration = duration;
    }

    /// Adds a remark that pprof shows with the profile.
    pub fn add_comment(&mut self, comment: String) {
        self.comments.push(comment);
    }

    /// Adds what a stack (innermost first) took and held under these labels (pool, pid, path, method, mode).
    ///
    /// Equal stacks with equal labels become one. Past 100,000 different ones the rest is summed up as
    /// `[other stacks]`, so that the totals stay true.
    pub fn add(&mut self, stack: &[Frame], labels: &[(&str, &str)], amounts: Amounts) {
        let full = self.samples.len() >= self.max_samples;
        let key = if full {
            self.known_key(stack, labels)
        } else {
            Some(self.new_key(stack, labels))
        };
        match key {
            Some(key) if !full || self.samples.contains_key(&key) => {
                self.samples.entry(key).or_default().add(amounts)
            }
            _ => self.other.add(amounts),
        }
    }

    /// The key of a sample, whose names are remembered.
    fn new_key(&mut self, stack: &[Frame], labels: &[(&str, &str)]) -> SampleKey {
        let stack = stack.iter().map(|frame| self.location(frame)).collect();
        let labels = labels
            .iter()
            .map(|(key, value)| (self.string(key), self.string(value)))
            .collect();
        SampleKey { stack, labels }
    }

    /// The key of a sample whose names are all remembered already.
    fn known_key(&self, stack: &[Frame], labels: &[(&str, &str)]) -> Option<SampleKey> {
        let string = |text: &str| self.strings.get_index_of(text).map(index);
        let location = |frame: &Frame| {
            let function = (string(&frame.function)?, string(file_name(frame))?);
            let function = index(self.functions.get_index_of(&function)?);
            let location = (function, line_number(frame));
            self.locations.get_index_of(&location).map(index)
        };
        let label = |(key, value): &(&str, &str)| Some((string(key)?, string(value)?));
        Some(SampleKey {
            stack: stack.iter().map(location).collect::<Option<_>>()?,
            labels: labels.iter().map(label).collect::<Option<_>>()?,
        })
    }

    fn location(&mut self, frame: &Frame) -> Index {
        let function = (self.string(&frame.function), self.string(file_name(frame)));
        let function = index(self.functions.insert_full(function).0);
        index(self.locations.insert_full((function, line_number(frame))).0)
    }

    fn string(&mut self, text: &str) -> Index {
        match self.strings.get_index_of(text) {
            Some(known) => index(known),
            None => index(self.strings.insert_full(text.to_owned()).0),
        }
    }
}

fn file_name(frame: &Frame) -> &str {
    frame.file.as_deref().unwrap_or_default()
}

/// 0 is unknown, in pprof too.
fn line_number(frame: &Frame) -> u32 {
    frame.line.unwrap_or(0)
}

fn index(place: usize) -> Index {
    place as Index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, line: u32) -> Frame {
        Frame {
            function: function.to_owned(),
            file: Some("/var/www/app/Shift.php".to_owned()),
            line: Some(line),
        }
    }

    fn held(bytes: u64) -> Amounts {
        Amounts {
            alloc_space: bytes * 2,
            alloc_objects: 2,
            inuse_space: bytes,
            inuse_objects: 1,
        }
    }

    fn profile() -> Profile {
        Profile::new(Timestamp::from_second(1_770_091_500).expect("in range"))
    }

    fn read_back(profile: &Profile) -> ReadProfile {
        read(profile.encode().expect("compresses").as_slice()).expect("reads back")
    }

    #[test]
    fn what_was_added_reads_back() {
        let mut profile = profile();
        profile.set_duration(Duration::from_secs(60));
        profile.add_comment("2 events lost".to_owned());
        let stack = [frame("Shift->expand", 91), frame("{main}", 3)];
        let labels = [("pool", "www"), ("path", "/depot")];
        profile.add(&stack, &labels, held(4096));
        profile.add(&stack, &labels, held(8192));
        profile.add(&stack, &[("pool", "www"), ("path", "/")], held(1));
        let internal = Frame {
            function: "array_map".to_owned(),
            file: None,
            line: None,
        };
        profile.add(&[internal.clone(), stack[1].clone()], &[], held(2));

        let back = read_back(&profile);
        assert_eq!(
            back.started,
            Timestamp::from_second(1_770_091_500).expect("in range")
        );
        assert_eq!(back.duration, Duration::from_secs(60));
        assert_eq!(back.comments, ["2 events lost"]);
        assert_eq!(back.samples.len(), 3);
        let first = &back.samples[0];
        assert_eq!(back.stack(first).cloned().collect::<Vec<_>>(), stack);
        assert_eq!(
            first.labels,
            [
                ("pool".to_owned(), "www".to_owned()),
                ("path".to_owned(), "/depot".to_owned())
            ]
        );
        let expected = Amounts {
            alloc_space: 24_576,
            alloc_objects: 4,
            inuse_space: 12_288,
            inuse_objects: 2,
        };
        assert_eq!(first.amounts, expected);
        assert_eq!(back.stack(&back.samples[2]).next(), Some(&internal));
    }

    #[test]
    fn each_name_is_there_once() {
        let mut profile = profile();
        for line in 0..100 {
            profile.add(
                &[frame("f", line % 3), frame("{main}", 3)],
                &[("pool", "www")],
                held(1),
            );
        }
        let proto = profile.to_proto();
        assert_eq!(
            (
                proto.sample.len(),
                proto.location.len(),
                proto.function.len()
            ),
            (3, 4, 2)
        );
        assert_eq!(
            proto
                .string_table
                .iter()
                .filter(|text| *text == "f")
                .count(),
            1
        );
        assert_eq!(proto.string_table[0], "");
        let default = usize::try_from(proto.default_sample_type).expect("an index");
        assert_eq!(proto.string_table[default], "inuse_space");
    }

    #[test]
    fn totals_stay_true_when_it_is_full() {
        let mut profile = profile();
        profile.max_samples = 10;
        for path in 0..1000 {
            profile.add(&[frame("f", 1)], &[("path", &path.to_string())], held(1));
        }
        profile.add(&[frame("f", 1)], &[("path", "3")], held(1));
        let strings = profile.strings.len();
        assert!(strings < 40, "{strings} strings");

        let back = read_back(&profile);
        assert_eq!(back.samples.len(), 11);
        assert_eq!(back.samples[3].amounts.inuse_space, 2);
        assert_eq!(
            back.samples
                .iter()
                .map(|sample| sample.amounts.inuse_space)
                .sum::<u64>(),
            1001
        );
        let other = back.stack(&back.samples[10]).next().expect("a frame");
        assert_eq!(other.function, "[other stacks]");
    }

    #[test]
    fn sums_do_not_overflow() {
        let mut profile = profile();
        for _ in 0..2 {
            profile.add(&[frame("f", 1)], &[], held(u64::MAX / 2));
        }
        assert_eq!(
            read_back(&profile).samples[0].amounts.alloc_space,
            i64::MAX as u64
        );
    }
}
