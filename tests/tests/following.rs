//! Workers come and go while memprof is attached, and it sees every request of those that it follows.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use memprof_tests::attached::{attach_to, own_pool};
use memprof_tests::{Finished, Fpm, Memprof, PhpBuild, Pool, Settings, sleeps};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::Value;

const POLL: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Answer {
    pid: i32,
}

/// Requests that each have a name of their own, under which memprof records them.
struct Client<'a> {
    fpm: &'a Fpm,
    sent: u64,
}

impl<'a> Client<'a> {
    fn new(fpm: &'a Fpm) -> Self {
        Self { fpm, sent: 0 }
    }

    /// Sends one; gives its name and the worker that served it.
    fn send(&mut self) -> (String, i32) {
        self.sent += 1;
        // Of a query string memprof records the names.
        let name = format!("worker.php?r{}", self.sent);
        let response = self.fpm.get(&format!("{name}=1")).unwrap();
        let answer: Answer = response.json().unwrap();
        (format!("/{name}"), answer.pid)
    }

    /// Sends requests until memprof has recorded one of a worker that is not among the `known`; gives that worker.
    fn send_until_followed(&mut self, memprof: &Memprof, known: &HashSet<i32>) -> i32 {
        let deadline = Instant::now() + LIMIT;
        loop {
            let (_, pid) = self.send();
            let records = memprof.wait_for("checkpoint", 0).unwrap();
            if !known.contains(&pid) && records.iter().any(|record| worker_of(record) == pid) {
                return pid;
            }
            assert!(Instant::now() < deadline, "no new worker was followed");
            thread::sleep(POLL);
        }
    }
}

fn worker_of(record: &Value) -> i32 {
    record["external"]["pid"].as_i64().unwrap() as i32
}

fn name_of(record: &Value) -> &str {
    record["external"]["request"]["uri"].as_str().unwrap()
}

fn start(settings: Settings) -> Fpm {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    Fpm::start(build, settings).unwrap()
}

fn with(name: &str, directives: &[(&str, &str)]) -> Settings {
    let mut settings = own_pool(name);
    settings.pools[0].directives = directives
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    settings
}

fn attach(fpm: &Fpm) -> Memprof {
    attach_to(fpm, &["--mode", "aggressive", "--every"]).unwrap()
}

/// Ends memprof; each of the `expected` requests was recorded once, by the worker that served it, and all that
/// memprof counted are recorded.
fn finish(memprof: Memprof, expected: &[(String, i32)]) -> Finished {
    let finished = memprof.stop().unwrap();
    let records = finished.records().unwrap();
    let checkpoints = records.iter().filter(|line| line["record"] == "checkpoint");
    let seen: Vec<(String, i32)> = checkpoints
        .map(|line| (name_of(line).to_owned(), worker_of(line)))
        .collect();
    for request in expected {
        let times = seen.iter().filter(|seen| *seen == request).count();
        assert_eq!(times, 1, "{request:?}: {}", finished.stderr);
    }
    let summary = finished.summary().unwrap();
    assert_eq!(summary["requests_seen"], seen.len(), "{summary}");
    assert_eq!(summary["requests_recorded"], seen.len(), "{summary}");
    assert_eq!(
        summary["events"]["sent"], summary["events"]["received"],
        "{summary}"
    );
    finished
}

/// The last requests were answered, and yet they may run on for a moment: waits until they are recorded.
fn wait_for_all(memprof: &Memprof, expected: &[(String, i32)]) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let records = memprof.wait_for("checkpoint", 0).unwrap();
        let names: HashSet<&str> = records.iter().map(name_of).collect();
        let missing: Vec<_> = expected
            .iter()
            .filter(|(name, _)| !names.contains(name.as_str()))
            .collect();
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "not recorded: {missing:?}");
        thread::sleep(POLL);
    }
}

#[test]
fn workers_that_are_replaced_after_some_requests() {
    let fpm = start(with("replaced", &[("pm.max_requests", "60")]));
    let mut client = Client::new(&fpm);
    // Compiles the script.
    client.send();
    let memprof = attach(&fpm);
    let (mut expected, mut known) = (Vec::new(), HashSet::new());
    for _ in 0..3 {
        let pid = client.send_until_followed(&memprof, &known);
        known.insert(pid);
        // All that this worker serves from here on, its last request included.
        loop {
            let request = client.send();
            if request.1 != pid {
                break;
            }
            expected.push(request);
        }
    }
    assert!(expected.len() > 30, "{}", expected.len());
    wait_for_all(&memprof, &expected);
    let finished = finish(memprof, &expected);
    println!("{} expected of {} sent", expected.len(), client.sent);
    assert_eq!(finished.summary().unwrap()["errors"], serde_json::json!([]));
}

#[test]
fn workers_that_end_after_five_requests() {
    let fpm = start(with("five", &[("pm.max_requests", "5")]));
    let memprof = attach(&fpm);
    let mut client = Client::new(&fpm);
    // The first worker was there when memprof came: it sees all five of its requests.
    let first: Vec<_> = (0..5).map(|_| client.send()).collect();
    assert!(first.iter().all(|(_, pid)| *pid == first[0].1));
    for _ in 0..45 {
        client.send();
    }
    wait_for_all(&memprof, &first);
    let finished = finish(memprof, &first);
    println!(
        "{} of {} seen",
        finished.summary().unwrap()["requests_seen"],
        client.sent
    );
}

