//! The agent behind the `memprof` command.
//!
//! Data goes one way: kernel event -> [`capture`] -> [`profile`] -> [`record`] -> [`report`].
//! `profile` and `record` know nothing of processes, `zend` knows nothing of BPF, and
//! `report` reads only what `record` wrote, so it works on another machine.

pub mod binary;
pub mod capture;
pub mod cli;
pub mod config;
pub mod fpm;
pub mod framework;
pub mod profile;
pub mod record;
pub mod report;
pub mod zend;
