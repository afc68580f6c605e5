//! What the agent and the programs say to each other of workers that are to be held still.

use std::time::Duration;

use bytemuck::bytes_of;
use libbpf_rs::{MapCore, MapFlags, MapHandle, RingBufferBuilder};
use memprof_ebpf::{Hold, HoldOrder, Worker, WorkerState};

use super::{Engine, EngineError, handle, key};

/// The maps by which workers are held; usable in any thread.
#[derive(Debug)]
pub struct HoldMaps {
    orders: MapHandle,
    held: MapHandle,
    workers: MapHandle,
}

impl Engine {
    /// The maps by which workers are held.
    ///
    /// # Errors
    /// The object has none.
    pub fn hold_maps(&self) -> Result<HoldMaps, EngineError> {
        Ok(HoldMaps {
            orders: handle(&self.object, "HOLD_ORDERS")?,
            held: handle(&self.object, "HELD")?,
            workers: handle(&self.object, "WORKERS")?,
        })
    }
}

impl HoldMaps {
    /// Hands each order to `take` as it comes, while `goes_on` says so, which is asked every `look`.
    ///
    /// # Errors
    /// The ring can't be read.
    pub fn watch(
        &self,
        look: Duration,
        goes_on: impl Fn() -> bool,
        mut take: impl FnMut(HoldOrder),
    ) -> Result<(), EngineError> {
        let failed = |error| EngineError::Map("HOLD_ORDERS", error);
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&self.orders, |bytes| {
                if let Ok(order) = bytemuck::try_pod_read_unaligned(bytes) {
                    take(order);
                }
                0
            })
            .map_err(failed)?;
        let ring = builder.build().map_err(failed)?;
        while goes_on() {
            let taken = ring.poll_raw(look);
            // A signal for the process may come to this thread too.
            if taken < 0 && -taken != nix::libc::EINTR {
                return Err(failed(libbpf_rs::Error::from_raw_os_error(-taken)));
            }
        }
        Ok(())
    }

    /// Answers an order.
    ///
    /// # Errors
    /// The map is full or can't be written.
    pub fn answer(&self, pid: i32, hold: Hold) -> Result<(), EngineError> {
        self.held
            .update(&key(pid), bytes_of(&(hold as u32)), MapFlags::ANY)
            .map_err(|error| EngineError::Map("HELD", error))
    }

    /// Takes the answer back.
    pub fn take_back(&self, pid: i32) {
        // The kernel side dropped it already where this fails.
        let _ = self.held.delete(&key(pid));
    }

    /// What the programs keep of a worker; `None` if it is not followed.
    #[must_use]
    pub fn state(&self, pid: i32) -> Option<Box<WorkerState>> {
        state(&self.workers, pid)
    }
}

/// What the programs keep of a worker, out of the map of workers.
pub(super) fn state(workers: &MapHandle, pid: i32) -> Option<Box<WorkerState>> {
    let bytes = workers.lookup(&key(pid), MapFlags::ANY).ok()??;
    let worker: Worker = bytemuck::try_pod_read_unaligned(&bytes).ok()?;
    Some(Box::new(worker.state))
}
