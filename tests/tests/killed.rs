//! However memprof ends, the workers go on as they were, and no probe is left in them.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use memprof_tests::attached::{attach_to, own_pool, records_folder};
use memprof_tests::probes::{BREAKPOINT, changed_code};
use memprof_tests::{Finished, Fpm, Memprof, PhpBuild};
use nix::sys::signal::Signal;

fn tracer(worker: i32) -> String {
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("TracerPid:"));
    line.unwrap().to_owned()
}

/// Requests that never stop until they are told to; how many were answered rightly is counted.
fn under_load(fpm: &Fpm, test: impl FnOnce(&AtomicUsize)) {
    let stop = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let expected = fpm.get("growth.php?case=keep").unwrap().text();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let response = fpm.get("growth.php?case=keep").unwrap();
                    assert_eq!(response.status, 200);
                    assert_eq!(response.text(), expected);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // The clients have to end however the test does.
        let _stop = SetOnDrop(&stop);
        test(&answered);
    });
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn wait_for(answered: &AtomicUsize, more: usize) {
    let goal = answered.load(Ordering::Relaxed) + more;
    while answered.load(Ordering::Relaxed) < goal {
        thread::yield_now();
    }
}

/// Attaches under load, ends memprof by `end`, and looks at what is left.
fn workers_survive(end: impl Fn(Memprof) -> Finished, check: impl Fn(&Fpm, &Finished)) {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let mut settings = own_pool("killed");
    settings.pools[0].workers = 2;
    let fpm = Fpm::start(build, settings).unwrap();
    let workers = fpm.workers(fpm.pool()).unwrap();
    for worker in &workers {
        assert_eq!(changed_code(*worker).unwrap(), []);
    }
    under_load(&fpm, |answered| {
        let memprof = attach_to(&fpm, &["--mode", "aggressive", "--every"]).unwrap();
        wait_for(answered, 20);
        for worker in &workers {
            let probes = changed_code(*worker).unwrap();
            assert!(probes.len() > 10, "{probes:x?}");
            assert!(probes.iter().all(|(_, code)| code == BREAKPOINT));
        }
        let finished = end(memprof);
        wait_for(answered, 20);
        check(&fpm, &finished);
    });
    assert_eq!(fpm.workers(fpm.pool()).unwrap(), workers);
    for worker in &workers {
        assert_eq!(changed_code(*worker).unwrap(), []);
        assert_eq!(tracer(*worker), "TracerPid:\t0");
    }
}

fn has_summary(fpm: &Fpm) -> bool {
    records_folder(fpm).join("summary.json").exists()
}

#[test]
fn killed() {
    let end = |memprof: Memprof| {
        memprof.signal(Signal::SIGKILL).unwrap();
        memprof.wait().unwrap()
    };
    workers_survive(end, |fpm, finished| {
        assert!(!finished.status.success());
        assert!(!has_summary(fpm));
        // What was recorded until then is whole lines.
        assert!(!finished.records().unwrap().is_empty());
    });
}

#[test]
fn asked_to_end() {
    let end = |memprof: Memprof| {
        memprof.signal(Signal::SIGTERM).unwrap();
        memprof.wait().unwrap()
    };
    workers_survive(end, |fpm, finished| {
        assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
        assert!(has_summary(fpm));
        let summary = finished.summary().unwrap();
        let (sent, received) = (&summary["events"]["sent"], &summary["events"]["received"]);
        assert_eq!(sent, received, "{summary}");
        assert!(
            summary["requests_recorded"].as_u64().unwrap() >= 15,
            "{summary}"
        );
    });
}

#[test]
fn asked_to_end_twice() {
    // While it stands still both wait for it, so that the second finds the first just come.
    let end = |memprof: Memprof| {
        for signal in [
            Signal::SIGSTOP,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGCONT,
        ] {
            memprof.signal(signal).unwrap();
        }
        memprof.wait().unwrap()
    };
    workers_survive(end, |fpm, finished| {
        let signal = finished.status.signal();
        let both = [Signal::SIGTERM as i32, Signal::SIGINT as i32];
        assert!(signal.is_some_and(|signal| both.contains(&signal)));
        assert!(!has_summary(fpm));
    });
}
