//! Builds the BPF object and the agent that carries it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use memprof_tests::{repository, target_dir};

use crate::run::{cargo, heading, output, run};
use crate::setup::{BpfToolchain, bpf_linker};

/// Builds both, and gives the path of the BPF object. The agent, `target/release/memprof`, is one file that needs nothing beside it.
///
/// # Errors
/// When one does not compile, or the toolchain is not there.
pub fn build() -> Result<PathBuf> {
    heading("Building the BPF object");
    let bpf_object = build_bpf_object()?;
    heading("Building memprof");
    let mut agent = cargo();
    agent.args([
        "build",
        "--release",
        "--package",
        "memprof-user",
        "--features",
        "ebpf",
    ]);
    run(with_bpf(&mut agent, &bpf_object)?)?;
    heading(&format!(
        "Built {}",
        target_dir().join("release/memprof").display()
    ));
    Ok(bpf_object)
}

/// Gives a cargo command what the agent's feature `ebpf` is built with.
///
/// # Errors
/// When there is no C compiler.
pub fn with_bpf<'a>(command: &'a mut Command, bpf_object: &Path) -> Result<&'a mut Command> {
    // libbpf-sys links libelf and libz statically, and looks for them in no folder of its own.
    let library = output(Command::new("gcc").arg("-print-file-name=libelf.a"))?;
    let folder = Path::new(library.trim()).parent().unwrap_or(Path::new(""));
    Ok(command
        .env("MEMPROF_BPF_OBJECT", bpf_object)
        .env("LIBBPF_SYS_LIBRARY_PATH", folder))
}

fn build_bpf_object() -> Result<PathBuf> {
    let target = target_dir().join("bpf");
    let mut build = match BpfToolchain::choose() {
        BpfToolchain::Rustup => rustup_nightly(),
        BpfToolchain::Debian => debian_rust(&bpf_linker()),
    };
    // The same file serves both toolchains: `--cfg` picks the layout of the probed processor's registers.
    let architecture = std::env::consts::ARCH;
    let flags =
        format!("-C debuginfo=2 -C link-arg=--btf --cfg=bpf_target_arch=\"{architecture}\"");
    build.args([
        "build",
        "--release",
        "-Z",
        "build-std=core",
        "--target",
        "bpfel-unknown-none",
        "--target-dir",
    ]);
    build.arg(&target).args([
        "--package",
        "memprof-ebpf",
        "--bin",
        "memprof-ebpf",
        "--features",
        "programs",
    ]);
    run(build.env("RUSTFLAGS", flags).current_dir(repository()))?;
    let object = target.join("bpfel-unknown-none/release/memprof-ebpf");
    object
        .canonicalize()
        .with_context(|| format!("cargo left no BPF object at {}", object.display()))
}

fn rustup_nightly() -> Command {
    let mut build = clean("rustup");
    build
        .args(["run", "nightly", "cargo"])
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", "bpf-linker");
    build
}

fn debian_rust(linker: &Path) -> Command {
    let mut build = clean("/usr/bin/cargo");
    build
        .env("RUSTC", "/usr/bin/rustc")
        // Building `core` from source is a nightly feature; Debian's rustc is a stable one.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    build
}

/// A command that inherits nothing of the cargo that runs this, which may be another toolchain's.
fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    for name in [
        "CARGO",
        "CARGO_ENCODED_RUSTFLAGS",
        "LD_LIBRARY_PATH",
        "RUSTC",
        "RUSTDOC",
        "RUSTUP_TOOLCHAIN",
    ] {
        command.env_remove(name);
    }
    command
}
