//! Targeted mode: a request that carries the header is recorded in full from its first moment, and no other.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::thread;
use std::time::{Duration, Instant};

use memprof_tests::attached::{External, Growth, attach_to, own_pool};
use memprof_tests::{Fpm, Laravel, Memprof, PhpBuild};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const HEADER: &str = "X-Force-Memory-Profile";

fn forced(fpm: &Fpm, uri: &str, value: &str) {
    let request = fpm.script(uri).header(HEADER, value);
    let response = request.send(&fpm.socket(fpm.pool())).unwrap();
    assert_eq!(response.status, 200);
}

fn recorded(memprof: &Memprof, count: usize) -> Vec<External> {
    let lines = memprof.wait_for("checkpoint", count).unwrap();
    lines
        .iter()
        .map(|line| External::of(line).unwrap())
        .collect()
}

/// How often the summary counts an error whose text begins so.
fn errors(summary: &Value, cause: &str) -> u64 {
    // As PHP encodes an empty one, it is a list.
    let errors = summary["errors"].as_object().into_iter().flatten();
    errors
        .filter(|(text, _)| text.starts_with(cause))
        .map(|(_, count)| count.as_u64().unwrap())
        .sum()
}

#[test]
fn the_whole_request_is_recorded_on_each_build() {
    const URI: &str = "growth.php?case=keep";
    for build in PhpBuild::ALL {
        let growth_in = |arguments: &[&str]| -> Growth {
            // A heap of the same past each time.
            let fpm = Fpm::start(build, own_pool("targeted")).unwrap();
            fpm.get(URI).unwrap();
            let memprof = attach_to(&fpm, arguments).unwrap();
            forced(&fpm, URI, "1");
            let mut growth = recorded(&memprof, 1).remove(0).growth.unwrap();
            fpm.get(URI).unwrap();
            let finished = memprof.stop().unwrap();
            assert_eq!(finished.summary().unwrap()["requests_seen"], 2);
            for share in &mut growth.top {
                let folder = fpm.inside("");
                for frame in &mut share.stack {
                    *frame = frame.replace(&folder, "");
                }
            }
            growth
        };
        let growth = growth_in(&["--mode", "targeted"]);
        assert_eq!(growth.unattributed_at_peak_bytes, Some(0), "{}", build.name);
        let aggressive = growth_in(&["--mode", "aggressive", "--every"]);
        assert_eq!(growth, aggressive, "{}", build.name);
        println!("{}: {} bytes taken", build.name, growth.taken_bytes);
    }
}

#[test]
fn the_header_has_to_hold_the_value() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("value")).unwrap();
    let value = ["--mode", "targeted", "--force-value", "open sesame"];
    let memprof = attach_to(&fpm, &value).unwrap();
    let long = "open sesame".repeat(20);
    for wrong in ["", "1", "open sesamE", "open sesame ", "open", &long] {
        forced(&fpm, "worker.php?mb=1", wrong);
    }
    fpm.get("worker.php?mb=1").unwrap();
    for _ in 0..40 {
        // More than the limit that holds without a value.
        forced(&fpm, "worker.php?mb=1", "open sesame");
    }
    let lines = recorded(&memprof, 40);
    assert!(lines.iter().all(|line| line.recorded));
    let finished = memprof.stop().unwrap();
    let summary = finished.summary().unwrap();
    assert_eq!(summary["requests_seen"], 47);
    assert_eq!(summary["requests_recorded"], 40);
    assert_eq!(errors(&summary, ""), 0, "{summary}");
    assert!(!finished.stdout.contains("sesame"));
}

#[test]
fn a_header_that_any_client_can_send_is_honoured_so_often() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("limit")).unwrap();
    let header = ["--force-header", "X-Bug", "--force-limit", "2"];
    let memprof = attach_to(&fpm, &[&["--mode", "targeted"], &header[..]].concat()).unwrap();
    for _ in 0..5 {
        let request = fpm.script("worker.php?mb=1").header("X-Bug", "");
        request.send(&fpm.socket(fpm.pool())).unwrap();
        forced(&fpm, "worker.php?mb=1", "1");
    }
    recorded(&memprof, 2);
    let summary = memprof.stop().unwrap().summary().unwrap();
    assert_eq!(summary["requests_seen"], 10);
    assert_eq!(summary["requests_recorded"], 2);
    assert_eq!(errors(&summary, "forced requests past"), 3, "{summary}");
}

#[test]
fn only_the_path_and_method_asked_for_are_recorded() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("path")).unwrap();
    let filter = ["--path", "/w*.php", "--method", "GET"];
    for mode in ["targeted", "aggressive", "light"] {
        let arguments = ["--mode", mode, "--sample-rate", "1", "--every"];
        let memprof = attach_to(&fpm, &[&arguments[..], &filter].concat()).unwrap();
        let post = memprof_tests::fcgi::Request::post(
            fpm.inside("scripts/worker.php"),
            "/worker.php?mb=1",
            "a=1",
        );
        post.header(HEADER, "1")
            .send(&fpm.socket(fpm.pool()))
            .unwrap();
        for uri in ["memory.php?mb=1&f=/worker.php", "worker.php?mb=1"] {
            forced(&fpm, uri, "1");
        }
        let lines = memprof.wait_for("checkpoint", 1).unwrap();
        assert_eq!(lines[0]["external"]["request"]["uri"], "/worker.php?mb");
        let summary = memprof.stop().unwrap().summary().unwrap();
        assert_eq!(summary["requests_seen"], 3, "{mode}");
        assert_eq!(summary["requests_recorded"], 1, "{mode}: {summary}");
        assert_eq!(summary["records"]["checkpoint"], 1, "{mode}");
    }
}

