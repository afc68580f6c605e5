//! Operators change the mode of memprofs that run, and disable all of them.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use memprof_tests::attached::{attach_to, own_pool};
use memprof_tests::probes::changed_code;
use memprof_tests::{Finished, Fpm, Memprof, PhpBuild};
use nix::sys::signal::Signal;

/// A php-fpm, its worker, and a folder by which no other memprof is reached.
struct Bench {
    fpm: Fpm,
    worker: i32,
    run: PathBuf,
}

impl Bench {
    fn start(name: &str) -> Self {
        let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
        let fpm = Fpm::start(build, own_pool(name)).unwrap();
        let worker = fpm.workers(fpm.pool()).unwrap()[0];
        let run = fpm.folder().join("run");
        Self { fpm, worker, run }
    }

    fn attach(&self, arguments: &[&str]) -> Memprof {
        let run = ["--run-folder", self.run.to_str().unwrap(), "--every"];
        attach_to(&self.fpm, &[&run, arguments].concat()).unwrap()
    }

    fn memprof(&self, arguments: &[&str]) -> Finished {
        let run = ["--run-folder", self.run.to_str().unwrap()];
        Memprof::run(&[arguments, &run].concat()).unwrap()
    }

    fn wait_until_free(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !changed_code(self.worker).unwrap().is_empty() {
            assert!(Instant::now() < deadline, "probes are left");
        }
    }
}

#[test]
fn the_mode_changes_while_attached() {
    let bench = Bench::start("mode");
    let mut memprof = bench.attach(&["--sample-rate", "0"]);
    let pid = memprof.pid().to_string();
    let light = changed_code(bench.worker).unwrap().len();

    let shown = bench.memprof(&["mode"]);
    assert_eq!(shown.status.code(), Some(0), "{}", shown.stderr);
    let line = format!("memprof {pid} (pool {}): light", bench.fpm.pool());
    assert!(shown.stdout.starts_with(&line), "{}", shown.stdout);

    let changed = bench.memprof(&["mode", "aggressive", "--for", "1h"]);
    assert!(changed.stdout.contains("aggressive"), "{}", changed.stdout);
    // It answers when it has done it.
    assert!(changed_code(bench.worker).unwrap().len() > light + 5);
    bench.fpm.get("growth.php?case=keep").unwrap();
    let lines = memprof.wait_for("checkpoint", 1).unwrap();
    assert_eq!(lines[0]["external"]["mode"], "aggressive");
    assert_eq!(
        lines[0]["external"]["growth"]["unattributed_at_peak_bytes"],
        0
    );

    let changed = bench.memprof(&["mode", "light", "--for", "2s", "--pid", &pid]);
    assert!(changed.stdout.contains("light"), "{}", changed.stdout);
    memprof.wait_for_line("aggressive -> light").unwrap();
    // When the order's time is over, what is configured comes back.
    bench.memprof(&["mode", "targeted", "--for", "1s"]);
    memprof.wait_for_line("targeted -> light").unwrap();

    let refused = Memprof::run(&["mode", "exact"]).unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let other = bench.memprof(&["mode", "light", "--pid", "1"]);
    assert_eq!(other.status.code(), Some(3), "{}", other.stderr);

    let finished = memprof.stop().unwrap();
    assert_eq!(finished.summary().unwrap()["records"]["mode"], 4);
    assert!(fs::read_dir(&bench.run).unwrap().next().is_none());
}

#[test]
fn a_request_that_runs_when_the_mode_steps_down_is_recorded_to_its_end() {
    let bench = Bench::start("through");
    let memprof = bench.attach(&["--mode", "aggressive"]);
    let request = bench.fpm.script("worker.php?mb=4&ms=1500");
    std::thread::scope(|scope| {
        let running = scope.spawn(|| request.send(&bench.fpm.socket(bench.fpm.pool())).unwrap());
        memprof_is_in_request(&bench);
        bench.memprof(&["mode", "light"]);
        running.join().unwrap();
    });
    let lines = memprof.wait_for("checkpoint", 1).unwrap();
    let external = &lines[0]["external"];
    assert_eq!(external["recorded"], true);
    assert_eq!(external["growth"]["unattributed_at_peak_bytes"], 0);
    memprof.stop().unwrap();
    bench.wait_until_free();
}

