//! The bugs of the Laravel application: each is dumped where it dies, and dies as it would have.

use std::fs;

use memprof_tests::attached::{attach_to, own_pool, records_folder};
use memprof_tests::fcgi::Response;
use memprof_tests::{Finished, Fpm, Laravel, PhpBuild};
use serde_json::Value;

use super::{dumps, first_error, of_record, with_context};

/// A bug that a page has, and the memory limit that it runs into.
struct Bug {
    name: &'static str,
    limit: &'static str,
    /// Entries in the session's permissions_cache.
    session: u32,
}

/// What a request left behind.
struct Death {
    alone: Response,
    watched: Response,
    finished: Finished,
    dumps: Vec<Value>,
    log: String,
}

impl Bug {
    /// The page without memprof, with it, and what was written of it.
    fn die(&self, arguments: &[&str]) -> Death {
        let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
        let mut settings = own_pool("limit-laravel");
        settings.pools[0].memory_limit = self.limit.to_owned();
        let fpm = Fpm::start(build, settings).unwrap();
        let mut laravel = Laravel::install(&fpm, fpm.pool()).unwrap();
        laravel
            .get(&format!("/t/login/1?perm={}", self.session))
            .unwrap();
        laravel.get("/admin").unwrap();
        let page = |laravel: &mut Laravel| {
            let request = laravel.request("/admin").header("X-Bug", self.name);
            laravel.send(request).unwrap()
        };
        let alone = page(&mut laravel);
        let workers = fpm.workers(fpm.pool()).unwrap();
        // How much is read in how much time is not looked at here.
        let arguments = [&["--max-stop", "20000", "--max-memory", "1024"], arguments].concat();
        let memprof = attach_to(&fpm, &arguments).unwrap();
        let watched = page(&mut laravel);
        assert_eq!(laravel.get("/admin").unwrap().status, 200);
        assert_eq!(fpm.workers(fpm.pool()).unwrap(), workers);
        let finished = memprof.stop().unwrap();
        assert!(finished.status.success(), "{}", finished.stderr);
        Death {
            alone,
            watched,
            finished,
            dumps: dumps(&fpm),
            log: fs::read_to_string(records_folder(&fpm).join("memprof.log")).unwrap(),
        }
    }
}

/// What holds for every bug; the dump at the limit.
fn check(death: &Death, limit: u64) -> &Value {
    let (alone, watched) = (&death.alone, &death.watched);
    // Whether the error page still fits differs from time to time, without memprof too.
    assert_eq!(alone.status, watched.status);
    assert_eq!(first_error(&alone.stderr), first_error(&watched.stderr));
    let lines = death.finished.records().unwrap();
    let errors = death.finished.summary().unwrap()["errors"].to_string();
    assert!(!errors.contains("no dump"), "{errors}");
    let dump = with_context(&death.dumps, "oom_shutdown");
    let [dump] = dump[..] else {
        panic!(
            "{} dumps at the limit: {}",
            dump.len(),
            death.finished.stderr
        );
    };
    assert_eq!(of_record(&lines, "oom").len(), 1);
    assert_eq!(of_record(&lines, "dump_failed").len(), 0);
    let external = &dump["external"];
    assert_eq!(external["memory_limit_bytes"], limit);
    let real_size = external["heap"]["real_size_bytes"].as_u64().unwrap();
    assert!(real_size * 100 > limit * 95, "{real_size}");
    assert_eq!(external["consistent"], true);
    let stopped = external["stopped_ms"].as_f64().unwrap();
    println!(
        "stopped for {stopped} ms; left out: {}",
        external["left_out"]
    );
    assert_eq!(external["request"]["path"], "/admin");
    assert!(external["running_ms"].as_f64().unwrap() > 1.0);
    assert!(external["pss_bytes"].as_u64().unwrap() > 1 << 20);
    assert_eq!(external["checkpoints"][0]["label"], "request_start");
    // The place is the one that PHP's own error names.
    let error = &of_record(&lines, "oom")[0]["context"]["error"];
    let (file, line) = (
        error["file"].as_str().unwrap(),
        error["line"].as_u64().unwrap(),
    );
    let (tried, place) = (
        external["tried_bytes"].as_u64().unwrap(),
        format!("in {file} on line {line}"),
    );
    let said = watched.stderr.split("; PHP message").next().unwrap();
    println!("{said}\n{error}");
    assert!(
        said.contains(&format!("(tried to allocate {tried} bytes)")),
        "{said}"
    );
    assert!(said.ends_with(&place), "{said}: {place}");
    assert!(
        death
            .log
            .contains("production.CRITICAL: OOM Shutdown Handler {\"error\":{\"type\":1,")
    );
    assert!(
        death
            .log
            .contains("production.CRITICAL: Memory state dump {\"context\":\"oom_shutdown\",")
    );
    assert!(
        death.finished.stderr.contains("  dump: "),
        "{}",
        death.finished.stderr
    );
    dump
}

