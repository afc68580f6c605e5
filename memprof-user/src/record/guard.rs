//! The record of what the guard found.

use serde::{Deserialize, Serialize};

use super::{Level, Record};

/// The context of `memprof overhead guard`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardRecord {
    /// What it found, in words.
    pub found: String,
    /// The mode then.
    pub mode: String,
}

impl Record for GuardRecord {
    const NAME: &'static str = "guard";
    const MESSAGE: &'static str = "memprof overhead guard";
    const LEVEL: Level = Level::Warning;
}
