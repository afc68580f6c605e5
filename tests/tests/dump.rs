//! `memprof dump` of a live worker, and of a php of the command line, says what PHP itself says, on every build.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use memprof_tests::{Fpm, Laravel, Memprof, Opcache, PhpBuild, Pool, Settings, Source};
use memprof_user::capture::freeze::Frozen;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::{Value, json};

/// What every value that no dump may hold begins with.
const SECRET: &str = "S3CRET";
const LIMIT: Duration = Duration::from_secs(30);

/// What `dump.php` says of itself.
#[derive(Debug, Deserialize)]
struct Facts {
    memory: BTreeMap<String, u64>,
    unchanged: bool,
    stack: Vec<Value>,
    session: SessionFacts,
    objects: BTreeMap<String, u64>,
    classes: [u64; 3],
    included_files: u64,
    included_bytes: u64,
    php: String,
}

#[derive(Debug, Deserialize)]
struct SessionFacts {
    bytes: u64,
    sizes: Vec<(Value, u64)>,
}

/// A dump that `memprof dump` wrote, in a folder of its own.
struct Taken {
    folder: tempfile::TempDir,
    path: PathBuf,
    dump: Value,
}

impl Taken {
    fn of(pid: i32, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().display().to_string();
        let pid = pid.to_string();
        let command = [&["dump", "--pid", &pid, "--out", &out], arguments].concat();
        let finished = Memprof::run(&command).unwrap();
        assert!(finished.status.success(), "{}", finished.stderr);
        let path = PathBuf::from(finished.stdout.trim_end());
        let dump = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        Self { folder, path, dump }
    }

    fn external(&self, pointer: &str) -> &Value {
        let found = self.dump["external"].pointer(pointer);
        found.unwrap_or_else(|| panic!("no {pointer} in {}", self.dump["external"]))
    }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn status(pid: i32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_default().trim().to_owned()
}

/// Waits until the script holds: it has said so, and sleeps.
fn wait_until_held(pid: i32, file: &Path) {
    let ready = PathBuf::from(format!("{}.ready", file.display()));
    wait_until("dump.php did not get ready", || ready.exists());
    // nanosleep or clock_nanosleep, x86-64.
    wait_until("dump.php does not sleep", || {
        let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        call.starts_with("35 ") || call.starts_with("230 ")
    });
}

fn settings(opcache: Opcache) -> Settings {
    let mut pool = Pool::new("www");
    pool.memory_limit = "512M".to_owned();
    Settings {
        pools: vec![pool],
        opcache,
        ..Settings::default()
    }
}

/// Sends a request to `dump.php` and dumps the worker while it waits.
fn dump_worker(fpm: &Fpm, query: &str) -> (Taken, Facts) {
    let worker = fpm.workers("www").unwrap()[0];
    let file = fpm.folder().join("go");
    let uri = format!("dump.php?file={}&token={SECRET}{query}", fpm.inside("go"));
    let request = fpm
        .script(&uri)
        .header("X-Token", SECRET)
        .header("Cookie", SECRET);
    let (taken, response) = thread::scope(|scope| {
        let waiting = scope.spawn(|| request.send(&fpm.socket("www")).unwrap());
        wait_until_held(worker, &file);
        let taken = Taken::of(worker, &[]);
        assert_eq!(status(worker, "TracerPid:"), "0");
        fs::write(&file, "").unwrap();
        (taken, waiting.join().unwrap())
    });
    for name in ["go", "go.ready"] {
        fs::remove_file(fpm.folder().join(name)).unwrap();
    }
    assert_eq!(response.status, 200, "{response:?}");
    let facts: Facts = response.json().unwrap();
    assert!(facts.unchanged);
    assert_eq!(fpm.workers("www").unwrap()[0], worker);
    (taken, facts)
}

fn check(taken: &Taken, facts: &Facts) {
    check_figures(taken, facts);
    check_objects(taken, facts);
    check_stack(taken, facts);
    check_session(taken, &facts.session);
    for file in [&taken.path, &taken.folder.path().join("memprof.log")] {
        let text = fs::read_to_string(file).unwrap();
        assert!(!text.contains(SECRET), "{}: {text}", file.display());
        assert!(text.contains("\"forced\""));
    }
    let log = fs::read_to_string(taken.folder.path().join("memprof.log")).unwrap();
    assert!(log.contains("production.CRITICAL: Memory state dump {\"context\":\"forced\""));
}

fn mib(bytes: u64) -> f64 {
    (bytes as f64 / 1_048_576.0 * 100.0).round() / 100.0
}

fn check_figures(taken: &Taken, facts: &Facts) {
    let dump = &taken.dump;
    let keys: Vec<&String> = dump.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "context",
            "timestamp",
            "memory",
            "objects",
            "classes",
            "resources",
            "backtrace",
            "session",
            "cache",
            "external"
        ]
    );
    for (key, bytes) in &facts.memory {
        assert_eq!(
            taken.external(&format!("/heap/{key}_bytes")),
            bytes,
            "{key}"
        );
    }
    let limit = dump["memory"]["limit_mb"].as_f64().unwrap();
    assert_eq!(
        dump["memory"]["current_mb"].as_f64(),
        Some(mib(facts.memory["real_size"]))
    );
    assert_eq!(
        dump["memory"]["peak_mb"].as_f64(),
        Some(mib(facts.memory["real_peak"]))
    );
    assert_eq!(
        taken.external("/memory_limit_bytes"),
        (limit * 1_048_576.0) as u64
    );
    assert_eq!(
        taken.external("/php_version"),
        facts.php.split('-').next().unwrap()
    );
    assert_eq!(taken.external("/consistent"), true);
    assert!(taken.external("/stopped_ms").as_f64().unwrap() > 0.0);
    assert_eq!(taken.external("/left_out"), &json!([]));
    let [declared, interfaces, traits] = facts.classes;
    let classes = json!({"declared": declared, "interfaces": interfaces, "traits": traits});
    assert_eq!(dump["classes"], classes);
    assert_eq!(dump["resources"]["included_files"], facts.included_files);
    let included = dump["resources"]["included_size_mb"].as_f64();
    assert_eq!(included, Some(mib(facts.included_bytes)));
}

