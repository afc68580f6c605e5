//! What memprof sees of one page does not depend on the processor.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use memprof_tests::attached::{External, attach_to, own_pool};
use memprof_tests::{Fpm, PhpBuild};
use serde_json::{Value, json};

/// Prints the figures; `cargo xtask test --arm64` compares the line with that of another processor.
#[test]
fn its_figures() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("page")).unwrap();
    let page = "growth.php?case=mixed";
    // The first request compiles.
    fpm.get(page).unwrap();
    let memprof = attach_to(&fpm, &["--mode", "aggressive", "--every"]).unwrap();
    fpm.get(page).unwrap();
    let lines = memprof.wait_for("checkpoint", 1).unwrap();
    let summary = memprof.stop().unwrap().summary().unwrap();
    let external = External::of(&lines[0]).unwrap();
    assert_eq!(external.lost_events, 0);
    let environment: Value = fpm.get("environment.php").unwrap().json().unwrap();
    let start = external.at("request_start").unwrap();
    let stations: Vec<Value> = external
        .checkpoints
        .iter()
        .map(|seen| {
            let used = seen.used_bytes.unwrap() - start.used_bytes.unwrap();
            json!([
                seen.label,
                seen.current_bytes,
                seen.peak_bytes,
                used,
                seen.held_bytes
            ])
        })
        .collect();
    let growth = external.growth.unwrap();
    // The folder has another name each time.
    let folder = fpm.inside("");
    let stacks: Vec<Value> = growth
        .top
        .iter()
        .map(|share| {
            let frames: Vec<String> = share
                .stack
                .iter()
                .map(|frame| frame.replace(&folder, ""))
                .collect();
            json!([
                share.held_at_peak_bytes,
                share.taken_bytes,
                share.taken_count,
                frames
            ])
        })
        .collect();
    assert!(
        summary["overhead"]["hits"].as_u64().unwrap() > 100,
        "{summary}"
    );
    let figures = json!({
        "php": environment["version"],
        "hits": summary["overhead"]["hits"],
        "events": summary["events"],
        "checkpoints": stations,
        "taken_bytes": growth.taken_bytes,
        "freed_bytes": growth.freed_bytes,
        "held_at_peak_bytes": growth.held_at_peak_bytes,
        "unattributed_at_peak_bytes": growth.unattributed_at_peak_bytes,
        "stacks": stacks,
    });
    println!("figures of one page: {figures}");
}
