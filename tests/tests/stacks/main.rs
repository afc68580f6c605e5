//! The frames of a profile are those of `debug_backtrace()` at the same point: function, class, file and line.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod backtrace;
mod pages;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::thread;

use backtrace::Answer;
use memprof_tests::attached::UNGUARDED;
use memprof_tests::fcgi::Request;
use memprof_tests::{Fpm, Memprof, Opcache, PhpBuild, Pool, Settings};
use memprof_user::record::frame::Frame;
use memprof_user::record::pprof::{self, ReadProfile};
use serde::Deserialize;

/// What the cases take at least, in bytes; nothing else in their requests is as large.
const SMALLEST_BLOCK: u64 = 5 << 20;
/// By how much the blocks of a request differ: more than what PHP takes with them, a string's header and the node of
/// the heap's list, which may need a new page run.
const STEP: u64 = 64 << 10;
/// Compiles what runs once; the defaults wait for 64 loops and 127 calls.
const EAGER_JIT: [(&str, &str); 4] = [
    ("opcache.jit_hot_loop", "1"),
    ("opcache.jit_hot_func", "1"),
    ("opcache.jit_hot_return", "1"),
    ("opcache.jit_hot_side_exit", "1"),
];

/// What `index.php` answers without a case.
#[derive(Deserialize)]
struct Overview {
    cases: Vec<String>,
    /// Machine code of opcache's compiler.
    compiled_bytes: u64,
}

/// A block, its bytes in whole steps, and the stack that took it.
#[derive(Debug, PartialEq)]
struct Held {
    bytes: u64,
    frames: Vec<Frame>,
}

impl From<&Answer> for Held {
    fn from(answer: &Answer) -> Self {
        Self {
            bytes: answer.bytes,
            frames: answer.frames(),
        }
    }
}

/// A php-fpm, the agent on it, and what PHP has answered so far.
struct Run {
    fpm: Fpm,
    memprof: Memprof,
    asked: usize,
    /// By the request's path.
    answers: BTreeMap<String, Vec<Answer>>,
}

impl Run {
    fn start(build: &PhpBuild, opcache: Opcache, workers: usize) -> Self {
        let ini: &[(&str, &str)] = if opcache == Opcache::Jit {
            &EAGER_JIT
        } else {
            &[]
        };
        let pool = Pool {
            workers,
            memory_limit: "256M".to_owned(),
            ..Pool::new("www")
        };
        let settings = Settings {
            pools: vec![pool],
            opcache,
            ini: ini
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Settings::default()
        };
        let fpm = Fpm::start(build, settings).unwrap();
        let out = fpm.folder().join("out").display().to_string();
        let mut arguments = vec!["--mode", "aggressive", "--every", "--out", &out];
        // By process id, so that no other php-fpm of this machine is met.
        let pids: Vec<_> = fpm.workers("www").unwrap();
        let pids: Vec<_> = pids.iter().map(i32::to_string).collect();
        for pid in &pids {
            arguments.extend(["--pid", pid]);
        }
        let memprof = Memprof::attach(&[&arguments[..], &UNGUARDED.concat()].concat()).unwrap();
        Self {
            fpm,
            memprof,
            asked: 0,
            answers: BTreeMap::new(),
        }
    }

    fn overview(&self) -> Overview {
        self.fpm.get("stacks/index.php").unwrap().json().unwrap()
    }

    /// The request of a case, under a path of its own, and the file that PHP will write its answers to.
    fn request(&mut self, case: &str, parameters: &str) -> (Request, String) {
        self.asked += 1;
        let path = format!("/{case}/{}", self.asked);
        let file = self.fpm.inside(&format!("answers-{}", self.asked));
        let request = Request::get(
            self.fpm.inside("scripts/stacks/index.php"),
            format!("{path}?case={case}&file={file}{parameters}"),
        );
        (request, path)
    }

    fn keep_answers(&mut self, path: String) {
        let number = path.rsplit('/').next().unwrap();
        let file = self.fpm.folder().join(format!("answers-{number}"));
        let lines = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
        let answers = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        self.answers.insert(path, answers);
    }

    fn ask(&mut self, case: &str, parameters: &str) {
        let (request, path) = self.request(case, parameters);
        request.send(&self.fpm.socket("www")).unwrap();
        self.keep_answers(path);
    }

    /// Two requests that run at the same time, and so in two workers.
    fn ask_both(&mut self, case: &str, names: [&str; 2]) {
        let (first, second) = (self.asked + 1, self.asked + 2);
        let answers = |number| self.fpm.inside(&format!("answers-{number}"));
        let until = [answers(second), answers(first)];
        let socket = self.fpm.socket("www");
        let requests = [0, 1].map(|index| {
            let (name, until) = (names[index], &until[index]);
            self.request(case, &format!("&name={name}&until={until}"))
        });
        thread::scope(|scope| {
            for (request, _) in &requests {
                scope.spawn(|| request.send(&socket).unwrap());
            }
        });
        for (_, path) in requests {
            self.keep_answers(path);
        }
    }