fn check_objects(taken: &Taken, facts: &Facts) {
    let by_class = taken.external("/objects/by_class").as_array().unwrap();
    let of = |name: &str| {
        by_class
            .iter()
            .find(|class| class["class"] == name)
            .unwrap()
    };
    for (class, count) in &facts.objects {
        assert_eq!(of(class)["count"], *count, "{class}");
    }
    // zend_object with three properties: 56 + 2 * 16 bytes, in a slot of 96.
    assert_eq!(of("Three")["bytes"], facts.objects["Three"] * 96);
    let total: u64 = by_class
        .iter()
        .map(|class| class["count"].as_u64().unwrap())
        .sum();
    assert_eq!(taken.dump["objects"]["total_estimated"], total);
}

fn check_stack(taken: &Taken, facts: &Facts) {
    let frames = taken.dump["backtrace"].as_array().unwrap();
    // In a request without a deep recursion all frames are there.
    assert_eq!(taken.external("/stack/omitted"), 0);
    // What the script itself calls while it waits is not on the stack that it tells.
    let function = frames[0]["function"].as_str().unwrap();
    let own = usize::from(["usleep", "file_exists", "time"].contains(&function));
    assert_eq!(frames[own..], facts.stack[..]);
    let depth = taken.external("/stack/depth").as_u64().unwrap();
    assert_eq!(depth as usize, facts.stack.len() + own + 1, "and {{main}}");
}

fn check_session(taken: &Taken, facts: &SessionFacts) {
    let session = &taken.dump["session"];
    assert_eq!(taken.external("/session/unknown"), &json!([]));
    assert_eq!(taken.external("/session/bytes"), facts.bytes);
    assert_eq!(session["size_mb"].as_f64(), Some(mib(facts.bytes)));
    let keys: Vec<Value> = facts.sizes.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(session["keys"], json!(keys));
    assert_eq!(session["key_count"], keys.len());
    let mut largest: Vec<&(Value, u64)> = facts.sizes.iter().collect();
    largest.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let shown = session["largest_keys"].as_object().unwrap();
    assert_eq!(shown.len(), 5.min(keys.len()));
    for ((key, size), (expected, bytes)) in shown.iter().zip(largest) {
        assert_eq!(Some(key.as_str()), expected.as_str());
        let kib = (*bytes as f64 / 1024.0 * 100.0).round() / 100.0;
        assert_eq!(size, &format!("{kib} KB"));
    }
}

