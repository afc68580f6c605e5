//! Runs `dump.php`, dumps it while it waits, and holds the dump against what the script says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use memprof_tests::{Fpm, Memprof, Opcache, Pool, Settings, sleeps};
use serde::Deserialize;
use serde_json::{Value, json};

/// What every value that no dump may hold begins with.
pub const SECRET: &str = "S3CRET";
pub const LIMIT: Duration = Duration::from_secs(30);

/// What `dump.php` says of itself.
#[derive(Debug, Deserialize)]
pub struct Facts {
    pub memory: BTreeMap<String, u64>,
    pub unchanged: bool,
    pub stack: Vec<Value>,
    pub session: SessionFacts,
    pub objects: BTreeMap<String, u64>,
    pub classes: [u64; 3],
    pub included_files: u64,
    pub included_bytes: u64,
    pub php: String,
}

#[derive(Debug, Deserialize)]
pub struct SessionFacts {
    pub bytes: u64,
    pub sizes: Vec<(Value, u64)>,
}

/// Has the whole of the process read, however slow the machine is.
pub const WHOLE: [&str; 2] = ["--max-stop", "60000"];

/// A dump that `memprof dump` wrote, in a folder of its own.
pub struct Taken {
    pub folder: tempfile::TempDir,
    pub path: PathBuf,
    pub dump: Value,
}

impl Taken {
    pub fn of(pid: i32, arguments: &[&str]) -> Self {
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

    pub fn external(&self, pointer: &str) -> &Value {
        let found = self.dump["external"].pointer(pointer);
        found.unwrap_or_else(|| panic!("no {pointer} in {}", self.dump["external"]))
    }
}

pub fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

pub fn status(pid: i32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_default().trim().to_owned()
}

/// Waits until the script holds: it has said so, and sleeps.
pub fn wait_until_held(pid: i32, file: &Path) {
    let ready = PathBuf::from(format!("{}.ready", file.display()));
    wait_until("dump.php did not get ready", || ready.exists());
    wait_until("dump.php does not sleep", || sleeps(pid));
}

pub fn settings(opcache: Opcache) -> Settings {
    let mut pool = Pool::new("www");
    pool.memory_limit = "512M".to_owned();
    Settings {
        pools: vec![pool],
        opcache,
        ..Settings::default()
    }
}

/// Sends a request to `dump.php` and dumps the worker while it waits.
pub fn dump_worker(fpm: &Fpm, query: &str) -> (Taken, Facts) {
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
        let taken = Taken::of(worker, &WHOLE);
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

pub fn check(taken: &Taken, facts: &Facts) {
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

pub fn mib(bytes: u64) -> f64 {
    (bytes as f64 / 1_048_576.0 * 100.0).round() / 100.0
}

pub fn check_figures(taken: &Taken, facts: &Facts) {
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

pub fn check_objects(taken: &Taken, facts: &Facts) {
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

pub fn check_stack(taken: &Taken, facts: &Facts) {
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

pub fn check_session(taken: &Taken, facts: &SessionFacts) {
    let session = &taken.dump["session"];
    assert_eq!(taken.external("/session/unknown"), &json!([]));
    assert_eq!(taken.external("/session/bytes"), facts.bytes);
    assert_eq!(session["size_mb"].as_f64(), Some(mib(facts.bytes)));
    let keys: Vec<Value> = facts.sizes.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(session["keys"], json!(keys));
    assert_eq!(session["key_count"], keys.len());
    check_largest(taken, facts);
}

/// The largest of the values, whose sizes are all known.
pub fn check_largest(taken: &Taken, facts: &SessionFacts) {
    let mut largest: Vec<&(Value, u64)> = facts.sizes.iter().collect();
    largest.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let shown = taken.dump["session"]["largest_keys"].as_object().unwrap();
    assert_eq!(shown.len(), 5.min(largest.len()));
    for ((key, size), (expected, bytes)) in shown.iter().zip(largest) {
        assert_eq!(Some(key.as_str()), expected.as_str());
        let kib = (*bytes as f64 / 1024.0 * 100.0).round() / 100.0;
        assert_eq!(size, &format!("{kib} KB"));
    }
}