#[test]
fn workers_on_demand() {
    let directives = [
        ("pm", "ondemand"),
        ("pm.max_children", "1"),
        ("pm.process_idle_timeout", "1s"),
    ];
    let mut settings = with("ondemand", &directives);
    settings.pools[0].workers = 0;
    let fpm = start(settings);
    let mut client = Client::new(&fpm);
    let (mut expected, mut known) = (Vec::new(), HashSet::new());
    wait_for_no_worker(&fpm);
    let memprof = attach(&fpm);
    for _ in 0..2 {
        let pid = client.send_until_followed(&memprof, &known);
        known.insert(pid);
        expected.extend((0..10).map(|_| client.send()));
        wait_for_no_worker(&fpm);
    }
    finish(memprof, &expected);
}

/// Waits until the master has buried its only worker: before, it would not make another for the next request.
fn wait_for_no_worker(fpm: &Fpm) {
    let deadline = Instant::now() + LIMIT;
    let master = fpm.master();
    let children = format!("/proc/{master}/task/{master}/children");
    while !std::fs::read_to_string(&children).unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the worker does not end");
        thread::sleep(POLL);
    }
}

#[test]
fn a_worker_that_is_killed() {
    let fpm = start(own_pool("struck"));
    let memprof = attach(&fpm);
    let mut client = Client::new(&fpm);
    let mut expected: Vec<_> = (0..5).map(|_| client.send()).collect();
    let old = expected[0].1;
    thread::scope(|scope| {
        let cut_off = scope.spawn(|| fpm.get("worker.php?ms=60000"));
        wait_until_busy(old);
        kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
        assert!(cut_off.join().unwrap().is_err());
    });
    client.send_until_followed(&memprof, &HashSet::from([old]));
    expected.extend((0..5).map(|_| client.send()));
    wait_for_all(&memprof, &expected);
    let finished = memprof.stop().unwrap();
    let summary = finished.summary().unwrap();
    let records = finished.records().unwrap();
    let recorded = records.iter().filter(|line| line["record"] == "checkpoint");
    assert_eq!(summary["requests_seen"], recorded.count() + 1, "{summary}");
    let told = &summary["errors"]["requests cut off by the end of their worker"];
    assert_eq!(told, 1, "{summary}");
}

/// Waits until the worker sleeps in a system call of usleep() rather than waits for a connection.
fn wait_until_busy(pid: i32) {
    let deadline = Instant::now() + LIMIT;
    while !sleeps(pid) {
        assert!(Instant::now() < deadline, "the request does not run");
        thread::sleep(POLL);
    }
}

#[test]
fn a_master_that_reloads_under_load() {
    let mut settings = own_pool("reloaded");
    settings.pools[0].workers = 2;
    let fpm = start(settings);
    let old: HashSet<i32> = fpm.workers(fpm.pool()).unwrap().into_iter().collect();
    let memprof = attach(&fpm);
    let stop = AtomicBool::new(false);
    let mut client = Client::new(&fpm);
    let mut expected: Vec<_> = (0..10).map(|_| client.send()).collect();
    // Answered is not ended: the reload would cut the last one off.
    wait_for_all(&memprof, &expected);
    thread::scope(|scope| {
        scope.spawn(|| {
            // A request that meets the reload is cut off: that is php-fpm's doing.
            while !stop.load(Ordering::Relaxed) {
                let _ = fpm.get("worker.php?other=1&ms=2");
            }
        });
        kill(Pid::from_raw(fpm.master()), Signal::SIGUSR2).unwrap();
        wait_until_reloaded(&fpm, &old);
        client.send_until_followed(&memprof, &old);
        stop.store(true, Ordering::Relaxed);
    });
    let mut known = old;
    while known.len() < 4 {
        known.insert(client.send_until_followed(&memprof, &known));
    }
    expected.extend((0..20).map(|_| client.send()));
    wait_for_all(&memprof, &expected);
    let finished = memprof.stop().unwrap();
    let records = finished.records().unwrap();
    let names: Vec<&str> = records
        .iter()
        .filter(|line| line["record"] == "checkpoint")
        .map(name_of)
        .collect();
    for (name, _) in &expected {
        assert_eq!(
            names.iter().filter(|seen| *seen == name).count(),
            1,
            "{name}"
        );
    }
}

fn wait_until_reloaded(fpm: &Fpm, old: &HashSet<i32>) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let workers = fpm.workers(fpm.pool()).unwrap();
        if workers.len() == 2 && workers.iter().all(|pid| !old.contains(pid)) {
            return;
        }
        assert!(Instant::now() < deadline, "no reload: {}", fpm.log());
        thread::sleep(POLL);
    }
}

#[test]
fn only_the_pool_that_is_meant() {
    let mut settings = own_pool("meant");
    settings
        .pools
        .push(Pool::new(&format!("other-{}", std::process::id())));
    let other = settings.pools[1].name.clone();
    let fpm = start(settings);
    let memprof = attach(&fpm);
    let mut client = Client::new(&fpm);
    let mut expected = Vec::new();
    for _ in 0..10 {
        expected.push(client.send());
        fpm.script("worker.php?other=1")
            .send(&fpm.socket(&other))
            .unwrap();
    }
    wait_for_all(&memprof, &expected);
    let finished = finish(memprof, &expected);
    assert_eq!(finished.summary().unwrap()["requests_seen"], expected.len());
}