#[test]
fn a_worker_is_what_it_says_itself() {
    for build in PhpBuild::ALL {
        for opcache in [Opcache::On, Opcache::Off] {
            println!("{} {opcache:?}", build.name);
            let fpm =
                Fpm::start(PhpBuild::fetched(build.name).unwrap(), settings(opcache)).unwrap();
            let (taken, facts) = dump_worker(&fpm, "");
            check(&taken, &facts);
            let worker = fpm.workers("www").unwrap()[0];
            assert_eq!(taken.external("/pid"), worker);
            assert_eq!(taken.external("/pool"), "www");
            let script = fpm.inside("scripts/dump.php");
            let request = json!({"method": "GET", "path": "/dump.php", "script": script});
            assert_eq!(taken.external("/request"), &request);
            // A second one, of the warm worker.
            let (taken, facts) = dump_worker(&fpm, "");
            check(&taken, &facts);

            let out = taken.folder.path().display().to_string();
            let analyzed = Memprof::run(&["analyze", &out, "--details"]).unwrap();
            assert!(analyzed.status.success(), "{}", analyzed.stderr);
            assert!(analyzed.stdout.contains("Analyzing 1 memory dumps"));
            assert!(analyzed.stdout.contains("Context: forced"));
        }
    }
}

#[test]
fn what_only_php_can_serialize_is_unknown_and_not_0() {
    for build in PhpBuild::ALL {
        println!("{}", build.name);
        let fpm = Fpm::start(
            PhpBuild::fetched(build.name).unwrap(),
            settings(Opcache::On),
        )
        .unwrap();
        let (taken, _) = dump_worker(&fpm, "&unknown=1");
        assert!(!fs::read_to_string(&taken.path).unwrap().contains(SECRET));
        assert_eq!(taken.dump["session"]["size_mb"], Value::Null);
        let unknown = taken.external("/session/unknown").as_array().unwrap();
        let keys: Vec<&Value> = unknown.iter().map(|value| &value["key"]).collect();
        assert_eq!(keys, ["sleeper", "internal"]);
        let idle = Taken::of(fpm.workers("www").unwrap()[0], &[]);
        assert_eq!(idle.dump["session"], json!({"status": "not_started"}));
        assert_eq!(idle.external("/request"), &Value::Null);
        assert_eq!(idle.external("/objects/total"), 0);
    }
}

#[test]
fn floats_are_as_long_as_the_setting_says_or_unknown() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let mut settings = settings(Opcache::On);
    settings
        .ini
        .push(("serialize_precision".to_owned(), "17".to_owned()));
    let fpm = Fpm::start(build, settings).unwrap();
    let (taken, _) = dump_worker(&fpm, "");
    assert_eq!(taken.external("/session/bytes"), &Value::Null);
    let unknown = taken.external("/session/unknown").to_string();
    assert!(unknown.contains("\"floats\"") && unknown.contains("serialize_precision is 17"));
    assert!(!unknown.contains("\"ints\""), "{unknown}");
}

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
fn a_deep_recursion_has_both_its_ends() {
    for build in PhpBuild::ALL {
        println!("{}", build.name);
        let build = PhpBuild::fetched(build.name).unwrap();
        let fpm = Fpm::start(build, settings(Opcache::On)).unwrap();
        let (taken, facts) = dump_worker(&fpm, "&depth=100000");
        let frames = taken.dump["backtrace"].as_array().unwrap();
        assert_eq!(frames.len(), 15);
        let own = frames
            .iter()
            .position(|frame| *frame == facts.stack[0])
            .unwrap();
        assert_eq!(frames[own..], facts.stack[..15 - own]);
        // The recursion and its first call; start, array_map, the closure, hold; {main}.
        assert_eq!(taken.external("/stack/depth"), 100_001 + 4 + 1 + own);
        assert_eq!(
            taken.external("/stack/omitted"),
            100_001 + 4 + 1 + own - 200
        );
        let outermost = taken.external("/stack/outermost").as_array().unwrap();
        let functions: Vec<&str> = outermost
            .iter()
            .map(|frame| frame["function"].as_str().unwrap())
            .collect();
        assert_eq!(functions[97..], ["dive", "dive", "{main}"]);
    }
}

