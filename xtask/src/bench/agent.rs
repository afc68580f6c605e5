//! A memprof at work, and what it uses itself.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use memprof_tests::{Fpm, Memprof};
use procfs::process::Process;
use serde::Serialize;
use serde_json::Value;

/// A memprof that watches a php-fpm.
pub struct Agent {
    memprof: Memprof,
    out: PathBuf,
    attached: Instant,
    cpu_at_start: Duration,
}

/// What a memprof used, and what it saw.
#[derive(Debug, Serialize)]
pub struct AgentCost {
    /// Processor time, from when it was attached.
    pub cpu_ms: f64,
    /// The same as a share of one core.
    pub cpu_share: f64,
    /// Its largest resident memory.
    pub peak_mib: f64,
    /// Events that its probes sent, the lost ones included.
    pub events: u64,
    /// Events that were lost.
    pub lost: u64,
    /// How often a probe was hit, by memprof's own count.
    pub hits: Option<u64>,
    /// What a hit costs, as memprof measured it.
    pub ns_per_hit: Option<f64>,
    /// The part of it that is the trap: what no program can save.
    pub method: Option<String>,
}

impl Agent {
    /// Attaches to the workers of a pool, by process id: other php-fpms have pools of the same name.
    ///
    /// # Errors
    /// When it does not attach.
    pub fn attach(fpm: &Fpm, pool: &str, arguments: &[&str]) -> Result<Self> {
        let out = fpm.folder().join("records");
        let out_argument = out.display().to_string();
        let pids: Vec<String> = fpm.workers(pool)?.iter().map(i32::to_string).collect();
        let mut all = vec!["--out", &out_argument];
        all.extend(arguments);
        for pid in &pids {
            all.extend(["--pid", pid]);
        }
        let memprof = Memprof::attach(&all)?;
        let cpu_at_start = cpu_time(memprof.pid())?;
        Ok(Self {
            memprof,
            out,
            attached: Instant::now(),
            cpu_at_start,
        })
    }

    /// Its resident memory now, in MiB.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_mib(&self) -> Result<f64> {
        let status = Process::new(self.memprof.pid())?.status()?;
        Ok(status.vmrss.context("memprof has no memory")? as f64 / 1024.0)
    }

    /// Stops it, and says what it used.
    ///
    /// # Errors
    /// When it had ended, or wrote no summary.
    pub fn stop(self) -> Result<AgentCost> {
        let pid = self.memprof.pid();
        let cpu = cpu_time(pid)?.saturating_sub(self.cpu_at_start);
        let wall = self.attached.elapsed();
        let peak = Process::new(pid)?.status()?.vmhwm;
        self.memprof.stop()?;
        let file = self.out.join("summary.json");
        let summary = File::open(&file).with_context(|| format!("opening {}", file.display()))?;
        let summary: Value = serde_json::from_reader(summary)?;
        let number = |pointer: &str| summary.pointer(pointer).and_then(Value::as_u64);
        let overhead = &summary["overhead"];
        // The next run on this php-fpm writes its own.
        fs::remove_dir_all(&self.out)?;
        Ok(AgentCost {
            cpu_ms: cpu.as_secs_f64() * 1e3,
            cpu_share: cpu.as_secs_f64() / wall.as_secs_f64(),
            peak_mib: peak.context("memprof has no memory")? as f64 / 1024.0,
            events: number("/events/sent").context("the summary counts no events")?,
            lost: number("/events/lost").context("the summary counts no losses")?,
            hits: overhead["hits"].as_u64(),
            ns_per_hit: overhead["ns_per_hit"].as_f64(),
            method: overhead["method"].as_str().map(str::to_owned),
        })
    }
}

/// The processor time that a process has used.
fn cpu_time(pid: i32) -> Result<Duration> {
    let stat = Process::new(pid)?.stat()?;
    let seconds = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
    Ok(Duration::from_secs_f64(seconds))
}
