//! memprof's chores, run as `cargo xtask <verb>`.

mod apt;
mod arm64;
mod bench;
mod build;
mod cross;
mod demo;
mod php;
mod run;
mod setup;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use memprof_tests::PhpBuild;

use crate::build::Target;
use crate::setup::{Goal, setup};

/// memprof's chores.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what building and testing need, saying what first
    Setup {
        /// Only say what is missing, and fail if something is
        #[arg(long)]
        check: bool,
    },
    /// Build the BPF object and memprof: target/release/memprof, or release/memprof in the folder of --target
    Build {
        /// For a processor other than this machine's
        #[arg(long, value_parser = [cross::TRIPLE])]
        target: Option<String>,
    },
    /// Show memprof at work on a php-fpm of its own that serves a Laravel application
    Demo,
    /// Measure what memprof costs, beside bpftrace, Xdebug and Excimer
    Bench(bench::Options),
    /// Run every check and every test, as CI does
    Test {
        /// Only the integration tests on arm64, in a virtual machine
        #[arg(long)]
        arm64: bool,
        /// Only on this kernel, as 6.12
        #[arg(long, requires = "arm64")]
        kernel: Option<String>,
        /// Only these of the tests, as growth
        #[arg(requires = "arm64")]
        names: Vec<String>,
    },
    /// Fetch the PHP builds of the tests into target/php (nothing is installed), those for arm64 for decoding only
    Php {
        /// Names, as bookworm-8.2 or arm64-trixie-8.4; all builds where none is given
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run_verb(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not by Debug, which would add a backtrace where RUST_BACKTRACE is set.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_verb(verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup { check } => setup(Goal::Arm64, check),
        Verb::Build { target } => {
            let target = Target::named(target.as_deref());
            let goal = match target {
                Target::Native => Goal::Native,
                Target::Arm64 => Goal::Arm64,
            };
            setup(goal, false)?;
            build::build(target).map(drop)
        }
        Verb::Demo => demo::demo(),
        Verb::Bench(options) => bench::bench(&options),
        Verb::Test { arm64: false, .. } => test::test(),
        Verb::Test { kernel, names, .. } => arm64::test(kernel.as_deref(), &names),
        Verb::Php { names } => {
            let wanted = match names.as_slice() {
                [] => PhpBuild::usual().collect(),
                names => names
                    .iter()
                    .map(|name| PhpBuild::named(name))
                    .collect::<Result<Vec<_>>>()?,
            };
            php::fetch(&wanted)
        }
    }
}