/// A php of the command line.
struct CommandLine(Child);

impl CommandLine {
    /// Runs a script in the folder of `fpm`.
    fn start(build: &PhpBuild, fpm: &Fpm, argument: &str) -> Self {
        let folder = build.folder();
        let mut command = match build.source {
            Source::Debian { .. } => {
                let mut chroot = Command::new("/usr/sbin/chroot");
                chroot
                    .arg(&folder)
                    .arg(format!("/usr/bin/php{}", build.version));
                // json is a module in Debian's 7.4; only php-fpm's modules are set up.
                let modules = format!("/etc/php/{}/fpm/conf.d", build.version);
                chroot.env("PHP_INI_SCAN_DIR", modules);
                chroot
            }
            Source::Npm { .. } => {
                let mut php = Command::new(folder.join("native/php/php"));
                php.env("LD_LIBRARY_PATH", folder.join("native/lib"));
                // Its php.ini wants modules in the place where its authors keep them.
                php.arg("-n");
                php
            }
        };
        command.args(["-d", "memory_limit=128M", "-d", "display_errors=0"]);
        command.arg(fpm.inside("scripts/dump.php")).arg(argument);
        Self(command.stdout(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for CommandLine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_php_of_the_command_line_is_what_it_says_itself() {
    for build in PhpBuild::ALL {
        println!("{}", build.name);
        let build = PhpBuild::fetched(build.name).unwrap();
        let fpm = Fpm::start(build, settings(Opcache::On)).unwrap();
        let file = fpm.folder().join("cli");
        let mut php = CommandLine::start(build, &fpm, &format!("file={}", fpm.inside("cli")));
        let pid = php.0.id().cast_signed();
        wait_until_held(pid, &file);
        let taken = Taken::of(pid, &[]);
        fs::write(&file, "").unwrap();
        let facts: Facts = serde_json::from_reader(php.0.stdout.take().unwrap()).unwrap();
        assert!(facts.unchanged && php.0.wait().unwrap().success());
        check(&taken, &facts);
        assert_eq!(taken.external("/pool"), &Value::Null);
    }
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
fn laravels_session_is_as_long_as_php_says() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, settings(Opcache::On)).unwrap();
    let mut laravel = Laravel::install(&fpm, "www").unwrap();
    laravel.get("/t/login/1?perm=580").unwrap();
    let worker = fpm.workers("www").unwrap()[0];
    let file = fpm.folder().join("go");
    let request = laravel.request(&format!("/t/session?file={}", fpm.inside("go")));
    let (taken, response) = thread::scope(|scope| {
        let waiting = scope.spawn(|| laravel.send(request).unwrap());
        wait_until("the page does not sleep", || {
            let call = fs::read_to_string(format!("/proc/{worker}/syscall")).unwrap_or_default();
            call.starts_with("35 ") || call.starts_with("230 ")
        });
        let taken = Taken::of(worker, &[]);
        fs::write(&file, "").unwrap();
        (taken, waiting.join().unwrap())
    });
    let facts: Value = response.json().unwrap();
    let sizes = facts["sizes"].as_object().unwrap();
    let facts = SessionFacts {
        bytes: facts["bytes"].as_u64().unwrap(),
        sizes: sizes
            .iter()
            .map(|(key, bytes)| (Value::from(key.as_str()), bytes.as_u64().unwrap()))
            .collect(),
    };
    assert_eq!(taken.external("/session/source"), "laravel");
    check_session(&taken, &facts);
    assert_eq!(taken.dump["cache"]["driver"], "file");
    assert!(!fs::read_to_string(&taken.path).unwrap().contains(SECRET));
    println!("{}", taken.dump);
}
