//! `memprof list`: what of php-fpm runs here, and what each worker is doing.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::exit::Exit;
use super::table::{Align, Table, UNKNOWN, mib, printable};
use crate::fpm::{self, Config, FpmError, Master, Processes, Worker};

/// List php-fpm's masters, pools and workers, and what each worker is doing
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
EXAMPLES:
  sudo memprof list
  sudo memprof list --json | jq '.workers[] | select(.pool == \"www\") | .rss_bytes'

What could not be read is shown as \"?\", with the reason on stderr.";

/// All that is listed.
#[derive(Serialize)]
struct Listing {
    masters: Vec<MasterView>,
    workers: Vec<WorkerView>,
}

#[derive(Serialize)]
struct MasterView {
    pid: i32,
    uid: u32,
    config_file: String,
    /// What the configuration on disk says.
    #[serde(flatten)]
    config: Config,
}

#[derive(Serialize)]
struct WorkerView {
    pid: i32,
    pool: Option<String>,
    /// The master's process id; `None` when the master has ended.
    master: Option<i32>,
    uid: u32,
    rss_bytes: Option<u64>,
    /// Why a value is not known.
    unread: Vec<String>,
}

impl ListArgs {
    pub(super) fn run(self, quiet: bool) -> anyhow::Result<Exit> {
        let processes = fpm::discover()?;
        if processes.masters.is_empty() && processes.workers.is_empty() {
            return Err(FpmError::NoFpm.into());
        }
        let listing = Listing {
            masters: processes.masters.iter().map(master_view).collect(),
            workers: processes
                .workers
                .iter()
                .map(|worker| worker_view(worker, &processes))
                .collect(),
        };
        let mut stdout = std::io::stdout().lock();
        if self.json {
            writeln!(stdout, "{}", serde_json::to_string_pretty(&listing)?)?;
        } else {
            write!(stdout, "{}", text(&listing))?;
        }
        if !quiet {
            print_notes(&listing);
        }
        Ok(Exit::Done)
    }
}

fn master_view(master: &Master) -> MasterView {
    MasterView {
        pid: master.process.pid,
        uid: master.uid,
        config_file: master.config_file.to_string_lossy().into_owned(),
        config: Config::of(master),
    }
}

fn worker_view(worker: &Worker, processes: &Processes) -> WorkerView {
    let mut unread = Vec::new();
    let rss = worker.process.rss_bytes();
    WorkerView {
        pid: worker.process.pid,
        pool: worker.pool.clone(),
        master: processes
            .masters
            .iter()
            .map(|master| master.process.pid)
            .find(|pid| *pid == worker.parent),
        uid: worker.uid,
        rss_bytes: known(rss, &mut unread),
        unread,
    }
}

/// The value, or none and the reason among the `unread`.
fn known<T, E: Into<anyhow::Error>>(value: Result<T, E>, unread: &mut Vec<String>) -> Option<T> {
    value
        .map_err(|error| unread.push(format!("{:#}", error.into())))
        .ok()
}

fn text(listing: &Listing) -> String {
    let mut text = String::new();
    for master in &listing.masters {
        let heading = format!(
            "master {}  {}\n",
            master.pid,
            printable(&master.config_file)
        );
        text.push_str(&heading);
        for pool in &master.config.pools {
            let pm = pool.pm.as_deref().unwrap_or(UNKNOWN);
            let listen = pool.listen.as_deref().unwrap_or(UNKNOWN);
            text.push_str(&printable(&format!(
                "  pool {}: {pm}, listens on {listen}",
                pool.name
            )));
            text.push('\n');
        }
    }
    let mut table = Table::new([
        ("PID", Align::Right),
        ("POOL", Align::Left),
        ("RSS", Align::Right),
    ]);
    for worker in &listing.workers {
        table.row([
            worker.pid.to_string(),
            worker.pool.clone().unwrap_or_default(),
            worker.rss_bytes.map_or(UNKNOWN.to_owned(), mib),
        ]);
    }
    text.push('\n');
    text + &table.text()
}

fn print_notes(listing: &Listing) {
    for master in &listing.masters {
        for reason in &master.config.unread {
            eprintln!(
                "memprof: configuration of master {}: {}",
                master.pid,
                printable(reason)
            );
        }
    }
    for worker in &listing.workers {
        for reason in &worker.unread {
            eprintln!("memprof: worker {}: {}", worker.pid, printable(reason));
        }
    }
}
