//! The first finding of a dump at the limit names the bug that filled the heap.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use memprof_tests::attached::{attach_to, own_pool, records_folder};
use memprof_tests::{Fpm, Laravel, Memprof, PhpBuild};
use serde_json::Value;

/// A request that dies, and what the first finding has to name.
struct Death {
    limit: &'static str,
    uri: &'static str,
    bug: &'static str,
    scale: &'static str,
    named: &'static [&'static str],
}

const DEATHS: [Death; 8] = [
    Death {
        limit: "128M",
        uri: "/admin",
        bug: "recursion",
        scale: "1",
        named: &["A recursion of 11 functions", "CompanyScope->apply"],
    },
    Death {
        limit: "512M",
        uri: "/admin",
        bug: "recursion",
        scale: "1",
        named: &["A recursion of 11 functions", "CompanyScope->apply"],
    },
    Death {
        limit: "128M",
        uri: "/admin",
        bug: "accumulate",
        scale: "1",
        named: &["App\\Models\\Scopes\\CompanyScope::$kept holds"],
    },
    Death {
        limit: "512M",
        uri: "/admin",
        bug: "accumulate",
        scale: "5",
        named: &["App\\Models\\Scopes\\CompanyScope::$kept holds"],
    },
    Death {
        limit: "128M",
        uri: "/admin",
        bug: "longtext",
        scale: "20",
        named: &["PDOStatement->fetchAll", "result"],
    },
    Death {
        limit: "512M",
        uri: "/admin",
        bug: "longtext",
        scale: "90",
        named: &["PDOStatement->fetchAll", "result"],
    },
    Death {
        limit: "128M",
        uri: "/t/login/1?perm=200000",
        bug: "none",
        scale: "1",
        named: &["The session is", "permissions_cache"],
    },
    Death {
        limit: "512M",
        uri: "/t/login/1?perm=800000",
        bug: "none",
        scale: "1",
        named: &["The session is", "permissions_cache"],
    },
];

/// The findings of the dumps of a request that dies, the first first.
fn findings(death: &Death) -> Vec<Value> {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let mut settings = own_pool("causes");
    settings.pools[0].memory_limit = death.limit.to_owned();
    let fpm = Fpm::start(build, settings).unwrap();
    let mut laravel = Laravel::install(&fpm, fpm.pool()).unwrap();
    laravel.get("/t/login/1").unwrap();
    laravel.get("/admin").unwrap();
    // What is found is looked at here, not in how much time.
    let arguments = ["--mode", "aggressive", "--max-stop", "20000"];
    let memprof = attach_to(&fpm, &arguments).unwrap();
    let request = (laravel.request(death.uri))
        .header("X-Bug", death.bug)
        .header("X-Scale", death.scale);
    let response = laravel.send(request).unwrap();
    assert!(
        response.stderr.contains("Allowed memory size"),
        "{}: {response:?}",
        death.uri
    );
    assert!(memprof.stop().unwrap().status.success());
    let folder = records_folder(&fpm).join("memory-dumps");
    let analyzed = Memprof::run(&["analyze", folder.to_str().unwrap(), "--json"]).unwrap();
    let records = analyzed.records().unwrap();
    let findings = records
        .into_iter()
        .filter(|record| record["record"] == "finding");
    findings.collect()
}

#[test]
fn the_first_finding_names_the_bug() {
    for death in DEATHS {
        let findings = findings(&death);
        let first = findings.first().map(Value::to_string).unwrap_or_default();
        println!("{} {} at {}: {first}", death.uri, death.bug, death.limit);
        for named in death.named {
            let named = named.replace('\\', "\\\\");
            assert!(first.contains(&named), "{named}: {findings:?}");
        }
    }
}
