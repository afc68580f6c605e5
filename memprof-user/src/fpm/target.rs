//! Which workers are meant: those of some pools, some processes, or all.

use std::collections::BTreeSet;

use super::{Config, FpmError, Processes, Worker, process};

/// What the user asked to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The workers of every pool.
    All,
    /// The workers of the pools of these names, whatever master they belong to.
    Pools(Vec<String>),
    /// These processes; they need not be php-fpm workers.
    Pids(Vec<i32>),
}

impl Target {
    /// The workers that are meant and run now.
    ///
    /// A pool that is configured but has no worker at this moment (pm = ondemand) is no error.
    ///
    /// # Errors
    /// [`FpmError::NoFpm`], [`FpmError::NoSuchPool`], [`FpmError::NoSuchProcess`] or
    /// [`FpmError::IsMaster`] when what was asked for does not exist.
    pub fn select(&self, processes: &Processes) -> Result<Vec<Worker>, FpmError> {
        match self {
            Self::Pids(pids) => pids.iter().map(|&pid| worker(pid, processes)).collect(),
            _ if processes.masters.is_empty() && processes.workers.is_empty() => {
                Err(FpmError::NoFpm)
            }
            Self::All => Ok(self.matching(processes)),
            Self::Pools(pools) => {
                check_pools(pools, processes, || configured_pools(processes))?;
                Ok(self.matching(processes))
            }
        }
    }

    /// The workers among `processes` that are meant.
    pub(super) fn matching(&self, processes: &Processes) -> Vec<Worker> {
        let is_meant = |worker: &&Worker| match self {
            Self::All => true,
            Self::Pools(pools) => worker
                .pool
                .as_ref()
                .is_some_and(|pool| pools.contains(pool)),
            Self::Pids(pids) => pids.contains(&worker.process.pid),
        };
        processes.workers.iter().filter(is_meant).cloned().collect()
    }
}

fn worker(pid: i32, processes: &Processes) -> Result<Worker, FpmError> {
    if let Some(worker) = processes
        .workers
        .iter()
        .find(|worker| worker.process.pid == pid)
    {
        return Ok(worker.clone());
    }
    if let Some(master) = processes
        .masters
        .iter()
        .find(|master| master.process.pid == pid)
    {
        let pools: BTreeSet<String> = processes
            .workers_of(master)
            .filter_map(|worker| worker.pool.clone())
            .collect();
        return Err(FpmError::IsMaster {
            pid,
            pools: pools.into_iter().collect(),
        });
    }
    let facts = process::facts(pid)?;
    Ok(Worker {
        process: facts.process,
        uid: facts.uid,
        pool: None,
        parent: facts.parent,
    })
}

/// Reads the configuration only when a pool has no worker.
fn check_pools(
    pools: &[String],
    processes: &Processes,
    configured: impl FnOnce() -> BTreeSet<String>,
) -> Result<(), FpmError> {
    let mut known: BTreeSet<String> = processes
        .workers
        .iter()
        .filter_map(|worker| worker.pool.clone())
        .collect();
    if pools.iter().all(|pool| known.contains(pool)) {
        return Ok(());
    }
    known.extend(configured());
    match pools.iter().find(|pool| !known.contains(*pool)) {
        None => Ok(()),
        Some(pool) => Err(FpmError::NoSuchPool {
            pool: pool.clone(),
            known: known.into_iter().collect(),
        }),
    }
}

fn configured_pools(processes: &Processes) -> BTreeSet<String> {
    processes
        .masters
        .iter()
        .flat_map(|master| Config::of(master).pools)
        .map(|pool| pool.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Master, ProcessId};
    use super::*;

    fn processes() -> Processes {
        let process = |pid| ProcessId { pid, start_time: 1 };
        let worker = |pid, pool: &str| Worker {
            process: process(pid),
            uid: 33,
            pool: Some(pool.to_owned()),
            parent: 10,
        };
        Processes {
            masters: vec![Master {
                process: process(10),
                uid: 0,
                config_file: "/nonexistent/php-fpm.conf".into(),
            }],
            workers: vec![worker(11, "www"), worker(12, "admin"), worker(13, "www")],
        }
    }

    fn pids(workers: &[Worker]) -> Vec<i32> {
        workers.iter().map(|worker| worker.process.pid).collect()
    }

    #[test]
    fn pools_are_taken_by_name() {
        let selected = Target::Pools(vec!["www".into()])
            .select(&processes())
            .expect("www exists");
        assert_eq!(pids(&selected), [11, 13]);
        assert_eq!(
            pids(&Target::All.select(&processes()).expect("all")),
            [11, 12, 13]
        );
    }

    #[test]
    fn a_wrong_pool_names_those_that_exist() {
        let error = Target::Pools(vec!["ww".into()])
            .select(&processes())
            .expect_err("no such pool");
        assert_eq!(
            error.to_string(),
            "no php-fpm pool is named \"ww\"; the pools are: admin, www"
        );
    }

    #[test]
    fn a_configured_pool_without_workers_exists() {
        let configured = || BTreeSet::from(["nightly".to_owned()]);
        assert!(check_pools(&["nightly".into()], &processes(), configured).is_ok());
        assert!(check_pools(&["daily".into()], &processes(), configured).is_err());
    }

    #[test]
    fn a_master_is_no_worker() {
        let error = Target::Pids(vec![10])
            .select(&processes())
            .expect_err("a master");
        assert!(
            error
                .to_string()
                .ends_with("take its workers: --pool admin --pool www"),
            "{error}"
        );
    }

    #[test]
    fn a_process_that_is_no_worker_is_taken_by_its_pid() {
        let own = std::process::id().cast_signed();
        let selected = Target::Pids(vec![own])
            .select(&processes())
            .expect("memprof runs");
        assert_eq!((selected[0].process.pid, &selected[0].pool), (own, &None));
        let error = Target::Pids(vec![i32::MAX])
            .select(&processes())
            .expect_err("no such process");
        assert!(matches!(error, FpmError::NoSuchProcess { pid: i32::MAX }));
    }

    #[test]
    fn without_php_fpm_the_error_says_so() {
        assert!(matches!(
            Target::All.select(&Processes::default()),
            Err(FpmError::NoFpm)
        ));
    }
}
