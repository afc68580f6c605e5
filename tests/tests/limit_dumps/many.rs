//! Many requests that run out of memory: none is lost count of.

use std::thread;

use memprof_tests::attached::{attach_to, own_pool};
use memprof_tests::{Finished, Fpm, PhpBuild};

use super::{dumps, of_record, with_context};

const REQUESTS: usize = 200;
const WORKERS: usize = 4;

/// 200 requests over 4 workers, each of which dies; the records of it.
fn die_often(fpm: &Fpm, arguments: &[&str]) -> Finished {
    let workers = fpm.workers(fpm.pool()).unwrap();
    assert_eq!(workers.len(), WORKERS);
    // The guard is not looked at here: reading takes memory of memprof's own.
    let memprof = attach_to(fpm, &[&["--max-memory", "1024"], arguments].concat()).unwrap();
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                for _ in 0..REQUESTS / WORKERS {
                    let response = fpm.get("limit.php?case=slow").unwrap();
                    assert!(response.stderr.contains("exhausted"), "{response:?}");
                }
            });
        }
    });
    let finished = memprof.stop().unwrap();
    assert_eq!(fpm.workers(fpm.pool()).unwrap(), workers);
    assert_eq!(fpm.get("environment.php").unwrap().status, 200);
    finished
}

fn start() -> Fpm {
    let mut settings = own_pool("limit-many");
    settings.pools[0].workers = WORKERS;
    settings.pools[0].memory_limit = "32M".to_owned();
    Fpm::start(PhpBuild::fetched(PhpBuild::LARAVEL).unwrap(), settings).unwrap()
}

/// Dumps at the limit, and records of those that there should be and are not.
fn counted(fpm: &Fpm, finished: &Finished) -> (usize, usize) {
    let records = finished.records().unwrap();
    assert_eq!(
        of_record(&records, "oom").len(),
        REQUESTS,
        "{}",
        finished.stderr
    );
    let failed = of_record(&records, "dump_failed");
    let written = dumps(fpm);
    let taken = with_context(&written, "oom_shutdown");
    let mut stopped: Vec<f64> = taken
        .iter()
        .map(|dump| dump["external"]["stopped_ms"].as_f64().unwrap())
        .collect();
    stopped.sort_by(f64::total_cmp);
    println!(
        "{} dumps, stopped for {} to {} ms, the median {}; {} failed; {}",
        taken.len(),
        stopped[0],
        stopped[stopped.len() - 1],
        stopped[stopped.len() / 2],
        failed.len(),
        finished.summary().unwrap()["errors"]
    );
    (taken.len(), failed.len())
}

#[test]
fn each_is_dumped_or_told() {
    let fpm = start();
    let finished = die_often(&fpm, &["--dumps-per-minute", "10000"]);
    let (taken, failed) = counted(&fpm, &finished);
    assert_eq!(taken + failed, REQUESTS);
    // A worker that nobody held in time is rare even on a machine that is full.
    assert!(taken > REQUESTS * 9 / 10, "{taken}");
}

#[test]
fn a_minute_has_no_more_dumps_than_asked_for() {
    let fpm = start();
    let finished = die_often(&fpm, &["--dumps-per-minute", "20"]);
    let (taken, failed) = counted(&fpm, &finished);
    assert_eq!(taken + failed, REQUESTS);
    assert!(dumps(&fpm).len() <= 40, "two minutes at most");
    let errors = finished.summary().unwrap()["errors"].to_string();
    assert!(
        errors.contains("dumps were taken within a minute"),
        "{errors}"
    );
}
