//! What one would do without memprof: a count on every allocation, with bpftrace.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use memprof_tests::Fpm;

use crate::run::{apt_update, heading, run};

/// A running bpftrace; it is killed when this is dropped.
pub struct Bpftrace(Child);

impl Bpftrace {
    /// Counts the calls of every `_emalloc*` of a php-fpm.
    ///
    /// # Errors
    /// When it does not attach.
    pub fn attach(fpm: &Fpm) -> Result<Self> {
        let program = format!(
            "uprobe:{}:_emalloc* {{ @[probe] = count(); }}",
            fpm.binary().display()
        );
        let child = Command::new("bpftrace")
            .args(["-e", &program])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting bpftrace")?;
        let mut bpftrace = Self(child);
        let stdout = bpftrace.0.stdout.take().context("bpftrace's output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if !line.starts_with("Attaching") {
            bail!("bpftrace did not attach: {line}");
        }
        Ok(bpftrace)
    }
}

impl Drop for Bpftrace {
    fn drop(&mut self) {
        // It has ended already where this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Installs bpftrace where it is not there.
///
/// # Errors
/// When it can't be installed.
pub fn install() -> Result<()> {
    if Command::new("bpftrace").arg("--version").output().is_ok() {
        return Ok(());
    }
    heading("Installing bpftrace, for the comparison");
    apt_update();
    run(Command::new("apt-get").args([
        "--quiet",
        "install",
        "--yes",
        "--no-install-recommends",
        "bpftrace",
    ]))
}
