//! `memprof analyze` and `memprof diff` as they are run: on golden dumps, and on what a live php holds.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use memprof_tests::{CommandLine, Fpm, Memprof, PhpBuild, Pool, Settings, repository, target_dir};
use serde_json::Value;

const NOBODY: u32 = 65_534;
const LIMIT: Duration = Duration::from_secs(30);
/// Rows that the script makes on the command line, and over HTTP.
const FEW: u64 = 1_000;
const MANY: u64 = 400_000;

fn golden(name: &str) -> String {
    let file = repository().join("tests/golden/findings").join(name);
    file.display().to_string()
}

#[test]
fn an_ordinary_user_reads_what_may_be_read_and_is_told_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, mode) in [("recursion", 0o644), ("session", 0o600)] {
        let copy = folder.path().join(format!("memory-dump-{name}.json"));
        fs::copy(golden(&format!("{name}.json")), &copy).unwrap();
        fs::set_permissions(copy, fs::Permissions::from_mode(mode)).unwrap();
    }
    let output = Command::new(target_dir().join("release/memprof"))
        .arg("analyze")
        .arg(folder.path())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(
        text.contains("⚠️  Failed to parse: memory-dump-session.json"),
        "{text}"
    );
    assert!(
        text.contains("\n1. A recursion of 11 functions, 63,201 turns deep"),
        "{text}"
    );
    assert!(
        text.contains("memory-dump-session.json: Permission denied"),
        "{text}"
    );
    // No bar where there is no terminal.
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn classic_is_without_findings() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(
        golden("recursion.json"),
        folder.path().join("memory-dump-1.json"),
    )
    .unwrap();
    let folder = folder.path().display().to_string();
    let classic = Memprof::run(&["analyze", &folder, "--classic"])
        .unwrap()
        .stdout;
    let whole = Memprof::run(&["analyze", &folder]).unwrap().stdout;
    assert!(whole.starts_with(&classic) && whole.len() > classic.len());
    assert!(!classic.contains("FINDINGS"), "{classic}");
}

#[test]
fn what_cannot_be_compared_fails_and_says_why() {
    let missing = Memprof::run(&["diff", &golden("none.json"), &golden("healthy.json")]).unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(missing.stderr.contains("none.json"), "{}", missing.stderr);
}

fn wait_until_ready(file: &Path) {
    let ready = format!("{}.ready", file.display());
    let deadline = Instant::now() + LIMIT;
    while !Path::new(&ready).exists() {
        assert!(Instant::now() < deadline, "report.php did not get ready");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Dumps a process into a folder of its own.
fn dump(pid: i32, out: &Path) -> String {
    let out = out.display().to_string();
    let pid = pid.to_string();
    // On a busy machine the objects may take longer than the usual half second.
    let arguments = ["dump", "--pid", &pid, "--out", &out, "--max-stop", "30000"];
    let finished = Memprof::run(&arguments).unwrap();
    assert!(finished.status.success(), "{}", finished.stderr);
    out
}

#[test]
fn what_http_has_more_than_the_command_line_is_told_by_class() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let mut pool = Pool::new("www");
    pool.memory_limit = "256M".to_owned();
    let settings = Settings {
        pools: vec![pool],
        ..Settings::default()
    };
    let fpm = Fpm::start(build, settings).unwrap();
    let (cli, web) = (fpm.folder().join("cli"), fpm.folder().join("web"));
    let script = fpm.inside("scripts/report.php");
    let arguments = [format!("rows={FEW}"), format!("file={}", fpm.inside("cli"))];
    let arguments = arguments.each_ref().map(String::as_str);
    let mut php = CommandLine::start(build, &script, &arguments).unwrap();
    wait_until_ready(&cli);
    let before = dump(php.pid(), &fpm.folder().join("dump-cli"));
    fs::write(&cli, "").unwrap();
    assert!(php.0.wait().unwrap().success());

    let request = fpm.script(&format!(
        "report.php?rows={MANY}&file={}",
        fpm.inside("web")
    ));
    let after = thread::scope(|scope| {
        let waiting = scope.spawn(|| request.send(&fpm.socket("www")).unwrap());
        wait_until_ready(&web);
        let after = dump(
            fpm.workers("www").unwrap()[0],
            &fpm.folder().join("dump-web"),
        );
        fs::write(&web, "").unwrap();
        assert_eq!(waiting.join().unwrap().status, 200);
        after
    });

    let finished = Memprof::run(&["diff", &before, &after, "--json"]).unwrap();
    assert!(finished.status.success(), "{}", finished.stderr);
    let comparison: Value = serde_json::from_str(&finished.stdout).unwrap();
    let sections = comparison["sections"].as_array().unwrap();
    let rows = |title: &str| {
        let mut sections = sections.iter();
        let section =
            sections.find(|section| section["title"].as_str().unwrap().starts_with(title));
        section.unwrap()["rows"].as_array().unwrap()
    };
    let class = &rows("objects by class")[0];
    assert_eq!(class["name"], "Row");
    assert_eq!(class["count_before"], FEW);
    assert_eq!(class["count_after"], MANY);
    let used = &rows("totals")[0];
    // An object of two properties and a string of 100 bytes or more, 72 and 128 bytes.
    assert!(
        used["change"].as_u64().unwrap() > (MANY - FEW) * 200,
        "{used}"
    );
    println!(
        "{}",
        Memprof::run(&["diff", &before, &after]).unwrap().stdout
    );
}
