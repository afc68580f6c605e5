//! Measures what memprof costs, beside what people use today: ratios within one run, never absolute promises.

mod agent;
mod applications;
mod bpftrace;
mod lane;
mod report;
mod series;
mod statistics;
mod workload;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use memprof_tests::{PhpBuild, repository, target_dir};
use serde::Serialize;

use crate::build::{Target, build};
use crate::php;
use crate::run::{heading, need_root};
use crate::setup::{Goal, setup};
use lane::{LaneResult, Setup, measure};
use report::{Conditions, Table, publish};
use series::Load;
use workload::Workload;

/// The slow setups get this part of the requests.
const SLOW_SHARE: usize = 10;

/// What `cargo xtask bench` can be asked for.
#[derive(Args)]
pub struct Options {
    /// What to measure; all where none is named
    #[arg(value_enum)]
    names: Vec<Name>,
    /// Requests per setup
    #[arg(long, default_value_t = 200)]
    requests: usize,
    /// How long each load of the series rate, workers and time runs
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Laravel's /admin, in every setup
    Admin,
    /// Laravel's /t/calls, in every setup
    Calls,
    /// MediaWiki's main page, in every setup
    Mediawiki,
    /// A page of Symfony with Doctrine, in every setup
    Symfony,
    /// A script that only grows, in every setup
    Growth,
    /// A script that only takes and gives back, in every setup
    Churn,
    /// A script that grows 1,000 calls deep, in every setup
    Recursion,
    /// The stack's depth, from 10 to 10,000
    Depth,
    /// The heap's size, from 16 MiB to 2 GiB
    Heap,
    /// Requests a second
    Rate,
    /// Workers, from 1 to 50
    Workers,
    /// One load for longer: does memory stay flat?
    Time,
}

/// Measures what is named, prints tables, and writes them to `target/bench` with the same as JSON.
///
/// # Errors
/// When anything cannot be installed, built or started, or a page does not answer as it should.
pub fn bench(options: &Options) -> Result<()> {
    need_root("starting php-fpm and loading BPF programs")?;
    setup(Goal::Native, false)?;
    build(Target::Native)?;
    bpftrace::install()?;
    php::fetch(&[PhpBuild::BENCHED])?;
    let prepend = "tests/apps/bench/excimer.php";
    fs::copy(
        repository().join(prepend),
        PhpBuild::BENCHED.folder().join("srv/excimer.php"),
    )
    .with_context(|| format!("copying {prepend}"))?;
    let names = match options.names.as_slice() {
        [] => Name::value_variants(),
        names => names,
    };
    let duration = Duration::from_secs(options.seconds);
    for name in names {
        name.measure(options.requests, duration)?;
    }
    heading(&format!(
        "Tables and JSON are in {}",
        target_dir().join("bench").display()
    ));
    Ok(())
}

/// Checks that the harness works, in a few seconds: times are not judged.
///
/// # Errors
/// When a lane does not come up, or does not see its requests.
pub fn check() -> Result<()> {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL)?;
    let setups = [Setup::Nothing, Setup::Aggressive];
    let results = measure(build, &setups, Workload::Growth { mib: 1 }, 3)?;
    let agent = results.iter().find_map(|lane| lane.agent.as_ref());
    let agent = agent.context("no lane has a memprof")?;
    ensure!(
        agent.events > 0 && agent.lost == 0,
        "what memprof saw: {agent:?}"
    );
    publish("check", "The harness works", &Conditions::now()?, &results)
}

