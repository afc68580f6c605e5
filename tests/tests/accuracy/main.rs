//! What a profile says that each function held at the high-water mark is what it did hold.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod exact;
mod generator;
mod score;
mod synthetic;
mod truth;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use generator::{Kind, MOST_OPERATIONS, Program};
use memprof_tests::attached::{attach_to, own_pool, records_folder};
use memprof_tests::fcgi::Request;
use memprof_tests::{Fpm, PhpBuild, repository};
use memprof_user::fpm::{Builds, ProcessId};
use memprof_user::record::pprof::{self, ReadProfile};
use nix::fcntl::{Flock, FlockArg};
use score::{COLUMNS, Score};
use truth::{BIN_COUNT, Truth};

/// Programs on each PHP build: six of each kind.
const PROGRAMS: u64 = 6 * Kind::ALL.len() as u64;
const LIMIT: Duration = Duration::from_secs(60);

/// A program that ran, and what it held.
struct Ran {
    kind: Kind,
    path: String,
    truth: Truth,
}

/// Where the worker's heap has its lists of free slots: right before `real_size` (7.4 to 8.5).
fn free_lists(worker: i32) -> u64 {
    let process = ProcessId::of(worker).unwrap();
    let php = Builds::default().live(process).unwrap();
    let real_size = u64::from(php.zend.heap_layout().unwrap().real_size);
    php.zend.addresses().heap + real_size - 8 * BIN_COUNT as u64
}

/// The slots that the worker's heap has free, bin by bin.
fn free_slots(worker: i32, lists: u64) -> [u64; BIN_COUNT] {
    let memory = File::open(format!("/proc/{worker}/mem")).unwrap();
    let slot_at = |address| {
        let mut bytes = [0; 8];
        memory.read_exact_at(&mut bytes, address).unwrap();
        Some(u64::from_ne_bytes(bytes)).filter(|slot| *slot != 0)
    };
    std::array::from_fn(|bin| {
        let first = slot_at(lists + 8 * bin as u64);
        // A free slot begins with the next one's address.
        std::iter::successors(first, |slot| slot_at(*slot)).count() as u64
    })
}

/// Runs a program, and looks at its heap when it is ready to begin.
fn run(fpm: &Fpm, worker: i32, lists: u64, program: &Program) -> Ran {
    let number = program.seed;
    let folder = fpm.folder().join("accuracy");
    let name = format!("program-{number}.php");
    fs::write(folder.join(&name), &program.source).unwrap();
    let path = format!("/{name}");
    let lock = format!("accuracy/lock-{number}");
    let request = Request::get(
        fpm.inside(&format!("accuracy/{name}")),
        format!("{path}?lock={}", fpm.inside(&lock)),
    );
    let lock = fpm.folder().join(lock);
    let locked = Flock::lock(File::create(&lock).unwrap(), FlockArg::LockExclusive).unwrap();
    let (response, free_slots) = thread::scope(|scope| {
        let serving = scope.spawn(|| request.send(&fpm.socket(fpm.pool())).unwrap());
        wait_until(|| lock.with_extension("ready").exists() && is_asleep(worker));
        let free_slots = free_slots(worker, lists);
        drop(locked);
        (serving.join().unwrap(), free_slots)
    });
    let log: Vec<i64> = response.json().unwrap();
    assert!(log.len() <= 4 * MOST_OPERATIONS, "seed {number}");
    let truth = Truth::of(&log, program.functions, free_slots)
        .unwrap_or_else(|error| panic!("seed {number}: {error}"));
    // What PHP takes between the operations, no function of the program is told to hold.
    assert_eq!(truth.by_php, 0, "seed {number}");
    Ran {
        kind: program.kind,
        path,
        truth,
    }
}

/// Whether it waits for something: once it has said that it is ready, for the lock.
fn is_asleep(worker: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    status.contains("State:\tS")
}

fn wait_until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "the script did not get ready");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What the profile says that each generated function held: the innermost one of a stack holds.
fn reported(profile: &ReadProfile, ran: &Ran) -> Vec<u64> {
    let mut held = vec![0; ran.truth.held.len()];
    let label = ("path".to_owned(), ran.path.clone());
    let of_program = profile.samples.iter();
    for sample in of_program.filter(|sample| sample.labels.contains(&label)) {
        let number = |name: &str| name.strip_prefix('f')?.parse::<usize>().ok();
        let mut frames = profile.stack(sample);
        if let Some(function) = frames.find_map(|frame| number(&frame.function)) {
            held[function] += sample.amounts.inuse_space;
        }
    }
    held
}

fn profile_of(fpm: &Fpm) -> ReadProfile {
    let files = fs::read_dir(records_folder(fpm)).unwrap();
    let mut paths = files.map(|file| file.unwrap().path());
    let profile = paths.find(|path| path.to_string_lossy().ends_with(".pb.gz"));
    pprof::read(File::open(profile.unwrap()).unwrap()).unwrap()
}

/// Runs the programs of these seeds on a build, and enters how far the profile is from the truth.
fn judge(build: &PhpBuild, seeds: Range<u64>, against_slots: &mut BTreeMap<Kind, Score>) {
    let mut settings = own_pool("accuracy");
    settings.pools[0].memory_limit = "2G".to_owned();
    let fpm = Fpm::start(build, settings).unwrap();
    fpm.add_folder(&repository().join("tests/apps/accuracy"), "accuracy")
        .unwrap();
    let worker = fpm.workers(fpm.pool()).unwrap()[0];
    let lists = free_lists(worker);
    let memprof = attach_to(&fpm, &["--mode", "aggressive", "--every"]).unwrap();
    println!("{}: seeds {seeds:?}", build.name);
    let kinds = Kind::ALL.iter().cycle();
    let programs = kinds
        .zip(seeds)
        .map(|(kind, seed)| Program::generate(*kind, seed));
    let all: Vec<Ran> = programs
        .map(|program| run(&fpm, worker, lists, &program))
        .collect();
    memprof.wait_for("checkpoint", all.len()).unwrap();
    let summary = memprof.stop().unwrap().summary().unwrap();
    assert_eq!(summary["events"]["lost"], 0);
    let profile = profile_of(&fpm);
    for ran in &all {
        let reported = reported(&profile, ran);
        let held = ran.truth.held.iter();
        let (slots, runs): (Vec<u64>, Vec<u64>) = held.map(|held| (held.slots, held.runs)).unzip();
        assert_eq!(reported, runs, "{} {} {:?}", build.name, ran.path, ran.kind);
        let score = against_slots.entry(ran.kind).or_default();
        score.enter(&reported, &slots);
    }
}

#[test]
fn of_generated_programs_held_is_what_they_held() {
    let mut scores = BTreeMap::new();
    let builds = PhpBuild::ALL.iter().zip(0..);
    for (build, number) in builds {
        let build = PhpBuild::fetched(build.name).unwrap();
        judge(
            build,
            number * PROGRAMS..(number + 1) * PROGRAMS,
            &mut scores,
        );
    }
    let mut all = Score::default();
    println!("| | {COLUMNS} |");
    for (kind, score) in &scores {
        println!("| {kind:?} | {score} |");
        all.add(score);
    }
    println!("| all | {all} |");
    // Slots that functions share by chance cost most; page runs and huge blocks are known.
    for (kind, score) in &scores {
        let (mean_points, least_rank) = kind.bounds();
        assert!(score.mean_points() < mean_points, "{kind:?}");
        assert!(score.mean_rank() > least_rank, "{kind:?}");
    }
}
