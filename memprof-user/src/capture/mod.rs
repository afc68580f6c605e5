//! Engines, modes, windows: from kernel events to what a request did.

#[cfg(feature = "ebpf")]
mod application;
#[cfg(feature = "ebpf")]
mod calls;
#[cfg(feature = "ebpf")]
mod closing;
pub mod control;
#[cfg(feature = "ebpf")]
mod counts;
pub mod dump;
#[cfg(feature = "ebpf")]
mod dumps;
#[cfg(feature = "ebpf")]
pub mod ebpf;
#[cfg(feature = "ebpf")]
mod external;
#[cfg(feature = "ebpf")]
mod followed;
pub mod freeze;
#[cfg(feature = "ebpf")]
mod guard;
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
mod privileges;
#[cfg(feature = "ebpf")]
mod recorder;
#[cfg(feature = "ebpf")]
mod run;
#[cfg(feature = "ebpf")]
mod sampler;
#[cfg(feature = "ebpf")]
mod schedule;
#[cfg(feature = "ebpf")]
mod snapshot;
#[cfg(feature = "ebpf")]
mod targeting;
mod tracee;
#[cfg(feature = "ebpf")]
mod tracer;
#[cfg(feature = "ebpf")]
mod uri;
#[cfg(feature = "ebpf")]
mod watch;
mod windows;
#[cfg(feature = "ebpf")]
mod worker;
#[cfg(feature = "ebpf")]
mod workers;

pub use options::{
    AttachOptions, CheckpointAt, DumpPolicy, Force, GuardPolicy, Mode, OwnCheckpoint, Threshold,
    default_out,
};
pub use windows::Window;
#[cfg(feature = "ebpf")]
pub use {
    output::OutputError,
    run::{AttachError, attach},
    targeting::TargetingError,
    workers::FollowError,
};
