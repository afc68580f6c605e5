//! Follows workers that come and go.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{FpmError, ProcessId, Processes, Target, Worker, discover, process};

/// How often /proc is searched although no known master's children changed: a restarted php-fpm is a new master.
const SEARCH_INTERVAL: Duration = Duration::from_secs(5);

/// What changed since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Workers seen for the first time.
    pub appeared: Vec<Worker>,
    /// Workers that have ended.
    pub gone: Vec<Worker>,
}

/// Knows the workers of a target, and tells what changed at each look.
///
/// A look at which no master forked or lost a worker reads one file a master, however many workers there are.
#[derive(Debug)]
pub struct Follower {
    target: Target,
    known: BTreeMap<ProcessId, Worker>,
    /// The masters and their children at the last search; `None` where the next look must search again.
    families: Option<Vec<(i32, Vec<i32>)>>,
    searched: Instant,
}

impl Follower {
    /// Starts with the workers that run now, and gives them too.
    ///
    /// # Errors
    /// Those of [`Target::select`]: what was asked for does not exist.
    pub fn start(target: Target) -> Result<(Self, Vec<Worker>), FpmError> {
        let workers = target.select(&discover()?)?;
        let follower = Self {
            target,
            known: by_process(workers.clone()),
            families: None,
            searched: Instant::now(),
        };
        Ok((follower, workers))
    }

    /// What changed since the last look.
    ///
    /// Processes named by their ids are not replaced by others when they end.
    ///
    /// # Errors
    /// [`FpmError::Read`] when /proc cannot be listed.
    pub fn look(&mut self) -> Result<Change, FpmError> {
        if let Target::Pids(_) = self.target {
            let running = self
                .known
                .values()
                .filter(|worker| worker.process.is_running())
                .cloned();
            return Ok(self.replace(by_process(running.collect())));
        }
        if self.is_unchanged() {
            return Ok(Change::default());
        }
        let processes = self.search()?;
        Ok(self.replace(by_process(self.target.matching(&processes))))
    }

    fn is_unchanged(&self) -> bool {
        let Some(families) = &self.families else {
            return false;
        };
        self.searched.elapsed() < SEARCH_INTERVAL
            && families
                .iter()
                .all(|(master, children)| process::children(*master).as_ref() == Some(children))
    }

    fn search(&mut self) -> Result<Processes, FpmError> {
        let processes = discover()?;
        self.searched = Instant::now();
        self.families = families(&processes);
        Ok(processes)
    }

    fn replace(&mut self, current: BTreeMap<ProcessId, Worker>) -> Change {
        let missing_in = |other: &BTreeMap<ProcessId, Worker>,
                          from: &BTreeMap<ProcessId, Worker>| {
            let missing = from
                .iter()
                .filter(|(process, _)| !other.contains_key(process));
            missing.map(|(_, worker)| worker.clone()).collect()
        };
        let change = Change {
            appeared: missing_in(&self.known, &current),
            gone: missing_in(&current, &self.known),
        };
        self.known = current;
        change
    }
}

fn by_process(workers: Vec<Worker>) -> BTreeMap<ProcessId, Worker> {
    workers
        .into_iter()
        .map(|worker| (worker.process, worker))
        .collect()
}

/// Each master with its children, in the order of their birth, so that a child replaced by another of the
/// same process id is a change too.
///
/// `None` while that says less than a search: without masters, with orphans, on a kernel without
/// CONFIG_PROC_CHILDREN, and when the children are not the workers that were found (one is just being born).
fn families(processes: &Processes) -> Option<Vec<(i32, Vec<i32>)>> {
    if processes.masters.is_empty() || processes.orphans().next().is_some() {
        return None;
    }
    let family = |master: &super::Master| {
        let children = process::children(master.process.pid)?;
        let mut sorted = children.clone();
        sorted.sort_unstable();
        let mut workers: Vec<i32> = processes
            .workers_of(master)
            .map(|worker| worker.process.pid)
            .collect();
        workers.sort_unstable();
        (sorted == workers).then_some((master.process.pid, children))
    };
    processes.masters.iter().map(family).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A shell under a master's title that forks a "worker" for each line it reads.
    struct Master(Child);

    impl Master {
        fn start(pool: &str) -> Self {
            let script =
                format!("while read -r _; do (exec -a 'php-fpm: pool {pool}' sleep 60) & done");
            let child = Command::new("bash")
                .arg0("php-fpm: master process (/nonexistent/php-fpm.conf)")
                .args(["-c", &script])
                .stdin(Stdio::piped())
                .spawn()
                .expect("bash starts");
            Self(child)
        }

        fn fork_worker(&mut self) {
            use std::io::Write;
            let stdin = self.0.stdin.as_mut().expect("piped");
            stdin.write_all(b"\n").expect("the shell reads");
        }
    }

    impl Drop for Master {
        fn drop(&mut self) {
            for pid in process::children(self.0.id().cast_signed()).unwrap_or_default() {
                end(pid);
            }
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn end(pid: i32) {
        let pid = nix::unistd::Pid::from_raw(pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }

    fn look_until(follower: &mut Follower, done: impl Fn(&Change) -> bool) -> Change {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let change = follower.look().expect("/proc is readable");
            if done(&change) {
                return change;
            }
            assert!(Instant::now() < deadline, "no such change was seen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn workers_come_and_go() {
        let pool = format!("follow-{}", std::process::id());
        let mut master = Master::start(&pool);
        master.fork_worker();
        let target = Target::Pools(vec![pool]);
        let deadline = Instant::now() + Duration::from_secs(10);
        let (mut follower, first) = loop {
            match Follower::start(target.clone()) {
                Ok(started) => break started,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        assert_eq!(first.len(), 1);

        master.fork_worker();
        let change = look_until(&mut follower, |change| !change.appeared.is_empty());
        assert_eq!((change.appeared.len(), change.gone.len()), (1, 0));

        end(first[0].process.pid);
        let change = look_until(&mut follower, |change| !change.gone.is_empty());
        assert_eq!(change.gone, first);
    }

    #[test]
    fn a_process_named_by_its_id_is_missed_once() {
        let mut child = Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep starts");
        let target = Target::Pids(vec![child.id().cast_signed()]);
        let (mut follower, first) = Follower::start(target).expect("it runs");
        assert_eq!(follower.look().expect("readable"), Change::default());
        child.kill().expect("it is ours");
        // Not waited for yet: a zombie has ended.
        let change = look_until(&mut follower, |change| !change.gone.is_empty());
        assert_eq!(change.gone, first);
        child.wait().expect("it is ours");
        assert_eq!(follower.look().expect("readable"), Change::default());
    }
}
