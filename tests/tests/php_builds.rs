//! Every PHP build starts under the harness, is the version its name says, is set up as asked, and answers.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use memprof_tests::{Fpm, Opcache, PhpBuild, Pool, Settings, User};
use serde::Deserialize;

const MIB: u64 = 1_048_576;

#[derive(Debug, Deserialize, PartialEq)]
struct Environment {
    version: String,
    opcache: bool,
    jit: bool,
    memory_limit: String,
}

#[derive(Deserialize)]
struct Memory {
    usage: u64,
    real_usage: u64,
    peak: u64,
    real_peak: u64,
    unchanged: bool,
}

fn each_build(test: impl Fn(&'static PhpBuild)) {
    for build in PhpBuild::ALL {
        println!("{}", build.name);
        test(PhpBuild::fetched(build.name).unwrap());
    }
}

fn environment(build: &PhpBuild, settings: Settings) -> Environment {
    let uid = if settings.user == User::Root {
        0
    } else {
        65_534
    };
    let fpm = Fpm::start(build, settings).unwrap();
    let worker = fpm.workers("www").unwrap()[0];
    assert_eq!(
        std::fs::metadata(format!("/proc/{worker}")).unwrap().uid(),
        uid
    );
    let environment: Environment = fpm.get("environment.php").unwrap().json().unwrap();
    let version = &environment.version;
    let expected = build.version;
    assert!(
        version == expected || version.starts_with(&format!("{expected}.")),
        "{version}"
    );
    environment
}

#[test]
fn is_set_up_as_asked() {
    each_build(|build| {
        let has_jit = !build.version.starts_with("7.");
        let jit = if has_jit { Opcache::Jit } else { Opcache::On };
        for (opcache, user) in [
            (Opcache::Off, User::Nobody),
            (Opcache::On, User::Root),
            (jit, User::Root),
        ] {
            let found = environment(
                build,
                Settings {
                    opcache,
                    user,
                    ..Settings::default()
                },
            );
            let expected = Environment {
                version: found.version.clone(),
                opcache: opcache != Opcache::Off,
                jit: opcache == Opcache::Jit,
                memory_limit: "128M".to_owned(),
            };
            assert_eq!(found, expected);
        }
    });
}

#[test]
fn answers_with_its_memory() {
    each_build(|build| {
        let fpm = Fpm::start(build, Settings::default()).unwrap();
        let go = fpm.folder().join("go");
        let uri = format!("memory.php?mb=8&file={}", fpm.inside("go"));
        let response = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| fpm.get(&uri).unwrap());
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waiting.is_finished(), "{}", fpm.log());
            std::fs::write(go, "").unwrap();
            waiting.join().unwrap()
        });
        let memory: Memory = response.json().unwrap();
        assert!(memory.unchanged);
        assert!(memory.usage > 8 * MIB && memory.usage <= memory.peak);
        assert!(memory.real_usage >= memory.usage && memory.real_usage <= memory.real_peak);
    });
}

#[test]
fn dies_of_its_memory_limit() {
    each_build(|build| {
        let mut pool = Pool::new("www");
        pool.memory_limit = "16M".to_owned();
        let settings = Settings {
            pools: vec![pool],
            ..Settings::default()
        };
        let response = Fpm::start(build, settings)
            .unwrap()
            .get("memory.php?mb=20")
            .unwrap();
        assert!(
            response
                .stderr
                .contains("Allowed memory size of 16777216 bytes exhausted"),
            "{response:?}"
        );
    });
}

#[test]
fn pools_have_their_own_workers_and_end_with_the_master() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let mut second = Pool::new("second");
    second.workers = 3;
    let settings = Settings {
        pools: vec![Pool::new("www"), second],
        ..Settings::default()
    };
    let fpm = Fpm::start(build, settings).unwrap();
    let mut pids = fpm.workers("second").unwrap();
    assert_eq!(pids.len(), 3);
    pids.extend(fpm.workers("www").unwrap());
    pids.push(fpm.master());
    assert_eq!(pids.len(), 5);
    let folder = fpm.folder().to_owned();

    drop(fpm);
    for pid in pids {
        assert!(
            !std::path::Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} is left"
        );
    }
    assert!(!folder.exists());
}
