//! Every build, those that raise the error in the allocator and those that raise it later.

use memprof_tests::attached::{attach_to, own_pool};
use memprof_tests::fcgi::Response;
use memprof_tests::{Finished, Fpm, PhpBuild};
use serde_json::Value;

use super::{dumps, first_error, of_record, with_context};

/// Asks `limit.php` for `case` with memprof attached to each build, and hands on what came of it.
fn each_build(case: &str, check: impl Fn(&PhpBuild, &Response, &Finished, &[Value])) {
    for build in PhpBuild::ALL {
        let fpm = Fpm::start(PhpBuild::fetched(build.name).unwrap(), own_pool("limit")).unwrap();
        let uri = format!("limit.php?case={case}");
        let alone = fpm.get(&uri).unwrap();
        let workers = fpm.workers(fpm.pool()).unwrap();
        // How much is read in how much time is not looked at here.
        let memprof = attach_to(&fpm, &["--max-stop", "20000", "--max-memory", "1024"]).unwrap();
        let watched = fpm.get(&uri).unwrap();
        assert_eq!(fpm.get("environment.php").unwrap().status, 200);
        assert_eq!(fpm.workers(fpm.pool()).unwrap(), workers);
        let finished = memprof.stop().unwrap();
        println!("{} {case}: {}", build.name, watched.stderr);
        assert_eq!(alone.status, watched.status, "{}", build.name);
        assert_eq!(alone.text(), watched.text(), "{}", build.name);
        let errors = [&alone.stderr, &watched.stderr].map(|stderr| first_error(stderr));
        assert_eq!(errors[0], errors[1], "{}", build.name);
        check(build, &watched, &finished, &dumps(&fpm));
    }
}

/// Whether the build raises the error where the allocation fails.
fn raises_at_once(build: &PhpBuild) -> bool {
    // Debian's security releases of October 2026.
    !["bookworm-8.2", "trixie-8.4"].contains(&build.name)
}

/// The one dump at the limit, and the error that the records name.
fn the_one<'a>(finished: &Finished, dumps: &'a [Value]) -> (&'a Value, Value) {
    let found = with_context(dumps, "oom_shutdown");
    let [dump] = found[..] else {
        panic!("{} dumps: {}", found.len(), finished.stderr);
    };
    let records = finished.records().unwrap();
    let ooms = of_record(&records, "oom");
    assert_eq!(ooms.len(), 1);
    assert_eq!(of_record(&records, "dump_failed").len(), 0);
    println!("  stopped for {} ms", dump["external"]["stopped_ms"]);
    (dump, ooms[0]["context"].clone())
}

/// What PHP said is what the record says.
fn check_message(build: &PhpBuild, response: &Response, record: &Value) {
    let message = record["error"]["message"].as_str().unwrap();
    let place = format!(
        "in {} on line {}",
        record["error"]["file"].as_str().unwrap(),
        record["error"]["line"]
    );
    let said = response.stderr.split("; PHP message").next().unwrap();
    // PHP 8.5 adds the stack.
    let said = said.lines().next().unwrap();
    if raises_at_once(build) {
        assert!(said.contains(message), "{said}: {message}");
        assert!(said.ends_with(&place), "{said}: {place}");
    } else {
        assert!(message.starts_with("Allowed memory size of 134217728 bytes exhausted"));
        println!("  {message} {place}");
    }
    assert_eq!(record["limit"], "128M");
}

#[test]
fn many_small_allocations() {
    each_build("slow", |build, response, finished, dumps| {
        let (dump, record) = the_one(finished, dumps);
        check_message(build, response, &record);
        assert_eq!(dump["backtrace"][0]["function"], "fill");
        assert_eq!(with_context(dumps, "critical_threshold_reached").len(), 1);
    });
}

#[test]
fn one_allocation_from_a_small_heap() {
    each_build("jump", |build, response, finished, dumps| {
        let (dump, record) = the_one(finished, dumps);
        check_message(build, response, &record);
        assert_eq!(dump["backtrace"][0]["function"], "str_repeat");
        assert_eq!(dump["backtrace"][1]["function"], "jump");
        let tried = dump["external"]["tried_bytes"].as_u64().unwrap();
        assert!((256 << 20..257 << 20).contains(&tried), "{tried}");
        assert!(dump["memory"]["current_mb"].as_f64().unwrap() < 10.0);
        assert_eq!(with_context(dumps, "critical_threshold_reached").len(), 0);
    });
}

#[test]
fn a_second_error_in_the_shutdown_code_leaves_the_first_dump_alone() {
    each_build("again", |_, response, finished, dumps| {
        assert!(response.stderr.matches("exhausted").count() >= 1);
        let (dump, _) = the_one(finished, dumps);
        // In the script and not in the shutdown function, which the engine calls.
        let frames = dump["backtrace"].as_array().unwrap();
        assert_eq!(frames[0]["function"], "fill");
        assert_eq!(frames[0]["file"], "limit.php");
    });
}

#[test]
fn a_recursion_through_closures_is_counted_whole() {
    each_build("recursion", |_, _, finished, dumps| {
        let (dump, _) = the_one(finished, dumps);
        let stack = &dump["external"]["stack"];
        let recursion = &stack["recursion"];
        let cycle = recursion["cycle"].as_array().unwrap();
        assert_eq!(cycle.len(), 3, "{recursion}");
        let depth = stack["depth"].as_u64().unwrap();
        let frames = recursion["frames"].as_u64().unwrap();
        // All but {main}, and what stands at the innermost end of a turn that is not whole.
        assert!(depth - frames <= 3, "{depth} {frames}");
        assert_eq!(recursion["times"], frames / 3);
        println!("  {depth} deep");
    });
}
