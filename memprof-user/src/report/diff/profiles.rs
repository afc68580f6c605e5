//! Two profiles: what their stacks held and took, by function, by path and by stack.

use std::collections::HashSet;

use super::super::text::short;
use super::section::{Amount, List, Row, Section, Unit};
use crate::record::frame::Frame;
use crate::record::pprof::{Amounts, ReadProfile, ReadSample};

/// Frames of a stack that are shown.
const SHOWN_FRAMES: usize = 5;

/// What is different in the second profile.
pub(super) fn compare(before: &ReadProfile, after: &ReadProfile) -> Vec<Section> {
    let totals = Section {
        title: "totals",
        counted: None,
        rows: totals(before, after),
        omitted: 0,
        is_cause: false,
    };
    let section = |names: fn(&ReadProfile, &ReadSample) -> Vec<String>, title| {
        list(before, names).compare(&list(after, names), title, Some("blocks held"))
    };
    [
        totals,
        section(path, "held at each request's peak, by path"),
        section(innermost, "held at the peak, by the function that took it"),
        section(
            functions,
            "held at the peak, by function with all that it called",
        ),
        section(stack, "held at the peak, by stack"),
    ]
    .into_iter()
    .filter(|section| !section.rows.is_empty())
    .collect()
}

fn totals(before: &ReadProfile, after: &ReadProfile) -> Vec<Row> {
    let row = |name, of: fn(&Amounts) -> u64| {
        let sum = |profile: &ReadProfile| {
            let amounts = profile.samples.iter().map(|sample| of(&sample.amounts));
            Some(amounts.fold(0, u64::saturating_add))
        };
        Row::new(name, Unit::Bytes, sum(before), sum(after))
    };
    vec![
        row("held at the requests' peaks, summed up", |amounts| {
            amounts.inuse_space
        }),
        row("taken", |amounts| amounts.alloc_space),
    ]
}

/// What the profile's stacks held, each under the names that `names` gives it.
fn list(profile: &ReadProfile, names: fn(&ReadProfile, &ReadSample) -> Vec<String>) -> List {
    let mut list = List::new(true);
    for sample in &profile.samples {
        let amount = Amount {
            bytes: Some(sample.amounts.inuse_space),
            count: Some(sample.amounts.inuse_objects),
        };
        for name in names(profile, sample) {
            list.add(name, amount);
        }
    }
    list
}

fn path(_profile: &ReadProfile, sample: &ReadSample) -> Vec<String> {
    let label = |name: &str| {
        let mut labels = sample.labels.iter();
        labels
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let words: Vec<&str> = [label("method"), label("path")]
        .into_iter()
        .flatten()
        .collect();
    vec![short(&words.join(" "))]
}

fn innermost(profile: &ReadProfile, sample: &ReadSample) -> Vec<String> {
    let first = profile.stack(sample).next();
    first
        .map(|frame| short(&frame.function))
        .into_iter()
        .collect()
}

/// Each function once, however often it is on the stack.
fn functions(profile: &ReadProfile, sample: &ReadSample) -> Vec<String> {
    let mut seen = HashSet::new();
    let names = profile.stack(sample).map(|frame| frame.function.as_str());
    names.filter(|name| seen.insert(*name)).map(short).collect()
}

fn stack(profile: &ReadProfile, sample: &ReadSample) -> Vec<String> {
    let line = |frame: &Frame| match (&frame.file, frame.line) {
        (Some(file), Some(line)) => {
            let name = file.rsplit('/').next().unwrap_or(file);
            short(&format!("{} {name}:{line}", frame.function))
        }
        _ => short(&frame.function),
    };
    let mut frames: Vec<String> = profile.stack(sample).take(SHOWN_FRAMES).map(line).collect();
    let more = profile.stack(sample).count() - frames.len();
    if more > 0 {
        frames.push(format!("{more} more"));
    }
    vec![frames.join(" < ")]
}
