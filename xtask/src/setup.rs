//! Installs what building and testing need, after saying what.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use memprof_tests::target_dir;

use crate::cross::CrossToolchain;
use crate::run::{apt_update, cargo, heading, need_root, output, run};

/// What the agent's C part (libbpf, libelf, zlib) is compiled with and from.
const AGENT_PACKAGES: &[&str] = &[
    "gcc",
    "libc6-dev",
    "libelf-dev",
    "make",
    "pkg-config",
    "zlib1g-dev",
];

/// A Rust with the source of `core` and the LLVM it was built with. bpf-linker links that LLVM, which is C++.
const BPF_PACKAGES: &[&str] = &[
    "cargo-web",
    "g++",
    "llvm-22-dev",
    "rust-web-src",
    "rustc-web",
];
/// The cross compiler for arm64, and what the files of the virtual machine are made with.
const ARM64_PACKAGES: &[&str] = &[
    "cpio",
    "e2fsprogs",
    "gcc-aarch64-linux-gnu",
    "kmod",
    "libc6-dev-arm64-cross",
];
const LLVM: &str = "/usr/lib/llvm-22";
const BPF_LINKER_VERSION: &str = "0.13.0";

/// What compiles the BPF object: it needs `core` from source and a linker of the same LLVM.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum BpfToolchain {
    /// rustup's nightly with rust-src, and a bpf-linker on the PATH.
    Rustup,
    /// Debian's rustc-web, and a bpf-linker of our own in `target/tools`.
    Debian,
}

impl BpfToolchain {
    /// rustup's where it is whole, else Debian's.
    pub fn choose() -> Self {
        let mut components = Command::new("rustup");
        components.args(["component", "list", "--installed", "--toolchain", "nightly"]);
        let has_source = output(&mut components)
            .is_ok_and(|list| list.lines().any(|line| line.starts_with("rust-src")));
        let has_linker = output(Command::new("bpf-linker").arg("--version")).is_ok();
        if has_source && has_linker {
            Self::Rustup
        } else {
            Self::Debian
        }
    }
}

/// Where our own bpf-linker is.
pub fn bpf_linker() -> PathBuf {
    target_dir().join("tools/bin/bpf-linker")
}

/// What is to be possible afterwards.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Building and testing for this machine's processor.
    Native,
    /// The same, and for arm64 in a virtual machine.
    Arm64,
}

/// Installs what is missing; with `check` says what is missing and fails.
///
/// # Errors
/// When something is missing and `check` is set, when this is no Debian, no root, or when an installation fails.
pub fn setup(goal: Goal, check: bool) -> Result<()> {
    let packages = missing_packages(goal)?;
    let linker = BpfToolchain::choose() == BpfToolchain::Debian && !bpf_linker().is_file();
    if packages.is_empty() && !linker {
        return Ok(());
    }
    if !packages.is_empty() {
        heading(&format!(
            "To be installed from Debian: {}",
            packages.join(" ")
        ));
    }
    if linker {
        let folder = target_dir().join("tools");
        heading(&format!(
            "To be built from crates.io into {}: bpf-linker {BPF_LINKER_VERSION}",
            folder.display()
        ));
    }
    if check {
        bail!("the above is missing: run `cargo xtask setup`");
    }
    if !packages.is_empty() {
        install(&packages)?;
    }
    if linker {
        build_bpf_linker()?;
    }
    Ok(())
}

fn missing_packages(goal: Goal) -> Result<Vec<&'static str>> {
    let mut wanted = AGENT_PACKAGES.to_vec();
    if BpfToolchain::choose() == BpfToolchain::Debian {
        wanted.extend(BPF_PACKAGES);
    }
    if goal == Goal::Arm64 {
        wanted.extend(ARM64_PACKAGES);
        if CrossToolchain::choose() == CrossToolchain::Debian {
            wanted.extend(["cargo-web", "rustc-web"]);
        }
    }
    // npm may have come another way than as Debian's package, which would not fit beside that.
    if Command::new("npm").arg("--version").output().is_err() {
        wanted.push("npm");
    }
    wanted.sort_unstable();
    wanted.dedup();
    let mut query = Command::new("dpkg-query");
    query
        .args(["--show", "--showformat", "${db:Status-Status} ${Package}\n"])
        .args(&wanted);
    // It fails when it knows one of them not at all; the others are listed all the same.
    let listing = query.output().with_context(|| {
        let names = wanted.join(" ");
        format!("there is no dpkg: this sets up Debian only; elsewhere install the equals of {names} by hand")
    })?;
    let listing = String::from_utf8_lossy(&listing.stdout);
    let installed: Vec<_> = listing
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .collect();
    wanted.retain(|package| !installed.contains(package));
    Ok(wanted)
}

fn install(packages: &[&str]) -> Result<()> {
    need_root("installing Debian packages")?;
    apt_update();
    let mut install = Command::new("apt-get");
    install
        .args(["--quiet", "--yes", "--no-install-recommends", "install"])
        .args(packages);
    run(install.env("DEBIAN_FRONTEND", "noninteractive"))
        .context("Debian 12 has rustc-web 1.96 and llvm-22-dev in bookworm-security: is it among the sources in /etc/apt?")
}

fn build_bpf_linker() -> Result<()> {
    let mut install = cargo();
    install.args([
        "install",
        "bpf-linker",
        "--version",
        BPF_LINKER_VERSION,
        "--locked",
    ]);
    install
        .args(["--no-default-features", "--features", "llvm-22", "--root"])
        .arg(target_dir().join("tools"));
    let path = std::env::var("PATH").unwrap_or_default();
    run(install
        .env("LLVM_PREFIX", LLVM)
        .env("PATH", format!("{LLVM}/bin:{path}")))
}
