//! `memprof doctor`: whether memprof can work here, and what is missing.

mod php;
mod system;

use std::collections::HashSet;

use clap::Args;
use serde::{Serialize, Serializer};

use super::exit::Exit;
use super::table::printable;
use super::target::TargetArgs;
use crate::fpm::{self, Builds, FpmError, Target, Worker};

/// Say whether memprof can work on this machine and this PHP, what is missing, and the cure
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Print the checks as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
EXAMPLES:
  sudo memprof doctor
  sudo memprof doctor --pool www
  sudo memprof doctor --pid 4711 --json

Ends with 0 when ready, 4 when a permission is missing, 5 when the kernel or the PHP is not supported.";

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    /// The process that it is about; `None` for the system and the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    name: String,
    status: Status,
    /// What was found, with its evidence.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cure: Option<String>,
}

/// What a check comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok,
    /// memprof works, with a limit that the check names.
    Warning,
    /// memprof does not work, and ends with this status.
    Missing(Exit),
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Missing(_) => "missing",
        }
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Check {
    fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            pid: None,
            name: name.into(),
            status: Status::Ok,
            found: found.into(),
            cure: None,
        }
    }

    fn warning(name: impl Into<String>, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            status: Status::Warning,
            cure: Some(cure.into()),
            ..Self::ok(name, found)
        }
    }

    fn missing(
        exit: Exit,
        name: impl Into<String>,
        found: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self {
            status: Status::Missing(exit),
            ..Self::warning(name, found, cure)
        }
    }
}

impl DoctorArgs {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let mut checks = system::checks(&system::Facts::gather());
        checks.extend(self.php_checks()?);
        let exit = verdict(&checks);
        print(&checks, exit, self.json)?;
        Ok(exit)
    }

    /// Without a target, what php-fpm runs is looked at; that none runs is no reason to say nothing of the system.
    fn php_checks(&self) -> Result<Vec<Check>, FpmError> {
        let processes = fpm::discover()?;
        let target = self.target.target();
        let workers = match target.as_ref().unwrap_or(&Target::All).select(&processes) {
            Err(error @ FpmError::NoFpm) if target.is_none() => {
                return Ok(vec![Check::warning(
                    "PHP",
                    "no php-fpm runs here",
                    error.to_string(),
                )]);
            }
            selected => selected?,
        };
        if workers.is_empty() {
            let cure = "send the pool a request: it starts its workers on demand";
            return Ok(vec![Check::warning(
                "PHP",
                "the pool has no worker at this moment",
                cure,
            )]);
        }
        let mut builds = Builds::default();
        let mut checks = Vec::new();
        for worker in one_of_each_build(&workers) {
            let pid = Some(worker.process.pid);
            let of_worker = php::checks(worker.process, &mut builds).into_iter();
            checks.extend(of_worker.map(|check| Check { pid, ..check }));
        }
        checks.extend(php::slowlogs(&workers, &processes));
        Ok(checks)
    }
}

/// Workers of the same executable are alike. Those whose executable cannot be read are taken for one.
fn one_of_each_build(workers: &[Worker]) -> Vec<&Worker> {
    let mut seen = HashSet::new();
    let is_new = |worker: &&Worker| {
        let executable = worker.process.executable().ok();
        seen.insert(executable.map(|executable| (executable.device, executable.inode)))
    };
    workers.iter().filter(is_new).collect()
}

/// A missing permission hides what else may be missing: it comes first.
fn verdict(checks: &[Check]) -> Exit {
    let missing = checks.iter().filter_map(|check| match check.status {
        Status::Missing(exit) => Some(exit),
        Status::Ok | Status::Warning => None,
    });
    missing.min().unwrap_or(Exit::Done)
}

fn print(checks: &[Check], exit: Exit, json: bool) -> std::io::Result<()> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    if json {
        let report = serde_json::json!({ "ready": exit == Exit::Done, "checks": checks });
        return writeln!(stdout, "{report:#}");
    }
    let mut pid = None;
    for check in checks {
        if check.pid != pid {
            pid = check.pid;
            writeln!(
                stdout,
                "\n{}",
                pid.map_or("configuration".to_owned(), |pid| format!("process {pid}"))
            )?;
        }
        writeln!(
            stdout,
            "{:<8} {}: {}",
            check.status.name(),
            printable(&check.name),
            printable(&check.found)
        )?;
        if let Some(cure) = &check.cure {
            writeln!(stdout, "         -> {}", printable(cure))?;
        }
    }
    let missing = checks
        .iter()
        .filter(|check| matches!(check.status, Status::Missing(_)))
        .count();
    match missing {
        0 => writeln!(stdout, "ready"),
        _ => writeln!(stdout, "not ready: {missing} missing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_still_ready() {
        assert_eq!(
            verdict(&[Check::ok("a", "b"), Check::warning("c", "d", "e")]),
            Exit::Done
        );
    }

    #[test]
    fn permission_comes_before_support() {
        let checks = [
            Check::missing(Exit::Unsupported, "kernel", "5.4", "upgrade"),
            Check::missing(Exit::Denied, "capabilities", "none", "sudo"),
        ];
        assert_eq!(verdict(&checks), Exit::Denied);
        assert_eq!(verdict(&checks[..1]), Exit::Unsupported);
    }

    #[test]
    fn a_check_is_one_flat_object() {
        let check = Check::missing(Exit::Denied, "capabilities", "none", "sudo memprof doctor");
        let json = r#"{"name":"capabilities","status":"missing","found":"none","cure":"sudo memprof doctor"}"#;
        assert_eq!(serde_json::to_string(&check).expect("plain"), json);
    }
}
