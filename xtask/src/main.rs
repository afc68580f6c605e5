//! memprof's chores, run as `cargo xtask <verb>`.

mod php;
mod run;

use anyhow::Result;
use clap::{Parser, Subcommand};
use memprof_tests::PhpBuild;

/// memprof's chores.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Fetch the PHP builds of the tests into target/php (nothing is installed)
    Php {
        /// Names, as bookworm-8.2; all builds where none is given
        names: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().verb {
        Verb::Php { names } => {
            let wanted: Vec<_> = PhpBuild::ALL
                .iter()
                .filter(|build| names.is_empty() || names.iter().any(|name| name == build.name))
                .collect();
            php::fetch(&wanted)
        }
    }
}
