//! Model, query and scope counts are those that the application counts itself.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;

use memprof_tests::attached::{attach_to, own_pool, records_folder};
use memprof_tests::{Fpm, Laravel, Opcache, PhpBuild};
use serde::Deserialize;
use serde_json::Value;

/// What the application says of a request.
#[derive(Debug, Default, Deserialize, PartialEq)]
struct Counts {
    queries: u64,
    models: BTreeMap<String, u64>,
    scopes: BTreeMap<String, u64>,
}

const PAGES: [&str; 20] = [
    "/admin",
    "/t/calls",
    "/t/login/1?perm=10",
    "/t/login/2?perm=10",
    "/t/login/3?perm=100",
    "/t/notes",
    "/t/notes?create=1",
    "/t/notes?create=1&update=1",
    "/t/notes?create=2&update=1",
    "/t/notes?create=5&update=5",
    "/t/notes?create=10&update=3&increment=1",
    "/t/notes?create=1&increment=7",
    "/t/notes?create=30&update=20&increment=10",
    "/t/notes?create=100",
    "/t/notes?create=60&update=60",
    "/t/notes?create=3&update=2&increment=1",
    "/t/notes?create=4&update=4&increment=4",
    "/admin?again",
    "/t/calls?again",
    "/t/notes?create=200&update=100&increment=50",
];

/// What memprof counted in each request, in their order: the last record of a request is its sample.
fn counted(records: &[Value]) -> Vec<Counts> {
    let mut requests = Vec::new();
    let mut counts = Counts::default();
    for record in records {
        let context = &record["context"];
        match record["record"].as_str() {
            Some("models") => {
                counts.queries = context["total_queries"].as_u64().unwrap();
                counts.models = numbers(&context["model_counts"], "count");
            }
            Some("scopes") => counts.scopes = numbers(&context["top_scopes"], "apply_count"),
            Some("sample") => requests.push(std::mem::take(&mut counts)),
            _ => {}
        }
    }
    requests
}

/// The number under `key` of each entry.
fn numbers(entries: &Value, key: &str) -> BTreeMap<String, u64> {
    let number = |(name, entry): (&String, &Value)| (name.clone(), entry[key].as_u64().unwrap());
    entries.as_object().unwrap().iter().map(number).collect()
}

/// The same as a record of ours shows it: the twenty scopes applied most.
fn shown(mut truth: Counts) -> Counts {
    let mut scopes: Vec<_> = truth.scopes.into_iter().collect();
    scopes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    truth.scopes = scopes.into_iter().take(20).collect();
    truth
}

#[test]
fn counts_are_those_of_the_application() {
    for opcache in [Opcache::On, Opcache::Off] {
        let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
        let mut settings = own_pool("framework");
        settings.opcache = opcache;
        let fpm = Fpm::start(build, settings).unwrap();
        let mut laravel = Laravel::install(&fpm, fpm.pool()).unwrap();
        laravel.get("/t/login/1?perm=10").unwrap();
        let memprof = attach_to(&fpm, &["--mode", "aggressive", "--every"]).unwrap();
        let mut truth: Vec<Counts> = Vec::new();
        for page in PAGES {
            let request = laravel.request(page).header("X-Count", "1");
            let response = laravel.send(request).unwrap();
            assert_eq!(response.status, 200, "{page}: {}", response.text());
            truth.push(serde_json::from_str(response.header("X-Counts").unwrap()).unwrap());
        }
        memprof.wait_for("sample", PAGES.len()).unwrap();
        let finished = memprof.stop().unwrap();
        let counted = counted(&finished.records().unwrap());
        assert_eq!(counted.len(), PAGES.len());
        for ((page, truth), counted) in PAGES.iter().zip(truth).zip(counted) {
            assert_eq!(
                counted,
                shown(truth),
                "{page}, {opcache:?}\n{}",
                finished.stderr
            );
        }
    }
}

