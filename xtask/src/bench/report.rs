//! What was measured, as tables and as JSON.

use std::fs;
use std::io::Write;

use anyhow::{Context, Result};
use memprof_tests::target_dir;
use serde::Serialize;

use super::lane::{LaneResult, Setup};
use crate::run::output;

/// A second setup without anything that differs by more than this share says that the machine is busy with other work.
const NOISE: f64 = 0.02;

/// On what, and beside what, it was measured.
#[derive(Debug, Serialize)]
pub struct Conditions {
    kernel: String,
    processor: String,
    cores: usize,
    /// Over the last minute, before the measurement.
    load: f64,
}

impl Conditions {
    /// As they are now.
    ///
    /// # Errors
    /// When /proc can't be read.
    pub fn now() -> Result<Self> {
        let processors = fs::read_to_string("/proc/cpuinfo")?;
        let processor = processors
            .lines()
            .find_map(|line| line.strip_prefix("model name\t: "));
        let load = fs::read_to_string("/proc/loadavg")?;
        let load = load.split(' ').next().context("/proc/loadavg is empty")?;
        Ok(Self {
            kernel: output(std::process::Command::new("uname").arg("-r"))?
                .trim()
                .to_owned(),
            processor: processor.unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            load: load.parse()?,
        })
    }

    fn line(&self) -> String {
        format!(
            "{}, {} cores, Linux {}; load before: {}",
            self.processor, self.cores, self.kernel, self.load
        )
    }
}

/// A result with its table and its name.
pub trait Table: Serialize {
    /// The table, as Markdown.
    fn table(&self) -> String;
}

/// Prints a result, and writes it to `target/bench`: a table and JSON.
///
/// # Errors
/// When the files can't be written.
pub fn publish(
    name: &str,
    title: &str,
    conditions: &Conditions,
    result: &impl Table,
) -> Result<()> {
    #[derive(Serialize)]
    struct Document<'a, T> {
        title: &'a str,
        conditions: &'a Conditions,
        result: &'a T,
    }
    let text = format!(
        "### {title}\n\n{}\n\n{}\n",
        conditions.line(),
        result.table()
    );
    println!("{text}");
    std::io::stdout().flush()?;
    let folder = target_dir().join("bench");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("{name}.md")), text)?;
    let document = Document {
        title,
        conditions,
        result,
    };
    let json = serde_json::to_string_pretty(&document)?;
    fs::write(folder.join(format!("{name}.json")), json).context("writing the JSON")
}

/// Setups that were measured in turns.
impl Table for Vec<LaneResult> {
    fn table(&self) -> String {
        let mut table = "| setup | requests | median ms | quartiles ms | ratio | agent CPU, ms a request | agent MiB | \
            events a request | lost | ns a hit |\n|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for lane in self {
            let ms = lane.ms;
            table += &format!(
                "| {} | {} | {:.2} | {:.2} to {:.2} | {:.3} |",
                lane.setup.title(),
                lane.requests,
                ms.median,
                ms.low,
                ms.high,
                lane.ratio
            );
            match &lane.agent {
                Some(agent) => {
                    let requests = lane.requests as f64;
                    table += &format!(
                        " {:.3} | {:.1} | {:.0} | {} | {} |\n",
                        agent.cpu_ms / requests,
                        agent.peak_mib,
                        agent.events as f64 / requests,
                        agent.lost,
                        agent
                            .ns_per_hit
                            .map_or("unknown".to_owned(), |ns| format!("{ns:.0}"))
                    );
                }
                None => table += " | | | | |\n",
            }
        }
        table + &noise(self)
    }
}

/// Says by how much two php-fpms without anything differ.
fn noise(lanes: &[LaneResult]) -> String {
    let Some(again) = lanes.iter().find(|lane| lane.setup == Setup::NothingAgain) else {
        return String::new();
    };
    let off = (again.ratio - 1.0).abs();
    let verdict = if off > NOISE {
        "the machine was too noisy to tell smaller differences"
    } else {
        "smaller differences mean nothing"
    };
    format!(
        "\nTwo php-fpms with nothing attached differ by {:.1} %: {verdict}.\n",
        off * 100.0
    )
}
