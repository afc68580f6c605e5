//! What it does to a worker that it is traced, and stopped.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::thread;

use memprof_tests::attached::{attach_to, own_pool};
use memprof_tests::fcgi::Response;
use memprof_tests::{Fpm, Memprof, PhpBuild};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{dumps, files, of_record, status, wait_until, with_context};

fn start() -> (Fpm, i32) {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("limit-hold")).unwrap();
    fpm.get("environment.php").unwrap();
    let worker = fpm.workers(fpm.pool()).unwrap()[0];
    (fpm, worker)
}

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

fn is_traced(worker: i32) -> bool {
    status(worker, "TracerPid:") != "0"
}

/// A request that holds 60 % of its limit while `test` runs; the answer.
fn while_held(fpm: &Fpm, worker: i32, test: impl FnOnce()) -> Response {
    let (go, ready) = files(fpm);
    let uri = format!("limit.php?case=near&share=60&file={}", fpm.inside("go"));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| fpm.get(&uri).unwrap());
        wait_until("limit.php did not get ready", || ready.exists());
        wait_until("the worker is not traced", || is_traced(worker));
        assert!(!status(worker, "State:").starts_with('t'), "it runs");
        test();
        fs::write(&go, "").unwrap();
        waiting.join().unwrap()
    })
}

#[test]
fn a_worker_is_traced_until_its_request_ends() {
    let (fpm, worker) = start();
    assert!(!is_traced(worker));
    let memprof = attach_to(&fpm, &[]).unwrap();
    fpm.get("environment.php").unwrap();
    assert!(!is_traced(worker), "a small request");
    let response = while_held(&fpm, worker, || {});
    assert_eq!(response.status, 200);
    wait_until("the worker is still traced", || !is_traced(worker));
    assert_eq!(fpm.get("environment.php").unwrap().status, 200);
    let finished = memprof.stop().unwrap();
    assert_eq!(finished.summary().unwrap()["errors"], serde_json::json!([]));
    assert_eq!(
        dumps(&fpm).len(),
        0,
        "60 % is neither critical nor the limit"
    );
}

#[test]
fn signals_reach_a_worker_that_is_traced() {
    let (fpm, worker) = start();
    let memprof = attach_to(&fpm, &[]).unwrap();
    let response = while_held(&fpm, worker, || {
        send(worker, Signal::SIGSTOP);
        wait_until("it does not stop", || {
            status(worker, "State:").to_lowercase().starts_with('t')
        });
        send(worker, Signal::SIGCONT);
        wait_until("it does not go on", || {
            ["R", "S"]
                .iter()
                .any(|state| status(worker, "State:").starts_with(state))
        });
        // php-fpm's own "finish what you do, and end".
        send(worker, Signal::SIGQUIT);
    });
    assert_eq!(response.status, 200);
    wait_until("the worker did not end", || {
        status(worker, "State:").is_empty()
    });
    wait_until("no other came", || {
        fpm.workers(fpm.pool()).is_ok_and(|all| all.len() == 1)
    });
    assert_eq!(fpm.get("environment.php").unwrap().status, 200);
    assert!(memprof.stop().unwrap().status.success());
    assert!(!fpm.log().contains("SIGSEGV"), "{}", fpm.log());
}

#[test]
fn a_worker_that_is_killed_while_it_is_traced_is_told_as_that() {
    let (fpm, worker) = start();
    let memprof = attach_to(&fpm, &[]).unwrap();
    let (_, ready) = files(&fpm);
    let uri = format!("limit.php?case=near&share=60&file={}", fpm.inside("go"));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| fpm.get(&uri));
        wait_until("limit.php did not get ready", || ready.exists());
        wait_until("the worker is not traced", || is_traced(worker));
        send(worker, Signal::SIGTERM);
        assert!(waiting.join().unwrap().is_err(), "nobody answers");
    });
    wait_until("php-fpm did not see its end", || {
        fpm.log().contains("exited on signal 15")
    });
    assert_eq!(fpm.get("environment.php").unwrap().status, 200);
    assert!(memprof.stop().unwrap().status.success());
}

#[test]
fn a_worker_above_the_critical_threshold_is_dumped_once() {
    let (fpm, worker) = start();
    let memprof = attach_to(&fpm, &[]).unwrap();
    let (go, ready) = files(&fpm);
    for request in 1..=2 {
        fs::write(&go, "").unwrap();
        let uri = format!("limit.php?case=near&share=95&file={}", fpm.inside("go"));
        let response = fpm.get(&uri).unwrap();
        assert_eq!(response.status, 200, "{response:?}");
        fs::remove_file(&ready).unwrap();
        // The next request must not be taken for the same second's.
        wait_until("no dump", || dumps(&fpm).len() == request);
    }
    let finished = memprof.stop().unwrap();
    assert_eq!(fpm.workers(fpm.pool()).unwrap(), [worker]);
    let records = finished.records().unwrap();
    assert_eq!(of_record(&records, "dump").len(), 2);
    assert_eq!(of_record(&records, "oom").len(), 0);
    for dump in with_context(&dumps(&fpm), "critical_threshold_reached") {
        let percent = dump["memory"]["usage_percent"].as_f64().unwrap();
        assert!(percent > 90.0 && percent < 93.0, "{percent}");
        assert_eq!(dump["backtrace"][1]["function"], "near");
        assert!(dump["external"]["tried_bytes"].is_null());
    }
}

