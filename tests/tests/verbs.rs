//! The verbs on every PHP build, and how they end.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::os::unix::process::CommandExt;
use std::process::Command;

use memprof_tests::attached::own_pool;
use memprof_tests::{Fpm, Memprof, PhpBuild, target_dir};
use serde_json::Value;

const NOBODY: u32 = 65_534;

fn exit_code(arguments: &[&str]) -> (Option<i32>, String) {
    let finished = Memprof::run(arguments).unwrap();
    (finished.status.code(), finished.stderr)
}

#[test]
fn list_shows_the_worker_of_each_build() {
    for build in PhpBuild::ALL {
        let fpm = Fpm::start(build, own_pool("list")).unwrap();
        let worker = fpm.workers(fpm.pool()).unwrap()[0];
        let finished = Memprof::run(&["list"]).unwrap();
        assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
        let line = finished
            .stdout
            .lines()
            .find(|line| line.contains(fpm.pool()) && line.contains(&worker.to_string()));
        let line = line.unwrap_or_else(|| panic!("{worker} is not in {}", finished.stdout));
        assert!(line.contains(build.version), "{line}");
        assert!(line.contains("idle"), "{line}");

        let finished = Memprof::run(&["list", "--json"]).unwrap();
        let listed: Value = serde_json::from_str(&finished.stdout).unwrap();
        assert!(listed.to_string().contains(fpm.pool()));
    }
}

#[test]
fn doctor_is_ready_on_each_build() {
    for build in PhpBuild::ALL {
        let fpm = Fpm::start(build, own_pool("doctor")).unwrap();
        let finished = Memprof::run(&["doctor", "--pool", fpm.pool()]).unwrap();
        let said = &finished.stdout;
        assert_eq!(finished.status.code(), Some(0), "{}: {said}", build.name);
        assert_eq!(said.lines().last(), Some("ready"), "{}: {said}", build.name);
        assert!(said.contains(build.version), "{said}");
    }
}

#[test]
fn each_end_has_its_code() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("codes")).unwrap();
    let out = fpm.folder().join("out");
    let out = out.to_str().unwrap();
    let attach = |arguments: &[&str]| {
        exit_code(&[&["attach", "--out", out, "--duration", "1s"], arguments].concat())
    };
    let (code, said) = attach(&["--pool", "no-such-pool"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("no-such-pool") && said.contains(fpm.pool()),
        "{said}"
    );
    // Above the largest process id that Linux gives.
    let (code, said) = attach(&["--pid", "4194305"]);
    assert_eq!(code, Some(3), "{said}");
    let (code, said) = attach(&["--pid", &fpm.master().to_string()]);
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains(fpm.pool()),
        "a master is named with its pools: {said}"
    );
    let (code, said) = exit_code(&["attach", "--pool", fpm.pool(), "--mode", "exact"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--duration"), "{said}");
    let (code, said) = attach(&["--pid", &std::process::id().to_string()]);
    assert_eq!(code, Some(5), "a process without PHP: {said}");
    let (code, said) = attach(&["--pool", fpm.pool()]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn without_root_it_says_what_is_missing() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("denied")).unwrap();
    let output = Command::new(target_dir().join("release/memprof"))
        .args(["attach", "--pool", fpm.pool(), "--out", "/tmp/never-made"])
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("cure: sudo"), "{said}");
    assert!(!std::path::Path::new("/tmp/never-made").exists());
}
