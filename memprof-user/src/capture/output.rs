//! Writes what the requests did: log lines, JSON lines, the profile, the summary.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use indexmap::IndexMap;
use jiff::{Timestamp, tz::TimeZone};
use memprof_ebpf::ExactCount;
use serde::Serialize;

use super::{
    application,
    external::External,
    hold::Facts,
    options::{AttachOptions, Mode, Threshold},
    recorder::{Finished, Recorder},
};
use crate::{
    fpm::Worker,
    profile::{RequestProfile, StackId},
    record::{
        Record,
        checkpoint::{CheckpointRecord, Label, Measurement},
        dump::Dump,
        event::Event,
        frame::Frame,
        guard::GuardRecord,
        log::{LogError, LogFile, LogLine},
        mode::ModeRecord,
        pprof::{Amounts, Profile},
        request::{RequestInfo, UserId},
        sample::{HeapSpan, SampleRecord},
        store::{Store, StoreError},
        summary::Summary,
        units::Mib,
    },
};

/// A request whose heap grew by more than this share of its limit is worth a record: 256 MiB of the
/// original's 2 GiB.
const GROWTH: Threshold = Threshold::ShareOfLimit(0.125);
/// Stands for the stack of what PHP does before the script runs and after it.
pub const NO_PHP_CODE: &str = "[no PHP code]";
/// Different paths that the profile tells apart; the rest are one.
const MOST_PATHS: usize = 500;