#[test]
fn a_worker_that_another_process_traces_is_not_dumped_but_told() {
    let (fpm, worker) = start();
    let memprof = attach_to(&fpm, &[]).unwrap();
    let alone = thread::scope(|scope| {
        // ptrace belongs to a thread: this one lets the worker go when it ends.
        let traced = scope.spawn(|| {
            ptrace::seize(Pid::from_raw(worker), ptrace::Options::empty()).unwrap();
            fpm.get("limit.php?case=slow").unwrap()
        });
        traced.join().unwrap()
    });
    assert!(alone.stderr.contains("exhausted"));
    let finished = memprof.stop().unwrap();
    let records = finished.records().unwrap();
    let failed = of_record(&records, "dump_failed");
    assert_eq!(failed.len(), 1);
    let reason = failed[0]["context"]["exception"].as_str().unwrap();
    assert!(reason.contains("another process traces it"), "{reason}");
    assert_eq!(of_record(&records, "oom").len(), 1);
    assert_eq!(dumps(&fpm).len(), 0);
}

#[test]
fn a_slowlog_and_a_traced_worker_do_each_other_no_harm() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let mut settings = own_pool("limit-slowlog");
    let slowlog = [
        ("request_slowlog_timeout", "1s"),
        ("slowlog", "/tmp/memprof-slow.log"),
    ];
    let pool = &mut settings.pools[0];
    pool.directives
        .extend(slowlog.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let fpm = Fpm::start(build, settings).unwrap();
    let worker = fpm.workers(fpm.pool()).unwrap()[0];
    let memprof = attach_to(&fpm, &[]).unwrap();
    let response = while_held(&fpm, worker, || {
        wait_until("php-fpm does not trace the slow worker", || {
            fpm.log().contains("failed to ptrace(ATTACH)")
        });
    });
    assert_eq!(response.status, 200);
    assert_eq!(fpm.get("environment.php").unwrap().status, 200);
    assert_eq!(fpm.workers(fpm.pool()).unwrap(), [worker]);
    let finished = memprof.stop().unwrap();
    assert!(
        finished.stderr.contains("request_slowlog_timeout = 1s"),
        "{}",
        finished.stderr
    );
}

#[test]
fn probe_by_probe_a_worker_is_stopped_too() {
    let (fpm, worker) = start();
    let memprof = attach_to(&fpm, &["--single-uprobes"]).unwrap();
    for case in ["slow", "jump"] {
        let response = fpm.get(&format!("limit.php?case={case}")).unwrap();
        assert!(response.stderr.contains("exhausted"), "{response:?}");
    }
    let finished = memprof.stop().unwrap();
    assert_eq!(finished.summary().unwrap()["errors"], serde_json::json!([]));
    assert_eq!(with_context(&dumps(&fpm), "oom_shutdown").len(), 2);
    assert_eq!(fpm.workers(fpm.pool()).unwrap(), [worker]);
}

#[test]
fn without_dumps_no_worker_is_stopped() {
    let (fpm, worker) = start();
    let memprof = attach_to(&fpm, &["--no-dumps"]).unwrap();
    assert!(
        fpm.get("limit.php?case=slow")
            .unwrap()
            .stderr
            .contains("exhausted")
    );
    let finished = memprof.stop().unwrap();
    let records = finished.records().unwrap();
    assert_eq!(of_record(&records, "oom").len(), 1);
    assert_eq!(of_record(&records, "dump_failed").len(), 0);
    assert_eq!(dumps(&fpm).len(), 0);
    assert_eq!(fpm.workers(fpm.pool()).unwrap(), [worker]);
}

/// Ends memprof by `end` while a worker stands still at its memory limit.
fn end_while_stopped(build: &PhpBuild, end: impl Fn(Memprof)) {
    let mut settings = own_pool("limit-end");
    settings.pools[0].memory_limit = "256M".to_owned();
    let fpm = Fpm::start(PhpBuild::fetched(build.name).unwrap(), settings).unwrap();
    let worker = fpm.workers(fpm.pool()).unwrap()[0];
    let alone = fpm.get("limit.php?case=objects").unwrap();
    let memprof = attach_to(&fpm, &["--max-stop", "60000"]).unwrap();
    let watched = thread::scope(|scope| {
        let dying = scope.spawn(|| fpm.get("limit.php?case=objects").unwrap());
        wait_until("the worker was not stopped", || {
            status(worker, "State:").starts_with('t')
        });
        end(memprof);
        wait_until("the worker is still traced", || !is_traced(worker));
        dying.join().unwrap()
    });
    assert_eq!(watched.status, alone.status, "{}", build.name);
    assert_eq!(watched.stderr, alone.stderr, "{}", build.name);
    assert_eq!(fpm.get("environment.php").unwrap().status, 200);
    assert_eq!(fpm.workers(fpm.pool()).unwrap(), [worker], "{}", build.name);
    assert!(!fpm.log().contains("exited"), "{}", fpm.log());
}

#[test]
fn a_worker_goes_on_when_memprof_is_killed_while_it_is_stopped() {
    for build in PhpBuild::ALL {
        println!("{}", build.name);
        end_while_stopped(build, |memprof| {
            memprof.signal(Signal::SIGKILL).unwrap();
            assert_eq!(memprof.wait().unwrap().status.signal(), Some(9));
        });
    }
}

#[test]
fn memprof_finishes_the_dump_that_it_is_at_when_it_is_asked_to_end() {
    let build = PhpBuild::named(PhpBuild::LARAVEL).unwrap();
    end_while_stopped(build, |memprof| {
        let finished = memprof.stop().unwrap();
        let summary = finished.summary().unwrap();
        let not_seen = serde_json::json!({"requests whose end was not seen": 1});
        assert_eq!(summary["errors"], not_seen, "{summary}");
        assert_eq!(summary["records"]["dump"], 1, "{summary}");
    });
}
