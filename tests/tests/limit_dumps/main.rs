//! What is dumped of a request that runs into its memory limit, and what it does to the worker.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod builds;
mod hold;
mod laravel;
mod many;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use memprof_tests::Fpm;
use memprof_tests::attached::records_folder;
use serde_json::Value;

/// The dumps that were written, oldest first.
fn dumps(fpm: &Fpm) -> Vec<Value> {
    // There is no folder before the first.
    let files = fs::read_dir(records_folder(fpm).join("memory-dumps"));
    let mut dumps: Vec<Value> = files
        .into_iter()
        .flatten()
        .map(|entry| serde_json::from_slice(&fs::read(entry.unwrap().path()).unwrap()).unwrap())
        .collect();
    dumps.sort_by_key(|dump| dump["timestamp"].as_str().unwrap().to_owned());
    dumps
}

/// Those with this context.
fn with_context<'a>(dumps: &'a [Value], context: &str) -> Vec<&'a Value> {
    let is = |dump: &&Value| dump["context"] == context;
    dumps.iter().filter(is).collect()
}

/// Those of the lines of `--json` that are this record.
fn of_record<'a>(lines: &'a [Value], record: &str) -> Vec<&'a Value> {
    lines
        .iter()
        .filter(|line| line["record"] == record)
        .collect()
}

/// The first error in what PHP logs, without what differs with the place where the heap happened to end.
fn first_error(stderr: &str) -> &str {
    let first = stderr.split("; PHP message").next().unwrap_or(stderr);
    first.split(" (tried").next().unwrap_or(first)
}

fn status(pid: i32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_default().trim().to_owned()
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What `limit.php` waits for, and the file by which it says that it does.
fn files(fpm: &Fpm) -> (PathBuf, PathBuf) {
    let go = fpm.folder().join("go");
    let ready = Path::new(&format!("{}.ready", go.display())).to_owned();
    (go, ready)
}
