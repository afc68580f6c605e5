//! Writes what the requests did: log lines, JSON lines, the profile, the summary.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Write},
    time::Duration,
};

use indexmap::IndexMap;
use jiff::{Timestamp, tz::TimeZone};
use memprof_ebpf::ExactCount;
use serde::Serialize;

use super::{
    options::{AttachOptions, Mode},
    recorder::{Finished, Recorder},
};
use crate::{
    profile::{Checkpoint, RequestProfile, StackId, StackTotals},
    record::{
        Record,
        checkpoint::{CheckpointRecord, Label, Measurement},
        event::Event,
        frame::Frame,
        log::{LogError, LogFile, LogLine},
        pprof::{Amounts, Profile},
        request::RequestInfo,
        sample::{HeapSpan, SampleRecord},
        store::{Store, StoreError},
        summary::Summary,
    },
};

/// A request whose heap grew by more than this share of its limit is worth a record: 256 MiB of the
/// original's 2 GiB.
const GROWTH_SHARE: f64 = 0.125;
/// Stands for the stack of what PHP does before the script runs and after it.
pub const NO_PHP_CODE: &str = "[no PHP code]";
/// Stacks shown with a record.
const TOP_STACKS: usize = 10;
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
    profile: Profile,
    paths: HashSet<String>,
    records: IndexMap<String, u64>,
    errors: BTreeMap<String, u64>,
}

/// What surrounds a record in a line of `--json`.
#[derive(Debug, Serialize)]
struct External<'a> {
    pid: i32,
    pool: &'a str,
    mode: &'a str,
    /// Whether growth was recorded run by run.
    recorded: bool,
    request: Asked<'a>,
    memory_limit_bytes: Option<u64>,
    /// The highest threshold that the peak is above.
    above: Option<&'static str>,
    /// Bytes asked for when the limit was hit.
    limit_error_tried_bytes: Option<u64>,
    /// Events of this request that were lost: what is told of it is incomplete where this is not 0.
    lost_events: u64,
    checkpoints: Vec<CheckpointLine>,
    growth: Option<Growth>,
    chunk_growth: Vec<ChunkGrowthLine>,
}

#[derive(Debug, Serialize)]
struct Asked<'a> {
    method: &'a str,
    uri: &'a str,
    script: &'a str,
}

/// The heap at a checkpoint, to the byte.
#[derive(Debug, Serialize)]
struct CheckpointLine {
    label: Label,
    /// `memory_get_usage(true)`
    current_bytes: u64,
    /// `memory_get_peak_usage(true)`
    peak_bytes: u64,
    /// Page runs and huge blocks in use, as the heap counts them itself.
    used_bytes: Option<u64>,
    /// Page runs and huge blocks taken in this request so far, less those freed, as the probes saw them.
    held_bytes: Option<i64>,
}

/// Page runs and huge blocks of one request, in bytes.
#[derive(Debug, Serialize)]
struct Growth {
    taken_bytes: u64,
    freed_bytes: u64,
    held_at_peak_bytes: u64,
    unattributed_at_peak_bytes: Option<i64>,
    /// Runs and blocks freed or resized that were taken before the request, whose size is not known.
    unknown_size_count: u64,
    top: Vec<StackLine>,
}

