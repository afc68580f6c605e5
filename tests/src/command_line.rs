//! A php of the command line, of the builds whose php-fpm is tested.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{PhpBuild, Source};

/// A running script; it is killed when this is dropped.
#[derive(Debug)]
pub struct CommandLine(pub Child);

impl CommandLine {
    /// Runs a script, by its path as that PHP sees it, under a memory_limit of 128M; its output is piped.
    ///
    /// # Errors
    /// When the build is one that is not run, or cannot be started.
    pub fn start(build: &PhpBuild, script: &str, arguments: &[&str]) -> Result<Self> {
        let folder = build.folder();
        let mut command = match build.source {
            Source::Debian { .. } => {
                let mut chroot = Command::new("/usr/sbin/chroot");
                chroot
                    .arg(&folder)
                    .arg(format!("/usr/bin/php{}", build.version));
                // json is a module in Debian's 7.4; only php-fpm's modules are set up.
                let modules = format!("/etc/php/{}/fpm/conf.d", build.version);
                chroot.env("PHP_INI_SCAN_DIR", modules);
                chroot
            }
            Source::Npm { .. } => {
                let mut php = Command::new(folder.join("native/php/php"));
                php.env("LD_LIBRARY_PATH", folder.join("native/lib"));
                // Its php.ini wants modules in the place where its authors keep them.
                php.arg("-n");
                php
            }
            Source::DebianBinary { .. } => bail!("{} is only decoded, not run", build.name),
        };
        command.args(["-d", "memory_limit=128M", "-d", "display_errors=0"]);
        command.arg(script).args(arguments).stdout(Stdio::piped());
        let child = command
            .spawn()
            .with_context(|| format!("starting the php of {}", build.name))?;
        Ok(Self(child))
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for CommandLine {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
