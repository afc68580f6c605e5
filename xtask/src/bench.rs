//! Measures what memprof costs a Laravel page, as ratios within one run.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use memprof_tests::{Fpm, Laravel, Memprof, PhpBuild, Pool, Settings, target_dir};

use crate::build::{Target, build};
use crate::php;
use crate::run::{apt_update, heading, need_root, run};
use crate::setup::{Goal, setup};

const PAGE: &str = "/admin";
/// The first requests compile PHP files and views.
const WARM_UPS: usize = 20;
/// The pool that memprof targets, and its neighbour in the same php-fpm.
const TARGETED: &str = "memprof-bench";
const NEIGHBOUR: &str = "memprof-neighbour";

/// What is measured: each has a php-fpm of its own, because uprobes belong to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setup {
    Nothing,
    Light,
    Targeted,
    Aggressive,
    Untargeted,
    CountEveryEmalloc,
}

/// Measured together. What is slow by far is measured apart: the page that comes behind it finds cold caches.
const TOGETHER: [Setup; 5] = [
    Setup::Nothing,
    Setup::Light,
    Setup::Targeted,
    Setup::Aggressive,
    Setup::Untargeted,
];
const APART: [Setup; 2] = [Setup::Nothing, Setup::CountEveryEmalloc];
/// The slow setup gets this part of the requests.
const APART_SHARE: usize = 10;

impl Setup {
    fn title(self) -> &'static str {
        match self {
            Self::Nothing => "nothing attached",
            Self::Light => "memprof light",
            Self::Targeted => "memprof targeted, requests without the header",
            Self::Aggressive => "memprof aggressive",
            Self::Untargeted => "another pool's worker of the same php-fpm, memprof aggressive",
            Self::CountEveryEmalloc => "bpftrace, a count on every _emalloc*",
        }
    }

    /// The pool that serves the measured requests.
    fn pool(self) -> &'static str {
        match self {
            Self::Untargeted => NEIGHBOUR,
            _ => TARGETED,
        }
    }
}

/// One php-fpm, its page, and what watches it.
struct Lane {
    setup: Setup,
    laravel: Laravel,
    memprof: Option<Memprof>,
    times: Vec<Duration>,
    _bpftrace: Option<Bpftrace>,
    _fpm: Fpm,
}

/// Prints and writes (target/bench/cost.md) the time of `requests` interleaved requests per setup.
///
/// # Errors
/// When anything cannot be installed, built or started, or a page does not answer as it should.
pub fn bench(requests: usize) -> Result<()> {
    need_root("starting php-fpm and loading BPF programs")?;
    setup(Goal::Native, false)?;
    build(Target::Native)?;
    install_bpftrace()?;
    let php = PhpBuild::named(PhpBuild::LARAVEL)?;
    php::fetch(&[php])?;
    heading(&format!(
        "{PAGE} of the Laravel test application, {requests} requests a setup, interleaved"
    ));
    let mut report = measure(php, &TOGETHER, requests)?;
    report += "\nApart, because it is so slow:\n\n";
    report += &measure(php, &APART, requests.div_ceil(APART_SHARE))?;
    println!("{report}");
    let folder = target_dir().join("bench");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("cost.md"), report).context("writing the table")
}

/// Sends each setup `requests` requests, in turns, each time from another one on; the table, and what
/// each memprof said at its end.
fn measure(php: &PhpBuild, setups: &[Setup], requests: usize) -> Result<String> {
    let mut lanes = setups
        .iter()
        .map(|setup| Lane::open(php, *setup))
        .collect::<Result<Vec<_>>>()?;
    for _ in 0..requests {
        for lane in &mut lanes {
            let response = lane.laravel.get(PAGE)?;
            lane.times.push(response.duration);
        }
        lanes.rotate_left(1);
    }
    lanes.sort_by_key(|lane| setups.iter().position(|setup| *setup == lane.setup));
    let mut report = table(&lanes)?;
    for lane in &mut lanes {
        if let Some(memprof) = lane.memprof.take() {
            let overhead = overhead(&memprof.stop()?.stderr).to_owned();
            report += &format!("\n{}: {overhead}\n", lane.setup.title());
        }
    }
    Ok(report)
}

