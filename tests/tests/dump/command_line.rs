//! A php of the command line, of the same builds.

use std::fs;
use std::process::{Child, Command, Stdio};

use memprof_tests::{Fpm, Opcache, PhpBuild, Source};
use serde_json::Value;

use crate::script::{Facts, Taken, check, settings, wait_until_held};

/// A php of the command line.
struct CommandLine(Child);

impl CommandLine {
    /// Runs a script in the folder of `fpm`.
    fn start(build: &PhpBuild, fpm: &Fpm, argument: &str) -> Self {
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
            Source::DebianBinary { .. } => unreachable!("a build that is run"),
        };
        command.args(["-d", "memory_limit=128M", "-d", "display_errors=0"]);
        command.arg(fpm.inside("scripts/dump.php")).arg(argument);
        Self(command.stdout(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for CommandLine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_php_of_the_command_line_is_what_it_says_itself() {
    for build in PhpBuild::ALL {
        println!("{}", build.name);
        let build = PhpBuild::fetched(build.name).unwrap();
        let fpm = Fpm::start(build, settings(Opcache::On)).unwrap();
        let file = fpm.folder().join("cli");
        let mut php = CommandLine::start(build, &fpm, &format!("file={}", fpm.inside("cli")));
        let pid = php.0.id().cast_signed();
        wait_until_held(pid, &file);
        let taken = Taken::of(pid, &[]);
        fs::write(&file, "").unwrap();
        let facts: Facts = serde_json::from_reader(php.0.stdout.take().unwrap()).unwrap();
        assert!(facts.unchanged && php.0.wait().unwrap().success());
        check(&taken, &facts);
        assert_eq!(taken.external("/pool"), &Value::Null);
    }
}
