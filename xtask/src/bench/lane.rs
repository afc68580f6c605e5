//! One php-fpm with what watches it, and requests that are sent to several of them in turns.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use memprof_tests::{Fpm, Memprof, PhpBuild, Pool, Settings};
use serde::Serialize;

use super::agent::{Agent, AgentCost};
use super::bpftrace::Bpftrace;
use super::statistics::Quartiles;
use super::workload::{Client, Workload};

/// The first requests compile PHP files and views.
const WARM_UPS: usize = 10;
/// The pool that memprof targets, and its neighbour in the same php-fpm.
const TARGETED: &str = "memprof-bench";
const NEIGHBOUR: &str = "memprof-neighbour";

/// What is measured: each has a php-fpm of its own, because uprobes belong to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Setup {
    Nothing,
    /// The same once more: by how much it differs from the first, the machine is too noisy to tell.
    NothingAgain,
    Light,
    Aggressive,
    /// Targeted mode while no request is targeted.
    Targeted,
    /// Another pool's worker of the same php-fpm, which memprof does not target.
    Untargeted,
    Exact,
    Bpftrace,
    XdebugProfile,
    XdebugTrace,
    Excimer,
}

impl Setup {
    /// What is measured together. What is slow by far is measured apart: the page that comes behind it finds cold caches.
    pub const TOGETHER: [Self; 7] = [
        Self::Nothing,
        Self::NothingAgain,
        Self::Light,
        Self::Aggressive,
        Self::Targeted,
        Self::Untargeted,
        Self::Excimer,
    ];
    /// What is slow by far.
    pub const SLOW: [Self; 4] = [
        Self::Exact,
        Self::Bpftrace,
        Self::XdebugProfile,
        Self::XdebugTrace,
    ];

    /// For the tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Nothing => "nothing attached",
            Self::NothingAgain => "nothing attached, once more",
            Self::Light => "memprof light",
            Self::Aggressive => "memprof aggressive",
            Self::Targeted => "memprof targeted, no request targeted",
            Self::Untargeted => "a worker that memprof does not target, same php-fpm",
            Self::Exact => "memprof exact",
            Self::Bpftrace => "bpftrace, a count on every _emalloc*",
            Self::XdebugProfile => "Xdebug profile",
            Self::XdebugTrace => "Xdebug trace",
            Self::Excimer => "Excimer at 100 Hz (time, not memory)",
        }
    }

    /// Whether this memprof has it.
    ///
    /// # Errors
    /// When memprof can't be started.
    pub fn is_there(self) -> Result<bool> {
        match self {
            Self::Targeted => Ok(Memprof::run(&["attach", "--help"])?
                .stdout
                .contains("targeted")),
            _ => Ok(true),
        }
    }

    /// memprof's arguments, where memprof watches.
    fn mode(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Light => Some(&["--mode", "light"]),
            Self::Aggressive | Self::Untargeted => Some(&["--mode", "aggressive"]),
            Self::Targeted => Some(&["--mode", "targeted"]),
            Self::Exact => Some(&["--mode", "exact", "--duration", "1h"]),
            _ => None,
        }
    }

    /// The pool that serves the measured requests.
    fn pool(self) -> &'static str {
        match self {
            Self::Untargeted => NEIGHBOUR,
            _ => TARGETED,
        }
    }

    /// Settings of other profilers.
    fn ini(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::XdebugProfile => &[
                ("zend_extension", "xdebug.so"),
                ("xdebug.mode", "profile"),
                ("xdebug.start_with_request", "yes"),
                ("xdebug.output_dir", "/srv"),
                ("xdebug.profiler_output_name", "xdebug-profile"),
                ("xdebug.use_compression", "0"),
            ],
            Self::XdebugTrace => &[
                ("zend_extension", "xdebug.so"),
                ("xdebug.mode", "trace"),
                ("xdebug.start_with_request", "yes"),
                ("xdebug.output_dir", "/srv"),
                ("xdebug.trace_output_name", "xdebug-trace"),
                ("xdebug.trace_format", "1"),
                ("xdebug.use_compression", "0"),
            ],
            Self::Excimer => &[
                ("extension", "excimer.so"),
                ("auto_prepend_file", "/srv/excimer.php"),
            ],
            _ => &[],
        }
    }

    fn settings(self, memory_limit: &str) -> Settings {
        let pool = |name| Pool {
            memory_limit: memory_limit.to_owned(),
            ..Pool::new(name)
        };
        let ini = self.ini().iter();
        Settings {
            pools: vec![pool(TARGETED), pool(NEIGHBOUR)],
            ini: ini
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Settings::default()
        }
    }
}

