//! Takes probes away without keeping the agent waiting.

use std::{
    sync::mpsc::{Sender, channel},
    thread::JoinHandle,
};

use super::Attached;

/// A thread that takes probes away.
///
/// The kernel lets go of a probe only when no program runs any more that began before: some 40 ms
/// and, while a worker is held, until the agent has let it go on. So the agent must not wait for it.
#[derive(Debug)]
pub struct Detacher {
    /// `None` only while this is dropped.
    probes: Option<Sender<Vec<Attached>>>,
    thread: Option<JoinHandle<()>>,
}

impl Detacher {
    /// Starts the thread.
    #[must_use]
    pub fn start() -> Self {
        let (sender, probes) = channel();
        let thread = std::thread::spawn(move || probes.into_iter().for_each(drop));
        Self {
            probes: Some(sender),
            thread: Some(thread),
        }
    }

    /// Takes these away soon.
    pub fn detach(&self, probes: Vec<Attached>) {
        if let Some(sender) = &self.probes
            && !probes.is_empty()
        {
            // Without its thread they are dropped here.
            let _ = sender.send(probes);
        }
    }
}

impl Drop for Detacher {
    /// Waits until all are away.
    fn drop(&mut self) {
        self.probes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
