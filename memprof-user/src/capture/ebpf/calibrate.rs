//! What the trap of one probe hit costs on this machine, right now.

use std::{path::Path, time::Instant};

use super::{Engine, EngineError, Program};
use crate::binary::{ProbeSite, Site};
use crate::fpm::{Mappings, ProcessId};

/// Calls timed with the probe and without.
const CALLS: u32 = 20_000;

/// An instruction that does nothing, and that the kernel emulates at a uprobe. arm64 steps a `nop` until 6.13.
#[cfg(target_arch = "aarch64")]
macro_rules! emulated {
    () => {
        "b . + 4"
    };
}
/// An instruction that does nothing, and that the kernel emulates at a uprobe.
#[cfg(not(target_arch = "aarch64"))]
macro_rules! emulated {
    () => {
        "nop"
    };
}

// A function of one instruction that the kernel emulates at a uprobe, as it does at most of the
// probe sites.
std::arch::global_asm!(
    ".pushsection .text.memprof_calibration, \"ax\", @progbits",
    ".globl memprof_calibration_target",
    ".type memprof_calibration_target, @function",
    "memprof_calibration_target:",
    emulated!(),
    "ret",
    ".size memprof_calibration_target, . - memprof_calibration_target",
    ".popsection",
);

unsafe extern "C" {
    safe fn memprof_calibration_target();
}

/// Nanoseconds of one hit on an emulated instruction: the trap and the look-up that finds out that
/// the process is not followed. `None` where memprof does not find its own code.
///
/// # Errors
/// The kernel refuses the probe.
pub fn trap_ns(engine: &Engine) -> Result<Option<f64>, EngineError> {
    let Some(site) = own_site() else {
        return Ok(None);
    };
    let pid = std::process::id().cast_signed();
    let without = time_calls();
    let probe = engine.attach(
        Program::Request,
        Path::new("/proc/self/exe"),
        Some(pid),
        &[site],
    )?;
    let with = time_calls();
    drop(probe);
    Ok(Some((with - without).max(0.0) / f64::from(CALLS)))
}

fn time_calls() -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        memprof_calibration_target();
    }
    start.elapsed().as_nanos() as f64
}

fn own_site() -> Option<ProbeSite> {
    let address = memprof_calibration_target as *const () as u64;
    let process = ProcessId::of(std::process::id().cast_signed()).ok()?;
    let mapped = Mappings::of(process).ok()?.file_at(address)?;
    Some(ProbeSite {
        site: Site::RequestStart,
        function: "memprof_calibration_target".to_owned(),
        address,
        file_offset: mapped.offset,
        instruction: emulated!().to_owned(),
        emulated: true,
        why: "memprof's own".to_owned(),
    })
}
