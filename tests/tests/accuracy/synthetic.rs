//! Small programs that a person wrote, each with a file of expectations beside it: which stacks hold which share.

use std::fs;
use std::path::Path;

use memprof_tests::attached::{attach_to, own_pool};
use memprof_tests::fcgi::Request;
use memprof_tests::{Fpm, PhpBuild, repository};
use memprof_user::record::pprof::ReadProfile;
use serde::Deserialize;

use crate::profile_of;

/// What stands for the stack where no PHP code runs: what PHP takes for itself when a request starts.
const NO_PHP_CODE: &str = "[no PHP code]";

/// What a program's file of expectations is a list of.
#[derive(Debug, Deserialize)]
struct Expectation {
    /// Functions that stand on the stack one behind the other, the innermost first.
    stack: Vec<String>,
    /// Of all that PHP code holds at the high-water mark.
    share: f64,
    /// By how much it may be off.
    margin: f64,
}

impl Expectation {
    /// The share that the profile has of it.
    fn found(&self, profile: &ReadProfile, path: &str) -> f64 {
        let label = ("path".to_owned(), path.to_owned());
        let (mut all, mut matching) = (0, 0);
        for sample in profile
            .samples
            .iter()
            .filter(|sample| sample.labels.contains(&label))
        {
            let frames = profile.stack(sample);
            let functions: Vec<&str> = frames.map(|frame| frame.function.as_str()).collect();
            if functions == [NO_PHP_CODE] {
                continue;
            }
            all += sample.amounts.inuse_space;
            let mut parts = functions.windows(self.stack.len());
            if parts.any(|part| part == self.stack) {
                matching += sample.amounts.inuse_space;
            }
        }
        matching as f64 / all as f64
    }
}

#[test]
fn of_synthetic_programs_each_stack_holds_the_share_that_is_expected() {
    let folder = repository().join("tests/apps/accuracy/programs");
    let programs: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "php"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert!(!programs.is_empty());
    for build in PhpBuild::ALL {
        let build = PhpBuild::fetched(build.name).unwrap();
        let fpm = Fpm::start(build, own_pool("synthetic")).unwrap();
        fpm.add_folder(&folder, "programs").unwrap();
        let memprof = attach_to(&fpm, &["--mode", "aggressive", "--every"]).unwrap();
        for program in &programs {
            let script = fpm.inside(&format!("programs/{program}.php"));
            let request = Request::get(script, format!("/{program}"));
            let response = request.send(&fpm.socket(fpm.pool())).unwrap();
            assert_eq!(
                (response.status, response.text().as_str()),
                (200, ""),
                "{program}"
            );
        }
        memprof.wait_for("checkpoint", programs.len()).unwrap();
        memprof.stop().unwrap();
        let profile = profile_of(&fpm);
        for program in &programs {
            for expectation in expectations(&folder, program) {
                let found = expectation.found(&profile, &format!("/{program}"));
                println!(
                    "{} {program} {:?}: {found:.4}",
                    build.name, expectation.stack
                );
                let off = (found - expectation.share).abs();
                assert!(
                    off <= expectation.margin,
                    "{program}: {found} of {expectation:?}"
                );
            }
        }
    }
}

fn expectations(folder: &Path, program: &str) -> Vec<Expectation> {
    let file = folder.join(format!("{program}.json"));
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{program}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{program}: {error}"))
}
