//! The integration tests on arm64, in a virtual machine.

mod machine;
mod packages;

use std::path::Path;

use anyhow::{Context, Result, bail};
use memprof_tests::PhpBuild;
use serde_json::Value;

use crate::build::{Target, build, with_bpf};
use crate::php;
use crate::run::{cargo, heading, output};
use crate::setup::{Goal, setup};
use machine::{Outcome, Test, run_tests};

/// A kernel of Debian's, the processor that it runs on, and the tests that are run there.
#[derive(Debug)]
pub struct Kernel {
    /// Its version, as `6.12`.
    version: &'static str,
    /// The suites that it is in.
    suites: &'static [&'static str],
    /// As qemu names it.
    processor: &'static str,
    /// The tests, and the arguments that pick what of each is run.
    tests: &'static [(&'static str, &'static str)],
}

/// One without uprobe_multi, and one with it; the second on a processor that signs pointers and checks jump targets.
///
/// An emulated processor is slow, so not every test is run on both.
const KERNELS: [Kernel; 2] = [
    Kernel {
        version: "6.1",
        suites: &["bookworm", "bookworm-security"],
        processor: "neoverse-n1",
        tests: &[
            ("verbs", ""),
            ("checkpoints", ""),
            ("growth", "every_page"),
            (PAGE, "--nocapture"),
            ("stacks", "with_opcache"),
            ("limit_dumps", "many_small_allocations"),
            ("killed", "--exact killed"),
        ],
    },
    Kernel {
        version: "6.12",
        suites: &["trixie", "trixie-security"],
        processor: "max,pauth-impdef=on",
        tests: &[
            ("verbs", ""),
            ("checkpoints", ""),
            ("growth", ""),
            (PAGE, "--nocapture"),
            ("stacks", "with_opcache with_jit"),
            ("limit", ""),
            (
                "limit_dumps",
                "many_small_allocations killed_while_it_is_stopped is_traced_until",
            ),
            ("dump", "what_only command_line hold::a_worker_goes_on"),
            ("killed", "--exact asked_to_end"),
            ("following", "only_the_pool"),
            ("site_cost", "--nocapture"),
        ],
    },
];

/// The test whose figures have to be those of this machine.
const PAGE: &str = "page";
/// What its figures stand behind, on one line.
const FIGURES: &str = "figures of one page: ";

/// Builds for arm64, and runs the integration tests on each kernel.
///
/// With `only` a kernel's version, on that one alone; with `names`, those of the tests, whether it is usual there or not.
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
    let programs = build_tests(&bpf_object)?;
    let mut failed = Vec::new();
    let mut figures = Vec::new();
    for kernel in kernels {
        let tests = tests_of(kernel, names, &programs)?;
        let outcomes = run_tests(kernel, PhpBuild::ARM64, &tests)?;
        heading(&format!("Linux {} on {}", kernel.version, kernel.processor));
        for (test, outcome) in tests.iter().zip(&outcomes) {
            report(&test.name, outcome);
            if outcome.code != Some(0) {
                failed.push(format!("{} on Linux {}", test.name, kernel.version));
            } else if test.name == PAGE {
                figures.push(figures_in(&outcome.output)?.to_owned());
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed on arm64: {}", failed.join(", "));
    }
    compare(&figures)
}

/// Holds the figures of one page on arm64 against those on this machine's processor.
fn compare(figures: &[String]) -> Result<()> {
    if figures.is_empty() {
        return Ok(());
    }
    build(Target::Native)?;
    php::fetch(&[PhpBuild::named(PhpBuild::LARAVEL)?])?;
    heading("The same page on this machine");
    let mut test = cargo();
    test.args(["test", "--package", "memprof-tests", "--test", PAGE, "--"]);
    let printed = output(test.arg("--nocapture"))?;
    let own = figures_in(&printed)?;
    eprintln!("{own}");
    for other in figures {
        if other != own {
            bail!(
                "on arm64 the same page has other figures (is it the same PHP? else remove target/php): {other}"
            );
        }
    }
    heading("Equal on arm64");
    Ok(())
}

fn figures_in(output: &str) -> Result<&str> {
    let mut lines = output.lines();
    lines
        .find_map(|line| line.split_once(FIGURES))
        .map(|(_, figures)| figures)
        .with_context(|| format!("the test {PAGE} printed no figures:\n{output}"))
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

/// The usual tests of the kernel, or those of these names.
fn tests_of(kernel: &Kernel, names: &[String], programs: &[(String, String)]) -> Result<Vec<Test>> {
    let wanted: Vec<(&str, &str)> = if names.is_empty() {
        kernel.tests.to_vec()
    } else {
        let usual = |name: &str| kernel.tests.iter().find(|(test, _)| *test == name);
        let arguments = |name| usual(name).map_or("", |(_, arguments)| *arguments);
        names
            .iter()
            .map(|name| (name.as_str(), arguments(name)))
            .collect()
    };
    let test = |(name, arguments): (&str, &str)| {
        let program = programs.iter().find(|(built, _)| built == name);
        let (_, program) = program.with_context(|| format!("there is no test {name}"))?;
        Ok(Test {
            name: name.to_owned(),
            command: format!("{program} --test-threads=1 {arguments}"),
        })
    };
    wanted.into_iter().map(test).collect()
}

/// Compiles the integration tests; the name of each, and that of its program.
fn build_tests(bpf_object: &Path) -> Result<Vec<(String, String)>> {
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
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context("reading what cargo built")?;
        let name = message["target"]["name"].as_str();
        let program = message["executable"].as_str().map(Path::new);
        if let (Some(name), Some(program)) = (name, program.and_then(Path::file_name))
            && message["profile"]["test"] == true
        {
            programs.push((name.to_owned(), program.to_string_lossy().into_owned()));
        }
    }
    Ok(programs)
}