#[test]
fn many_at_once_are_all_recorded() {
    const WORKERS: usize = 4;
    const REQUESTS: usize = 40;
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let mut settings = own_pool("crowd");
    settings.pools[0].workers = WORKERS;
    let fpm = Fpm::start(build, settings).unwrap();
    let arguments = ["--mode", "targeted", "--force-value", "x"];
    let memprof = attach_to(&fpm, &arguments).unwrap();
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                for _ in 0..REQUESTS / WORKERS {
                    forced(&fpm, "growth.php?case=keep", "x");
                    fpm.get("growth.php?case=keep").unwrap();
                }
            });
        }
    });
    let lines = memprof.wait_for("checkpoint", 1).unwrap();
    assert!(!lines.is_empty());
    let finished = memprof.stop().unwrap();
    let summary = finished.summary().unwrap();
    assert_eq!(summary["requests_seen"], 2 * REQUESTS);
    let late = errors(&summary, "forced requests that ran unrecorded");
    let recorded = summary["requests_recorded"].as_u64().unwrap();
    println!("{recorded} recorded, {late} too late");
    assert_eq!(recorded + late, REQUESTS as u64, "{summary}");
    // What is recorded at all is recorded from its start.
    for line in finished.records().unwrap() {
        if line["record"] == "checkpoint" {
            let growth = External::of(&line).unwrap().growth.unwrap();
            assert_eq!(growth.unattributed_at_peak_bytes, Some(0));
        }
    }
}

#[test]
fn workers_outlive_a_memprof_that_is_killed_while_it_holds_them() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let mut settings = own_pool("killed");
    settings.pools[0].workers = 2;
    let fpm = Fpm::start(build, settings).unwrap();
    let workers = fpm.workers(fpm.pool()).unwrap();
    for round in 0..5 {
        let memprof = attach_to(&fpm, &["--mode", "targeted", "--force-value", "x"]).unwrap();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..8 {
                        forced(&fpm, "growth.php?case=keep", "x");
                    }
                });
            }
            recorded(&memprof, 1 + round);
            memprof.signal(Signal::SIGKILL).unwrap();
        });
        memprof.wait().unwrap();
        for worker in &workers {
            let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
            assert!(status.contains("TracerPid:\t0"), "{status}");
        }
    }
    assert_eq!(fpm.workers(fpm.pool()).unwrap(), workers);
}

#[test]
fn a_traced_worker_gets_its_signals() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("signals")).unwrap();
    let memprof = attach_to(&fpm, &["--mode", "targeted"]).unwrap();
    let worker = fpm.workers(fpm.pool()).unwrap()[0];
    // Its master asks a worker to end so.
    kill(Pid::from_raw(worker), Signal::SIGQUIT).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut next = None;
    while next.is_none() {
        assert!(Instant::now() < deadline, "{}", fpm.log());
        let workers = fpm.workers(fpm.pool()).unwrap();
        next = workers.into_iter().find(|pid| *pid != worker);
        thread::yield_now();
    }
    while memprof.wait_for("checkpoint", 0).unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the new worker is not followed");
        forced(&fpm, "worker.php?mb=1", "1");
    }
    assert_eq!(Some(recorded(&memprof, 1)[0].pid), next);
    assert!(memprof.stop().unwrap().status.success());
}

#[test]
fn a_request_that_dies_is_dumped_whether_it_was_forced_or_not() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("dies")).unwrap();
    let mut laravel = Laravel::install(&fpm, fpm.pool()).unwrap();
    laravel.get("/t/login/1").unwrap();
    laravel.get("/admin").unwrap();
    let workers = fpm.workers(fpm.pool()).unwrap();
    let arguments = ["--mode", "targeted", "--max-stop", "20000"];
    let memprof = attach_to(&fpm, &arguments).unwrap();
    for forced in [false, true, true] {
        let mut request = laravel.request("/admin").header("X-Bug", "accumulate");
        if forced {
            request = request.header(HEADER, "1");
        }
        let response = laravel.send(request).unwrap();
        assert!(response.stderr.contains("Allowed memory size"));
    }
    assert_eq!(laravel.get("/admin").unwrap().status, 200);
    assert_eq!(fpm.workers(fpm.pool()).unwrap(), workers);
    let finished = memprof.stop().unwrap();
    let summary = finished.summary().unwrap();
    assert_eq!(errors(&summary, "no dump"), 0, "{summary}");
    let records = finished.records().unwrap();
    let at_limit = records.iter().filter(|record| {
        record["record"] == "dump" && record["context"]["context"] == "oom_shutdown"
    });
    let grown: Vec<bool> = at_limit
        .map(|dump| !dump["context"]["external"]["growth"].is_null())
        .collect();
    assert_eq!(grown, [false, true, true], "{summary}");
}
