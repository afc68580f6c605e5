//! The PHP inside a worker: what was derived from its executable, and whether its memory agrees.

use super::Check;
use crate::binary::{Evidence, PhpBinary, ProbeSite, Site};
use crate::cli::exit::{Exit, sudo_line};
use crate::fpm::{
    Builds, Config, LiveError, LivePhp, MappedSite, Mappings, ProcessId, Processes, Worker,
};
use crate::zend::{Proof, ZendError};

/// Looks at the PHP of one process.
pub(super) fn checks(process: ProcessId, builds: &mut Builds) -> Vec<Check> {
    let (executable, binary) = match builds.binary(process) {
        Ok(found) => found,
        Err(error) => return vec![unusable("PHP", &error)],
    };
    let mut checks = vec![Check::ok(
        "PHP",
        describe(&binary, &executable.link.to_string_lossy()),
    )];
    checks.extend(binary.evidence.iter().map(derived));
    checks.extend(binary.sites.iter().map(probe));
    checks.extend(live(builds.live(process)));
    checks
}

fn describe(binary: &PhpBinary, executable: &str) -> String {
    let build_id = binary.build_id().unwrap_or("none");
    format!("{} in {executable}, build-id {build_id}", binary.version)
}

fn derived(evidence: &Evidence) -> Check {
    Check::ok(
        &evidence.what,
        format!("{} ({})", evidence.value, evidence.how),
    )
}

fn probe(site: &ProbeSite) -> Check {
    let cost = if site.emulated {
        "emulated"
    } else {
        "single-stepped, which costs a second trap"
    };
    let found = format!(
        "{} at {:#x} (file offset {:#x}): {}; {cost}; {}",
        site.function, site.address, site.file_offset, site.instruction, site.why
    );
    Check::ok(format!("probe: {}", purpose(site.site)), found)
}

fn purpose(site: Site) -> &'static str {
    match site {
        Site::RequestStart => "request start",
        Site::RequestEnd => "request end",
        Site::HeapReset => "heap reset",
        Site::SendHeaders => "headers sent",
        Site::PagesTaken => "page run taken",
        Site::PagesFreed => "page run freed",
        Site::PagesCollected(_) => "page run collected",
        Site::PagesResized(_) => "page run resized",
        Site::HugeTaken => "huge block taken",
        Site::HugeFreed => "huge block freed",
        Site::HugeResized => "huge block resized",
        Site::ChunkTaken => "chunk taken",
        Site::LimitError { .. } => "memory limit reached",
        Site::CompileFile => "file included",
        Site::Emalloc(_) => "emalloc",
        Site::Handler(_) | Site::HandlerReturn(_) => "PHP function",
    }
}

fn live(live: Result<LivePhp, LiveError>) -> Vec<Check> {
    match live {
        Err(LiveError::Memory {
            source: ZendError::NotProven { proofs },
            ..
        }) => proofs.iter().map(proven).collect(),
        Err(error) => vec![unusable("memory", &error)],
        Ok(live) => {
            let mut checks: Vec<Check> = live.zend.proofs().iter().map(proven).collect();
            checks.push(includes(live.compile_file_site()));
            checks.push(memory_manager(live.zend.heap_layout().is_some()));
            checks.push(jit(&live.mappings));
            checks
        }
    }
}

fn proven(proof: &Proof) -> Check {
    let name = format!("proof: {}", proof.what);
    if proof.agrees {
        Check::ok(name, &proof.found)
    } else {
        let cure = "use a memprof that knows this build; memprof never guesses a layout";
        Check::missing(Exit::Unsupported, name, &proof.found, cure)
    }
}

/// Without this probe the phases before providers register are not seen; all else works.
fn includes(site: Result<MappedSite, LiveError>) -> Check {
    match site {
        Ok(mapped) => {
            let check = probe(&mapped.site);
            Check {
                found: format!("in {}: {}", mapped.file.display(), check.found),
                ..check
            }
        }
        Err(error) => {
            let cure =
                "memprof works without it, but cannot tell when the application's providers load";
            Check::warning("probe: file included", chain(&error), cure)
        }
    }
}

fn memory_manager(is_zends_own: bool) -> Check {
    const NAME: &str = "memory manager";
    if is_zends_own {
        Check::ok(NAME, "Zend's own")
    } else {
        let cure = "unset USE_ZEND_ALLOC, or disable the extension that replaced it";
        Check::missing(
            Exit::Unsupported,
            NAME,
            "replaced (use_custom_heap is set)",
            cure,
        )
    }
}

