//! Runs other programs, and says what it runs.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use memprof_tests::repository;

/// Says a step's heading.
pub fn heading(text: &str) {
    eprintln!("==> {text}");
}

/// The cargo that runs this.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository());
    cargo
}

/// A command that inherits nothing of the cargo that runs this, which may be another toolchain's.
pub fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(repository());
    for name in [
        "CARGO",
        "CARGO_ENCODED_RUSTFLAGS",
        "LD_LIBRARY_PATH",
        "RUSTC",
        "RUSTDOC",
        "RUSTUP_TOOLCHAIN",
    ] {
        command.env_remove(name);
    }
    command
}

/// Prints the command, runs it with this terminal, and waits.
///
/// # Errors
/// When it cannot be started or does not end with 0.
pub fn run(command: &mut Command) -> Result<()> {
    let line = line_of(command);
    eprintln!("  $ {line}");
    let status = command
        .status()
        .with_context(|| format!("starting `{line}`: is it installed?"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

/// Runs the command unseen and gives what it wrote to its output.
///
/// # Errors
/// When it cannot be started or does not end with 0; the error then holds what it wrote to either stream.
pub fn output(command: &mut Command) -> Result<String> {
    let line = line_of(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting `{line}`: is it installed?"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` ended with {}:\n{text}{errors}", output.status);
    }
    Ok(text)
}

/// Brings the machine's package lists up to date, as far as its sources answer: what is missing then, the caller will see.
pub fn apt_update() {
    if let Err(error) = run(Command::new("apt-get").args(["--quiet", "update"])) {
        eprintln!("  {error}; going on with the package lists that are there");
    }
}

/// Makes sure that this is root.
///
/// # Errors
/// When it is not; the error tells how to become it.
pub fn need_root(why: &str) -> Result<()> {
    if output(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!(
            "{why} needs root: run the same command as root, as in `sudo -E env \"PATH=$PATH\" cargo xtask ...`"
        );
    }
    Ok(())
}

fn line_of(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
