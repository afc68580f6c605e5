//! The integration tests on arm64, in a virtual machine.

mod machine;
mod packages;

use std::path::Path;

use anyhow::{Context, Result, bail};
use memprof_tests::PhpBuild;
use serde_json::Value;

use crate::build::{Target, build, with_bpf};
use crate::php;
use crate::run::{heading, output};
use crate::setup::{Goal, setup};
use machine::{Outcome, Test, run_tests};

/// A kernel of Debian's, and the processor that it runs on.
#[derive(Debug)]
pub struct Kernel {
    /// Its version, as `6.12`.
    version: &'static str,
    /// The suites that it is in.
    suites: &'static [&'static str],
    /// As qemu names it.
    processor: &'static str,
}

/// One without uprobe_multi, and one with it; the second on a processor that signs pointers and checks jump targets.
const KERNELS: [Kernel; 2] = [
    Kernel {
        version: "6.1",
        suites: &["bookworm", "bookworm-security"],
        processor: "neoverse-n1",
    },
    Kernel {
        version: "6.12",
        suites: &["trixie", "trixie-security"],
        processor: "max,pauth-impdef=on",
    },
];

/// The tests, and what of them is run: all that needs no more than a slow machine has.
const TESTS: [(&str, &str); 12] = [
    ("verbs", ""),
    ("checkpoints", ""),
    ("growth", ""),
    ("stacks", ""),
    ("limit", ""),
    ("modes", ""),
    ("losses", ""),
    ("killed", ""),
    ("following", ""),
    ("dump", ""),
    ("php_builds", ""),
    ("laravel", ""),
];

/// Builds for arm64, and runs the integration tests on each kernel.
///
/// With `only` a kernel's version, on that one alone; with `names`, those of the tests.
///
/// # Errors
/// When anything cannot be installed, built or started, and when a test fails.
pub fn test(only: Option<&str>, names: &[String]) -> Result<()> {
    let kernels: Vec<&Kernel> = KERNELS
        .iter()
        .filter(|kernel| only.is_none_or(|only| only == kernel.version))
        .collect();
    if kernels.is_empty() {
        bail!(
            "there are the kernels {}",
            KERNELS.map(|kernel| kernel.version).join(" and ")
        );
    }
    setup(Goal::Arm64, false)?;
    let bpf_object = build(Target::Arm64)?;
    let builds: Vec<&PhpBuild> = PhpBuild::ARM64.iter().collect();
    php::fetch(&builds)?;
    heading("Building the integration tests for arm64");
    let mut tests = built_tests(&bpf_object)?;
    tests.retain(|test| names.is_empty() || names.contains(&test.name));
    let mut failed = Vec::new();
    for kernel in kernels {
        let outcomes = run_tests(kernel, PhpBuild::ARM64, &tests)?;
        for (test, outcome) in tests.iter().zip(&outcomes) {
            report(&test.name, outcome);
            if outcome.code != Some(0) {
                failed.push(format!("{} on Linux {}", test.name, kernel.version));
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed on arm64: {}", failed.join(", "));
    }
    Ok(())
}

/// Says how a test ended, and of one that failed all that it printed.
fn report(name: &str, outcome: &Outcome) {
    let Outcome {
        code,
        seconds,
        output,
    } = outcome;
    let ended = match code {
        Some(0) => "passed".to_owned(),
        Some(code) => format!("ended with {code}"),
        None => "did not end".to_owned(),
    };
    heading(&format!("{name}: {ended}, {seconds} s"));
    let wanted = output
        .lines()
        .filter(|line| *code != Some(0) || line.starts_with("test "));
    for line in wanted {
        eprintln!("{line}");
    }
}

/// Compiles the integration tests; they are run in the machine.
fn built_tests(bpf_object: &Path) -> Result<Vec<Test>> {
    let mut cargo = Target::Arm64.cargo()?;
    // With the agent's own features, so that what they share is compiled once.
    cargo.args([
        "test",
        "--no-run",
        "--release",
        "--package",
        "memprof-tests",
        "--features",
        "memprof-user/ebpf",
        "--message-format=json",
    ]);
    let messages = output(with_bpf(&mut cargo, bpf_object, Target::Arm64)?)?;
    let mut built = Vec::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context("reading what cargo built")?;
        if let (Some(program), Some(name)) = (
            message["executable"].as_str(),
            message["target"]["name"].as_str(),
        ) && message["profile"]["test"] == true
        {
            built.push((name.to_owned(), program.to_owned()));
        }
    }
    let find = |(name, arguments): &(&str, &str)| {
        let (_, program) = built
            .iter()
            .find(|(built, _)| built == name)
            .with_context(|| format!("cargo built no test {name}"))?;
        let program = program.rsplit('/').next().unwrap_or(program);
        Ok(Test {
            name: (*name).to_owned(),
            command: format!("{program} --test-threads=1 {arguments}"),
        })
    };
    TESTS.iter().map(find).collect()
}