/// Waits until the worker has its block of 4 MiB.
fn memprof_is_in_request(bench: &Bench) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let listed = Memprof::run(&["list", "--json"]).unwrap().stdout;
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        if listed.to_string().contains("/worker.php") {
            return;
        }
        assert!(Instant::now() < deadline, "{listed} {}", bench.worker);
    }
}

#[test]
fn disabled_memprofs_hold_no_probe_and_none_starts() {
    let bench = Bench::start("disable");
    let mut memprof = bench.attach(&["--mode", "aggressive"]);
    bench.fpm.get("worker.php?mb=1").unwrap();
    memprof.wait_for("checkpoint", 1).unwrap();

    let asked = Instant::now();
    assert_eq!(bench.memprof(&["disable"]).status.code(), Some(0));
    memprof.wait_for_line("aggressive -> no probe").unwrap();
    println!("obeyed after {} ms", asked.elapsed().as_millis());
    bench.wait_until_free();
    bench.fpm.get("worker.php?mb=2").unwrap();

    let refused = bench.memprof(&["mode", "aggressive"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stdout.contains("disabled"), "{}", refused.stdout);
    let pool = bench.fpm.pool();
    let started = bench.memprof(&["attach", "--pool", pool, "--duration", "1s"]);
    assert_eq!(started.status.code(), Some(6), "{}", started.stderr);

    assert_eq!(bench.memprof(&["enable"]).status.code(), Some(0));
    memprof.wait_for_line("no probe -> aggressive").unwrap();
    bench.fpm.get("worker.php?mb=3").unwrap();
    let lines = memprof.wait_for("checkpoint", 2).unwrap();
    assert_eq!(
        lines[1]["external"]["growth"]["unattributed_at_peak_bytes"],
        0
    );

    // A time that is over is as good as none.
    assert_eq!(
        bench.memprof(&["disable", "--for", "1s"]).status.code(),
        Some(0)
    );
    memprof.wait_for_line("aggressive -> no probe").unwrap();
    memprof.wait_for_line("no probe -> aggressive").unwrap();
    let summary = memprof.stop().unwrap().summary().unwrap();
    assert_eq!(summary["requests_seen"], 2, "{summary}");
}

#[test]
fn two_at_once_are_reached_each_by_itself() {
    let bench = Bench::start("two");
    let first = bench.attach(&["--mode", "aggressive"]);
    let second = bench.attach(&["--sample-rate", "0"]);
    let shown = bench.memprof(&["mode"]).stdout;
    assert_eq!(shown.lines().count(), 2, "{shown}");
    let pid = second.pid().to_string();
    bench.memprof(&["mode", "aggressive", "--pid", &pid]);
    bench.fpm.get("growth.php?case=keep").unwrap();
    for memprof in [&first, &second] {
        let lines = memprof.wait_for("checkpoint", 1).unwrap();
        assert_eq!(
            lines[0]["external"]["growth"]["unattributed_at_peak_bytes"],
            0
        );
    }
    // One that is killed leaves its socket behind, which the next command takes away.
    first.signal(Signal::SIGKILL).unwrap();
    first.wait().unwrap();
    let shown = bench.memprof(&["mode"]).stdout;
    assert_eq!(shown.lines().count(), 1, "{shown}");
    second.stop().unwrap();
}

#[test]
fn the_folder_and_the_socket_are_roots_alone() {
    let bench = Bench::start("rights");
    let memprof = bench.attach(&[]);
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&bench.run), 0o700);
    let socket = bench.run.join(format!("attach-{}.sock", memprof.pid()));
    assert_eq!(mode(&socket), 0o600);
    memprof.stop().unwrap();
}
