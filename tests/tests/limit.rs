//! A request that hits memory_limit, watched: what is told of it, and that it fails as it would have.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use memprof_tests::attached::UNGUARDED;
use memprof_tests::{Fpm, Laravel, Memprof, PhpBuild, Pool, Settings};
use serde_json::Value;

fn start(pool: &str) -> (Fpm, Laravel) {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let settings = Settings {
        pools: vec![Pool::new(pool)],
        ..Settings::default()
    };
    let fpm = Fpm::start(build, settings).unwrap();
    let mut laravel = Laravel::install(&fpm, pool).unwrap();
    laravel.get("/t/login/1?perm=580").unwrap();
    laravel.get("/admin").unwrap();
    (fpm, laravel)
}

/// What the error log says, without what differs from run to run: where the heap happened to end.
fn kind_of_death(stderr: &str) -> &str {
    stderr.split(" bytes exhausted").next().unwrap_or(stderr)
}

/// The record of the checkpoints of the request that hit the limit.
fn died(records: &[Value]) -> &Value {
    let hit = |record: &&Value| !record["external"]["limit_error_tried_bytes"].is_null();
    let checkpoint = |record: &&Value| record["record"] == "checkpoint";
    records.iter().filter(checkpoint).find(hit).unwrap()
}

#[test]
fn a_request_that_hits_the_limit_says_so_and_fails_as_it_would_have() {
    for bug in ["recursion", "accumulate"] {
        let pool = format!("memprof-limit-{bug}");
        let (fpm, mut laravel) = start(&pool);
        let page = |laravel: &mut Laravel| {
            let request = laravel.request("/admin").header("X-Bug", bug);
            laravel.send(request).unwrap()
        };
        let alone = page(&mut laravel);
        let out = tempfile::tempdir().unwrap();
        let folder = out.path().display().to_string();
        let arguments = [
            "--pool",
            &pool,
            "--mode",
            "aggressive",
            "--json",
            "--out",
            &folder,
        ];
        let memprof = Memprof::attach(&[&arguments[..], &UNGUARDED.concat()].concat()).unwrap();
        let watched = page(&mut laravel);
        let after = laravel.get("/admin").unwrap();
        let workers = fpm.workers(&pool).unwrap();
        let finished = memprof.stop().unwrap();

        assert_eq!(watched.status, alone.status, "{bug}");
        assert_eq!(
            kind_of_death(&watched.stderr),
            kind_of_death(&alone.stderr),
            "{bug}"
        );
        assert_eq!(after.status, 200, "{bug}: the worker goes on");
        assert_eq!(workers.len(), 1, "{bug}");

        assert!(finished.status.success(), "{bug}: {}", finished.stderr);
        assert!(
            finished.stderr.contains("hit memory_limit"),
            "{bug}: {}",
            finished.stderr
        );
        if bug == "recursion" {
            assert!(
                finished.stderr.contains("in a recursion of "),
                "{}",
                finished.stderr
            );
            assert!(
                finished.stderr.contains("CompanyScope->apply"),
                "{}",
                finished.stderr
            );
        }
        let records = finished.records().unwrap();
        let record = died(&records);
        let external = &record["external"];
        assert_eq!(external["above"], "critical", "{bug}");
        assert_eq!(external["lost_events"], 0, "{bug}");
        // The worker has let go of the heap by now, but not of PHP itself.
        assert!(external["rss_bytes"].as_u64().unwrap() > 1 << 20, "{bug}");
        let limit = external["memory_limit_bytes"].as_u64().unwrap();
        assert_eq!(limit, 128 << 20, "{bug}");
        // 95 % of a heap that is full are held by stacks that are known.
        let held = external["growth"]["held_at_peak_bytes"].as_u64().unwrap();
        assert!(held * 100 > limit * 90, "{bug}: {held}");
    }
}

#[test]
fn a_pool_without_a_limit_is_recorded_too() {
    for build in PhpBuild::ALL {
        let name = format!("memprof-unlimited-{}", build.name);
        let mut pool = Pool::new(&name);
        pool.memory_limit = "-1".to_owned();
        let settings = Settings {
            pools: vec![pool],
            ..Settings::default()
        };
        let fpm = Fpm::start(build, settings).unwrap();
        let out = tempfile::tempdir().unwrap();
        let folder = out.path().display().to_string();
        let arguments = ["--pool", &name, "--mode", "aggressive", "--every", "--json"];
        let memprof =
            Memprof::attach(&[&arguments[..], &["--out", &folder], &UNGUARDED.concat()].concat())
                .unwrap();
        assert_eq!(fpm.get("memory.php?mb=8").unwrap().status, 200);
        let finished = memprof.stop().unwrap();

        let records = finished.records().unwrap();
        let record = records
            .iter()
            .find(|record| record["record"] == "checkpoint")
            .unwrap_or_else(|| panic!("{}: {}", build.name, finished.stderr));
        assert!(
            record["external"]["memory_limit_bytes"].is_null(),
            "{record}"
        );
        // Far below the shares of 2 GiB that stand in for those of a limit.
        assert!(record["external"]["above"].is_null(), "{record}");
        assert_eq!(
            records.last().unwrap()["context"]["errors"],
            serde_json::json!([])
        );
    }
}