    /// Ends the agent, and compares; what differs, for people.
    fn differences(self) -> Vec<String> {
        // A worker that answers has ended the request before.
        for _ in 0..self.fpm.workers("www").unwrap().len() {
            self.overview();
        }
        let finished = self.memprof.stop().unwrap();
        assert!(finished.status.success(), "{}", finished.stderr);
        let profile = profile(&self.fpm);
        let mut differences = Vec::new();
        for (path, answers) in &self.answers {
            assert!(!answers.is_empty(), "{path} took nothing");
            let expected: Vec<_> = answers.iter().map(Held::from).collect();
            let found = stacks(&profile, path);
            if found != expected {
                differences.push(difference(path, &expected, &found));
            }
        }
        differences
    }
}

fn profile(fpm: &Fpm) -> ReadProfile {
    let files = fs::read_dir(fpm.folder().join("out")).unwrap();
    let mut profiles = files
        .map(|file| file.unwrap().path())
        .filter(|file| file.extension().is_some_and(|end| end == "gz"));
    let file = profiles.next().unwrap();
    assert_eq!(profiles.next(), None);
    pprof::read(fs::File::open(file).unwrap()).unwrap()
}

/// What held a block in the requests of this path, the smallest first.
fn stacks(profile: &ReadProfile, path: &str) -> Vec<Held> {
    let label = ("path".to_owned(), path.to_owned());
    let samples = profile.samples.iter();
    let mut held: Vec<_> = samples
        .filter(|sample| sample.labels.contains(&label))
        .map(|sample| Held {
            bytes: sample.amounts.inuse_space / STEP * STEP,
            frames: profile.stack(sample).cloned().collect(),
        })
        .filter(|held| held.bytes >= SMALLEST_BLOCK)
        .collect();
    held.sort_by_key(|held| held.bytes);
    held
}

fn difference(path: &str, expected: &[Held], found: &[Held]) -> String {
    let mut text = format!("{path}: {} of {}\n", found.len(), expected.len());
    for (who, side, other) in [("PHP", expected, found), ("memprof", found, expected)] {
        for held in side.iter().filter(|held| !other.contains(held)) {
            writeln!(text, "  only {who} has {} bytes:", held.bytes).unwrap();
            for frame in &held.frames {
                let (file, line) = (frame.file.as_deref(), frame.line);
                writeln!(text, "    {} {file:?} {line:?}", frame.function).unwrap();
            }
        }
    }
    text
}

fn each_build(mut test: impl FnMut(&'static PhpBuild)) {
    for build in PhpBuild::ALL {
        test(PhpBuild::fetched(build.name).unwrap());
    }
}

fn check_all_cases(opcache: Opcache, rounds: usize) {
    let mut failed = String::new();
    each_build(|build| {
        if opcache == Opcache::Jit && build.version.starts_with("7.") {
            return;
        }
        let mut run = Run::start(build, opcache, 1);
        let Overview {
            cases,
            compiled_bytes,
        } = run.overview();
        assert_eq!(
            cases.iter().any(|case| case == "fiber"),
            build.version >= "8.1"
        );
        for _ in 0..rounds {
            for case in &cases {
                run.ask(case, "&name=evaluated");
            }
        }
        let has_compiled = run.overview().compiled_bytes > compiled_bytes;
        assert_eq!(has_compiled, opcache == Opcache::Jit);
        println!("{}: {} cases", build.name, cases.len());
        for difference in run.differences() {
            writeln!(failed, "{}: {difference}", build.name).unwrap();
        }
    });
    assert!(failed.is_empty(), "{failed}");
}

#[test]
fn equal_debug_backtrace_without_opcache() {
    check_all_cases(Opcache::Off, 2);
}

#[test]
fn equal_debug_backtrace_with_opcache() {
    check_all_cases(Opcache::On, 2);
}

#[test]
fn equal_debug_backtrace_with_jit() {
    check_all_cases(Opcache::Jit, 3);
}

#[test]
fn what_lies_at_equal_addresses_keeps_its_names() {
    each_build(|build| {
        let mut run = Run::start(build, Opcache::Off, 2);
        for names in [["one", "two"], ["six", "ten"], ["two", "one"]] {
            run.ask_both("evaluated_function", names);
        }
        assert_eq!(run.differences(), [""; 0], "{}", build.name);
    });
}
