//! The figures of the checkpoint record are those that PHP itself logs at the same points.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs::File;
use std::io::BufReader;

use memprof_tests::attached::{External, attach_to, own_pool, records_folder};
use memprof_tests::{Fpm, Laravel, PhpBuild};
use memprof_user::record::checkpoint::{CheckpointRecord, Label, LargestJump};
use memprof_user::record::log::LogReader;
use serde::Deserialize;

#[derive(Debug, Deserialize, PartialEq)]
struct Figures {
    current: u64,
    peak: u64,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Noted {
    start: Figures,
    ready: Figures,
    end: Figures,
    shutdown: Figures,
}

/// MiB with two decimals, as the records have them.
fn mib(bytes: u64) -> f64 {
    (bytes as f64 / 1_048_576.0 * 100.0).round() / 100.0
}

fn records_in(log: &std::path::Path) -> Vec<CheckpointRecord> {
    let log = LogReader::new(BufReader::new(File::open(log).unwrap()));
    log.filter_map(|line| line.unwrap().record().map(Result::unwrap))
        .collect()
}

/// Compares what the script noted with the bytes beside the record and with the record in the log.
fn compare(noted: &Noted, external: &External, record: &CheckpointRecord) {
    assert_eq!(
        noted.end, noted.shutdown,
        "the script's end is no fixed point"
    );
    let stations = [
        (Label::RequestStart, "request_start", &noted.start),
        (Label::ResponseReady, "response_ready", &noted.ready),
        (Label::RequestEnd, "request_end", &noted.end),
    ];
    let mut previous = noted.start.current;
    assert_eq!(record.checkpoints.len(), stations.len());
    for ((label, name, figures), logged) in stations.into_iter().zip(&record.checkpoints) {
        let seen = external.at(name).unwrap();
        assert_eq!(
            (seen.current_bytes, seen.peak_bytes),
            (figures.current, figures.peak),
            "{name}"
        );
        let delta = mib(figures.current.abs_diff(previous));
        let delta = if figures.current < previous {
            -delta
        } else {
            delta
        };
        previous = figures.current;
        assert_eq!(logged.label, label);
        assert_eq!(logged.current_mb.get(), mib(figures.current), "{name}");
        assert_eq!(logged.peak_mb.get(), mib(figures.peak), "{name}");
        assert_eq!(logged.delta_mb.get(), delta, "{name}");
    }
    assert_eq!(record.peak_mb.get(), mib(noted.end.peak));
    // It grows until the headers are sent, and shrinks from there on.
    let jump = LargestJump::Checkpoint(record.checkpoints[1].clone());
    assert_eq!(record.largest_jump, jump);
    assert!(record.checkpoints[2].delta_mb.get() < 0.0);
}

#[test]
fn figures_are_those_that_php_logs_itself() {
    for build in PhpBuild::ALL {
        println!("{}", build.name);
        let fpm = Fpm::start(build, own_pool("checkpoints")).unwrap();
        let memprof = attach_to(&fpm, &["--mode", "aggressive", "--every"]).unwrap();
        // PHP keeps some chunks for later requests as soon as it has seen that they need them.
        let noted: Vec<Noted> = (0..3)
            .map(|_| fpm.get("checkpoints.php").unwrap().json().unwrap())
            .collect();
        let lines = memprof.wait_for("checkpoint", noted.len()).unwrap();
        let summary = memprof.stop().unwrap().summary().unwrap();
        assert_eq!(summary["requests_seen"], noted.len());
        let logged = records_in(&records_folder(&fpm).join("memprof.log"));
        assert_eq!(logged.len(), noted.len());
        assert_ne!(noted[2], noted[0], "no request found kept chunks");
        for ((noted, line), logged) in noted.iter().zip(&lines).zip(&logged) {
            compare(noted, &External::of(line).unwrap(), logged);
            let printed = CheckpointRecord::deserialize(&line["context"]).unwrap();
            assert_eq!(&printed, logged);
        }
    }
}

#[test]
fn laravel_passes_all_four_and_shares_its_log() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("laravel-log")).unwrap();
    let mut laravel = Laravel::install(&fpm, fpm.pool()).unwrap();
    laravel.get("/t/login/1").unwrap();
    let failing = laravel.request("/admin").header("X-Bug", "accumulate");
    laravel.send(failing).unwrap();
    let before = laravel.log().unwrap();
    assert!(before.contains("Allowed memory size"));

    let log = fpm.folder().join("laravel/storage/logs/laravel.log");
    let arguments = [
        "--mode",
        "aggressive",
        "--every",
        "--log",
        log.to_str().unwrap(),
    ];
    let memprof = attach_to(&fpm, &arguments).unwrap();
    laravel.get("/admin").unwrap();
    laravel.get("/t/calls").unwrap();
    memprof.wait_for("checkpoint", 2).unwrap();
    assert!(memprof.stop().unwrap().status.success());

    let after = laravel.log().unwrap();
    assert!(
        after.starts_with(&before),
        "the application's lines are untouched"
    );
    let records = records_in(&log);
    assert_eq!(records.len(), 2);
    for (record, uri) in records.iter().zip(["/admin", "/t/calls"]) {
        let labels: Vec<Label> = record
            .checkpoints
            .iter()
            .map(|seen| seen.label.clone())
            .collect();
        let all = [
            Label::RequestStart,
            Label::BeforeProviders,
            Label::ResponseReady,
            Label::RequestEnd,
        ];
        assert_eq!(labels, all);
        let times: Vec<f64> = record
            .checkpoints
            .iter()
            .map(|seen| seen.timestamp)
            .collect();
        assert!(times.is_sorted(), "{times:?}");
        let request = record.checkpoints[0].request.as_ref().unwrap();
        assert_eq!(
            (request.uri.as_str(), request.method.as_str()),
            (uri, "GET")
        );
    }
}

#[test]
fn the_operators_own_checkpoints_are_files_and_functions() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("own-checkpoints")).unwrap();
    let mut laravel = Laravel::install(&fpm, fpm.pool()).unwrap();
    laravel.get("/t/login/1?perm=8934").unwrap();
    let mut arguments = vec!["--mode", "aggressive", "--every"];
    for checkpoint in [
        "routes=laravel/routes/web.php",
        "short=/Kernel.php",
        "controller=Illuminate\\Routing\\Router::runRouteWithinStack",
        "session=Illuminate\\Session\\Store::start",
        "never=App\\Nothing::here",
    ] {
        arguments.extend(["--checkpoint", checkpoint]);
    }
    let memprof = attach_to(&fpm, &arguments).unwrap();
    laravel.get("/admin").unwrap();
    let [line] = &memprof.wait_for("checkpoint", 1).unwrap()[..] else {
        panic!("one request");
    };
    memprof.stop().unwrap();
    let checkpoints = line["context"]["checkpoints"].as_array().unwrap();
    let labels: Vec<&str> = checkpoints
        .iter()
        .map(|checkpoint| checkpoint["label"].as_str().unwrap())
        .collect();
    assert_eq!(
        labels,
        [
            "request_start",
            "short",
            "before_providers",
            "routes",
            "controller",
            "session",
            "response_ready",
            "request_end"
        ]
    );
    let times: Vec<f64> = checkpoints
        .iter()
        .map(|checkpoint| checkpoint["timestamp"].as_f64().unwrap())
        .collect();
    assert!(times.is_sorted(), "{times:?}");
}