/// The line in which memprof says what it cost.
fn overhead(summary: &str) -> &str {
    let mut lines = summary.lines().map(str::trim);
    lines
        .find(|line| line.starts_with("overhead:"))
        .unwrap_or("memprof did not say what it cost")
}

impl Lane {
    fn open(php: &PhpBuild, setup: Setup) -> Result<Self> {
        let settings = Settings {
            pools: vec![Pool::new(TARGETED), Pool::new(NEIGHBOUR)],
            ..Settings::default()
        };
        let fpm = Fpm::start(php, settings)?;
        let mut laravel = Laravel::install(&fpm, setup.pool())?;
        laravel.get("/t/login/1?perm=580")?;
        for _ in 0..WARM_UPS {
            laravel.get(PAGE)?;
        }
        // By pid: pools of the same name belong to the other setups.
        let mode = match setup {
            Setup::Light => Some("light"),
            Setup::Targeted => Some("targeted"),
            Setup::Aggressive | Setup::Untargeted => Some("aggressive"),
            Setup::Nothing | Setup::CountEveryEmalloc => None,
        };
        let out = target_dir()
            .join(format!("bench/{setup:?}"))
            .display()
            .to_string();
        let memprof = match mode {
            Some(mode) => {
                let pids = fpm.workers(TARGETED)?;
                let pid = pids.first().context("the pool has no worker")?.to_string();
                let arguments = ["--pid", &pid, "--mode", mode, "--out", &out];
                Some(Memprof::attach(&arguments)?)
            }
            None => None,
        };
        let bpftrace = match setup {
            Setup::CountEveryEmalloc => Some(Bpftrace::attach(&fpm)?),
            _ => None,
        };
        Ok(Self {
            setup,
            laravel,
            memprof,
            times: Vec::new(),
            _bpftrace: bpftrace,
            _fpm: fpm,
        })
    }
}

/// A running bpftrace; it is killed when this is dropped.
struct Bpftrace(Child);

impl Bpftrace {
    fn attach(fpm: &Fpm) -> Result<Self> {
        let program = format!(
            "uprobe:{}:_emalloc* {{ @[probe] = count(); }}",
            fpm.binary().display()
        );
        let child = Command::new("bpftrace")
            .args(["-e", &program])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting bpftrace")?;
        let mut bpftrace = Self(child);
        let stdout = bpftrace.0.stdout.take().context("bpftrace's output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if !line.starts_with("Attaching") {
            bail!("bpftrace did not attach: {line}");
        }
        Ok(bpftrace)
    }
}

impl Drop for Bpftrace {
    fn drop(&mut self) {
        // It has ended already where this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn install_bpftrace() -> Result<()> {
    if Command::new("bpftrace").arg("--version").output().is_ok() {
        return Ok(());
    }
    heading("Installing bpftrace, for the comparison");
    apt_update();
    run(Command::new("apt-get").args([
        "--quiet",
        "install",
        "--yes",
        "--no-install-recommends",
        "bpftrace",
    ]))
}

fn table(lanes: &[Lane]) -> Result<String> {
    let first = lanes.first().context("no setup was measured")?;
    let base = quartiles(&first.times)?[1];
    let mut table =
        String::from("| setup | median ms | quartiles ms | ratio |\n|---|---|---|---|\n");
    for lane in lanes {
        let [low, median, high] = quartiles(&lane.times)?;
        table += &format!(
            "| {} | {median:.2} | {low:.2} to {high:.2} | {:.3} |\n",
            lane.setup.title(),
            median / base
        );
    }
    Ok(table)
}

/// The lower quartile, the median and the upper quartile, in ms.
fn quartiles(times: &[Duration]) -> Result<[f64; 3]> {
    let mut ms: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    ms.sort_by(f64::total_cmp);
    let at = |share: f64| ms.get((share * ms.len() as f64) as usize).copied();
    match (at(0.25), at(0.5), at(0.75)) {
        (Some(low), Some(median), Some(high)) => Ok([low, median, high]),
        _ => bail!("no request was measured"),
    }
}
