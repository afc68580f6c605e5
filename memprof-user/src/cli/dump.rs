//! `memprof dump`: what one live process holds in memory, as a file.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::exit::Exit;
use super::table::printable;
use crate::capture::dump::{DumpOptions, dump};

/// Write down what a live PHP process holds in memory: heap, stack, objects by class, session
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct DumpArgs {
    /// The process: a php-fpm worker, or a php of the command line
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: i32,
    /// The folder of the dump and of its log line [default: /var/log/memprof/POOL]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Hold the process for so many milliseconds at most; what is not read by then is left out
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    max_stop: u64,
    /// Also write the whole graph of the heap to FILE, in V8's .heapsnapshot format; it takes more memory and a longer
    /// stop, so allow one with --max-stop
    #[arg(long, value_name = "FILE")]
    heap_graph: Option<PathBuf>,
}

const EXAMPLES: &str = "\
EXAMPLES:
  sudo memprof dump --pid 4711
  sudo memprof dump --pid 4711 --out /tmp/records | xargs jq .external.objects
  sudo memprof dump --pid 4711 --heap-graph heap.heapsnapshot --max-stop 5000
  sudo memprof analyze /var/log/memprof/www --details

The process is held for the milliseconds that reading takes, and goes on. The file's path is printed on stdout.
A heap graph opens in the Memory panel of Chrome's DevTools; it has the names of array keys, and no values.
Values of the session, of variables and of the request's parameters are never written.";

impl DumpArgs {
    pub(super) fn run(self, quiet: bool) -> anyhow::Result<Exit> {
        let written = dump(&DumpOptions {
            pid: self.pid,
            out: self.out,
            max_stop: Duration::from_millis(self.max_stop),
            heap_graph: self.heap_graph,
        })?;
        writeln!(std::io::stdout().lock(), "{}", written.path.display())?;
        if quiet {
            return Ok(Exit::Done);
        }
        match written.stopped {
            Some(time) => eprintln!(
                "memprof: process {} was held for {:.1} ms",
                self.pid,
                time.as_secs_f64() * 1000.0
            ),
            None => eprintln!(
                "memprof: process {} could not be held and was read while it ran; the dump says why",
                self.pid
            ),
        }
        for reason in &written.left_out {
            eprintln!("memprof: left out: {}", printable(reason));
        }
        Ok(Exit::Done)
    }
}
