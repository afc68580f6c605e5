//! However memprof ends, the workers go on as they were, and no probe is left in them.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use memprof_tests::attached::{attach_to, own_pool, records_folder};
use memprof_tests::{Finished, Fpm, Memprof, PhpBuild};
use nix::sys::signal::Signal;

/// The instruction that the kernel puts where a probe is: `int3` of x86-64, `brk #5` of aarch64.
const BREAKPOINT: &[u8] = if cfg!(target_arch = "aarch64") {
    &[0xa0, 0x00, 0x20, 0xd4]
} else {
    &[0xcc]
};

/// Addresses of the worker's code that are not as in the files it was loaded from: where probes are.
fn changed_code(worker: i32) -> Vec<(u64, Vec<u8>)> {
    let maps = fs::read_to_string(format!("/proc/{worker}/maps")).unwrap();
    let memory = File::open(format!("/proc/{worker}/mem")).unwrap();
    let mut changed = Vec::new();
    for line in maps.lines() {
        let parts: Vec<&str> = line.split_whitespace().collect();
        let [range, "r-xp", offset, _, _, path] = parts[..] else {
            continue;
        };
        if !path.starts_with('/') {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let number = |digits| u64::from_str_radix(digits, 16).unwrap();
        let (start, end) = (number(start), number(end));
        let file = File::open(format!("/proc/{worker}/map_files/{range}")).unwrap();
        let mut loaded = vec![0; (end - start) as usize];
        memory.read_exact_at(&mut loaded, start).unwrap();
        let mut stored = vec![0; loaded.len()];
        file.read_at(&mut stored, number(offset)).unwrap();
        changed.extend(differences(start, &loaded, &stored));
    }
    changed
}

/// Where two pieces of code differ, in units of a breakpoint; by pages, because nearly all are the same.
fn differences(start: u64, loaded: &[u8], stored: &[u8]) -> Vec<(u64, Vec<u8>)> {
    const PAGE: usize = 4096;
    let pages = loaded.chunks(PAGE).zip(stored.chunks(PAGE)).enumerate();
    pages
        .filter(|(_, (now, then))| now != then)
        .flat_map(|(page, (now, then))| {
            let unit = BREAKPOINT.len();
            let units = now.chunks(unit).zip(then.chunks(unit)).enumerate();
            units
                .filter(|(_, (now, then))| now != then)
                .map(move |(at, (now, _))| (start + (page * PAGE + at * unit) as u64, now.to_vec()))
        })
        .collect()
}

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
        assert_eq!(changed_code(*worker), []);
    }
    under_load(&fpm, |answered| {
        let memprof = attach_to(&fpm, &["--mode", "aggressive", "--every"]).unwrap();
        wait_for(answered, 20);
        for worker in &workers {
            let probes = changed_code(*worker);
            assert!(probes.len() > 10, "{probes:x?}");
            assert!(probes.iter().all(|(_, code)| code == BREAKPOINT));
        }
        let finished = end(memprof);
        wait_for(answered, 20);
        check(&fpm, &finished);
    });
    assert_eq!(fpm.workers(fpm.pool()).unwrap(), workers);
    for worker in &workers {
        assert_eq!(changed_code(*worker), []);
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
