//! What the probes see being taken and freed is what the heap counts itself, to the page.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use memprof_tests::attached::{External, Growth, attach_to, own_pool};
use memprof_tests::{Fpm, Laravel, PhpBuild};
use serde::Deserialize;

const CASES: [&str; 11] = [
    "keep",
    "drop",
    "append",
    "interleave",
    "grow",
    "shrink",
    "huge",
    "objects",
    "collect",
    "mixed",
    "deepen",
];
/// The array that holds the strings of the case `keep`, and what else its function takes in small pieces.
const SMALL_THINGS: i64 = 64 * 1024;

#[derive(Deserialize)]
struct Answer {
    case: String,
    expected: i64,
}

/// Whether at each checkpoint the probes' account moved from the start by as much as the heap's own.
fn gaps(external: &External) -> Vec<(String, i64)> {
    let start = external.at("request_start").unwrap().used_bytes.unwrap();
    let gap = |used: i64, held: i64| used - start - held;
    external
        .checkpoints
        .iter()
        .map(|seen| {
            let gap = gap(seen.used_bytes.unwrap(), seen.held_bytes.unwrap());
            (seen.label.clone(), gap)
        })
        .collect()
}

/// Bytes in use, by the heap's own count, at a checkpoint less those at the start.
fn used_at(external: &External, label: &str) -> i64 {
    let used = |label| external.at(label).unwrap().used_bytes.unwrap();
    used(label) - used("request_start")
}

fn held_below(growth: &Growth, function: &str) -> i64 {
    let frame = format!("{function} ");
    let stacks = growth.top.iter();
    let below = stacks.filter(|share| share.stack.iter().any(|line| line.starts_with(&frame)));
    below
        .map(|share| share.held_at_peak_bytes.cast_signed())
        .sum()
}

fn check(case: &str, answer: &Answer, external: &External) {
    let growth = external.growth.as_ref().unwrap();
    assert_eq!(external.lost_events, 0);
    for (label, gap) in gaps(external) {
        assert_eq!(gap, 0, "{case} at {label}: {external:?}");
    }
    let end = external.at("request_end").unwrap();
    assert!(
        end.held_bytes < external.at("response_ready").unwrap().held_bytes,
        "{case}"
    );
    // The script sends its headers at its peak.
    let unattributed = growth.unattributed_at_peak_bytes.unwrap();
    assert_eq!(unattributed, 0, "{case}: {growth:?}");
    assert_eq!(
        growth.held_at_peak_bytes,
        used_at(external, "response_ready"),
        "{case}"
    );
    if case == "keep" {
        let held = held_below(growth, "keep");
        let range = answer.expected..=answer.expected + SMALL_THINGS;
        assert!(range.contains(&held), "{held} in {range:?}: {growth:?}");
    }
}

#[test]
fn every_page_is_accounted_for() {
    for build in PhpBuild::ALL {
        let fpm = Fpm::start(build, own_pool("growth")).unwrap();
        let memprof = attach_to(&fpm, &["--mode", "aggressive", "--every"]).unwrap();
        for (index, case) in CASES.into_iter().enumerate() {
            println!("{} {case}", build.name);
            let response = fpm.get(&format!("growth.php?case={case}")).unwrap();
            let answer: Answer = response.json().unwrap();
            assert_eq!(answer.case, case);
            let lines = memprof.wait_for("checkpoint", index + 1).unwrap();
            check(case, &answer, &External::of(&lines[index]).unwrap());
        }
        memprof.stop().unwrap();
    }
}

#[test]
fn of_laravel_pages_less_than_2_percent_is_unattributed() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("laravel-growth")).unwrap();
    let mut laravel = Laravel::install(&fpm, fpm.pool()).unwrap();
    let memprof = attach_to(&fpm, &["--mode", "aggressive", "--every"]).unwrap();
    // The first round compiles, the second is warm.
    let pages = ["/t/login/1?perm=8934", "/admin", "/t/calls"];
    for page in pages.iter().chain(&pages) {
        laravel.get(page).unwrap();
    }
    let lines = memprof.wait_for("checkpoint", 2 * pages.len()).unwrap();
    memprof.stop().unwrap();
    for (line, page) in lines.iter().zip(pages.iter().chain(&pages)) {
        let external = External::of(line).unwrap();
        let growth = external.growth.as_ref().unwrap();
        let unattributed = growth.unattributed_at_peak_bytes.unwrap();
        let held = growth.held_at_peak_bytes;
        println!(
            "{page}: held {held}, unattributed {unattributed}, taken {}, freed {}, gaps {:?}",
            growth.taken_bytes,
            growth.freed_bytes,
            gaps(&external)
        );
        assert_eq!(external.lost_events, 0);
        assert!(held > 0);
        let share = unattributed.abs() as f64 / (held + unattributed) as f64;
        assert!(share < 0.02, "{page}: {share}, {growth:?}");
    }
}
