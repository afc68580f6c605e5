//! What a run is to do, free of the command line.

use std::{path::PathBuf, str::FromStr, time::Duration};

#[cfg(feature = "ebpf")]
use memprof_ebpf::{HoldConfig, Level as HeapLevel};

use serde::{Deserialize, Serialize};

use super::windows::Window;
use crate::{
    fpm::Target,
    record::{Level, store::Keep},
};

/// What `memprof attach` is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct AttachOptions {
    /// The workers to attach to.
    pub target: Target,
    /// How much is recorded.
    pub mode: Mode,
    /// When it works, and in which mode then.
    pub windows: Vec<Window>,
    /// Aggressive mode only while a worker's heap is past this, light mode otherwise.
    pub when: Option<Threshold>,
    /// What memprof may cost.
    pub guard: GuardPolicy,
    /// The folder by which memprofs that run are reached.
    pub run_folder: PathBuf,
    /// Detach after this time; `None` runs until a signal comes.
    pub duration: Option<Duration>,
    /// The share of requests recorded in full in that mode, 0 to 1; `None` for the mode's own.
    pub sample_rate: Option<f64>,
    /// What forces a request's recording in targeted mode.
    pub force: Force,
    /// Only requests of this method are recorded.
    pub method: Option<String>,
    /// Only requests whose path matches are recorded: `*` stands for any text, `?` for one byte.
    pub path: Option<String>,
    /// The folder of the records.
    pub out: PathBuf,
    /// Where log lines go instead of `memprof.log` in that folder.
    pub log: Option<PathBuf>,
    /// Print each record as a line of JSON on stdout.
    pub json: bool,
    /// Record every sampled request, not only those past a threshold.
    pub every: bool,
    /// A request whose peak is above this is logged.
    pub warning: Threshold,
    /// A request whose peak is above this was in danger.
    pub critical: Threshold,
    /// Checkpoints of the operator's own.
    pub checkpoints: Vec<OwnCheckpoint>,
    /// Records that are not written, by [`Record::NAME`](crate::record::Record::NAME).
    pub without: Vec<String>,
    /// The lowest level of the lines that go to the log.
    pub log_level: Level,
    /// Which records of the folder are kept.
    pub keep: Keep,
    /// The channel in log lines: `production.WARNING`.
    pub app_env: String,
    /// The size of the kernel's ring buffer in bytes.
    pub ring_size_bytes: u32,
    /// Attach probe by probe, as on kernels before 6.6.
    pub single_uprobes: bool,
    /// Print nothing on stderr but errors.
    pub quiet: bool,
    /// When workers are stopped for a dump; `None` never.
    pub dumps: Option<DumpPolicy>,
}

/// A dump at the critical threshold is not taken below this share of the limit.
#[cfg(feature = "ebpf")]
const LEAST_CRITICAL: f64 = 0.9;

#[cfg(feature = "ebpf")]
impl AttachOptions {
    /// When the kernel side has workers held.
    #[must_use]
    pub fn hold_config(&self) -> HoldConfig {
        let Some(policy) = &self.dumps else {
            return HoldConfig {
                wanted: 0,
                hold: HeapLevel::NEVER,
                critical: HeapLevel::NEVER,
                end: HeapLevel::NEVER,
                end_of_recorded: 0,
            };
        };
        HoldConfig {
            wanted: 1,
            hold: policy.hold_above.level(0.0),
            critical: self.critical.level(LEAST_CRITICAL),
            end: self.warning.level(0.0),
            end_of_recorded: u64::from(self.every),
        }
    }
}

/// When a worker is held still to be dumped, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DumpPolicy {
    /// A worker whose heap is above this is traced until its request ends.
    pub hold_above: Threshold,
    /// How long a worker may be stopped at most.
    pub max_stop: Duration,
    /// So many dumps in a minute at most.
    pub per_minute: u32,
}

/// A checkpoint that the operator asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCheckpoint {
    /// Its name in the records.
    pub label: String,
    /// When it is made.
    pub at: CheckpointAt,
}

/// What makes a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointAt {
    /// A file whose path ends so is loaded: `app/Providers/AppServiceProvider.php`.
    File(String),
    /// The heap first grows within this function: `App\Foo::bar`, or `f`.
    Function(String),
}

/// How much is recorded, at what cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A share of the requests in full, the peak and the chunk growth of every request.
    Light,
    /// Every request with its growth by stack.
    Aggressive,
    /// Requests with a header in full, the peak and the chunk growth of every request.
    Targeted,
    /// Every single allocation; slows the pool down many times.
    Exact,
}

