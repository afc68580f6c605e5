//! Two dumps: totals, and what grew by kind, by class, by variable, by stack.

use super::super::external::{External, Kind};
use super::super::facts::Facts;
use super::super::findings::without_indexes;
use super::section::{Amount, List, Row, Section, Unit};

/// A chunk of the Zend heap, in bytes.
const CHUNK_BYTES: u64 = 2 << 20;
/// Frames of a stack that tell it from others.
const STACK_FRAMES: usize = 5;

/// What is different in the second dump.
pub(in crate::report) fn compare(before: &Facts, after: &Facts) -> Vec<Section> {
    let totals = Section {
        title: "totals",
        counted: None,
        rows: totals(before, after),
        omitted: 0,
        is_cause: false,
    };
    let list = |list: fn(&External) -> Option<List>, facts: &Facts| {
        facts.external.as_ref().and_then(list).unwrap_or_default()
    };
    let section = |of: fn(&External) -> Option<List>, title, counted| {
        list(of, before).compare(&list(of, after), title, Some(counted))
    };
    let kinds = Section {
        is_cause: false,
        ..section(kinds, "what the heap's blocks are", "blocks")
    };
    [
        totals,
        kinds,
        section(
            classes,
            "objects by class, without what they refer to",
            "objects",
        ),
        section(
            holders,
            "held by variable, with all that it refers to",
            "elements",
        ),
        section(stacks, "taken and still held, by stack", "blocks taken"),
    ]
    .into_iter()
    .filter(|section| !section.rows.is_empty())
    .collect()
}

fn totals(before: &Facts, after: &Facts) -> Vec<Row> {
    use Unit::{Bytes, Number};
    let row = |name, unit, of: &dyn Fn(&External) -> Option<u64>| {
        let of = |facts: &Facts| facts.external.as_ref().and_then(of);
        Row::new(name, unit, of(before), of(after))
    };
    let view = |name, of: fn(&Facts) -> f64| {
        let bytes = |facts: &Facts| Some((of(facts) * f64::from(1 << 20)) as u64);
        Row::new(name, Bytes, bytes(before), bytes(after))
    };
    let rows = [
        view("memory_get_usage(true)", |facts| {
            facts.view.memory.current_mb
        }),
        view("memory_get_peak_usage(true)", |facts| {
            facts.view.memory.peak_mb
        }),
        row("memory_get_usage()", Bytes, &|external| {
            external.heap.as_ref()?.size_bytes
        }),
        row("given out by the heap", Bytes, &|external| {
            external.holders.as_ref()?.heap_bytes
        }),
        row("huge blocks", Bytes, &|external| {
            external.heap.as_ref()?.huge_bytes
        }),
        row(
            "cached chunks, left from earlier requests",
            Bytes,
            &|external| {
                external
                    .heap
                    .as_ref()?
                    .cached_chunks?
                    .checked_mul(CHUNK_BYTES)
            },
        ),
        row("free pages in used chunks", Bytes, &|external| {
            external.heap.as_ref()?.free_bytes_in_used_chunks
        }),
        row("resident memory (RSS)", Bytes, &|external| {
            external.rss_bytes
        }),
        row("session, as serialized", Bytes, &|external| {
            external.session.as_ref()?.bytes
        }),
        row("objects", Number, &|external| {
            external.objects.as_ref()?.total
        }),
        row("frames on the stack", Number, &|external| {
            external.stack.as_ref()?.depth
        }),
    ];
    let is_known = |row: &Row| row.before.is_some() || row.after.is_some();
    rows.into_iter().filter(is_known).collect()
}

fn kinds(external: &External) -> Option<List> {
    let mut list = List::new(false);
    for (name, Kind { count, bytes }) in external.holders.as_ref()?.kinds.clone() {
        list.add(name, Amount { bytes, count });
    }
    Some(list)
}

fn classes(external: &External) -> Option<List> {
    let objects = external.objects.as_ref()?;
    let listed = objects.by_class.len() as u64;
    let mut list = List::new(objects.classes.is_some_and(|classes| classes <= listed));
    for class in &objects.by_class {
        let amount = Amount {
            bytes: class.bytes,
            count: class.count,
        };
        list.add(class.class.clone()?, amount);
    }
    Some(list)
}

fn holders(external: &External) -> Option<List> {
    let mut list = List::new(false);
    for holder in &external.holders.as_ref()?.top {
        let amount = Amount {
            bytes: holder.retained_bytes,
            count: holder.elements,
        };
        if let Some(path) = &holder.path {
            list.add(without_indexes(path), amount);
        }
    }
    Some(list)
}

fn stacks(external: &External) -> Option<List> {
    let mut list = List::new(false);
    for stack in &external.growth.as_ref()?.top {
        let shown: Vec<&str> = stack
            .stack
            .iter()
            .take(STACK_FRAMES)
            .map(String::as_str)
            .collect();
        let amount = Amount {
            bytes: stack.held_bytes,
            count: stack.taken_count,
        };
        list.add(shown.join(" < "), amount);
    }
    Some(list)
}
