//! The biggest holders in a dump are those that the script made, with the paths by which PHP code gets at them.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod graph;
mod laravel;
#[allow(dead_code, reason = "shared with the other tests of dumps")]
#[path = "../dump/script.rs"]
mod script;

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use memprof_tests::{Fpm, Opcache, PhpBuild};
use serde::Deserialize;
use serde_json::{Value, json};

use script::{Taken, settings, wait_until_held};

/// What `holders.php` says of itself.
#[derive(Debug, Deserialize)]
struct Facts {
    /// Bytes of each holder, by its path.
    bytes: BTreeMap<String, u64>,
}

/// Sends a request to `holders.php` and dumps the worker while it waits.
fn dump(fpm: &Fpm, query: &str, arguments: &[&str]) -> (Taken, Facts) {
    let worker = fpm.workers("www").unwrap()[0];
    let file = fpm.folder().join("go");
    let uri = format!("holders.php?file={}{query}", fpm.inside("go"));
    let (taken, response) = thread::scope(|scope| {
        let waiting = scope.spawn(|| fpm.get(&uri).unwrap());
        wait_until_held(worker, &file);
        let taken = Taken::of(worker, arguments);
        fs::write(&file, "").unwrap();
        (taken, waiting.join().unwrap())
    });
    for name in ["go", "go.ready"] {
        fs::remove_file(fpm.folder().join(name)).unwrap();
    }
    assert_eq!(response.status, 200, "{response:?}");
    (taken, response.json().unwrap())
}

fn holder<'a>(taken: &'a Taken, path: &str) -> &'a Value {
    let top = taken.external("/holders/top").as_array().unwrap();
    let paths: Vec<&Value> = top.iter().map(|holder| &holder["path"]).collect();
    let found = top.iter().find(|holder| holder["path"] == path);
    found.unwrap_or_else(|| {
        let left_out = taken.external("/left_out");
        panic!("no {path} among {paths:#?}, {left_out}")
    })
}

/// Every holder is there, within 1 % of what PHP says it took.
fn check(taken: &Taken, facts: &Facts) {
    for (path, bytes) in &facts.bytes {
        let found = holder(taken, path)["retained_bytes"].as_u64().unwrap();
        let difference = found.abs_diff(*bytes);
        assert!(
            difference * 100 <= *bytes,
            "{path}: {found} instead of {bytes}"
        );
    }
    let holders = taken.external("/holders");
    let bytes = |key: &str| holders[key].as_i64().unwrap();
    assert_eq!(
        holders["complete"],
        true,
        "{}",
        taken.external("/holders/kinds")
    );
    assert_eq!(
        bytes("unattributed_bytes"),
        bytes("heap_bytes") - bytes("explained_bytes")
    );
    let kinds = holders["kinds"].as_object().unwrap();
    let explained: i64 = kinds
        .values()
        .map(|kind| kind["bytes"].as_i64().unwrap())
        .sum();
    assert_eq!(bytes("explained_bytes"), explained);
    let share = bytes("unattributed_bytes") as f64 / bytes("heap_bytes") as f64;
    println!("unattributed: {:.2} %", share * 100.0);
    assert!((0.0..0.05).contains(&share), "{holders:#}");
}

#[test]
fn holders_are_found_by_the_paths_that_php_knows() {
    for build in PhpBuild::ALL {
        for opcache in [Opcache::On, Opcache::Off] {
            println!("{} {opcache:?}", build.name);
            let fpm =
                Fpm::start(PhpBuild::fetched(build.name).unwrap(), settings(opcache)).unwrap();
            let (taken, facts) = dump(&fpm, "", &["--max-stop", "60000"]);
            check(&taken, &facts);
            let text = fs::read_to_string(&taken.path).unwrap();
            assert!(
                !text.contains("SSSS") && !text.contains("row number"),
                "a value is in it"
            );
            let rows = holder(&taken, "$GLOBALS['rows']");
            assert_eq!(rows["kind"], "array");
            assert_eq!(rows["elements"], 5000);
            assert_eq!(rows["shared"], false);
            let referred = holder(&taken, "$GLOBALS['referred']");
            assert_eq!(referred["shared"], true);
            let store = taken.external("/object_store");
            let slots = store["slots"].as_u64().unwrap();
            assert!(slots.is_power_of_two() && store["bytes"] == slots * 8);
            assert_eq!(
                taken.external("/holders/kinds/object_store/bytes"),
                &store["bytes"]
            );
        }
    }
}

#[test]
fn huge_and_deep_structures_are_walked_to_their_end() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, settings(Opcache::On)).unwrap();
    let query = "&numbers=10000000&chain=300000";
    let (taken, facts) = dump(&fpm, query, &["--max-stop", "60000"]);
    for name in ["numbers", "chain"] {
        let path = format!("$GLOBALS['{name}']");
        let found = holder(&taken, &path)["retained_bytes"].as_u64().unwrap();
        assert!(
            found.abs_diff(facts.bytes[&path]) * 100 <= found,
            "{path}: {found}"
        );
    }
    assert_eq!(
        holder(&taken, "$GLOBALS['numbers']")["elements"],
        10_000_000
    );
    assert_eq!(taken.external("/holders/complete"), true);
}

#[test]
fn a_walk_that_is_cut_says_so() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let fpm = Fpm::start(build, settings(Opcache::On)).unwrap();
    let (taken, _) = dump(&fpm, "&chain=1000000", &["--max-stop", "40"]);
    let left_out = taken.external("/left_out").to_string();
    assert!(left_out.contains("--max-stop"), "{left_out}");
    let holders = taken.external("/holders");
    assert!(holders.is_null() || holders["complete"] == json!(false));
}
