//! What it does to a worker that it is held.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use memprof_tests::{Fpm, Laravel, Opcache, PhpBuild};
use memprof_user::capture::freeze::Frozen;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::script::{LIMIT, Taken, settings, status, wait_until, wait_until_held};

#[test]
fn a_worker_that_is_traced_already_is_read_while_it_runs() {
    let fpm = Fpm::start(
        PhpBuild::fetched(PhpBuild::LARAVEL).unwrap(),
        settings(Opcache::On),
    );
    let fpm = fpm.unwrap();
    let worker = fpm.workers("www").unwrap()[0];
    let tracer = Frozen::freeze(worker, LIMIT).unwrap();
    let taken = Taken::of(worker, &[]);
    tracer.release();
    assert_eq!(taken.external("/consistent"), false);
    assert_eq!(taken.external("/stopped_ms"), &Value::Null);
    let reason = taken.external("/not_stopped").as_str().unwrap();
    assert!(reason.contains("nothing else traces"), "{reason}");
    assert_eq!(fpm.get("environment.php").unwrap().status, 200);
}

#[test]
fn what_is_not_read_in_time_is_left_out() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, settings(Opcache::On)).unwrap();
    let worker = fpm.workers("www").unwrap()[0];
    let file = fpm.folder().join("go");
    let uri = format!("dump.php?file={}&objects=1000000", fpm.inside("go"));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| fpm.get(&uri).unwrap());
        wait_until_held(worker, &file);
        let taken = Taken::of(worker, &["--max-stop", "5"]);
        let left_out = taken.external("/left_out").to_string();
        assert!(left_out.contains("the objects: "), "{left_out}");
        assert!(
            left_out.contains("allow more with --max-stop"),
            "{left_out}"
        );
        assert!(taken.dump["objects"]["error"].is_string());
        assert!(taken.dump["memory"]["current_mb"].as_f64().unwrap() > 50.0);
        let whole = Taken::of(worker, &["--max-stop", "60000"]);
        assert_eq!(whole.external("/left_out"), &json!([]));
        println!("held for {} ms", whole.external("/stopped_ms"));
        fs::write(&file, "").unwrap();
        assert_eq!(waiting.join().unwrap().status, 200);
    });
}

#[test]
fn a_worker_goes_on_when_memprof_is_killed_while_it_holds_it() {
    for build in PhpBuild::ALL {
        println!("{}", build.name);
        let fpm = Fpm::start(
            PhpBuild::fetched(build.name).unwrap(),
            settings(Opcache::On),
        )
        .unwrap();
        let worker = fpm.workers("www").unwrap()[0];
        let file = fpm.folder().join("go");
        let uri = format!("dump.php?file={}&objects=2000000", fpm.inside("go"));
        let out = tempfile::tempdir().unwrap();
        let response = thread::scope(|scope| {
            let waiting = scope.spawn(|| fpm.get(&uri).unwrap());
            wait_until_held(worker, &file);
            let dump = Command::new(memprof_tests::target_dir().join("release/memprof"))
                .args([
                    "dump",
                    "--pid",
                    &worker.to_string(),
                    "--max-stop",
                    "60000",
                    "--out",
                ])
                .arg(out.path())
                .spawn();
            let mut dump = dump.unwrap();
            wait_until("the worker was not held", || {
                status(worker, "State:").starts_with('t')
            });
            kill(Pid::from_raw(dump.id().cast_signed()), Signal::SIGKILL).unwrap();
            assert!(!dump.wait().unwrap().success());
            wait_until("the worker is still held", || {
                status(worker, "TracerPid:") == "0"
            });
            fs::write(&file, "").unwrap();
            waiting.join().unwrap()
        });
        assert_eq!(response.status, 200);
        let next = fpm.get("environment.php").unwrap();
        assert_eq!(
            (next.status, fpm.workers("www").unwrap()),
            (200, vec![worker])
        );
        assert!(!fpm.log().contains("exited"), "{}", fpm.log());
    }
}

#[test]
fn a_busy_worker_serves_on_between_many_dumps() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, settings(Opcache::On)).unwrap();
    let mut laravel = Laravel::install(&fpm, "www").unwrap();
    laravel.get("/t/login/1?perm=580").unwrap();
    let worker = fpm.workers("www").unwrap()[0];
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let mut served = 0;
            while !is_done.load(Ordering::Relaxed) {
                laravel.get("/admin").unwrap();
                served += 1;
            }
            served
        });
        let (mut in_request, mut whole) = (0, 0);
        for _ in 0..50 {
            let taken = Taken::of(worker, &[]);
            assert_eq!(taken.external("/consistent"), true);
            in_request += u32::from(taken.external("/request").is_object());
            whole += u32::from(taken.external("/left_out") == &json!([]));
        }
        is_done.store(true, Ordering::Relaxed);
        let served: u32 = serving.join().unwrap();
        println!("50 dumps: {whole} whole, {in_request} in a request; {served} requests served");
        assert!(in_request > 0 && served > 0);
        // The worker may be held in the middle of changing what is read.
        assert!(whole >= 40);
    });
    assert_eq!(fpm.workers("www").unwrap(), [worker]);
}
