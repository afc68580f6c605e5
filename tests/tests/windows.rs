//! Outside its windows memprof holds no probe; a window and a peak change its mode.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::time::{Duration, Instant};

use jiff::{ToSpan, Zoned};
use memprof_tests::attached::{External, attach_to, own_pool};
use memprof_tests::probes::changed_code;
use memprof_tests::{Fpm, PhpBuild};

/// A window from `start` to `end`, in seconds from now.
fn window(start: i64, end: i64) -> String {
    let at = |seconds: i64| {
        let time = Zoned::now().checked_add(seconds.seconds()).unwrap().time();
        time.round(jiff::Unit::Second).unwrap().to_string()
    };
    format!("{}-{}", at(start), at(end))
}

fn fpm(name: &str) -> (Fpm, i32) {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool(name)).unwrap();
    let worker = fpm.workers(fpm.pool()).unwrap()[0];
    (fpm, worker)
}

/// Probes go on a thread of their own, after memprof has said so.
fn wait_until_free(worker: i32) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !changed_code(worker).unwrap().is_empty() {
        assert!(Instant::now() < deadline, "probes are left");
    }
}

#[test]
fn probes_come_and_go_with_the_window() {
    let (fpm, worker) = fpm("window");
    let window = window(4, 14);
    let arguments = ["--mode", "aggressive", "--every", "--window", &window];
    let mut memprof = attach_to(&fpm, &arguments).unwrap();
    assert_eq!(changed_code(worker).unwrap(), []);
    fpm.get("worker.php?mb=1").unwrap();
    memprof.wait_for_line("no probe -> aggressive").unwrap();
    assert!(changed_code(worker).unwrap().len() > 10);
    fpm.get("worker.php?mb=2").unwrap();
    memprof.wait_for("checkpoint", 1).unwrap();
    memprof.wait_for_line("aggressive -> no probe").unwrap();
    wait_until_free(worker);
    fpm.get("worker.php?mb=3").unwrap();
    let finished = memprof.stop().unwrap();
    let summary = finished.summary().unwrap();
    assert_eq!(summary["requests_seen"], 1, "{summary}");
    let records = finished.records().unwrap();
    let checkpoints: Vec<_> = records
        .iter()
        .filter(|line| line["record"] == "checkpoint")
        .collect();
    let growth = External::of(checkpoints[0]).unwrap().growth.unwrap();
    assert_eq!(growth.unattributed_at_peak_bytes, Some(0));
    assert_eq!(checkpoints.len(), 1);
}

#[test]
fn a_window_has_a_mode_of_its_own() {
    let (fpm, _) = fpm("busy");
    let window = window(3, 3600) + "=aggressive";
    let arguments = ["--sample-rate", "0", "--every", "--window", &window];
    let mut memprof = attach_to(&fpm, &arguments).unwrap();
    fpm.get("worker.php?mb=1").unwrap();
    memprof.wait_for_line("light -> aggressive").unwrap();
    fpm.get("worker.php?mb=2").unwrap();
    let lines = memprof.wait_for("checkpoint", 1).unwrap();
    assert_eq!(lines[0]["external"]["mode"], "aggressive");
    assert!(External::of(&lines[0]).unwrap().growth.is_some());
    let summary = memprof.stop().unwrap().summary().unwrap();
    assert_eq!(summary["requests_seen"], 2, "{summary}");
    assert_eq!(summary["requests_recorded"], 1, "{summary}");
}

#[test]
fn aggressive_while_a_worker_is_past_its_share() {
    let (fpm, _) = fpm("peak");
    let arguments = ["--mode", "aggressive", "--when", "peak > 50%"];
    let rest = ["--warning", "10%", "--sample-rate", "1"];
    let mut memprof = attach_to(&fpm, &[&arguments[..], &rest].concat()).unwrap();
    fpm.get("worker.php?mb=70").unwrap();
    memprof.wait_for_line("light -> aggressive").unwrap();
    fpm.get("worker.php?mb=20").unwrap();
    let lines = memprof.wait_for("checkpoint", 2).unwrap();
    let modes: Vec<_> = lines.iter().map(|line| &line["external"]["mode"]).collect();
    assert_eq!(modes, ["light", "aggressive"]);
    memprof.stop().unwrap();
}
