//! The kernel, and what it lets this process do.

use procfs::process::Process;
use procfs::sys::kernel::Version;

use super::Check;
use crate::cli::exit::{Exit, sudo_line};

/// Sleepable uprobe programs: a name on a page that is not there is brought in.
const SLEEPABLE_UPROBES: (u8, u8) = (6, 0);
/// `BPF_TRACE_UPROBE_MULTI`
const UPROBE_MULTI: (u8, u8) = (6, 6);

/// What is looked at, as found. `None` is unknown.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub kernel: Option<Version>,
    /// /sys/kernel/btf/vmlinux is there.
    pub has_btf: bool,
    /// `CapEff` of /proc/self/status.
    pub effective_capabilities: Option<u64>,
    /// Capabilities count in the first user namespace only.
    pub in_first_user_namespace: Option<bool>,
    /// BPF programs see the process ids of the first pid namespace only.
    pub in_first_pid_namespace: Option<bool>,
    /// /sys/kernel/security/lockdown: `[none] integrity confidentiality`
    pub lockdown: Option<String>,
    /// /proc/sys/kernel/yama/ptrace_scope
    pub ptrace_scope: Option<u8>,
    /// Whether the eBPF engine was built in.
    pub has_engine: bool,
}

impl Facts {
    pub(super) fn gather() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let status = Process::myself().and_then(|process| process.status());
        Self {
            kernel: Version::current().ok(),
            has_btf: std::path::Path::new("/sys/kernel/btf/vmlinux").exists(),
            effective_capabilities: status.ok().map(|status| status.capeff),
            in_first_user_namespace: read("/proc/self/uid_map").map(|map| is_whole_uid_map(&map)),
            in_first_pid_namespace: crate::fpm::in_first_pid_namespace(),
            lockdown: read("/sys/kernel/security/lockdown"),
            ptrace_scope: read("/proc/sys/kernel/yama/ptrace_scope")
                .and_then(|scope| scope.trim().parse().ok()),
            has_engine: cfg!(feature = "ebpf"),
        }
    }
}

/// The first user namespace maps all 2^32 - 1 users onto themselves.
fn is_whole_uid_map(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Judges the facts.
pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    vec![
        engine(facts),
        kernel(facts),
        btf(facts),
        capabilities(facts),
        pid_namespace(facts),
        lockdown(facts),
        ptrace_scope(facts),
    ]
}

fn engine(facts: &Facts) -> Check {
    if facts.has_engine {
        Check::ok("engine", "eBPF")
    } else {
        let cure = "build memprof with `cargo xtask build`";
        Check::missing(
            Exit::Unsupported,
            "engine",
            "this memprof was built without its eBPF engine",
            cure,
        )
    }
}

fn kernel(facts: &Facts) -> Check {
    let Some(kernel) = facts.kernel else {
        return Check::warning(
            "kernel",
            "its version could not be read",
            "memprof needs Linux 6.0 or newer",
        );
    };
    let release = (kernel.major, kernel.minor);
    let found = format!("{}.{}.{}", kernel.major, kernel.minor, kernel.patch);
    if release < SLEEPABLE_UPROBES {
        let found = format!("{found}, which has no sleepable uprobes");
        Check::missing(Exit::Unsupported, "kernel", found, "run Linux 6.0 or newer")
    } else if release < UPROBE_MULTI {
        let found =
            format!("{found}: probes are attached one by one, attaching and detaching take longer");
        Check::warning(
            "kernel",
            found,
            "Linux 6.6 or newer attaches them all at once",
        )
    } else {
        Check::ok("kernel", format!("{found}, with uprobe_multi"))
    }
}

fn btf(facts: &Facts) -> Check {
    if facts.has_btf {
        Check::ok("BTF", "/sys/kernel/btf/vmlinux")
    } else {
        let cure = "run a kernel built with CONFIG_DEBUG_INFO_BTF if the probes are refused";
        Check::warning("BTF", "no /sys/kernel/btf/vmlinux", cure)
    }
}

/// Bits of `CapEff` (linux/capability.h).
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

fn capabilities(facts: &Facts) -> Check {
    const NAME: &str = "capabilities";
    let cure = format!(
        "{}; in a container: --cap-add SYS_PTRACE,BPF,PERFMON --pid=host",
        sudo_line()
    );
    let Some(effective) = facts.effective_capabilities else {
        return Check::warning(NAME, "/proc/self/status could not be read", cure);
    };
    if facts.in_first_user_namespace == Some(false) {
        let found = "memprof runs in a user namespace, whose capabilities do not count for BPF";
        return Check::missing(
            Exit::Denied,
            NAME,
            found,
            "run it as root outside, or in a container without userns",
        );
    }
    let has = |capability: u32| effective & (1 << capability) != 0;
    let admin = has(CAP_SYS_ADMIN);
    // CAP_SYS_ADMIN includes the two that were split from it in Linux 5.8.
    let wanted = [
        ("CAP_BPF", admin || has(CAP_BPF), "to load the probes"),
        ("CAP_PERFMON", admin || has(CAP_PERFMON), "to attach them"),
        (
            "CAP_SYS_PTRACE",
            has(CAP_SYS_PTRACE),
            "to read the workers' memory",
        ),
    ];
    let lacking: Vec<String> = wanted
        .iter()
        .filter(|(_, is_there, _)| !is_there)
        .map(|(name, _, why)| format!("{name} {why}"))
        .collect();
    if lacking.is_empty() {
        Check::ok(NAME, "CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE")
    } else {
        Check::missing(
            Exit::Denied,
            NAME,
            format!("lacks {}", lacking.join(", ")),
            cure,
        )
    }
}