/// What memprof may cost the workers and the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuardPolicy {
    /// Whether the requests' overhead is bounded.
    pub is_on: bool,
    /// By how many ms a request may take longer; `None` for the mode's own bound.
    pub max_overhead_ms: Option<f64>,
    /// So many requests in a row above that are too many; 1 at least.
    pub requests_in_a_row: u32,
    /// The most resident memory of memprof itself, in bytes.
    pub most_memory_bytes: u64,
    /// The most processor time of memprof itself, as a share of one processor.
    pub most_cpu: f64,
}

impl Default for GuardPolicy {
    fn default() -> Self {
        Self {
            is_on: true,
            max_overhead_ms: None,
            requests_in_a_row: 10,
            most_memory_bytes: 128 << 20,
            most_cpu: 0.2,
        }
    }
}

impl GuardPolicy {
    /// By how many ms a request may take longer in a mode; `None` without a bound.
    #[must_use]
    pub fn most_overhead_ms(&self, mode: Mode) -> Option<f64> {
        let own = match mode {
            Mode::Light => 5.0,
            Mode::Aggressive | Mode::Targeted => 50.0,
            // Who asks for it is told what it costs, and has to say for how long.
            Mode::Exact => return None,
        };
        self.is_on.then(|| self.max_overhead_ms.unwrap_or(own))
    }
}

/// The header that forces a request's recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Force {
    /// Its name.
    pub header: String,
    /// What it has to hold; `None` where it only has to be there.
    pub value: Option<String>,
    /// Without a value: requests recorded in a minute at most, because any client can send a header.
    pub most_a_minute: u32,
}

impl Default for Force {
    fn default() -> Self {
        Self {
            header: "X-Force-Memory-Profile".to_owned(),
            value: None,
            most_a_minute: 30,
        }
    }
}

impl AttachOptions {
    /// The share of requests recorded in full in a mode, 0 to 1.
    #[must_use]
    pub fn sample_rate_in(&self, mode: Mode) -> f64 {
        match self.sample_rate {
            Some(rate) if mode == self.mode => rate,
            _ if mode == Mode::Light => 0.01,
            _ => 1.0,
        }
    }
}

impl Mode {
    /// As it is written on the command line and in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Aggressive => "aggressive",
            Self::Targeted => "targeted",
            Self::Exact => "exact",
        }
    }
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::Light, Self::Aggressive, Self::Targeted, Self::Exact];
        all.into_iter().find(|mode| mode.as_str() == text).ok_or(())
    }
}

/// A memory threshold for one worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// A number of bytes, whatever the worker's limit.
    Bytes(u64),
    /// A share of the worker's own memory_limit, 0 to 1; of 2 GiB where it has none.
    ShareOfLimit(f64),
}

impl Threshold {
    /// In bytes, for a worker with this memory_limit.
    #[must_use]
    pub fn bytes(self, limit: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::ShareOfLimit(share) => {
                let limit = finite(limit).unwrap_or(WITHOUT_LIMIT);
                (limit as f64 * share) as u64
            }
        }
    }
}

#[cfg(feature = "ebpf")]
impl Threshold {
    /// For the kernel side; never below that share of the limit.
    fn level(self, least_share: f64) -> HeapLevel {
        let (floor, share) = match self {
            Self::Bytes(bytes) => (bytes, least_share),
            Self::ShareOfLimit(share) => (0, share.max(least_share)),
        };
        HeapLevel {
            floor,
            share: (share * 2_f64.powi(32)).ceil() as u64,
            without_limit: self.bytes(u64::MAX),
        }
    }
}

/// What shares are of where there is no memory_limit: the limit that the records' original had.
const WITHOUT_LIMIT: u64 = 2 << 30;

/// A heap's limit in bytes; `None` where memory_limit is -1, for which the heap holds PHP_INT_MAX or more.
#[must_use]
pub fn finite(limit: u64) -> Option<u64> {
    (limit < i64::MAX as u64).then_some(limit)
}

/// Where the records of a pool or of processes go unless --out says otherwise; `None` where the name,
/// which comes from outside, would lead elsewhere.
#[must_use]
pub fn default_out(name: &str) -> Option<PathBuf> {
    let is_name = !name.starts_with('.') && !name.contains(['/', '\0']) && name.len() <= 200;
    is_name.then(|| PathBuf::from("/var/log/memprof").join(name))
}
