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
        let mut table = "| setup | requests | median ms | quartiles ms | ratio | worker CPU ms | ratio | agent MiB | \
            events a request | lost | hits a request | ns a hit |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for lane in self {
            let ms = lane.ms;
            table += &format!(
                "| {} | {} | {:.2} | {:.2} to {:.2} | {:.3} | {:.2} | {:.3} |",
                lane.setup.title(),
                lane.requests,
                ms.median,
                ms.low,
                ms.high,
                lane.ratio,
                lane.cpu_ms.median,
                lane.cpu_ratio
            );
            table += &lane
                .agent
                .as_ref()
                .map_or(" | | | | |\n".to_owned(), |agent| {
                    let a_request = |count: u64| count as f64 / lane.requests as f64;
                    format!(
                        " {:.1} | {:.0} | {} | {} | {} |\n",
                        agent.peak_mib,
                        a_request(agent.events),
                        agent.lost,
                        known(agent.hits.map(a_request)),
                        known(agent.ns_per_hit)
                    )
                });
        }
        table + &noise(self)
    }
}

/// A figure without decimals; memprof may not know it.
fn known(figure: Option<f64>) -> String {
    figure.map_or("unknown".to_owned(), |figure| format!("{figure:.0}"))
}

/// Says by how much two php-fpms without anything differ.
fn noise(lanes: &[LaneResult]) -> String {
    let Some(again) = lanes.iter().find(|lane| lane.setup == Setup::NothingAgain) else {
        return String::new();
    };
    let off = (again.ratio - 1.0).abs();
    let cpu_off = (again.cpu_ratio - 1.0).abs();
    let verdict = if off > NOISE {
        "the machine was too noisy to tell smaller differences"
    } else {
        "smaller differences mean nothing"
    };
    format!(
        "\nTwo php-fpms with nothing attached differ by {:.1} % in time, {:.1} % in worker CPU: {verdict}.\n",
        off * 100.0,
        cpu_off * 100.0
    )
}
