//! Dumps of workers that another thread traces all the time.

use std::sync::Arc;

use memprof_ebpf::Hold;
use nix::libc;

use super::holder::{Holder, Next};
use super::{Shared, lock};
use crate::capture::tracee::Tracee;

/// What the thread that traces workers in targeted mode does at their stops for a dump.
#[derive(Clone)]
pub struct Keeper(pub(super) Arc<Shared>);

impl Keeper {
    /// This worker is traced from now on, and so stops wherever there is to be a dump; how many stops the
    /// kernel side has made so far.
    pub fn keep(&self, pid: i32) -> u64 {
        lock(&self.0.kept).insert(pid);
        // Where this fails the worker does not stop, and the dump is counted as missed.
        let _ = self.0.maps.answer(pid, Hold::Kept);
        self.0.maps.state(pid).map_or(0, |state| state.stops)
    }

    /// It is not traced any more.
    pub fn give_up(&self, pid: i32) {
        lock(&self.0.kept).remove(&pid);
        self.0.maps.take_back(pid);
    }

    /// A kept worker stopped at the kernel side's signal: where that was for a dump it is read, and goes
    /// on. `false` where it was not.
    pub fn at_stop(&self, tracee: &Tracee, pid: i32, stops: &mut u64) -> bool {
        let target = lock(&self.0.targets).get(&pid).cloned();
        let Some(target) = target else {
            return false;
        };
        let mut holder = Holder::after(&self.0, &target, *stops);
        let next = holder.at_signal(tracee);
        *stops = holder.stops();
        match next {
            Some(Next::GoOn(libc::SIGURG)) => false,
            // It fails where the worker was killed meanwhile, and the next look tells of its end.
            Some(_) => {
                let _ = tracee.go_on(0);
                true
            }
            None => true,
        }
    }
}
