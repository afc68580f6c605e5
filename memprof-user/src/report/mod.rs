//! What people read: the analyzer and the summaries, from records alone.

pub mod analyze;
