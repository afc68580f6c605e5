//! The guard steps down from what costs too much, and stays down until told otherwise.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::time::{Duration, Instant};

use memprof_tests::attached::{attach_guarded, own_pool};
use memprof_tests::probes::changed_code;
use memprof_tests::{Fpm, Memprof, PhpBuild};

/// No request is as cheap as that.
const TINY: [&str; 4] = ["--max-overhead", "0.000001", "--max-overhead-requests", "3"];

#[test]
fn it_steps_down_to_light_and_to_nothing_and_stays_there() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("guard")).unwrap();
    let worker = fpm.workers(fpm.pool()).unwrap()[0];
    let run = fpm.folder().join("run");
    let run = ["--run-folder", run.to_str().unwrap()];
    let arguments = ["--mode", "aggressive"];
    let mut memprof = attach_guarded(&fpm, &[&arguments[..], &TINY, &run].concat()).unwrap();
    for step in ["aggressive -> light", "light -> no probe"] {
        for _ in 0..3 {
            fpm.get("growth.php?case=keep").unwrap();
        }
        memprof.wait_for_line("guard: 3 requests in a row").unwrap();
        memprof.wait_for_line(step).unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while !changed_code(worker).unwrap().is_empty() {
        assert!(Instant::now() < deadline, "probes are left");
    }
    let shown = Memprof::run(&[&["mode"], &run[..]].concat()).unwrap();
    assert!(
        shown.stdout.contains("no probe, the overhead guard"),
        "{}",
        shown.stdout
    );
    // An operator may insist.
    Memprof::run(&[&["mode", "aggressive"], &run[..]].concat()).unwrap();
    memprof.wait_for_line("no probe -> aggressive").unwrap();

    let finished = memprof.stop().unwrap();
    let summary = finished.summary().unwrap();
    assert_eq!(summary["guard"].as_array().unwrap().len(), 2, "{summary}");
    assert_eq!(summary["records"]["guard"], 2, "{summary}");
    let log = std::fs::read_to_string(fpm.folder().join("records/memprof.log")).unwrap();
    let warnings = log
        .lines()
        .filter(|line| line.contains("memprof overhead guard"));
    assert_eq!(warnings.filter(|line| line.contains("WARNING")).count(), 2);
}

#[test]
fn what_costs_little_goes_on() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("cheap")).unwrap();
    for arguments in [
        &["--max-overhead-requests", "3"][..],
        &["--max-overhead", "0.000001", "--no-guard"],
    ] {
        let all = [&["--mode", "aggressive", "--every"], arguments].concat();
        let memprof = attach_guarded(&fpm, &all).unwrap();
        for _ in 0..6 {
            fpm.get("growth.php?case=keep").unwrap();
        }
        let lines = memprof.wait_for("checkpoint", 6).unwrap();
        assert!(
            lines
                .iter()
                .all(|line| line["external"]["mode"] == "aggressive")
        );
        let summary = memprof.stop().unwrap().summary().unwrap();
        assert_eq!(summary["guard"], serde_json::json!([]), "{summary}");
    }
}

#[test]
fn its_own_memory_has_a_bound() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("memory")).unwrap();
    let arguments = ["--mode", "aggressive", "--max-memory", "1"];
    let mut memprof = attach_guarded(&fpm, &arguments).unwrap();
    memprof
        .wait_for_line("guard: memprof's resident memory")
        .unwrap();
    memprof.wait_for_line("aggressive -> light").unwrap();
    memprof.stop().unwrap();
}

#[test]
fn samples_are_thinned_where_they_cost_too_much_processor_time() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("cpu")).unwrap();
    let arguments = ["--mode", "aggressive", "--max-cpu", "0"];
    let mut memprof = attach_guarded(&fpm, &arguments).unwrap();
    memprof
        .wait_for_line("it takes one sample in 2 of")
        .unwrap();
    memprof
        .wait_for_line("it takes one sample in 4 of")
        .unwrap();
    for _ in 0..100 {
        fpm.get("worker.php?mb=1").unwrap();
    }
    let summary = memprof.stop().unwrap().summary().unwrap();
    let recorded = summary["requests_recorded"].as_u64().unwrap();
    println!("{recorded} of 100 recorded");
    assert!((1..=60).contains(&recorded), "{summary}");
}
