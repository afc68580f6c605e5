//! What a run needs before it begins.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use nix::time::{ClockId, clock_gettime};

use super::AttachError;
use crate::capture::{
    ebpf::{Attach, Event, Sink},
    options::AttachOptions,
    recorder::Recorder,
};

/// Linux 6.6, the first with uprobe_multi.
const UPROBE_MULTI_KERNEL: (u64, u64) = (6, 6);

/// Set by the first Ctrl-C or SIGTERM; the second ends the process at once.
pub(super) fn stop_flag() -> Result<Arc<AtomicBool>, AttachError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(AttachError::Signals)?;
    }
    Ok(stop)
}

pub(super) fn sink(recorder: &Rc<RefCell<Recorder>>) -> Sink {
    let recorder = Rc::clone(recorder);
    Rc::new(RefCell::new(move |event: Event<'_>| {
        recorder.borrow_mut().event(event);
    }))
}

pub(super) fn attach_kind(options: &AttachOptions) -> Attach {
    let release = nix::sys::utsname::uname();
    let release = release
        .ok()
        .and_then(|name| name.release().to_str().map(str::to_owned));
    let mut numbers = release
        .as_deref()
        .unwrap_or_default()
        .split(|letter: char| !letter.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if options.single_uprobes || version < UPROBE_MULTI_KERNEL {
        Attach::Single
    } else {
        Attach::Multi
    }
}

/// Seconds from the start of CLOCK_MONOTONIC to 1970, negated: adding it makes Unix time.
pub(super) fn unix_offset() -> f64 {
    seconds(ClockId::CLOCK_REALTIME) - monotonic_seconds()
}

pub(super) fn monotonic_seconds() -> f64 {
    seconds(ClockId::CLOCK_MONOTONIC)
}

fn seconds(clock: ClockId) -> f64 {
    clock_gettime(clock).map_or(0.0, |time| {
        time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
    })
}
