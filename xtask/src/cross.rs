//! Cross-building for arm64: the toolchain, and the arm64 libraries that the agent is linked with.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use memprof_tests::target_dir;

use crate::apt::{Mirrors, PrivateApt};
use crate::run::{cargo, clean, heading, output};

/// What is built for.
pub const TRIPLE: &str = "aarch64-unknown-linux-gnu";
/// Debian's cross compiler for C.
const LINKER: &str = "aarch64-linux-gnu-gcc";
/// libbpf's two libraries. Those of Debian 12 need nothing further when they are linked statically.
const LIBRARIES: [&str; 2] = ["libelf-dev", "zlib1g-dev"];
const SUITES: [&str; 2] = ["bookworm", "bookworm-security"];

/// Whose Rust compiles for arm64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CrossToolchain {
    /// That of the cargo that runs this: it has the standard library for arm64.
    Own,
    /// Debian's rustc-web, with the standard library out of Debian's arm64 package of the same version.
    Debian,
}

impl CrossToolchain {
    /// Our own where it can (`rustup target add aarch64-unknown-linux-gnu`), else Debian's.
    pub fn choose() -> Self {
        let mut libraries = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
        libraries.args(["--print", "target-libdir", "--target", TRIPLE]);
        let folder = output(&mut libraries).unwrap_or_default();
        if Path::new(folder.trim()).is_dir() {
            Self::Own
        } else {
            Self::Debian
        }
    }
}

/// Where the arm64 packages for building are unpacked.
fn root() -> PathBuf {
    target_dir().join("arm64/build")
}

/// Where libelf.a and libz.a for arm64 are.
pub fn libraries() -> PathBuf {
    root().join("usr/lib/aarch64-linux-gnu")
}

/// A cargo that builds for arm64 whatever it is told to build. It fetches the libraries where they are missing.
///
/// # Errors
/// When they cannot be had.
pub fn cross_cargo() -> Result<Command> {
    let toolchain = CrossToolchain::choose();
    fetch(toolchain)?;
    let mut cargo = match toolchain {
        CrossToolchain::Own => cargo(),
        CrossToolchain::Debian => {
            let mut cargo = clean("/usr/bin/cargo");
            let flags = format!("--sysroot {}", sysroot().display());
            cargo
                .env("RUSTC", "/usr/bin/rustc")
                .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", flags);
            cargo
        }
    };
    let include = root().join("usr/include");
    let include = include.display();
    let flags = format!("-I {include} -I {include}/aarch64-linux-gnu");
    cargo
        .env("CARGO_BUILD_TARGET", TRIPLE)
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER)
        .env("CFLAGS_aarch64_unknown_linux_gnu", flags);
    Ok(cargo)
}

fn sysroot() -> PathBuf {
    target_dir().join("arm64/sysroot")
}

/// Unpacks the arm64 packages, unless those of this recipe are there.
fn fetch(toolchain: CrossToolchain) -> Result<()> {
    let mut packages = LIBRARIES.map(str::to_owned).to_vec();
    if toolchain == CrossToolchain::Debian {
        let mut query = Command::new("dpkg-query");
        query.args(["--show", "--showformat", "${Version}", "rustc-web"]);
        // Crates of one compiler are of no use to another.
        packages.push(format!("libstd-rust-web-dev={}", output(&mut query)?));
    }
    let recipe = packages.join("\n");
    let recipe_file = root().join("recipe.txt");
    if fs::read_to_string(&recipe_file).is_ok_and(|found| found == recipe) {
        return Ok(());
    }
    heading(&format!(
        "To be unpacked into {}, from Debian arm64: {}",
        root().display(),
        packages.join(" ")
    ));
    for folder in [root(), sysroot()] {
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("removing the old {}", folder.display()))?;
        }
    }
    let apt = PrivateApt::create(
        target_dir().join("arm64/build.download"),
        &SUITES,
        Some("arm64"),
        &Mirrors::of_this_machine()?,
    )?;
    let names: Vec<&str> = packages.iter().map(String::as_str).collect();
    apt.unpack_alone(&names, &root())?;
    if toolchain == CrossToolchain::Debian {
        join_sysroot()?;
    }
    fs::write(&recipe_file, recipe).with_context(|| format!("writing {}", recipe_file.display()))
}

/// A sysroot of links: the machine's own standard library, and that for arm64.
fn join_sysroot() -> Result<()> {
    let rustlib = sysroot().join("lib/rustlib");
    fs::create_dir_all(&rustlib)?;
    let own = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    for (triple, root) in [(own.as_str(), PathBuf::from("/")), (TRIPLE, root())] {
        let folder = root.join("usr/lib/rustlib").join(triple);
        symlink(&folder, rustlib.join(triple))
            .with_context(|| format!("linking {}", folder.display()))?;
    }
    Ok(())
}
