//! `memprof doctor`: whether memprof can work here, and what is missing.

mod system;

use clap::Args;
use serde::{Serialize, Serializer};

use super::exit::Exit;
use super::table::printable;

/// Say whether memprof can work on this machine and this PHP, what is missing, and the cure
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct DoctorArgs {
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
        let checks = system::checks(&system::Facts::gather());
        let exit = verdict(&checks);
        print(&checks, exit, self.json)?;
        Ok(exit)
    }
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
    for check in checks {
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
