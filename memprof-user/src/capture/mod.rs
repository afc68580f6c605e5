//! Engines, modes, windows: from kernel events to what a request did.

#[cfg(feature = "ebpf")]
mod application;
#[cfg(feature = "ebpf")]
mod calls;
pub mod dump;
#[cfg(feature = "ebpf")]
mod dumps;
#[cfg(feature = "ebpf")]
pub mod ebpf;
#[cfg(feature = "ebpf")]
mod external;
pub mod freeze;
#[cfg(feature = "ebpf")]
mod highlights;
#[cfg(feature = "ebpf")]
mod hold;
#[cfg(feature = "ebpf")]
mod names;
pub mod options;
#[cfg(feature = "ebpf")]
mod output;
#[cfg(feature = "ebpf")]
mod recorder;
#[cfg(feature = "ebpf")]
mod run;
#[cfg(feature = "ebpf")]
mod sampler;
#[cfg(feature = "ebpf")]
mod snapshot;
mod tracee;
#[cfg(feature = "ebpf")]
mod uri;
#[cfg(feature = "ebpf")]
mod watch;
#[cfg(feature = "ebpf")]
mod worker;
#[cfg(feature = "ebpf")]
mod workers;

pub use options::{
    AttachOptions, CheckpointAt, DumpPolicy, Mode, OwnCheckpoint, Threshold, default_out,
};
#[cfg(feature = "ebpf")]
pub use {
    output::OutputError,
    run::{AttachError, attach},
    workers::FollowError,
};