fn pid_namespace(facts: &Facts) -> Check {
    const NAME: &str = "pid namespace";
    let cure = "run memprof on the host, or in a container with --pid=host";
    match facts.in_first_pid_namespace {
        Some(true) => Check::ok(NAME, "the host's"),
        Some(false) => {
            let found = "a container's own: its process ids are not those that probes see";
            Check::missing(Exit::Unsupported, NAME, found, cure)
        }
        None => Check::warning(NAME, "/proc/self/ns/pid could not be read", cure),
    }
}

fn lockdown(facts: &Facts) -> Check {
    const NAME: &str = "lockdown";
    let Some(text) = &facts.lockdown else {
        return Check::ok(
            NAME,
            "not in this kernel, or /sys/kernel/security is not mounted",
        );
    };
    let mode = text.split(['[', ']']).nth(1).unwrap_or(text.trim());
    if mode == "confidentiality" {
        let cure =
            "boot with lockdown=integrity: confidentiality keeps BPF programs from reading memory";
        Check::missing(Exit::Denied, NAME, mode, cure)
    } else {
        Check::ok(NAME, mode)
    }
}

fn ptrace_scope(facts: &Facts) -> Check {
    const NAME: &str = "yama ptrace_scope";
    match facts.ptrace_scope {
        None => Check::ok(NAME, "not in this kernel"),
        // 0 to 2 ask for nothing that CAP_SYS_PTRACE does not give.
        Some(scope @ 0..=2) => Check::ok(NAME, scope.to_string()),
        Some(scope) => {
            let cure = "remove kernel.yama.ptrace_scope=3 from sysctl.conf and boot anew: it cannot be lowered while running";
            Check::missing(
                Exit::Denied,
                NAME,
                format!("{scope}: no process may read another's memory"),
                cure,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    fn good() -> Facts {
        Facts {
            kernel: Some(Version::new(6, 18, 0)),
            has_btf: true,
            effective_capabilities: Some(1 << CAP_SYS_PTRACE | 1 << CAP_BPF | 1 << CAP_PERFMON),
            in_first_user_namespace: Some(true),
            in_first_pid_namespace: Some(true),
            lockdown: Some("[none] integrity confidentiality\n".to_owned()),
            ptrace_scope: Some(1),
            has_engine: true,
        }
    }

    fn statuses(facts: &Facts) -> Vec<(String, Status)> {
        let not_ok = checks(facts)
            .into_iter()
            .filter(|check| check.status != Status::Ok);
        not_ok.map(|check| (check.name, check.status)).collect()
    }

    #[test]
    fn a_current_server_with_the_three_capabilities_is_ready() {
        assert_eq!(statuses(&good()), []);
    }

    #[test]
    fn old_kernels_are_slower_or_refused() {
        let kernel = |major, minor| Facts {
            kernel: Some(Version::new(major, minor, 0)),
            ..good()
        };
        assert_eq!(
            statuses(&kernel(6, 5)),
            [("kernel".to_owned(), Status::Warning)]
        );
        assert_eq!(
            statuses(&kernel(5, 19)),
            [("kernel".to_owned(), Status::Missing(Exit::Unsupported))]
        );
        assert_eq!(
            statuses(&kernel(6, 0)),
            [("kernel".to_owned(), Status::Warning)]
        );
    }

    #[test]
    fn an_ordinary_user_is_told_what_each_capability_is_for() {
        let facts = Facts {
            effective_capabilities: Some(0),
            ..good()
        };
        let check = capabilities(&facts);
        assert_eq!(check.status, Status::Missing(Exit::Denied));
        assert!(
            check
                .found
                .contains("CAP_SYS_PTRACE to read the workers' memory"),
            "{}",
            check.found
        );
        assert!(check.cure.is_some_and(|cure| cure.starts_with("sudo /")));
    }

    #[test]
    fn administrator_rights_do_not_include_reading_other_processes() {
        let facts = Facts {
            effective_capabilities: Some(1 << CAP_SYS_ADMIN),
            ..good()
        };
        assert!(
            capabilities(&facts)
                .found
                .starts_with("lacks CAP_SYS_PTRACE")
        );
    }

    #[test]
    fn a_root_of_a_user_namespace_is_no_root() {
        assert!(is_whole_uid_map("         0          0 4294967295\n"));
        assert!(!is_whole_uid_map("         0       1000          1\n"));
        let facts = Facts {
            in_first_user_namespace: Some(false),
            ..good()
        };
        assert_eq!(capabilities(&facts).status, Status::Missing(Exit::Denied));
    }

    #[test]
    fn lockdown_and_yama_can_forbid_reading() {
        let facts = Facts {
            lockdown: Some("none integrity [confidentiality]\n".to_owned()),
            ptrace_scope: Some(3),
            ..good()
        };
        let denied = Status::Missing(Exit::Denied);
        let expected = [
            ("lockdown".to_owned(), denied),
            ("yama ptrace_scope".to_owned(), denied),
        ];
        assert_eq!(statuses(&facts), expected);
    }

    #[test]
    fn a_container_with_process_ids_of_its_own_is_refused() {
        let facts = Facts {
            in_first_pid_namespace: Some(false),
            ..good()
        };
        let expected = Status::Missing(Exit::Unsupported);
        assert_eq!(statuses(&facts), [("pid namespace".to_owned(), expected)]);
    }

    #[test]
    fn without_an_engine_nothing_can_be_attached() {
        let facts = Facts {
            has_engine: false,
            ..good()
        };
        assert_eq!(
            statuses(&facts),
            [("engine".to_owned(), Status::Missing(Exit::Unsupported))]
        );
    }
}
