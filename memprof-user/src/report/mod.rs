//! What people read: the analyzer, its findings, and the difference of two records, from records alone.

pub mod analyze;
pub mod diff;
mod dump_view;
mod external;
mod facts;
mod findings;
mod text;