impl Name {
    fn measure(self, requests: usize, duration: Duration) -> Result<()> {
        let name = format!("{self:?}").to_lowercase();
        heading(&name);
        let conditions = Conditions::now()?;
        match self {
            Self::Admin => in_every_setup(&name, Workload::Admin, requests),
            Self::Calls => in_every_setup(&name, Workload::Calls, requests),
            Self::Mediawiki => in_every_setup(&name, Workload::MediaWiki, requests),
            Self::Symfony => in_every_setup(&name, Workload::Symfony, requests),
            Self::Growth => in_every_setup(&name, Workload::Growth { mib: 16 }, requests),
            Self::Churn => in_every_setup(&name, Workload::Churn, requests),
            Self::Recursion => in_every_setup(&name, Workload::Recursion { depth: 1000 }, requests),
            Self::Depth => {
                let depths = [10, 100, 1000, 10_000];
                let sizes = sizes(&depths.map(|depth| Workload::Recursion { depth }), requests)?;
                publish(&name, "The stack's depth", &conditions, &sizes)
            }
            Self::Heap => {
                let mibs = [16, 128, 512, 2048];
                let requests = requests.div_ceil(SLOW_SHARE);
                let sizes = sizes(&mibs.map(|mib| Workload::Growth { mib }), requests)?;
                publish(&name, "The heap's size", &conditions, &sizes)
            }
            Self::Rate => {
                let points = series::run(&rates(), duration)?;
                publish(&name, "Requests a second", &conditions, &points)
            }
            Self::Workers => {
                let points = series::run(&workers(), duration)?;
                publish(&name, "Workers", &conditions, &points)
            }
            Self::Time => {
                let load = Load {
                    workload: Workload::Admin,
                    mode: "aggressive",
                    rate: Some(20),
                    workers: 1,
                    clients: 1,
                };
                let points = series::run(&[load], duration)?;
                publish(&name, "A longer run", &conditions, &points)
            }
        }
    }
}

/// All setups on one workload, the slow ones apart.
fn in_every_setup(name: &str, workload: Workload, requests: usize) -> Result<()> {
    let conditions = Conditions::now()?;
    let mut together = Vec::new();
    for setup in Setup::TOGETHER {
        if setup.is_there()? {
            together.push(setup);
        }
    }
    let results = measure(PhpBuild::BENCHED, &together, workload, requests)?;
    publish(name, &workload.title(), &conditions, &results)?;
    let mut apart = Apart(Vec::new());
    for setup in Setup::SLOW {
        apart.0.push(measure(
            PhpBuild::BENCHED,
            &[Setup::Nothing, setup],
            workload,
            requests.div_ceil(SLOW_SHARE),
        )?);
    }
    let title = format!("{}: what is slow by far, each apart", workload.title());
    publish(&format!("{name}-slow"), &title, &conditions, &apart)
}

/// Setups that were measured two and two.
#[derive(Serialize)]
struct Apart(Vec<Vec<LaneResult>>);

impl Table for Apart {
    fn table(&self) -> String {
        let mut table = String::new();
        for pair in &self.0 {
            let lines = pair.table();
            let skipped = if table.is_empty() { 0 } else { 2 };
            table.extend(lines.split_inclusive('\n').skip(skipped));
        }
        table
    }
}

/// Nothing and aggressive mode on workloads of several sizes.
#[derive(Serialize)]
struct Sizes(Vec<(String, Vec<LaneResult>)>);

impl Table for Sizes {
    fn table(&self) -> String {
        let tables = self.0.iter();
        let tables = tables.map(|(title, lanes)| format!("{title}\n\n{}", lanes.table()));
        tables.collect::<Vec<_>>().join("\n")
    }
}

fn sizes(workloads: &[Workload], requests: usize) -> Result<Sizes> {
    let setups = [
        Setup::Nothing,
        Setup::NothingAgain,
        Setup::Light,
        Setup::Aggressive,
    ];
    let measure = |workload: &Workload| {
        Ok((
            workload.title(),
            measure(PhpBuild::BENCHED, &setups, *workload, requests)?,
        ))
    };
    Ok(Sizes(workloads.iter().map(measure).collect::<Result<_>>()?))
}

fn rates() -> Vec<Load> {
    let mut loads = Vec::new();
    for mode in ["light", "aggressive"] {
        for (workload, rate) in [
            (Workload::Admin, 10),
            (Workload::Admin, 40),
            (Workload::Growth { mib: 1 }, 160),
            (Workload::Growth { mib: 1 }, 640),
        ] {
            loads.push(Load {
                workload,
                mode,
                rate: Some(rate),
                workers: 1,
                clients: 1,
            });
        }
    }
    loads
}

fn workers() -> Vec<Load> {
    let workload = Workload::Growth { mib: 1 };
    [1, 10, 50]
        .map(|workers| Load {
            workload,
            mode: "light",
            rate: Some(100),
            workers,
            clients: workers,
        })
        .to_vec()
}
