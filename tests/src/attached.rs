//! A php-fpm with memprof attached to its pool, and what memprof says of each request.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::{Fpm, Memprof, Pool, Settings};

/// Settings of one pool whose name no other php-fpm of this machine has, so that memprof attaches to no other.
pub fn own_pool(name: &str) -> Settings {
    Settings {
        pools: vec![Pool::new(&format!("{name}-{}", std::process::id()))],
        ..Settings::default()
    }
}

/// Where [`attach_to`] has memprof write the records of this php-fpm's first pool.
pub fn records_folder(fpm: &Fpm) -> PathBuf {
    fpm.folder().join("records")
}

/// The options that leave memprof without its guard.
pub const UNGUARDED: [&[&str]; 3] = [
    &["--no-guard"],
    &["--max-memory", "4096"],
    &["--max-cpu", "10000"],
];

/// Attaches memprof to the first pool, printing its records as JSON. Its guard is off: on a machine that is
/// busy with something else it would do what it is there for.
///
/// # Errors
/// As [`Memprof::attach`].
pub fn attach_to(fpm: &Fpm, arguments: &[&str]) -> Result<Memprof> {
    let unnamed = UNGUARDED
        .iter()
        .filter(|option| !arguments.contains(&option[0]));
    let unguarded: Vec<&str> = unnamed.flat_map(|option| option.iter().copied()).collect();
    attach_guarded(fpm, &[arguments, &unguarded].concat())
}

/// The same with the guard as it is by default.
///
/// # Errors
/// As [`Memprof::attach`].
pub fn attach_guarded(fpm: &Fpm, arguments: &[&str]) -> Result<Memprof> {
    let out = records_folder(fpm);
    let out = out.to_str().context("the folder's path is no UTF-8")?;
    let target = ["--pool", fpm.pool(), "--out", out, "--json"];
    Memprof::attach(&[&target, arguments].concat())
}

/// What stands beside the record in a line of `--json`.
#[derive(Debug, Deserialize)]
pub struct External {
    /// The worker.
    pub pid: i32,
    /// Its pool.
    pub pool: String,
    /// Whether the request was recorded in full.
    pub recorded: bool,
    /// Events of the request that were lost.
    pub lost_events: u64,
    /// The heap at its checkpoints.
    pub checkpoints: Vec<Station>,
    /// Page runs and huge blocks; none where it was not recorded in full.
    pub growth: Option<Growth>,
}

/// The heap at a checkpoint, in bytes.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Station {
    /// `request_start` ...
    pub label: String,
    /// memory_get_usage(true)
    pub current_bytes: u64,
    /// memory_get_peak_usage(true)
    pub peak_bytes: u64,
    /// Runs and blocks in use, by the heap's own count.
    pub used_bytes: Option<i64>,
    /// Runs and blocks taken less freed, by the probes.
    pub held_bytes: Option<i64>,
}

/// Page runs and huge blocks of a request, in bytes.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Growth {
    /// All that was taken.
    pub taken_bytes: u64,
    /// All that was freed.
    pub freed_bytes: u64,
    /// Held at the high-water mark.
    pub held_at_peak_bytes: i64,
    /// In use at the high-water mark by the heap's own count, and not held.
    pub unattributed_at_peak_bytes: Option<i64>,
    /// Freed or resized, taken before the request.
    pub unknown_size_count: u64,
    /// The stacks that held most.
    pub top: Vec<StackShare>,
}

/// One stack's share, in bytes.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct StackShare {
    /// Held at the high-water mark.
    pub held_at_peak_bytes: u64,
    /// Taken over the whole request.
    pub taken_bytes: u64,
    /// Times that something was taken.
    pub taken_count: u64,
    /// Innermost frame first.
    pub stack: Vec<String>,
}

impl External {
    /// Reads it from a line of `--json`.
    ///
    /// # Errors
    /// When the line has no such part.
    pub fn of(line: &Value) -> Result<Self> {
        Self::deserialize(&line["external"]).with_context(|| format!("reading {line}"))
    }

    /// The checkpoint with that label.
    ///
    /// # Errors
    /// When there is none.
    pub fn at(&self, label: &str) -> Result<&Station> {
        let found = self.checkpoints.iter().find(|seen| seen.label == label);
        found.with_context(|| format!("no checkpoint {label} among {:?}", self.checkpoints))
    }
}