/// One php-fpm, its requests, and what watches it; ended in this order.
struct Lane {
    setup: Setup,
    agent: Option<Agent>,
    _bpftrace: Option<Bpftrace>,
    client: Client,
    /// The worker that serves the requests.
    worker: i32,
    times: Vec<Duration>,
    cpu_times: Vec<Duration>,
    _fpm: Fpm,
}

/// What a setup came to.
#[derive(Debug, Serialize)]
pub struct LaneResult {
    /// Which one.
    pub setup: Setup,
    /// Requests that were measured.
    pub requests: usize,
    /// Time of a request in ms.
    pub ms: Quartiles,
    /// The median over that of the first setup.
    pub ratio: f64,
    /// The worker's time on a processor in ms, from one answer to the next: other work of the machine is not in it.
    pub cpu_ms: Quartiles,
    /// The median over that of the first setup.
    pub cpu_ratio: f64,
    /// What memprof used.
    pub agent: Option<AgentCost>,
}

impl Lane {
    fn open(build: &PhpBuild, setup: Setup, workload: Workload) -> Result<Self> {
        let limit = match workload {
            Workload::Growth { .. } => "4G",
            _ => "256M",
        };
        let fpm = Fpm::start(build, setup.settings(limit))?;
        let mut client = workload.open(&fpm, setup.pool())?;
        for _ in 0..WARM_UPS {
            client()?;
        }
        let agent = match setup.mode() {
            Some(mode) => Some(Agent::attach(&fpm, TARGETED, mode)?),
            None => None,
        };
        let bpftrace = match setup {
            Setup::Bpftrace => Some(Bpftrace::attach(&fpm)?),
            _ => None,
        };
        let workers = fpm.workers(setup.pool())?;
        Ok(Self {
            setup,
            agent,
            _bpftrace: bpftrace,
            client,
            worker: *workers.first().context("the pool has no worker")?,
            times: Vec::new(),
            cpu_times: Vec::new(),
            _fpm: fpm,
        })
    }

    fn request(&mut self) -> Result<()> {
        let before = cpu_time(self.worker)?;
        self.times.push((self.client)()?);
        self.cpu_times
            .push(cpu_time(self.worker)?.saturating_sub(before));
        Ok(())
    }
}

/// Sends each setup so many requests, in turns, each time from another one on.
///
/// # Errors
/// When one can't be started, or a request is not answered as it should be.
pub fn measure(
    build: &PhpBuild,
    setups: &[Setup],
    workload: Workload,
    requests: usize,
) -> Result<Vec<LaneResult>> {
    let open = |setup: &Setup| {
        Lane::open(build, *setup, workload)
            .with_context(|| format!("{}: {}", workload.title(), setup.title()))
    };
    let mut lanes = setups.iter().map(open).collect::<Result<Vec<_>>>()?;
    for _ in 0..requests {
        for lane in &mut lanes {
            lane.request().with_context(|| lane.setup.title())?;
        }
        lanes.rotate_left(1);
    }
    lanes.sort_by_key(|lane| setups.iter().position(|setup| *setup == lane.setup));
    let mut results: Vec<LaneResult> = Vec::new();
    for mut lane in lanes {
        let quartiles =
            |times: &[Duration]| Quartiles::of(times.iter().map(|time| time.as_secs_f64() * 1e3));
        let (ms, cpu_ms) = (quartiles(&lane.times)?, quartiles(&lane.cpu_times)?);
        let base = results
            .first()
            .map_or((ms, cpu_ms), |first| (first.ms, first.cpu_ms));
        results.push(LaneResult {
            setup: lane.setup,
            requests: lane.times.len(),
            ms,
            ratio: ms.median / base.0.median,
            cpu_ms,
            cpu_ratio: cpu_ms.median / base.1.median,
            agent: lane.agent.take().map(Agent::stop).transpose()?,
        });
    }
    Ok(results)
}

/// The time that a process has been on a processor.
fn cpu_time(pid: i32) -> Result<Duration> {
    let file = format!("/proc/{pid}/schedstat");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    let nanoseconds = text.split(' ').next().unwrap_or_default();
    let nanoseconds = nanoseconds
        .parse()
        .with_context(|| format!("reading {file}: {text}"))?;
    Ok(Duration::from_nanos(nanoseconds))
}
