//! Runs every check and every test, as CI does.

use anyhow::Result;
use memprof_tests::{PhpBuild, target_dir};

use crate::arm64;
use crate::bench;
use crate::build::{Target, build, with_bpf};
use crate::php;
use crate::run::{cargo, heading, need_root, run};
use crate::setup::{Goal, setup};

/// Sets up, builds, checks the style, and runs the unit tests and the tests against real php-fpm builds; these also on arm64, in
/// a virtual machine where this one is no arm64 machine.
///
/// # Errors
/// When any of it fails, or the last step is not run as root.
pub fn test() -> Result<()> {
    setup(Goal::Arm64, false)?;
    heading("Format");
    run(cargo().args(["fmt", "--all", "--check"]))?;
    let bpf_object = build(Target::Native)?;
    heading("Lints");
    // In release mode, because there libbpf is compiled already.
    let mut clippy = cargo();
    clippy.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--release",
        "--features",
        "memprof-user/ebpf",
    ]);
    run(with_bpf(&mut clippy, &bpf_object, Target::Native)?.args(["--", "--deny", "warnings"]))?;
    let builds: Vec<_> = PhpBuild::usual().collect();
    php::fetch(&builds)?;
    heading("Unit tests");
    let binaries = target_dir().join("php");
    run(cargo().arg("test").env("MEMPROF_PHP_BINARIES", binaries))?;
    let mut with_engine = cargo();
    with_engine.args(["test", "--package", "memprof-user", "--features", "ebpf"]);
    run(with_bpf(&mut with_engine, &bpf_object, Target::Native)?.args(["--lib", "capture"]))?;
    need_root("starting php-fpm and loading BPF programs for the integration tests")?;
    heading("The benchmark's harness");
    bench::check()?;
    heading("Integration tests");
    // One at a time: they measure, and two probed php-fpm builds share the modules they load.
    run(cargo().args([
        "test",
        "--package",
        "memprof-tests",
        "--",
        "--test-threads=1",
    ]))?;
    if std::env::consts::ARCH == "aarch64" {
        return Ok(());
    }
    arm64::test(None, &[])
}
