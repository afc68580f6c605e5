//! Engines, modes, windows: from kernel events to what a request did.

#[cfg(feature = "ebpf")]
pub mod ebpf;
