//! The dumps of a run: at the memory limit and at the critical threshold, with their log records.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use memprof_ebpf::StopReason;
use serde::Serialize;

use super::{
    dump::{Occasion, compose},
    ebpf::HoldMaps,
    highlights::Highlights,
    hold::{Facts, Holders, Keeper, Outcome, Target},
    options::{DumpPolicy, finite},
    output::{Output, OutputError},
    snapshot::Snapshot,
};
use crate::{
    fpm::{self, LivePhp, Worker},
    profile::RequestInfo,
    record::{
        dump::{CONTEXT_CRITICAL, CONTEXT_OOM},
        frame::Frame,
        oom::{DumpFailedRecord, OutOfMemoryRecord},
        units::MemoryLimit,
    },
};

/// How long an outcome waits for the event of its moment.
const EVENT_PATIENCE: Duration = Duration::from_secs(1);

/// A worker, a request of it, and why it was stopped.
type Moment = (i32, u32, StopReason);

/// The dumps of a run.
pub struct Dumps {
    /// `None` where no dumps are wanted.
    holders: Option<Holders>,
    /// Moments at which a worker stopped, and whose reading did not come yet.
    waiting: HashMap<Moment, Snapshot>,
    /// Outcomes of moments whose event did not come yet.
    early: Vec<Outcome>,
    missed: BTreeMap<String, u64>,
}

/// What surrounds these records in a line of `--json`.
#[derive(Serialize)]
struct External<'a> {
    pid: i32,
    pool: Option<&'a str>,
    request: Option<Asked<'a>>,
    /// `null` without a limit.
    memory_limit_bytes: Option<u64>,
    tried_bytes: Option<u64>,
    /// Where the dump is.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
}

#[derive(Serialize)]
struct Asked<'a> {
    method: &'a str,
    uri: &'a str,
    script: &'a str,
}

impl Dumps {
    /// Begins to hold workers, where dumps are wanted.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(maps: HoldMaps, policy: Option<&DumpPolicy>) -> io::Result<Dumps> {
        let holders = policy.map(|policy| Holders::start(maps, policy));
        let holders = holders.transpose()?;
        Ok(Dumps {
            holders,
            waiting: HashMap::new(),
            early: Vec::new(),
            missed: BTreeMap::new(),
        })
    }

    /// From now on this worker is dumped when its moment comes.
    pub fn follow(&self, worker: &Worker, live: &Arc<LivePhp>) {
        if let Some(holders) = &self.holders {
            holders.follow(Target {
                worker: worker.clone(),
                live: Arc::clone(live),
            });
        }
    }

    /// The worker has ended.
    pub fn forget(&self, pid: i32) {
        if let Some(holders) = &self.holders {
            holders.forget(pid);
        }
    }

    /// A worker came to a moment that is worth a dump.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn at_moment(
        &mut self,
        snapshot: Box<Snapshot>,
        worker: Option<(&Worker, &LivePhp)>,
        output: &mut Output,
    ) -> Result<(), OutputError> {
        let pool = worker.and_then(|(worker, _)| worker.pool.as_deref());
        if snapshot.reason == StopReason::LimitError {
            let setting = worker.and_then(|(_, live)| live.zend.memory_limit_setting().ok()?);
            let record = out_of_memory(&snapshot, setting);
            output.write(&record, &external(&snapshot, pool, None))?;
        }
        if self.holders.is_some() {
            let moment = (snapshot.pid, snapshot.request, snapshot.reason);
            self.waiting.insert(moment, *snapshot);
        }
        Ok(())
    }

    /// For the thread that traces workers all the time; `None` where no dumps are wanted.
    pub fn keeper(&self) -> Option<Keeper> {
        self.holders.as_ref().map(Holders::keeper)
    }

    /// What was read at the end of a request; nothing where the worker was not stopped there.
    pub fn facts(&self, pid: i32, request: u32) -> Facts {
        let holders = self.holders.as_ref();
        holders
            .and_then(|holders| holders.facts(pid, request))
            .unwrap_or_default()
    }

    /// What became of the stops since the last call; the events that were sent before them are to be
    /// taken in before these are [settled](Self::settle).
    pub fn outcomes(&mut self) -> Vec<Outcome> {
        let mut outcomes = std::mem::take(&mut self.early);
        outcomes.extend(self.holders.iter().flat_map(Holders::outcomes));
        outcomes
    }

    /// Writes what was read of a worker that was stopped, or why nothing was.
    ///
    /// # Errors
    /// Standard output is closed. A dump that can't be written is counted, and logged as failed.
    pub fn settle(
        &mut self,
        outcome: Outcome,
        output: &mut Output,
        highlights: &mut Highlights,
    ) -> Result<(), OutputError> {
        let Target { worker, live } = &outcome.target;
        let pool = worker.pool.as_deref();
        let moment = (worker.process.pid, outcome.request, outcome.reason);
        let mut snapshot = match self.waiting.remove(&moment) {
            Some(snapshot) => snapshot,
            // Behind an event that another worker is just sending, as it can be for a moment.
            None if outcome.time.elapsed() < EVENT_PATIENCE => {
                self.early.push(outcome);
                return Ok(());
            }
            None => {
                let cause =
                    "dumps without what was recorded until then, because that event was lost";
                *self.missed.entry(cause.to_owned()).or_default() += 1;
                Snapshot::unseen(worker.process.pid, outcome.request, outcome.reason)
            }
        };
        let taken = match outcome.result {
            Ok(taken) => taken,
            Err(reason) => return self.miss(&snapshot, pool, &reason, output),
        };
        let occasion = Occasion {
            context: match outcome.reason {
                StopReason::Critical => CONTEXT_CRITICAL,
                _ => CONTEXT_OOM,
            },
            tried_bytes: snapshot.tried_bytes,
            so_far: snapshot.so_far.take(),
        };
        let (dump, _) = compose(&taken, worker, live, &occasion);
        match output.write_dump(&dump, worker.process.pid) {
            Ok(path) => {
                if let Some(info) = &snapshot.info {
                    highlights.add_dump(info, &path);
                }
                output.write(&dump, &external(&snapshot, pool, Some(path)))
            }
            Err(error) => self.miss(&snapshot, pool, &error.to_string(), output),
        }
    }

    fn miss(
        &mut self,
        snapshot: &Snapshot,
        pool: Option<&str>,
        reason: &str,
        output: &mut Output,
    ) -> Result<(), OutputError> {
        self.count(reason);
        if snapshot.reason != StopReason::LimitError {
            return Ok(());
        }
        let record = DumpFailedRecord {
            exception: reason.to_owned(),
        };
        output.write(&record, &external(snapshot, pool, None))
    }

    fn count(&mut self, reason: &str) {
        let cause = format!("no dump: {reason}");
        *self.missed.entry(cause).or_default() += 1;
    }

    /// The dumps that there should be and are not, or not whole, by reason.
    pub fn missed(&self) -> &BTreeMap<String, u64> {
        &self.missed
    }

    /// Waits for the readings that are under way, once the probes are gone.
    pub fn finish(&mut self) {
        if let Some(holders) = &mut self.holders
            && let Err(error) = holders.finish()
        {
            self.count(&error.to_string());
        }
    }

    /// Counts the stops whose reading never came.
    pub fn close(&mut self) {
        for _ in std::mem::take(&mut self.waiting) {
            self.count("the run ended before the worker was read");
        }
    }
}