/// The circle of the recursion, and how many frames it has.
fn check_recursion(dump: &Value) -> u64 {
    let stack = &dump["external"]["stack"];
    let recursion = &stack["recursion"];
    let cycle: Vec<&str> = recursion["cycle"]
        .as_array()
        .unwrap()
        .iter()
        .map(|frame| frame["function"].as_str().unwrap())
        .collect();
    for function in [
        "App\\Models\\Scopes\\CompanyScope->apply",
        "Illuminate\\Auth\\SessionGuard->user",
        "Illuminate\\Auth\\EloquentUserProvider->retrieveById",
    ] {
        assert!(cycle.contains(&function), "{cycle:?}");
    }
    let times = recursion["times"].as_u64().unwrap();
    let frames = recursion["frames"].as_u64().unwrap();
    let depth = stack["depth"].as_u64().unwrap();
    println!("{times} turns of {} frames, {depth} deep", cycle.len());
    assert_eq!(times, frames / cycle.len() as u64);
    assert!(depth - frames < 200, "{depth} {frames}");
    frames
}

#[test]
fn the_recursion_is_told_as_its_circle() {
    for (limit, megabytes) in [("128M", 128), ("512M", 512)] {
        let bug = Bug {
            name: "recursion",
            limit,
            session: 580,
        };
        let death = bug.die(&[]);
        let frames = check_recursion(check(&death, megabytes << 20));
        assert!(frames > 1500 * megabytes, "{frames}");
        // It came by the critical threshold before.
        let critical = with_context(&death.dumps, "critical_threshold_reached");
        assert_eq!(critical.len(), 1);
        assert!(critical[0]["memory"]["usage_percent"].as_f64().unwrap() > 90.0);
        assert!(check_recursion(critical[0]) < frames);
    }
}

#[test]
fn accumulation_is_dumped_with_its_growth() {
    let bug = Bug {
        name: "accumulate",
        limit: "128M",
        session: 580,
    };
    let death = bug.die(&["--mode", "aggressive"]);
    let dump = check(&death, 128 << 20);
    let external = &dump["external"];
    assert_eq!(external["request"]["user_id"], 1);
    let growth = &external["growth"];
    let held = growth["held_bytes"].as_i64().unwrap();
    let unattributed = growth["unattributed_bytes"].as_i64().unwrap();
    // Held and unattributed are what the heap has in use, but for what it had at the request's start.
    let used = external["heap"]["used_pages"].as_i64().unwrap() * 4096;
    println!(
        "held {held}, unattributed {unattributed}, used {used}: {}",
        growth["top"][0]
    );
    assert!((used - held - unattributed).abs() < 1 << 20);
    assert!(unattributed.abs() < held / 50);
    let models = external["objects"]["by_class"].as_array().unwrap();
    let permission = models
        .iter()
        .find(|class| class["class"] == "App\\Models\\Permission");
    assert!(permission.unwrap()["count"].as_u64().unwrap() > 1000);
}

#[test]
fn a_large_session_is_in_the_dump() {
    let bug = Bug {
        name: "accumulate",
        limit: "128M",
        session: 50_000,
    };
    let death = bug.die(&[]);
    let dump = check(&death, 128 << 20);
    assert!(dump["session"]["size_mb"].as_f64().unwrap() > 11.0);
    assert!(dump["external"]["session"]["bytes"].as_u64().unwrap() > 11 << 20);
}

#[test]
fn long_texts_are_dumped_where_they_are_fetched() {
    let bug = Bug {
        name: "longtext",
        limit: "6M",
        session: 580,
    };
    let death = bug.die(&[]);
    let dump = check(&death, 6 << 20);
    let functions = dump["backtrace"].to_string();
    assert!(
        functions.contains("fetchAll") || functions.contains("Eloquent"),
        "{functions}"
    );
}