/// opcache puts the JIT's code into shared memory, and nothing else makes shared memory executable.
fn jit(mappings: &Mappings) -> Check {
    let bytes: u64 = mappings
        .shared_memory()
        .filter(|mapping| mapping.executable)
        .map(|mapping| mapping.addresses.end - mapping.addresses.start)
        .sum();
    match bytes {
        0 => Check::ok("JIT", "off: no shared memory is executable"),
        _ => Check::ok(
            "JIT",
            format!("on: {} KiB of executable shared memory", bytes >> 10),
        ),
    }
}

/// Whether the pools of these workers have a slowlog, told by the configuration files.
pub(super) fn slowlogs(workers: &[Worker], processes: &Processes) -> Vec<Check> {
    let pools = processes.pools_of(workers);
    pools
        .into_iter()
        .map(|(master, pool)| slowlog(&Config::of(master), master.process.pid, pool))
        .collect()
}

/// Both php-fpm's slowlog and memprof's freeze at the memory limit ptrace the worker.
fn slowlog(config: &Config, master: i32, name: &str) -> Check {
    const NAME: &str = "slowlog";
    match config.pool(name) {
        None => {
            let found = format!(
                "unknown: pool {name} is not in what was read of the configuration of master {master}"
            );
            Check::warning(
                NAME,
                format!("{found} ({})", config.unread.join("; ")),
                "look for request_slowlog_timeout",
            )
        }
        Some(pool) => match &pool.slowlog_timeout {
            None => Check::ok(NAME, format!("off in pool {name} of master {master}")),
            Some(timeout) => {
                let found = format!(
                    "request_slowlog_timeout = {timeout} in pool {name} of master {master}: php-fpm traces slow workers itself"
                );
                let cure = "a worker that it is tracing cannot be stopped for a dump, and one that memprof traces gets no entry in php-fpm's slowlog; set it to 0 while you look for dumps";
                Check::warning(NAME, found, cure)
            }
        },
    }
}

/// An error as a check.
fn unusable(name: &str, error: &LiveError) -> Check {
    let cure = match Exit::of_php(error) {
        Some(Exit::Denied) => sudo_line(),
        Some(Exit::Unsupported) => {
            "memprof works with php-fpm 7.4 to 8.5, non-thread-safe".to_owned()
        }
        _ => "try again: the process may just have started or ended".to_owned(),
    };
    let exit = Exit::of_php(error).unwrap_or(Exit::Failed);
    Check::missing(exit, name, chain(error), cure)
}

/// An error with its causes on one line.
fn chain(error: &LiveError) -> String {
    let causes: Vec<String> = anyhow::Chain::new(error).map(ToString::to_string).collect();
    causes.join(": ")
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;
    use crate::fpm::PoolConfig;

    #[test]
    fn a_proof_that_fails_is_unsupported() {
        let proof = |agrees| Proof {
            what: "main chunk points back to the heap".to_owned(),
            found: "0x10".to_owned(),
            agrees,
        };
        assert_eq!(proven(&proof(true)).status, Status::Ok);
        assert_eq!(
            proven(&proof(false)).status,
            Status::Missing(Exit::Unsupported)
        );
        let not_proven = LiveError::Memory {
            pid: 1,
            source: ZendError::NotProven {
                proofs: vec![proof(true), proof(false)],
            },
        };
        assert_eq!(live(Err(not_proven)).len(), 2);
    }

    #[test]
    fn a_replaced_memory_manager_is_unsupported() {
        assert_eq!(memory_manager(true).status, Status::Ok);
        assert_eq!(
            memory_manager(false).status,
            Status::Missing(Exit::Unsupported)
        );
    }

    #[test]
    fn a_slowlog_is_warned_of_and_an_unread_pool_is_unknown() {
        let pool = |name: &str, timeout: Option<&str>| PoolConfig {
            name: name.to_owned(),
            slowlog_timeout: timeout.map(str::to_owned),
            ..PoolConfig::default()
        };
        let config = Config {
            pools: vec![pool("www", Some("5s")), pool("admin", None)],
            unread: vec!["/pool.d: permission denied".to_owned()],
        };
        assert_eq!(slowlog(&config, 10, "www").status, Status::Warning);
        assert_eq!(slowlog(&config, 10, "admin").status, Status::Ok);
        let unknown = slowlog(&config, 10, "api");
        assert_eq!(unknown.status, Status::Warning);
        assert!(
            unknown.found.contains("/pool.d: permission denied"),
            "{}",
            unknown.found
        );
    }

    #[test]
    fn an_ended_process_is_no_verdict_on_its_php() {
        let error = LiveError::Process(crate::fpm::FpmError::NoSuchProcess { pid: 1 });
        let check = unusable("PHP", &error);
        assert_eq!(check.status, Status::Missing(Exit::NoSuchTarget));
    }
}
