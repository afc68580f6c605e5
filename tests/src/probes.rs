//! Which probes are in a worker.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

/// The instruction that the kernel puts where a probe is: `int3` of x86-64, `brk #5` of aarch64.
pub const BREAKPOINT: &[u8] = if cfg!(target_arch = "aarch64") {
    &[0xa0, 0x00, 0x20, 0xd4]
} else {
    &[0xcc]
};

/// Addresses of the worker's code that are not as in the files it was loaded from: where probes are.
///
/// # Errors
/// When the worker has ended.
pub fn changed_code(worker: i32) -> Result<Vec<(u64, Vec<u8>)>> {
    let maps = fs::read_to_string(format!("/proc/{worker}/maps"))?;
    let memory = File::open(format!("/proc/{worker}/mem"))?;
    let mut changed = Vec::new();
    for line in maps.lines() {
        let parts: Vec<&str> = line.split_whitespace().collect();
        let [range, "r-xp", offset, _, _, path] = parts[..] else {
            continue;
        };
        if !path.starts_with('/') {
            continue;
        }
        let (start, end) = range.split_once('-').context("an address range")?;
        let number = |digits| u64::from_str_radix(digits, 16);
        let (start, end) = (number(start)?, number(end)?);
        let file = File::open(format!("/proc/{worker}/map_files/{range}"))?;
        let mut loaded = vec![0; (end - start) as usize];
        memory.read_exact_at(&mut loaded, start)?;
        let mut stored = vec![0; loaded.len()];
        file.read_at(&mut stored, number(offset)?)?;
        changed.extend(differences(start, &loaded, &stored));
    }
    Ok(changed)
}

/// Where two pieces of code differ, in units of a breakpoint; by pages, because nearly all are the same.
fn differences(start: u64, loaded: &[u8], stored: &[u8]) -> Vec<(u64, Vec<u8>)> {
    const PAGE: usize = 4096;
    let pages = loaded.chunks(PAGE).zip(stored.chunks(PAGE)).enumerate();
    pages
        .filter(|(_, (now, then))| now != then)
        .flat_map(|(page, (now, then))| {
            let unit = BREAKPOINT.len();
            let units = now.chunks(unit).zip(then.chunks(unit)).enumerate();
            units
                .filter(|(_, (now, then))| now != then)
                .map(move |(at, (now, _))| (start + (page * PAGE + at * unit) as u64, now.to_vec()))
        })
        .collect()
}
