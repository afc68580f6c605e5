//! How memprof's own cost grows: with the requests a second, with the workers, with the time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use memprof_tests::{Fpm, PhpBuild, Pool, Settings};
use serde::Serialize;

use super::agent::{Agent, AgentCost};
use super::report::Table;
use super::workload::{Client, Workload};

const POOL: &str = "memprof-bench";
/// The first requests compile PHP files and views.
const WARM_UPS: usize = 10;
/// How often memory is looked at in a run.
const LOOKS: u32 = 10;

/// What is asked for, and who watches.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub workload: Workload,
    pub mode: &'static str,
    /// Requests a second in all; `None` for as many as there can be.
    pub rate: Option<u32>,
    pub workers: usize,
    /// How many send requests at the same time.
    pub clients: usize,
}

/// What a load came to.
#[derive(Debug, Serialize)]
pub struct Point {
    workload: String,
    mode: &'static str,
    workers: usize,
    rate_asked: Option<u32>,
    rate_reached: f64,
    seconds: f64,
    /// Until memprof said that it is attached.
    attach_ms: f64,
    /// Resident memory over the run, at equal distances.
    resident_mib: Vec<f64>,
    agent: AgentCost,
}

impl Load {
    /// Runs it for so long.
    ///
    /// # Errors
    /// When php-fpm or memprof does not start, or a request is not answered as it should be.
    pub fn run(self, duration: Duration) -> Result<Point> {
        let pool = Pool {
            workers: self.workers,
            memory_limit: "256M".to_owned(),
            ..Pool::new(POOL)
        };
        let settings = Settings {
            pools: vec![pool],
            ..Settings::default()
        };
        let fpm = Fpm::start(PhpBuild::BENCHED, settings)?;
        let mut clients = Vec::new();
        for _ in 0..self.clients {
            let mut client = self.workload.open(&fpm, POOL)?;
            for _ in 0..WARM_UPS {
                client()?;
            }
            clients.push(client);
        }
        let started = Instant::now();
        let agent = Agent::attach(&fpm, POOL, &["--mode", self.mode])?;
        let attach_ms = started.elapsed().as_secs_f64() * 1e3;
        let started = Instant::now();
        let each = self
            .rate
            .map(|rate| Duration::from_secs(1) * self.clients as u32 / rate);
        let (served, resident_mib) = thread::scope(|scope| {
            let sending: Vec<_> = clients
                .into_iter()
                .map(|client| scope.spawn(move || send(client, each, duration)))
                .collect();
            let resident = watch(&agent, duration);
            let mut served = 0;
            for client in sending {
                served += client.join().map_err(|_| anyhow!("a client panicked"))??;
            }
            anyhow::Ok((served, resident?))
        })?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(Point {
            workload: self.workload.title(),
            mode: self.mode,
            workers: self.workers,
            rate_asked: self.rate,
            rate_reached: f64::from(served) / seconds,
            seconds,
            attach_ms,
            resident_mib,
            agent: agent.stop()?,
        })
    }
}

/// Sends requests for so long, one every `each`; how many.
fn send(mut client: Client, each: Option<Duration>, duration: Duration) -> Result<u32> {
    let started = Instant::now();
    let mut sent = 0;
    while started.elapsed() < duration {
        client()?;
        sent += 1;
        if let Some(each) = each {
            // The next one's turn; none where the worker can't keep up.
            thread::sleep((each * sent).saturating_sub(started.elapsed()));
        }
    }
    Ok(sent)
}

fn watch(agent: &Agent, duration: Duration) -> Result<Vec<f64>> {
    let look = |_| {
        thread::sleep(duration / LOOKS);
        agent.resident_mib()
    };
    (0..LOOKS).map(look).collect()
}

impl Table for Vec<Point> {
    fn table(&self) -> String {
        let mut table = "| what | mode | workers | requests a second | agent CPU, % of a core | agent MiB: first, last, most | \
            attached in ms | events a second | lost |\n|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for point in self {
            let at = |index: usize| point.resident_mib.get(index).copied().unwrap_or(0.0);
            table += &format!(
                "| {} | {} | {} | {:.1} | {:.2} | {:.1}, {:.1}, {:.1} | {:.0} | {:.0} | {} |\n",
                point.workload,
                point.mode,
                point.workers,
                point.rate_reached,
                point.agent.cpu_share * 100.0,
                at(0),
                at(point.resident_mib.len().saturating_sub(1)),
                point.agent.peak_mib,
                point.attach_ms,
                point.agent.events as f64 / point.seconds,
                point.agent.lost
            );
        }
        table
    }
}

/// The loads of one series.
///
/// # Errors
/// As [`Load::run`].
pub fn run(loads: &[Load], duration: Duration) -> Result<Vec<Point>> {
    let run = |load: &Load| load.run(duration).with_context(|| format!("{load:?}"));
    loads.iter().map(run).collect()
}