/// What there is to say of php-fpm's slowlog in the pools of these workers: it traces workers as well.
pub fn slowlog_notes(workers: &[Worker]) -> Vec<String> {
    let Ok(processes) = fpm::discover() else {
        return Vec::new();
    };
    let note = |(master, pool): (&fpm::Master, &str)| {
        let config = fpm::Config::of(master);
        let timeout = config.pool(pool)?.slowlog_timeout.as_ref()?;
        Some(format!(
            "pool {pool} has request_slowlog_timeout = {timeout}: a worker that php-fpm is tracing is not dumped, \
             and one that memprof traces (--freeze-above) gets no entry in php-fpm's slowlog"
        ))
    };
    let pools = processes.pools_of(workers);
    pools.into_iter().filter_map(note).collect()
}

fn external<'a>(
    snapshot: &'a Snapshot,
    pool: Option<&'a str>,
    path: Option<PathBuf>,
) -> External<'a> {
    let asked = |info: &'a RequestInfo| Asked {
        method: &info.method,
        uri: &info.uri,
        script: &info.script,
    };
    External {
        pid: snapshot.pid,
        pool,
        request: snapshot.info.as_ref().map(asked),
        memory_limit_bytes: finite(snapshot.limit),
        tried_bytes: snapshot.tried_bytes,
        path,
    }
}

/// The record as PHP's own error would have it: the place is that of the innermost PHP code.
fn out_of_memory(snapshot: &Snapshot, setting: Option<String>) -> OutOfMemoryRecord {
    let limit = MemoryLimit::from_heap(snapshot.limit);
    let place = |frame: &Frame| Some((frame.file.clone()?, frame.line.unwrap_or(0)));
    let (file, line) = snapshot
        .stack
        .iter()
        .find_map(place)
        .unwrap_or_else(|| ("Unknown".to_owned(), 0));
    OutOfMemoryRecord::new(
        snapshot.limit,
        snapshot.tried_bytes.unwrap_or(0),
        limit.setting(setting.as_deref()),
        file,
        line,
        snapshot.peak_bytes,
    )
}
