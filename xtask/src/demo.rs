//! Shows memprof at work: a php-fpm of its own, the Laravel test application, real requests.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use memprof_tests::{Finished, Fpm, Laravel, Memprof, PhpBuild, Pool, Settings, target_dir};

use crate::build::{Target, build};
use crate::php;
use crate::run::{heading, need_root};
use crate::setup::{Goal, setup};

/// Not `www`: that is the name of the pool that a php-fpm of the machine itself may have.
const POOL: &str = "memprof-demo";
/// The first requests compile PHP files and views, which is not what a warm server does.
const WARM_UPS: usize = 3;
const ROUNDS: usize = 10;

/// Builds memprof, attaches it to a php-fpm pool that serves Laravel, and prints what it found.
///
/// # Errors
/// When anything cannot be installed, built or started, and when memprof fails.
pub fn demo() -> Result<()> {
    need_root("starting php-fpm and loading BPF programs")?;
    setup(Goal::Native, false)?;
    build(Target::Native)?;
    let php = PhpBuild::named(PhpBuild::LARAVEL)?;
    php::fetch(&[php])?;

    heading("Starting php-fpm with the Laravel test application");
    let settings = Settings {
        pools: vec![Pool::new(POOL)],
        ..Settings::default()
    };
    let fpm = Fpm::start(php, settings)?;
    let mut laravel = Laravel::install(&fpm, POOL)?;
    for _ in 0..WARM_UPS {
        visit(&mut laravel)?;
    }

    let records = target_dir().join("demo");
    let finished = record(&mut laravel, &records)?;
    eprint!("{}", finished.stderr);
    if !finished.status.success() {
        bail!("memprof ended with {}", finished.status);
    }
    heading(&format!("The records are in {}", records.display()));
    Ok(())
}

fn record(laravel: &mut Laravel, records: &Path) -> Result<Finished> {
    if records.exists() {
        fs::remove_dir_all(records)
            .with_context(|| format!("removing the last demo's {}", records.display()))?;
    }
    fs::create_dir_all(records).with_context(|| format!("making {}", records.display()))?;
    let out = records.display().to_string();
    let arguments = [
        "--pool",
        POOL,
        "--mode",
        "aggressive",
        "--every",
        "--out",
        &out,
    ];
    heading(&format!("memprof attach {}", arguments.join(" ")));
    let memprof = Memprof::attach(&arguments)?;
    heading(&format!("{ROUNDS} times: /t/login/1, /admin, /t/calls"));
    for _ in 0..ROUNDS {
        visit(laravel)?;
    }
    memprof.stop()
}

fn visit(laravel: &mut Laravel) -> Result<()> {
    for uri in ["/t/login/1?perm=580", "/admin", "/t/calls"] {
        laravel.get(uri)?;
    }
    Ok(())
}
