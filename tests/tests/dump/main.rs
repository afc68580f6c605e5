//! `memprof dump` of a live worker, and of a php of the command line, says what PHP itself says, on every build.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod command_line;
mod hold;
mod script;

use std::fs;
use std::thread;

use memprof_tests::{Fpm, Laravel, Memprof, Opcache, PhpBuild, sleeps};
use serde_json::{Value, json};

use script::{
    SECRET, SessionFacts, Taken, WHOLE, check, check_largest, check_session, dump_worker, settings,
    wait_until,
};

#[test]
fn a_worker_is_what_it_says_itself() {
    for build in PhpBuild::ALL {
        for opcache in [Opcache::On, Opcache::Off, Opcache::Jit] {
            if opcache == Opcache::Jit && build.version.starts_with("7.") {
                continue;
            }
            println!("{} {opcache:?}", build.name);
            let fpm =
                Fpm::start(PhpBuild::fetched(build.name).unwrap(), settings(opcache)).unwrap();
            let (taken, facts) = dump_worker(&fpm, "");
            check(&taken, &facts);
            let worker = fpm.workers("www").unwrap()[0];
            assert_eq!(taken.external("/pid"), worker);
            assert_eq!(taken.external("/pool"), "www");
            let script = fpm.inside("scripts/dump.php");
            let request =
                json!({"method": "GET", "path": "/dump.php", "script": script, "user_id": null});
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
fn any_session_is_as_long_as_php_says() {
    for build in PhpBuild::ALL {
        println!("{}", build.name);
        let build = PhpBuild::fetched(build.name).unwrap();
        let fpm = Fpm::start(build, settings(Opcache::On)).unwrap();
        let mut known = 0;
        for seed in 0..20 {
            let (taken, mut facts) = dump_worker(&fpm, &format!("&seed={seed}"));
            let unknown = taken.external("/session/unknown").as_array().unwrap();
            let total = taken.external("/session/bytes");
            // A value that only PHP could tell makes the whole unknown, and never wrong.
            if unknown.is_empty() && total.is_u64() {
                check_session(&taken, &facts.session);
                known += 1;
                continue;
            }
            assert!(total.is_null() || *total == facts.session.bytes);
            facts
                .session
                .sizes
                .retain(|(key, _)| unknown.iter().all(|value| value["key"] != *key));
            check_largest(&taken, &facts.session);
        }
        println!("{known} of 20 known");
        assert!(known >= 10);
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
        wait_until("the page does not sleep", || sleeps(worker));
        let taken = Taken::of(worker, &WHOLE);
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