#[derive(Debug, Serialize)]
struct StackLine {
    held_at_peak_bytes: u64,
    taken_bytes: u64,
    taken_count: u64,
    stack: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ChunkGrowthLine {
    bytes: u64,
    count: u64,
    stack: Vec<String>,
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
            profile: Profile::new(started),
            paths: HashSet::new(),
            records: IndexMap::new(),
            errors: BTreeMap::new(),
        })
    }

    /// Writes the records of a request that is over, and adds it to the profile.
    ///
    /// # Errors
    /// Standard output is closed. A log that can't be written is counted, and the run goes on.
    pub fn finished(
        &mut self,
        finished: &Finished,
        pool: &str,
        recorder: &Recorder,
    ) -> Result<(), OutputError> {
        let profile = &finished.profile;
        self.add_to_profile(finished, pool, recorder);
        let Some(last) = profile.last() else {
            return Ok(());
        };
        let start = profile.at(Label::RequestStart).map(|seen| seen.counters);
        let grown = last
            .real_peak
            .saturating_sub(start.map_or(0, |start| start.real_size));
        let is_high = last.real_peak > self.options.warning.bytes(last.limit);
        let is_grown = grown as f64 > last.limit as f64 * GROWTH_SHARE;
        let every = self.options.every && finished.recorded;
        if !(is_high || is_grown || every) {
            return Ok(());
        }
        let is_critical = last.real_peak > self.options.critical.bytes(last.limit);
        let above = match (is_critical, is_high) {
            (true, _) => Some("critical"),
            (false, true) => Some("warning"),
            (false, false) => None,
        };
        let external = external(finished, pool, self.options.mode, above, recorder);
        if is_high || every {
            self.write(&checkpoint_record(profile), &external)?;
        }
        if finished.recorded
            && let Some(record) = sample_record(profile)
        {
            self.write(&record, &external)?;
        }
        Ok(())
    }

    /// Writes one record to the log and, where asked for, to standard output.
    fn write<R: Record>(
        &mut self,
        record: &R,
        external: &impl Serialize,
    ) -> Result<(), OutputError> {
        let now = Timestamp::now();
        *self.records.entry(R::NAME.to_owned()).or_default() += 1;
        let time = now.to_zoned(TimeZone::UTC).datetime();
        let written = LogLine::new(time, &self.options.app_env, record)
            .map_err(LogError::from)
            .and_then(|line| self.log.append(&line));
        if let Err(error) = written {
            self.count_error(&error.to_string());
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
        *self.errors.entry(cause.to_owned()).or_default() += 1;
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
            ("mode", self.options.mode.as_str()),
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

    /// Adds what allocation calls under a stack asked for (exact mode); no stack is one whose
    /// description was lost.
    pub fn add_exact(
        &mut self,
        recorder: &Recorder,
        stack: Option<StackId>,
        pid: u32,
        count: ExactCount,
    ) {
        let frames = match stack {
            Some(stack) => frames_or_none(recorder, stack),
            None => vec![label_frame("[unknown stack]")],
        };
        let amounts = Amounts {
            alloc_space: count.bytes,
            alloc_objects: count.calls,
            ..Amounts::default()
        };
        let labels = [("pid", pid.to_string())];
        let labels = labels.each_ref().map(|(key, value)| (*key, value.as_str()));
        self.profile.add(&frames, &labels, amounts);
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
fn frames_or_none(recorder: &Recorder, stack: StackId) -> Vec<Frame> {
    let frames = recorder.frames(stack);
    if frames.is_empty() {
        return vec![label_frame(NO_PHP_CODE)];
    }
    frames
}

fn checkpoint_record(profile: &RequestProfile) -> CheckpointRecord {
    let info = &profile.info;
    let measurements = profile.checkpoints.iter().map(|seen| Measurement {
        label: seen.label,
        current_bytes: seen.counters.real_size,
        peak_bytes: seen.counters.real_peak,
        timestamp: seen.time,
        request: (seen.label == Label::RequestStart).then(|| RequestInfo {
            uri: info.uri.clone(),
            method: info.method.clone(),
            user_id: None,
        }),
    });
    CheckpointRecord::new(profile.real_peak().unwrap_or(0), measurements.collect())
}

/// `None` where the request's start or end was not seen.
fn sample_record(profile: &RequestProfile) -> Option<SampleRecord> {
    let start = profile.at(Label::RequestStart)?;
    let end = profile.at(Label::RequestEnd)?;
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
        None,
        duration,
        heap,
    ))
}

fn external<'a>(
    finished: &'a Finished,
    pool: &'a str,
    mode: Mode,
    above: Option<&'static str>,
    recorder: &Recorder,
) -> External<'a> {
    let profile = &finished.profile;
    External {
        pid: finished.pid,
        pool,
        mode: mode.as_str(),
        recorded: finished.recorded,
        request: Asked {
            method: &profile.info.method,
            uri: &profile.info.uri,
            script: &profile.info.script,
        },
        memory_limit_bytes: profile.last().map(|last| last.limit),
        above,
        limit_error_tried_bytes: profile.limit_error.map(|(tried, _)| tried),
        lost_events: profile.lost_events(),
        checkpoints: checkpoints(profile),
        growth: growth(profile, recorder),
        chunk_growth: chunk_growth(profile, recorder),
    }
}

fn checkpoints(profile: &RequestProfile) -> Vec<CheckpointLine> {
    let line = |seen: &Checkpoint| CheckpointLine {
        label: seen.label,
        current_bytes: seen.counters.real_size,
        peak_bytes: seen.counters.real_peak,
        used_bytes: seen.counters.used_bytes(),
        held_bytes: seen.ledger_bytes,
    };
    profile.checkpoints.iter().map(line).collect()
}

fn growth(profile: &RequestProfile, recorder: &Recorder) -> Option<Growth> {
    let ledger = profile.ledger.as_ref()?;
    let mut stacks: Vec<(StackId, StackTotals)> = ledger
        .stacks()
        .map(|(stack, totals)| (stack, *totals))
        .collect();
    stacks.sort_by_key(|(stack, totals)| {
        std::cmp::Reverse((totals.peak_bytes, totals.taken_bytes, *stack))
    });
    let top = stacks
        .iter()
        .take(TOP_STACKS)
        .map(|(stack, totals)| StackLine {
            held_at_peak_bytes: totals.peak_bytes,
            taken_bytes: totals.taken_bytes,
            taken_count: totals.taken_count,
            stack: lines(recorder, *stack),
        });
    Some(Growth {
        taken_bytes: ledger.taken_bytes(),
        freed_bytes: ledger.freed_bytes(),
        held_at_peak_bytes: ledger.peak_bytes(),
        unattributed_at_peak_bytes: profile.unattributed_bytes(),
        unknown_size_count: ledger.freed_unknown(),
        top: top.collect(),
    })
}

fn chunk_growth(profile: &RequestProfile, recorder: &Recorder) -> Vec<ChunkGrowthLine> {
    let mut stacks: Vec<_> = profile.chunk_growth.iter().collect();
    stacks.sort_by_key(|(_, growth)| std::cmp::Reverse(growth.bytes));
    stacks
        .into_iter()
        .take(TOP_STACKS)
        .map(|(stack, growth)| ChunkGrowthLine {
            bytes: growth.bytes,
            count: growth.count,
            stack: lines(recorder, *stack),
        })
        .collect()
}

/// `App\Foo->bar /srv/app/Foo.php:12`, innermost first.
fn lines(recorder: &Recorder, stack: StackId) -> Vec<String> {
    let line = |frame: Frame| match (frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{} {file}:{line}", frame.function),
        (Some(file), None) => format!("{} {file}", frame.function),
        (None, _) => frame.function,
    };
    frames_or_none(recorder, stack)
        .into_iter()
        .map(line)
        .collect()
}