#[test]
fn a_query_by_which_the_heap_jumps_is_told_without_its_values() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("framework-jump")).unwrap();
    let mut laravel = Laravel::install(&fpm, fpm.pool()).unwrap();
    laravel.get("/t/login/1?perm=10").unwrap();
    let memprof = attach_to(&fpm, &["--mode", "aggressive", "--every"]).unwrap();
    laravel.get("/t/jump").unwrap();
    memprof.wait_for("sample", 1).unwrap();
    let finished = memprof.stop().unwrap();
    let records = finished.records().unwrap();
    let jumps: Vec<&Value> = records.iter().filter(|r| r["record"] == "query").collect();
    let [jump] = jumps[..] else {
        panic!("{records:?}");
    };
    let context = &jump["context"];
    assert_eq!(
        context["query"],
        "select c.* from calls c, (select ? union all select ? union all select ?) where c.status != ? and c.name != ?"
    );
    assert_eq!(context["bindings"], 1, "the other four stood in the text");
    // Three times 125 rows of 50 kB.
    let delta = context["delta_mb"].as_f64().unwrap();
    assert!((16.0..32.0).contains(&delta), "{context}");
    assert!(context["current_mb"].as_f64().unwrap() > delta);
    assert!(context["time"].as_f64().unwrap() > 0.0);
    let log = std::fs::read_to_string(records_folder(&fpm).join("memprof.log")).unwrap();
    assert!(
        log.contains("production.WARNING: Large memory jump after query {\"query\":\"select c.*")
    );
    assert!(!log.contains("S3CRET"));
}

/// What the application says of the end of a request.
#[derive(Debug, Deserialize, PartialEq)]
struct Facts {
    user_id: Option<u64>,
    session_bytes: u64,
    classes: u64,
    files: u64,
}

#[test]
fn a_record_tells_whose_request_it_was_and_what_was_loaded() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("framework-facts")).unwrap();
    let mut laravel = Laravel::install(&fpm, fpm.pool()).unwrap();
    let arguments = ["--mode", "aggressive", "--every", "--max-stop", "20000"];
    let memprof = attach_to(&fpm, &arguments).unwrap();
    let pages = [
        "/t/login/2?perm=8934",
        "/admin",
        "/t/calls",
        "/t/notes?create=3",
    ];
    for page in pages {
        let request = laravel.request(page).header("X-Count", "1");
        assert_eq!(laravel.send(request).unwrap().status, 200, "{page}");
    }
    let lines = memprof.wait_for("checkpoint", pages.len()).unwrap();
    let samples = memprof.wait_for("sample", pages.len()).unwrap();
    let finished = memprof.stop().unwrap();
    let truth = std::fs::read_to_string(fpm.folder().join("laravel/storage/logs/facts.json"));
    let truth = truth.unwrap();
    for ((page, line), (sample, truth)) in
        (pages.iter().zip(&lines)).zip(samples.iter().zip(truth.lines()))
    {
        let truth: Facts = serde_json::from_str(truth).unwrap();
        let context = &line["context"];
        let said = format!("{page}: {context}, {truth:?}\n{}", finished.stderr);
        let user_id = context["checkpoints"][0]["user_id"].as_u64();
        assert_eq!(user_id, truth.user_id, "{said}");
        assert_eq!(sample["context"]["user_id"].as_u64(), user_id, "{said}");
        assert_eq!(context["loaded_classes"], truth.classes, "{said}");
        assert_eq!(context["included_files"], truth.files, "{said}");
        let session = context["session_size"].as_f64().unwrap();
        let mib = (truth.session_bytes as f64 / 1_048_576.0 * 100.0).round() / 100.0;
        assert_eq!(session, mib, "{said}");
    }
}

#[test]
fn calls_that_do_not_return_in_order_do_no_harm() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, own_pool("framework-fibers")).unwrap();
    let alone = fpm.get("fibers.php").unwrap();
    assert_eq!(alone.status, 200, "{}", alone.stderr);
    assert_eq!(
        alone.text(),
        r#"{"seen":[1,2,3],"returned":[0,10,20]}"#,
        "{}",
        alone.stderr
    );
    let workers = fpm.workers(fpm.pool()).unwrap();
    let memprof = attach_to(&fpm, &["--mode", "aggressive", "--every"]).unwrap();
    for _ in 0..3 {
        let watched = fpm.get("fibers.php").unwrap();
        assert_eq!(watched.text(), alone.text(), "{}", fpm.log());
    }
    memprof.wait_for("sample", 3).unwrap();
    assert_eq!(fpm.workers(fpm.pool()).unwrap(), workers, "{}", fpm.log());
    assert!(memprof.stop().unwrap().status.success());
}
