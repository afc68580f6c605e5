//! Settings of a file and of the environment, and what memprof may do once it runs.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};

use memprof_tests::attached::{External, own_pool, records_folder};
use memprof_tests::{Fpm, Memprof, PhpBuild, repository};

fn fpm(name: &str) -> Fpm {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    Fpm::start(build, own_pool(name)).unwrap()
}

fn config(fpm: &Fpm, text: &str) -> PathBuf {
    let file = fpm.folder().join("memprof.toml");
    fs::write(&file, text).unwrap();
    file
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_file_says_what_options_say() {
    let fpm = fpm("config");
    let file = config(
        &fpm,
        &format!(
            "[attach]\npool = [{:?}]\nmode = \"targeted\"\nforce_value = \"open sesame\"\njson = true\n\
             [logging]\nlevel = \"critical\"\ndump_path = \"{}/memory-dumps\"\n\
             [profile]\ncheckpoints = false\n",
            fpm.pool(),
            text(&records_folder(&fpm)),
        ),
    );
    let memprof = Memprof::attach(&["--config", text(&file)]).unwrap();
    let request = fpm.script("worker.php?mb=1");
    let request = request.header("X-Force-Memory-Profile", "open sesame");
    request.send(&fpm.socket(fpm.pool())).unwrap();
    let lines = memprof.wait_for("sample", 1).unwrap();
    assert!(External::of(&lines[0]).unwrap().growth.is_some());
    let summary = memprof.stop().unwrap().summary().unwrap();
    assert_eq!(summary["mode"], "targeted");
    assert_eq!(
        summary["records"],
        serde_json::json!({"sample": 1}),
        "{summary}"
    );
    let log = fs::read_to_string(records_folder(&fpm).join("memprof.log")).unwrap();
    assert_eq!(log, "");
}

#[test]
fn what_makes_no_sense_is_told() {
    let fpm = fpm("nonsense");
    for (content, said) in [
        (
            "[thresholds]\nwarnin = 1",
            "did you mean \"thresholds.warning\"?",
        ),
        ("[thresholds]\nwarning = \"lots\"", "--warning"),
        ("[thresholds", "no TOML"),
        ("[attach]\nwindow = \"noon\"", "18:30-19:15"),
    ] {
        let file = config(&fpm, content);
        let arguments = ["attach", "--pool", fpm.pool(), "--config", text(&file)];
        let ended = Memprof::run(&arguments).unwrap();
        assert_eq!(ended.status.code(), Some(2), "{content}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{content}: {}", ended.stderr);
    }
    let file = config(&fpm, "enabled = false");
    let off = Memprof::run(&["attach", "--all", "--config", text(&file)]).unwrap();
    assert_eq!(off.status.code(), Some(6), "{}", off.stderr);
}

#[test]
fn the_packaged_configuration_is_one() {
    let fpm = fpm("packaged");
    let file = repository().join("packaging/memprof.toml");
    let out = records_folder(&fpm);
    let arguments = [
        "--config",
        text(&file),
        "--pool",
        fpm.pool(),
        "--out",
        text(&out),
    ];
    let memprof = Memprof::attach(&arguments).unwrap();
    assert!(memprof.stop().unwrap().status.success());
}

#[test]
fn what_is_not_needed_is_given_up_and_later_workers_are_followed() {
    const NEEDED: [u32; 7] = [0, 1, 3, 19, 38, 39, 40];
    let fpm = fpm("rights");
    let out = records_folder(&fpm);
    let arguments = [
        "--pool",
        fpm.pool(),
        "--out",
        text(&out),
        "--mode",
        "aggressive",
    ];
    let memprof = Memprof::attach(&[&arguments[..], &["--every", "--json"]].concat()).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", memprof.pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().to_owned()
    };
    let needed = NEEDED.iter().fold(0_u64, |set, number| set | 1 << number);
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        let found = u64::from_str_radix(&field(set), 16).unwrap();
        assert_eq!(found & !needed, 0, "{set} {found:x}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");

    let worker = fpm.workers(fpm.pool()).unwrap()[0];
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(worker),
        nix::sys::signal::SIGTERM,
    )
    .unwrap();
    let mut recorded = Vec::new();
    while recorded.is_empty() {
        // The worker that ends may take this one with it.
        let _ = fpm.get("growth.php?case=keep");
        recorded = memprof.wait_for("checkpoint", 0).unwrap();
    }
    let external = External::of(&recorded[0]).unwrap();
    assert_ne!(external.pid, worker);
    assert_eq!(external.growth.unwrap().unattributed_at_peak_bytes, Some(0));
    memprof.stop().unwrap();
}
