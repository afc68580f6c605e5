//! Runs every check and every test, as CI does.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use memprof_tests::PhpBuild;

use crate::build::build;
use crate::php;
use crate::run::{cargo, heading, need_root, run};
use crate::setup::setup;

/// Sets up, builds, checks the style, and runs the unit tests and the tests against real php-fpm builds.
///
/// # Errors
/// When any of it fails, or the last step is not run as root.
pub fn test() -> Result<()> {
    setup(false)?;
    heading("Format");
    run(cargo().args(["fmt", "--all", "--check"]))?;
    let bpf_object = build()?;
    heading("Lints");
    run(&mut clippy(&bpf_object))?;
    heading("Unit tests");
    run(cargo().arg("test"))?;
    php::fetch(&PhpBuild::ALL.iter().collect::<Vec<_>>())?;
    need_root("starting php-fpm and loading BPF programs for the integration tests")?;
    heading("Integration tests");
    // One at a time: they measure, and two probed php-fpm builds share the modules they load.
    run(cargo().args([
        "test",
        "--package",
        "memprof-tests",
        "--",
        "--test-threads=1",
    ]))
}

/// In release mode, because there libbpf is compiled already.
fn clippy(bpf_object: &Path) -> Command {
    let mut clippy = cargo();
    clippy.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--release",
        "--features",
        "memprof-user/ebpf",
    ]);
    clippy
        .args(["--", "--deny", "warnings"])
        .env("MEMPROF_BPF_OBJECT", bpf_object);
    clippy
}
