//! What light and exact mode and the fallback for old kernels see is what the requests did.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs::{self, File};
use std::thread;

use memprof_tests::attached::{External, Growth, attach_to, own_pool, records_folder};
use memprof_tests::{Fpm, Opcache, PhpBuild, Settings};
use memprof_user::record::pprof::read;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Answer {
    pid: i32,
    peak: u64,
}

#[test]
fn light_records_a_share_and_sees_every_peak() {
    const REQUESTS: usize = 300;
    const WORKERS: usize = 2;
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let mut settings = own_pool("light");
    settings.pools[0].workers = WORKERS;
    let fpm = Fpm::start(build, settings).unwrap();
    // Every peak is above 1 MiB.
    let memprof = attach_to(&fpm, &["--sample-rate", "0.05", "--warning", "1"]).unwrap();
    let mut peaks: Vec<(i32, u64)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..WORKERS)
            .map(|_| {
                scope.spawn(|| -> Vec<(i32, u64)> {
                    (0..REQUESTS / WORKERS)
                        .map(|number| {
                            let uri = format!("worker.php?ms=10&mb={}", number % 20);
                            let answer: Answer = fpm.get(&uri).unwrap().json().unwrap();
                            (answer.pid, answer.peak)
                        })
                        .collect()
                })
            })
            .collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    });
    let lines = memprof.wait_for("checkpoint", REQUESTS).unwrap();
    let summary = memprof.stop().unwrap().summary().unwrap();
    assert_eq!(summary["requests_seen"], REQUESTS);
    let mut seen: Vec<(i32, u64)> = Vec::new();
    let mut recorded = 0;
    for line in &lines {
        let external = External::of(line).unwrap();
        assert_eq!(external.recorded, external.growth.is_some());
        recorded += usize::from(external.recorded);
        let end = external.at("request_end").unwrap();
        seen.push((external.pid, end.peak_bytes));
        // A request of which growth was recorded was recorded from its start.
        if let Some(growth) = external.growth {
            assert_eq!(growth.unattributed_at_peak_bytes, Some(0));
        }
    }
    peaks.sort_unstable();
    seen.sort_unstable();
    assert_eq!(seen, peaks);
    println!("{recorded} of {REQUESTS} recorded in full");
    assert_eq!(summary["requests_recorded"], recorded);
    // 15 are expected; the gaps between them are random, from 0 to 40 requests.
    assert!((5..=30).contains(&recorded), "{recorded}");
}

#[test]
fn exact_counts_every_allocation() {
    const STRINGS: u64 = 5000;
    /// What str_repeat asks for: a string of 1000 bytes with 24 before and a zero behind, in words.
    const STRING_BYTES: u64 = 1032;
    let builds = PhpBuild::ALL.iter().map(|build| (build, Opcache::On));
    // Without opcache each request has functions of its own.
    let laravel = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    for (build, opcache) in builds.chain([(laravel, Opcache::Off)]) {
        let settings = Settings {
            opcache,
            ..own_pool("exact")
        };
        let fpm = Fpm::start(build, settings).unwrap();
        let uri = format!("strings.php?count={STRINGS}");
        fpm.get(&uri).unwrap();
        let memprof = attach_to(&fpm, &["--mode", "exact", "--duration", "1m", "--every"]).unwrap();
        fpm.get(&uri).unwrap();
        fpm.get(&uri).unwrap();
        memprof.wait_for("checkpoint", 2).unwrap();
        let finished = memprof.stop().unwrap();
        assert!(finished.status.success());
        let cost = "exact mode stops the workers at every allocation";
        assert!(finished.stderr.contains(cost), "{}", finished.stderr);

        let (mut calls, mut bytes) = (0, 0);
        let profile = read(File::open(profile_of(&fpm)).unwrap()).unwrap();
        for sample in &profile.samples {
            let functions: Vec<&str> = profile
                .stack(sample)
                .map(|frame| frame.function.as_str())
                .collect();
            if functions.starts_with(&["str_repeat", "make"]) {
                calls += sample.amounts.alloc_objects;
                bytes += sample.amounts.alloc_space;
            }
        }
        println!("{}: {calls} calls, {bytes} bytes", build.name);
        assert_eq!((calls, bytes), (2 * STRINGS, 2 * STRINGS * STRING_BYTES));
    }
}

fn profile_of(fpm: &Fpm) -> std::path::PathBuf {
    let files = fs::read_dir(records_folder(fpm)).unwrap();
    let mut paths = files.map(|file| file.unwrap().path());
    let profile = paths.find(|path| path.to_string_lossy().ends_with(".pb.gz"));
    profile.unwrap()
}

#[test]
fn single_probes_see_the_same_growth() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    for case in ["keep", "collect", "shrink"] {
        let growth_with = |arguments: &[&str]| -> Growth {
            // A heap of the same past each time.
            let fpm = Fpm::start(build, own_pool("single")).unwrap();
            let uri = format!("growth.php?case={case}");
            fpm.get(&uri).unwrap();
            let arguments = [&["--mode", "aggressive", "--every"], arguments].concat();
            let memprof = attach_to(&fpm, &arguments).unwrap();
            fpm.get(&uri).unwrap();
            let lines = memprof.wait_for("checkpoint", 1).unwrap();
            memprof.stop().unwrap();
            let mut growth = External::of(&lines[0]).unwrap().growth.unwrap();
            for share in &mut growth.top {
                let folder = fpm.inside("");
                for frame in &mut share.stack {
                    *frame = frame.replace(&folder, "");
                }
            }
            growth
        };
        let several = growth_with(&[]);
        assert!(several.taken_bytes > 0 && !several.top.is_empty());
        assert_eq!(growth_with(&["--single-uprobes"]), several, "{case}");
    }
}