/// Why a run can't be written down.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The folder or a file in it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Standard output.
    #[error("standard output can't be written to")]
    Stdout(#[source] io::Error),
    /// A record that is no JSON.
    #[error("a record can't be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// Where the records of a run go.
pub struct Output {
    store: Store,
    log: LogFile,
    options: AttachOptions,
    /// The mode now.
    mode: Mode,
    profile: Profile,
    paths: HashSet<String>,
    records: IndexMap<String, u64>,
    errors: BTreeMap<String, u64>,
}

impl Output {
    /// Opens the folder and the log.
    ///
    /// # Errors
    /// One of them can't be written.
    pub fn open(options: &AttachOptions, started: Timestamp) -> Result<Self, OutputError> {
        let store = Store::create(&options.out)?;
        let log = match &options.log {
            Some(path) => LogFile::open(path)?,
            None => LogFile::open(&store.log_path())?,
        };
        Ok(Self {
            store,
            log,
            options: options.clone(),
            mode: options.mode,
            profile: Profile::new(started),
            paths: HashSet::new(),
            records: IndexMap::new(),
            errors: BTreeMap::new(),
        })
    }

    /// Takes records away that are too old or too many, and puts a long log aside. What fails is counted.
    pub fn tidy(&mut self) {
        let now = Timestamp::now();
        let aside = match self.options.log {
            // Another's log is another's to rotate.
            Some(_) => Ok(()),
            None => self.store.rotate_log(now),
        };
        let cleaned = aside.and_then(|()| self.store.clean(self.options.keep, now));
        if let Err(error) = cleaned {
            self.count_error(&error.to_string());
        }
    }

    /// The guard found something.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn guard_found(&mut self, found: String) -> Result<(), OutputError> {
        let record = GuardRecord {
            found,
            mode: self.mode.as_str().to_owned(),
        };
        self.write(&record, &serde_json::Value::Null)
    }

    /// The run begins in this mode.
    pub fn begin(&mut self, mode: Option<Mode>) {
        self.mode = mode.unwrap_or(self.mode);
    }

    /// What is written from now on was recorded in this mode; `None` while no probe is held.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn change_mode(
        &mut self,
        before: Option<Mode>,
        mode: Option<Mode>,
        reason: &str,
    ) -> Result<(), OutputError> {
        self.mode = mode.unwrap_or(self.mode);
        let name = |mode: Option<Mode>| mode.map(|mode| mode.as_str().to_owned());
        let record = ModeRecord {
            before: name(before),
            mode: name(mode),
            reason: reason.to_owned(),
        };
        self.write(&record, &serde_json::Value::Null)
    }

    /// Writes the records of a request that is over, and adds it to the profile.
    ///
    /// # Errors
    /// Standard output is closed. A log that can't be written is counted, and the run goes on.
    pub fn finished(
        &mut self,
        finished: &Finished,
        worker: Option<&Worker>,
        facts: Facts,
        recorder: &Recorder,
    ) -> Result<(), OutputError> {
        let profile = &finished.profile;
        let pool = worker.and_then(|worker| worker.pool.as_deref());
        self.add_to_profile(finished, pool.unwrap_or_default(), recorder);
        let Some(last) = profile.last() else {
            return Ok(());
        };
        let start = profile.at(&Label::RequestStart).map(|seen| seen.counters);
        let grown = last
            .real_peak
            .saturating_sub(start.map_or(0, |start| start.real_size));
        let is_high = last.real_peak > self.options.warning.bytes(last.limit);
        let is_grown = grown > GROWTH.bytes(last.limit);
        // A forced request is wanted whatever it took.
        let every = (self.options.every || self.mode == Mode::Targeted) && finished.recorded;
        if !(is_high || is_grown || every) {
            return Ok(());
        }
        let is_critical = last.real_peak > self.options.critical.bytes(last.limit);
        let above = match (is_critical, is_high) {
            (true, _) => Some("critical"),
            (false, true) => Some("warning"),
            (false, false) => None,
        };
        let external = External::new(finished, worker, self.mode, above, recorder);
        if is_high || every {
            self.write(&checkpoint_record(profile, &facts), &external)?;
        }
        if is_high || every {
            self.write_application(profile, &external)?;
        }
        if finished.recorded
            && let Some(record) = sample_record(profile, facts.user_id)
        {
            self.write(&record, &external)?;
        }
        Ok(())
    }

    /// Writes what the request asked of its database and its models.
    fn write_application(
        &mut self,
        profile: &RequestProfile,
        external: &External<'_>,
    ) -> Result<(), OutputError> {
        for jump in application::jumps(profile) {
            self.write(&jump, external)?;
        }
        if let Some(models) = application::models(profile) {
            self.write(&models, external)?;
        }
        if let Some(scopes) = application::scopes(profile) {
            self.write(&scopes, external)?;
        }
        let more = &profile.application;
        self.count_errors(
            "jumps after queries beyond the 100 told of a request",
            more.more_jumps,
        );
        self.count_errors(
            "events of models and scopes beyond the 10,000 told apart",
            more.more_names,
        );
        Ok(())
    }

    /// Writes a dump of the worker with that process id; where.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write_dump(&self, dump: &Dump, pid: i32) -> Result<PathBuf, StoreError> {
        self.store.write_dump(dump, pid.unsigned_abs())
    }

    /// Writes one record to the log and, where asked for, to standard output.
    ///
    /// # Errors
    /// Standard output is closed. A log that can't be written is counted, and the run goes on.
    pub fn write<R: Record>(
        &mut self,
        record: &R,
        external: &impl Serialize,
    ) -> Result<(), OutputError> {
        if self.options.without.iter().any(|name| name == R::NAME) {
            return Ok(());
        }
        let now = Timestamp::now();
        *self.records.entry(R::NAME.to_owned()).or_default() += 1;
        if R::LEVEL >= self.options.log_level {
            let time = now.to_zoned(TimeZone::UTC).datetime();
            let written = LogLine::new(time, &self.options.app_env, record)
                .map_err(LogError::from)
                .and_then(|line| self.log.append(&line));
            if let Err(error) = written {
                self.count_error(&error.to_string());
            }
        }
        self.print(now, record, external)
    }

    fn print<R: Record>(
        &self,
        time: Timestamp,
        record: &R,
        external: &impl Serialize,
    ) -> Result<(), OutputError> {
        if !self.options.json {
            return Ok(());
        }
        let line = Event::new(time, record, external)?.to_line()?;
        io::stdout()
            .write_all(line.as_bytes())
            .map_err(OutputError::Stdout)
    }

    /// Counts something that went wrong, by its text.
    pub fn count_error(&mut self, cause: &str) {
        self.count_errors(cause, 1);
    }

    fn count_errors(&mut self, cause: &str, count: u64) {
        if count > 0 {
            *self.errors.entry(cause.to_owned()).or_default() += count;
        }
    }

    /// What went wrong while writing, by cause.
    #[must_use]
    pub fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }

    /// How many records were written, by name.
    #[must_use]
    pub fn records(&self) -> &IndexMap<String, u64> {
        &self.records
    }

    fn add_to_profile(&mut self, finished: &Finished, pool: &str, recorder: &Recorder) {
        let Some(ledger) = &finished.profile.ledger else {
            return;
        };
        let info = &finished.profile.info;
        let path = if self.paths.contains(&info.path) || self.paths.len() < MOST_PATHS {
            self.paths.insert(info.path.clone());
            info.path.as_str()
        } else {
            "[other paths]"
        };
        let pid = finished.pid.to_string();
        let labels = [
            ("pool", pool),
            ("pid", &pid),
            ("path", path),
            ("method", &info.method),
            ("mode", self.mode.as_str()),
        ];
        for (stack, totals) in ledger.stacks() {
            let amounts = Amounts {
                // Exact mode fills these with what was asked for.
                alloc_space: if self.options.mode == Mode::Exact {
                    0
                } else {
                    totals.taken_bytes
                },
                alloc_objects: if self.options.mode == Mode::Exact {
                    0
                } else {
                    totals.taken_count
                },
                inuse_space: totals.peak_bytes,
                inuse_objects: totals.peak_count,
            };
            self.profile
                .add(&frames_or_none(recorder, stack), &labels, amounts);
        }
        let unattributed = finished.profile.unattributed_bytes().unwrap_or(0);
        if let Ok(inuse_space) = u64::try_from(unattributed)
            && inuse_space > 0
        {
            let amounts = Amounts {
                inuse_space,
                ..Amounts::default()
            };
            self.profile
                .add(&[label_frame("[unattributed]")], &labels, amounts);
        }
    }

    /// Adds what allocation calls under a stack asked for (exact mode).
    pub fn add_exact(&mut self, recorder: &Recorder, stack: StackId, pid: u32, count: ExactCount) {
        let amounts = Amounts {
            alloc_space: count.bytes,
            alloc_objects: count.calls,
            ..Amounts::default()
        };
        let labels = [("pid", pid.to_string())];
        let labels = labels.each_ref().map(|(key, value)| (*key, value.as_str()));
        self.profile
            .add(&frames_or_none(recorder, stack), &labels, amounts);
    }

    /// Writes the profile and the summary, and tells the folder's files on the way out.
    ///
    /// # Errors
    /// One of them can't be written.
    pub fn close(mut self, duration: Duration, summary: &Summary) -> Result<(), OutputError> {
        self.profile.set_duration(duration);
        self.profile.add_comment(match self.options.mode {
            Mode::Exact => {
                "alloc: bytes asked for and calls of every allocation; inuse: page runs and \
                 huge blocks held at each request's high-water mark"
                    .to_owned()
            }
            _ => "alloc: page runs and huge blocks taken; inuse: those held at each request's \
                 high-water mark; churn inside pages that are already owned is not seen"
                .to_owned(),
        });
        self.store.write_profile(&self.profile)?;
        self.store.write_summary(summary)?;
        self.print(summary.ended, summary, &serde_json::Value::Null)?;
        Ok(())
    }
}

