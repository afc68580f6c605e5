//! The same at statements of Laravel's pages that are drawn at random: all code of the application and of the framework is
//! run with `declare(ticks=1)`, and the tick function takes a block and writes what PHP says.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use memprof_tests::attached::{UNGUARDED, own_pool};
use memprof_tests::fcgi::{Cookies, Request};
use memprof_tests::{Fpm, Laravel, Memprof, Opcache, PhpBuild, Settings};
use memprof_user::record::frame::Frame;

use crate::backtrace::Answer;
use crate::profile;

/// Points that are compared at least, with opcache and without.
const POINTS: usize = 1000;
/// One statement in so many is a point.
const SHARE: u32 = 500;
const PAGES: [&str; 3] = ["/t/login/1", "/admin", "/t/calls"];

/// Makes every statement of the PHP files below a folder call the tick functions; lines stay where they are.
fn add_ticks(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_ticks(&path);
        } else if path.extension().is_some_and(|end| end == "php") {
            let code = fs::read(&path).unwrap();
            if let Some(rest) = code.strip_prefix(b"<?php\n") {
                fs::write(&path, [b"<?php declare(ticks=1);\n", rest].concat()).unwrap();
            }
        }
    }
}

fn check(opcache: Opcache) {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let settings = Settings {
        opcache,
        ..own_pool("ticks")
    };
    let fpm = Fpm::start(build, settings).unwrap();
    Laravel::install(&fpm, fpm.pool()).unwrap();
    fpm.add_folder(&build.folder().join("usr/share/php"), "library")
        .unwrap();
    for folder in ["library", "laravel/app", "laravel/routes"] {
        add_ticks(&fpm.folder().join(folder));
    }
    let out = fpm.folder().join("out").display().to_string();
    let arguments = ["--pool", fpm.pool(), "--mode", "aggressive", "--out", &out];
    let memprof = Memprof::attach(&[&arguments[..], &UNGUARDED.concat()].concat()).unwrap();

    let mut expected: HashMap<Vec<Frame>, u64> = HashMap::new();
    let mut cookies = Cookies::default();
    let (mut points, mut seed) = (0, 0);
    while points < POINTS {
        seed += 1;
        let page = PAGES[seed % PAGES.len()];
        let file = fpm.inside(&format!("answers-{seed}"));
        let uri = format!("{page}?seed={seed}&share={SHARE}&file={file}");
        let request = Request::get(fpm.inside("laravel/public/ticked.php"), uri);
        let response = cookies
            .send_with(request)
            .send(&fpm.socket(fpm.pool()))
            .unwrap();
        cookies.keep(&response);
        // Laravel works on when its answer is sent; a worker that answers again has ended the request before.
        fpm.get("environment.php").unwrap();
        let file = fpm.folder().join(format!("answers-{seed}"));
        for line in fs::read_to_string(file).unwrap().lines() {
            let answer: Answer = serde_json::from_str(line).unwrap();
            *expected.entry(answer.frames()).or_default() += 1;
            points += 1;
        }
    }
    assert!(memprof.stop().unwrap().status.success());

    let mut found: HashMap<Vec<Frame>, u64> = HashMap::new();
    let profile = profile(&fpm);
    for sample in &profile.samples {
        let frames: Vec<Frame> = profile.stack(sample).cloned().collect();
        let functions = frames.iter().map(|frame| frame.function.as_str());
        if functions.take(2).eq(["str_repeat", "at_random_statement"]) {
            *found.entry(frames).or_default() += sample.amounts.alloc_objects;
        }
    }
    println!(
        "{opcache:?}: {points} points on {seed} pages, {} different stacks, {} frames at most",
        expected.len(),
        expected.keys().map(Vec::len).max().unwrap()
    );
    for (frames, count) in &expected {
        assert_eq!(found.get(frames), Some(count), "{frames:?}");
    }
    assert_eq!(found.values().sum::<u64>(), points as u64);
}

#[test]
fn equal_debug_backtrace_at_random_statements_of_laravel() {
    check(Opcache::On);
    check(Opcache::Off);
}
