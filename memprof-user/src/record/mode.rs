//! The record of a change of mode.

use serde::{Deserialize, Serialize};

use super::{Level, Record};

/// The context of `memprof mode change`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeRecord {
    /// The mode before; `null` where no probe was held.
    pub before: Option<String>,
    /// The mode now; `null` while no probe is held.
    pub mode: Option<String>,
    /// Why.
    pub reason: String,
}

impl Record for ModeRecord {
    const NAME: &'static str = "mode";
    const MESSAGE: &'static str = "memprof mode change";
    const LEVEL: Level = Level::Info;
}