fn label_frame(name: &str) -> Frame {
    Frame {
        function: name.to_owned(),
        file: None,
        line: None,
    }
}

/// The frames of a stack; a stand-in where no PHP code ran.
pub fn frames_or_none(recorder: &Recorder, stack: StackId) -> Vec<Frame> {
    let frames = recorder.frames(stack);
    if frames.is_empty() {
        return vec![label_frame(NO_PHP_CODE)];
    }
    frames
}

fn checkpoint_record(profile: &RequestProfile, facts: &Facts) -> CheckpointRecord {
    let info = &profile.info;
    let measurements = profile.checkpoints.iter().map(|seen| Measurement {
        label: seen.label.clone(),
        current_bytes: seen.counters.real_size,
        peak_bytes: seen.counters.real_peak,
        timestamp: seen.time,
        request: (seen.label == Label::RequestStart).then(|| RequestInfo {
            uri: info.uri.clone(),
            method: info.method.clone(),
            user_id: facts.user_id.clone(),
        }),
    });
    let peak_bytes = profile.real_peak().unwrap_or(0);
    let mut record = CheckpointRecord::new(peak_bytes, measurements.collect());
    record.session_size = facts.session_bytes.map(Mib::from_bytes);
    record.loaded_classes = facts.loaded_classes;
    record.included_files = facts.included_files;
    record
}

/// `None` where the request's start or end was not seen.
fn sample_record(profile: &RequestProfile, user_id: Option<UserId>) -> Option<SampleRecord> {
    let start = profile.at(&Label::RequestStart)?;
    let end = profile.at(&Label::RequestEnd)?;
    let heap = HeapSpan {
        start_bytes: start.counters.real_size,
        end_bytes: end.counters.real_size,
        peak_bytes: profile.real_peak()?,
    };
    let duration = Duration::try_from_secs_f64(end.time - start.time).ok()?;
    let info = &profile.info;
    Some(SampleRecord::new(
        info.url.clone(),
        info.method.clone(),
        user_id,
        duration,
        heap,
    ))
}
