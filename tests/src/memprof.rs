//! Runs the built agent, `target/release/memprof`, as a user does.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::target_dir;

/// Attaching takes some 100 ms; a busy machine needs longer, and a busy emulated one much longer.
const ATTACH_LIMIT: Duration = Duration::from_secs(120);
const END_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(5);

/// A running `memprof`; it is killed when this is dropped.
#[derive(Debug)]
pub struct Memprof {
    child: Child,
    output: File,
    errors: Receiver<String>,
    seen: String,
}

/// What a `memprof` that has ended left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its output: data.
    pub stdout: String,
    /// What it wrote to its error stream: everything for people.
    pub stderr: String,
}

impl Finished {
    /// The output's lines as JSON, as `--json` writes them.
    ///
    /// # Errors
    /// When a line is no JSON.
    pub fn records(&self) -> Result<Vec<Value>> {
        parse(&self.stdout)
    }

    /// The last line of `--json`: the summary.
    ///
    /// # Errors
    /// When there is none.
    pub fn summary(&self) -> Result<Value> {
        let mut records = self.records()?;
        let last = records.pop().filter(|line| line["record"] == "summary");
        let mut last =
            last.with_context(|| format!("no summary; memprof said:\n{}", self.stderr))?;
        Ok(last["context"].take())
    }
}

fn parse(lines: &str) -> Result<Vec<Value>> {
    let parse = |line| {
        serde_json::from_str(line)
            .with_context(|| format!("memprof wrote a line that is no JSON: {line}"))
    };
    lines.lines().map(parse).collect()
}

impl Memprof {
    /// Runs `memprof` to its end, as for `["list", "--json"]`.
    ///
    /// # Errors
    /// When it is not built, or does not end within 120 s.
    pub fn run(arguments: &[&str]) -> Result<Finished> {
        Self::start(arguments)?.wait()
    }

    /// Starts `memprof attach` with these further arguments, and waits until it says that it is attached.
    ///
    /// # Errors
    /// When it is not built, ends, or does not attach within 120 s; the error holds what it said.
    pub fn attach(arguments: &[&str]) -> Result<Self> {
        let mut memprof = Self::start(&[&["attach"], arguments].concat())?;
        let deadline = Instant::now() + ATTACH_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match memprof.errors.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => bail!(
                    "memprof ended before it attached; it said:\n{}",
                    memprof.seen
                ),
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "memprof did not attach within {} s; it said:\n{}",
                        ATTACH_LIMIT.as_secs(),
                        memprof.seen
                    )
                }
            };
            memprof.seen.push_str(&line);
            if line.to_lowercase().contains("attached") {
                return Ok(memprof);
            }
        }
    }

    /// The records with this name that `--json` has printed so far, as soon as there are so many.
    ///
    /// # Errors
    /// When there are fewer after 120 s, or a line is no JSON.
    pub fn wait_for(&self, record: &str, count: usize) -> Result<Vec<Value>> {
        let deadline = Instant::now() + END_LIMIT;
        loop {
            let mut found = self.printed()?;
            found.retain(|line| line["record"] == record);
            if found.len() >= count {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!(
                    "memprof printed {} {record} records in {} s, not {count}; it said:\n{}",
                    found.len(),
                    END_LIMIT.as_secs(),
                    self.seen
                );
            }
            thread::sleep(POLL);
        }
    }

    /// The whole lines that it has printed.
    fn printed(&self) -> Result<Vec<Value>> {
        // memprof writes where this file stands: reading must not move it.
        let mut bytes = vec![0; usize::try_from(self.output.metadata()?.len())?];
        let read = self.output.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        let end = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        parse(&String::from_utf8_lossy(&bytes[..end]))
    }

    /// Waits until it has told people something with this text; what it told until then.
    ///
    /// # Errors
    /// When it has not after 60 s, or has ended.
    pub fn wait_for_line(&mut self, text: &str) -> Result<String> {
        let deadline = Instant::now() + END_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.errors.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push_str(&line);
                    if line.contains(text) {
                        return Ok(line);
                    }
                }
                Err(_) => bail!("memprof did not say {text:?}; it said:\n{}", self.seen),
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid()), signal)
            .with_context(|| format!("sending {signal} to memprof; it said:\n{}", self.seen))
    }

    /// Stops it as Ctrl-C does, and waits for what it writes at its end.
    ///
    /// # Errors
    /// When it had ended before, or does not end within 120 s.
    pub fn stop(self) -> Result<Finished> {
        self.signal(Signal::SIGINT)?;
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end within 120 s.
    pub fn wait(mut self) -> Result<Finished> {
        let deadline = Instant::now() + END_LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                bail!(
                    "memprof did not end within {} s; it said:\n{}",
                    END_LIMIT.as_secs(),
                    self.seen
                );
            }
            thread::sleep(POLL);
        };
        self.seen.extend(self.errors.iter());
        let mut stdout = String::new();
        self.output.rewind()?;
        self.output
            .read_to_string(&mut stdout)
            .context("memprof's output is no UTF-8")?;
        let stderr = std::mem::take(&mut self.seen);
        Ok(Finished {
            status,
            stdout,
            stderr,
        })
    }

    fn start(arguments: &[&str]) -> Result<Self> {
        let binary = target_dir().join("release/memprof");
        let output = tempfile::tempfile()?;
        let mut child = Command::new(&binary)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!(
                    "starting {}: build it with `cargo xtask build`",
                    binary.display()
                )
            })?;
        let stderr = child
            .stderr
            .take()
            .context("the error stream was not piped")?;
        let (sender, errors) = channel();
        // Ends with the stream, that is with memprof.
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line + "\n").is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            output,
            errors,
            seen: String::new(),
        })
    }
}

impl Drop for Memprof {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
