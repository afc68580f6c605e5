//! Why a run failed.

use crate::{
    capture::{
        control::Disabled, ebpf::EngineError, output::OutputError, targeting::TargetingError,
        workers::FollowError,
    },
    fpm::FpmError,
};

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The workers can't be found.
    #[error(transparent)]
    Process(#[from] FpmError),
    /// The kernel does not do what is needed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// None of the workers can be followed; this is why the first can't.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The records can't be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// What is to be recorded can't be told to the probes.
    #[error(transparent)]
    Targeting(#[from] TargetingError),
    /// Nobody wants memprof to run now.
    #[error("memprof is disabled{}; `memprof enable` ends that", until(.0))]
    Disabled(Disabled),
    /// Workers can't be held.
    #[error("no thread can be started that would hold workers for their dumps")]
    Threads(#[source] std::io::Error),
    /// Probes would not know the workers by the ids that memprof knows.
    #[error(
        "memprof runs in a pid namespace of its own, where process ids are not those that probes \
         see: run it on the host, or in a container with --pid=host"
    )]
    PidNamespace,
    /// The signals can't be caught.
    #[error("signal handlers can't be installed")]
    Signals(#[source] std::io::Error),
}

fn until(disabled: &Disabled) -> String {
    disabled
        .until
        .map_or_else(String::new, |until| format!(" until {until}"))
}
