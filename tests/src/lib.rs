//! Starts real php-fpm builds and the real agent, for the integration tests and the demo.
//!
//! A test takes a [`PhpBuild`], starts an [`Fpm`] of it, sends [`fcgi::Request`]s, and runs [`Memprof`] against it.
//! Everything it starts is its own: a copy of the binary, a folder, a socket; all of it goes when the value is dropped.

pub mod attached;
mod command_line;
pub mod fcgi;
mod fpm;
mod laravel;
mod memprof;
mod php;
pub mod probes;
mod process;

use std::path::{Path, PathBuf};

pub use command_line::CommandLine;
pub use fpm::{Fpm, Opcache, Pool, Settings, User};
pub use laravel::Laravel;
pub use memprof::{Finished, Memprof};
pub use php::{PhpBuild, Source};
pub use process::sleeps;

/// The root of memprof's source tree.
pub fn repository() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// Where cargo builds, and where the PHP builds are kept: `CARGO_TARGET_DIR`, else `target` in the repository.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => repository().join(folder),
        None => repository().join("target"),
    }
}
