//! No event is lost unseen: what the probes sent is what arrived and what was counted as lost.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::thread;

use memprof_tests::attached::{External, attach_to, own_pool};
use memprof_tests::{Fpm, Opcache, PhpBuild, Settings};
use serde::Deserialize;
use serde_json::Value;

const WORKERS: usize = 3;

#[derive(Deserialize)]
struct Churned {
    turns: u64,
}

#[derive(Debug, Deserialize)]
struct Events {
    sent: u64,
    received: u64,
    lost: u64,
}

/// What the workers did, and what memprof says of it.
struct Outcome {
    turns: u64,
    events: Events,
    summary: Value,
    requests: Vec<External>,
    stderr: String,
}

/// Has all workers churn at once under memprof with these arguments.
fn churn(seconds: u32, arguments: &[&str]) -> Outcome {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let mut settings = own_pool("losses");
    settings.pools[0].workers = WORKERS;
    let fpm = Fpm::start(build, settings).unwrap();
    let arguments = [&["--mode", "aggressive", "--every"], arguments].concat();
    let memprof = attach_to(&fpm, &arguments).unwrap();
    let uri = format!("churn.php?seconds={seconds}");
    let turns = thread::scope(|scope| {
        let clients: Vec<_> = (0..WORKERS)
            .map(|_| scope.spawn(|| fpm.get(&uri).unwrap().json::<Churned>().unwrap().turns))
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum()
    });
    let finished = memprof.stop().unwrap();
    let summary = finished.summary().unwrap();
    let lines = finished.records().unwrap();
    let checkpoints = lines.iter().filter(|line| line["record"] == "checkpoint");
    let outcome = Outcome {
        turns,
        events: Events::deserialize(&summary["events"]).unwrap(),
        requests: checkpoints
            .map(|line| External::of(line).unwrap())
            .collect(),
        summary,
        stderr: finished.stderr,
    };
    println!(
        "{turns} turns in {seconds} s: {:?}, {} requests recorded",
        outcome.events,
        outcome.requests.len()
    );
    outcome
}

#[test]
fn a_million_events_a_second_arrive_or_are_counted() {
    let outcome = churn(5, &[]);
    let events = &outcome.events;
    assert_eq!(events.sent, events.received + events.lost);
    // A run taken and one freed a turn, and little else.
    assert!(events.sent >= 2 * outcome.turns, "{events:?}");
    assert!(events.sent < 2 * outcome.turns + 5000, "{events:?}");
    if events.lost == 0 {
        assert_eq!(outcome.summary["lost_events"], serde_json::json!([]));
        assert!(!outcome.stderr.contains("lost"), "{}", outcome.stderr);
    }
}

#[test]
fn a_small_ring_loses_and_says_how_much() {
    let outcome = churn(2, &["--ring-size", "1"]);
    let events = &outcome.events;
    assert!(events.lost > 0, "{events:?}");
    assert_eq!(events.sent, events.received + events.lost);
    assert!(events.sent >= 2 * outcome.turns, "{events:?}");
    let told = format!("lost: {} of {} events", events.lost, events.sent);
    assert!(outcome.stderr.contains(&told), "{}", outcome.stderr);
    let causes = outcome.summary["lost_events"].as_object().unwrap();
    let counts: Vec<u64> = causes.values().filter_map(Value::as_u64).collect();
    assert_eq!(counts.iter().sum::<u64>(), events.lost);
    // Of each request it is told that it is incomplete, or that even its end was lost.
    let unseen = &outcome.summary["errors"]["requests whose end was not seen"];
    let unseen = unseen.as_u64().unwrap_or(0);
    assert_eq!(outcome.requests.len() as u64 + unseen, WORKERS as u64);
    assert!(
        outcome
            .requests
            .iter()
            .all(|request| request.lost_events > 0)
    );
}

#[test]
fn workers_of_one_master_do_not_hide_each_others_stacks() {
    const REQUESTS: usize = 20;
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    // Without opcache each worker has its functions in memory of its own, at the same addresses as the others.
    let mut settings = Settings {
        opcache: Opcache::Off,
        ..own_pool("alike")
    };
    settings.pools[0].workers = WORKERS;
    let fpm = Fpm::start(build, settings).unwrap();
    let memprof = attach_to(&fpm, &["--mode", "aggressive", "--every"]).unwrap();
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| (0..REQUESTS).for_each(|_| drop(fpm.get("growth.php?case=keep"))));
        }
    });
    memprof.wait_for("checkpoint", WORKERS * REQUESTS).unwrap();
    let summary = memprof.stop().unwrap().summary().unwrap();
    let lost = &summary["errors"]["stacks whose description was lost"];
    assert_eq!(lost, &Value::Null, "{summary}");
}
