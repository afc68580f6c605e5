//! Builds the BPF object and the agent that carries it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use memprof_tests::target_dir;

use crate::cross::{self, cross_cargo};
use crate::run::{cargo, clean, heading, output, run};
use crate::setup::{BpfToolchain, bpf_linker};

/// The processor that is built for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// This machine's own.
    Native,
    /// arm64, from another.
    Arm64,
}

impl Target {
    /// The target of this name, as `aarch64-unknown-linux-gnu`; this machine's own where there is no name.
    pub fn named(triple: Option<&str>) -> Self {
        let foreign = std::env::consts::ARCH != "aarch64";
        match triple {
            Some(cross::TRIPLE) if foreign => Self::Arm64,
            _ => Self::Native,
        }
    }

    /// The cargo that builds for it.
    ///
    /// # Errors
    /// As [`cross_cargo`].
    pub fn cargo(self) -> Result<Command> {
        match self {
            Self::Native => Ok(cargo()),
            Self::Arm64 => cross_cargo(),
        }
    }

    /// Where cargo leaves what it builds for it.
    pub fn folder(self) -> PathBuf {
        match self {
            Self::Native => target_dir(),
            Self::Arm64 => target_dir().join(cross::TRIPLE),
        }
    }

    /// As `--cfg=bpf_target_arch` names it.
    fn architecture(self) -> &'static str {
        match self {
            Self::Native => std::env::consts::ARCH,
            Self::Arm64 => "aarch64",
        }
    }
}

/// Builds both, and gives the path of the BPF object. The agent, `release/memprof` in the target's folder, is one file that
/// needs nothing beside it.
///
/// # Errors
/// When one does not compile, or the toolchain is not there.
pub fn build(target: Target) -> Result<PathBuf> {
    heading("Building the BPF object");
    let bpf_object = build_bpf_object(target)?;
    heading("Building memprof");
    let mut agent = target.cargo()?;
    agent.args([
        "build",
        "--release",
        "--package",
        "memprof-user",
        "--features",
        "ebpf",
    ]);
    run(with_bpf(&mut agent, &bpf_object, target)?)?;
    let agent = target.folder().join("release/memprof");
    heading(&format!("Built {}", agent.display()));
    Ok(bpf_object)
}

/// Gives a cargo command what the agent's feature `ebpf` is built with.
///
/// # Errors
/// When there is no C compiler.
pub fn with_bpf<'a>(
    command: &'a mut Command,
    bpf_object: &Path,
    target: Target,
) -> Result<&'a mut Command> {
    // libbpf-sys links libelf and libz statically, and looks for them in no folder of its own.
    let folder = match target {
        Target::Native => {
            let library = output(Command::new("gcc").arg("-print-file-name=libelf.a"))?;
            let folder = Path::new(library.trim()).parent();
            folder.unwrap_or(Path::new("")).to_owned()
        }
        Target::Arm64 => cross::libraries(),
    };
    Ok(command
        .env("MEMPROF_BPF_OBJECT", bpf_object)
        .env("LIBBPF_SYS_LIBRARY_PATH", folder))
}

fn build_bpf_object(target: Target) -> Result<PathBuf> {
    let folder = match target {
        Target::Native => target_dir().join("bpf"),
        Target::Arm64 => target_dir().join("arm64/bpf"),
    };
    let mut build = match BpfToolchain::choose() {
        BpfToolchain::Rustup => rustup_nightly(),
        BpfToolchain::Debian => debian_rust(&bpf_linker()),
    };
    // The same file serves both toolchains: `--cfg` picks the layout of the probed processor's registers.
    let architecture = target.architecture();
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
    build.arg(&folder).args([
        "--package",
        "memprof-ebpf",
        "--bin",
        "memprof-ebpf",
        "--features",
        "programs",
    ]);
    run(build.env("RUSTFLAGS", flags))?;
    let object = folder.join("bpfel-unknown-none/release/memprof-ebpf");
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
