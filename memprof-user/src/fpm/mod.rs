//! php-fpm masters, pools and workers, as /proc shows them.
//!
//! php-fpm is found by its process titles ("php-fpm: master process (/etc/…/php-fpm.conf)",
//! "php-fpm: pool www"). Whether such a process is a PHP that memprof can read is for the symbols
//! of its executable to say, not for its name.

mod config;
mod error;
mod follow;
mod live;
mod maps;
mod process;
mod target;

use std::path::PathBuf;

pub use config::{Config, PoolConfig};
pub use error::FpmError;
pub use follow::{Change, Follower};
pub use live::{Builds, LiveError, LivePhp, MappedSite};
pub use maps::{MappedFile, Mapping, Mappings};
pub use process::{Executable, ProcessId, in_first_pid_namespace};
pub use target::Target;

/// A php-fpm master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// The process.
    pub process: ProcessId,
    /// Its effective user id.
    pub uid: u32,
    /// The configuration file that its title names; a relative path is relative to its working directory.
    pub config_file: PathBuf,
}

/// A php-fpm worker, or any PHP process named by --pid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// The process.
    pub process: ProcessId,
    /// Its effective user id.
    pub uid: u32,
    /// The pool in its title; `None` for a process that is no php-fpm worker.
    pub pool: Option<String>,
    /// Its parent's process id: the master, as long as that lives.
    pub parent: i32,
}

/// What of php-fpm runs at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// The masters, by process id.
    pub masters: Vec<Master>,
    /// The workers of all pools, by process id.
    pub workers: Vec<Worker>,
}

impl Processes {
    /// The workers of one master.
    pub fn workers_of(&self, master: &Master) -> impl Iterator<Item = &Worker> {
        let parent = master.process.pid;
        self.workers
            .iter()
            .filter(move |worker| worker.parent == parent)
    }

    /// The master of a worker; `None` when it has ended, and for a process that is no worker.
    pub fn master_of(&self, worker: &Worker) -> Option<&Master> {
        self.masters
            .iter()
            .find(|master| master.process.pid == worker.parent)
    }

    /// The pools of these workers, each with its master and once.
    pub fn pools_of<'a>(&'a self, workers: &'a [Worker]) -> Vec<(&'a Master, &'a str)> {
        let mut pools = Vec::new();
        for worker in workers {
            if let (Some(master), Some(pool)) = (self.master_of(worker), &worker.pool)
                && !pools.contains(&(master, pool.as_str()))
            {
                pools.push((master, pool.as_str()));
            }
        }
        pools
    }

    /// The workers whose master has ended; they serve requests on.
    pub fn orphans(&self) -> impl Iterator<Item = &Worker> {
        self.workers
            .iter()
            .filter(|worker| self.master_of(worker).is_none())
    }
}

/// Looks through /proc for php-fpm.
///
/// A process that ends while it is looked at is left out.
///
/// # Errors
/// [`FpmError::Read`] when /proc cannot be listed.
pub fn discover() -> Result<Processes, FpmError> {
    let mut found = Vec::new();
    let listing = |source| FpmError::Read {
        path: "/proc".into(),
        source,
    };
    for entry in std::fs::read_dir("/proc").map_err(listing)? {
        let name = entry.map_err(listing)?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(title) = process::title(pid).and_then(|title| Title::parse(&title))
            && let Ok(facts) = process::facts(pid)
        {
            found.push((facts, title));
        }
    }
    Ok(sort(found))
}

/// What a php-fpm process says of itself (`fpm_env_setproctitle` in fpm_env.c, the same from 7.4 to 8.6).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Title {
    Master(PathBuf),
    Pool(String),
}

impl Title {
    fn parse(title: &str) -> Option<Self> {
        let title = title.strip_prefix("php-fpm: ")?;
        if let Some(pool) = title.strip_prefix("pool ") {
            return (!pool.is_empty()).then(|| Self::Pool(pool.to_owned()));
        }
        let config_file = title.strip_prefix("master process (")?.strip_suffix(')')?;
        Some(Self::Master(config_file.into()))
    }
}

fn sort(found: Vec<(process::Facts, Title)>) -> Processes {
    let masters: Vec<i32> = found
        .iter()
        .filter(|(_, title)| matches!(title, Title::Master(_)))
        .map(|(facts, _)| facts.process.pid)
        .collect();
    let mut processes = Processes::default();
    for (facts, title) in found {
        match title {
            // A child has its master's title between fork() and its own first step: it will be a worker.
            Title::Master(_) if masters.contains(&facts.parent) => {}
            Title::Master(config_file) => processes.masters.push(Master {
                process: facts.process,
                uid: facts.uid,
                config_file,
            }),
            Title::Pool(pool) => processes.workers.push(Worker {
                process: facts.process,
                uid: facts.uid,
                pool: Some(pool),
                parent: facts.parent,
            }),
        }
    }
    processes.masters.sort_by_key(|master| master.process);
    processes.workers.sort_by_key(|worker| worker.process);
    processes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(pid: i32, parent: i32) -> process::Facts {
        process::Facts {
            process: ProcessId { pid, start_time: 7 },
            parent,
            uid: 33,
        }
    }

    #[test]
    fn titles_are_those_of_php_fpm() {
        assert_eq!(
            Title::parse("php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)"),
            Some(Title::Master("/etc/php/8.2/fpm/php-fpm.conf".into()))
        );
        assert_eq!(
            Title::parse("php-fpm: pool www"),
            Some(Title::Pool("www".into()))
        );
        for other in [
            "php-fpm8.2 -F",
            "php-fpm: pool ",
            "php-fpm: master process",
            "vim php-fpm: pool www",
        ] {
            assert_eq!(Title::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_child_with_its_masters_title_is_not_a_master() {
        let master = || Title::Master("/etc/php-fpm.conf".into());
        let processes = sort(vec![
            (facts(12, 10), master()),
            (facts(11, 10), Title::Pool("www".into())),
            (facts(10, 1), master()),
        ]);
        assert_eq!(processes.masters.len(), 1);
        assert_eq!(processes.masters[0].process.pid, 10);
        assert_eq!(processes.workers_of(&processes.masters[0]).count(), 1);
        assert_eq!(processes.orphans().count(), 0);
    }

    #[test]
    fn a_worker_outlives_its_master() {
        let processes = sort(vec![(facts(11, 1), Title::Pool("www".into()))]);
        let orphans: Vec<i32> = processes
            .orphans()
            .map(|worker| worker.process.pid)
            .collect();
        assert_eq!(orphans, [11]);
    }
}
