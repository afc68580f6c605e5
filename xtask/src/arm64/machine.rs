//! The virtual machine: an arm64 processor that qemu emulates, which starts a kernel of Debian's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use memprof_tests::{PhpBuild, repository};

use super::{Kernel, packages};
use crate::build::Target;
use crate::run::{heading, need_root, output};

/// A machine that has not ended by then hangs.
const LIMIT_SECONDS: &str = "1800";
/// In MiB.
const MEMORY: &str = "2048";
/// The most that a PHP root may become; a file of this size takes only what is in it.
const DISK: &str = "1G";

/// A test to be run in the machine.
#[derive(Debug)]
pub struct Test {
    /// Its name, as `checkpoints`.
    pub name: String,
    /// Its program's name in the folder `deps` of what was built, and its arguments.
    pub command: String,
}

/// How a test ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; none where it did not run to its end.
    pub code: Option<i32>,
    /// How long it took.
    pub seconds: u64,
    /// What it printed.
    pub output: String,
}

/// Starts the kernel, runs the tests in their order, and gives how each ended.
///
/// # Errors
/// When the machine cannot be made or started. A test that fails is none.
pub fn run_tests(kernel: &Kernel, builds: &[PhpBuild], tests: &[Test]) -> Result<Vec<Outcome>> {
    let disks = builds.iter().map(disk).collect::<Result<Vec<_>>>()?;
    let results = packages::folder().join(format!("results-{}", kernel.version));
    write_orders(&results, builds, tests)?;
    let mut machine = machine(kernel)?;
    for (index, disk) in disks.iter().enumerate() {
        add_disk(&mut machine, index, disk);
    }
    add_share(&mut machine, "results", &results, "off");
    let built = Target::Arm64.folder().join("release");
    add_share(&mut machine, "built", &built, "on");
    add_share(&mut machine, "tests", &repository().join("tests"), "on");
    heading(&format!(
        "Starting Linux {} on {}",
        kernel.version, kernel.processor
    ));
    let status = machine.stdin(Stdio::null()).status();
    let status = status.context("starting timeout, of coreutils, with qemu")?;
    if !status.success() {
        // What ran before that has its outcome all the same.
        eprintln!(
            "  the virtual machine did not start, or not switch itself off within {LIMIT_SECONDS} s: {status}"
        );
    }
    Ok(tests.iter().map(|test| outcome(&results, test)).collect())
}

/// The machine without disks and folders. What it prints goes to this terminal.
fn machine(kernel: &Kernel) -> Result<Command> {
    let missing = "the tests on arm64 need a virtual machine, and that could not be had";
    let (image, initramfs) = packages::kernel(kernel).context(missing)?;
    let qemu = packages::qemu().context(missing)?;
    let mut machine = Command::new("timeout");
    machine.args(["--kill-after=10", LIMIT_SECONDS]);
    machine.arg(qemu.get_program()).args(qemu.get_args());
    machine.args(["-machine", "virt,gic-version=3", "-cpu", kernel.processor]);
    machine.args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", MEMORY]);
    machine.arg("-kernel").arg(image);
    machine.arg("-initrd").arg(initramfs);
    let arguments = "console=ttyAMA0 loglevel=3 panic=-1";
    machine.args(["-append", arguments, "-no-reboot", "-nic", "none"]);
    machine.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
    Ok(machine)
}

/// A disk whose changes are forgotten.
fn add_disk(machine: &mut Command, index: usize, file: &Path) {
    machine.arg("-drive").arg(format!(
        "if=none,id=disk{index},format=raw,snapshot=on,file={}",
        file.display()
    ));
    machine.arg("-device");
    machine.arg(format!("virtio-blk-pci,drive=disk{index}"));
}

/// A folder of this machine's; `read_only` is `on` or `off`.
fn add_share(machine: &mut Command, name: &str, folder: &Path, read_only: &str) {
    machine.arg("-fsdev").arg(format!(
        "local,id={name},security_model=none,readonly={read_only},path={}",
        folder.display()
    ));
    machine.arg("-device");
    machine.arg(format!("virtio-9p-pci,fsdev={name},mount_tag={name}"));
}

/// Writes what the machine's first process reads.
fn write_orders(results: &Path, builds: &[PhpBuild], tests: &[Test]) -> Result<()> {
    if results.exists() {
        fs::remove_dir_all(results)?;
    }
    fs::create_dir_all(results)?;
    let names: Vec<&str> = builds.iter().map(|build| build.name).collect();
    let lines = tests
        .iter()
        .map(|test| format!("{} /built/deps/{}\n", test.name, test.command));
    fs::write(results.join("tests"), lines.collect::<String>())?;
    fs::write(results.join("builds"), names.join("\n"))?;
    fs::write(
        results.join("tests-folder"),
        repository().join("tests").display().to_string(),
    )
    .context("writing the machine's orders")
}

fn outcome(results: &Path, test: &Test) -> Outcome {
    let text = fs::read(results.join(format!("{}.txt", test.name))).unwrap_or_default();
    let status = fs::read_to_string(results.join(format!("{}.status", test.name)));
    let status = status.unwrap_or_default();
    let mut numbers = status.split_whitespace();
    Outcome {
        code: numbers.next().and_then(|code| code.parse().ok()),
        seconds: numbers
            .next()
            .and_then(|seconds| seconds.parse().ok())
            .unwrap_or(0),
        output: String::from_utf8_lossy(&text).into_owned(),
    }
}

/// The build's root as a disk, made anew when the root was fetched anew.
fn disk(build: &PhpBuild) -> Result<PathBuf> {
    let root = build.folder();
    if !build.is_fetched() {
        bail!("the PHP build {} is not fetched", build.name);
    }
    let disk = packages::folder().join(format!("{}.ext4", build.name));
    let made = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    if let (Ok(disk_made), Ok(root_made)) = (made(&disk), made(&root.join("recipe.txt")))
        && disk_made > root_made
    {
        return Ok(disk);
    }
    need_root("reading all of a PHP root")?;
    let new = disk.with_extension("new");
    if new.exists() {
        fs::remove_file(&new)?;
    }
    let mut make = Command::new("/usr/sbin/mke2fs");
    make.args(["-q", "-t", "ext4", "-d"])
        .arg(&root)
        .arg(&new)
        .arg(DISK);
    output(&mut make)?;
    fs::rename(&new, &disk)?;
    Ok(disk)
}
