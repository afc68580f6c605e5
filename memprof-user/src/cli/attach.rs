//! `memprof attach`: records what the requests of some workers do with memory.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::exit::{Exit, ExitError};
use super::target::{RunFolderArgs, TargetArgs};
use super::values;
use crate::capture::{
    AttachOptions, DumpPolicy, Force, GuardPolicy, Mode, OwnCheckpoint, Threshold, Window,
};
use crate::fpm::Target;
use crate::record::{Level, store::Keep};

/// Record, from outside, what each request does with memory, and by which PHP stack
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct AttachArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// The workers of all pools
    #[arg(long, group = "target")]
    all: bool,
    /// How much is recorded
    #[arg(long, value_enum, default_value = "light")]
    mode: ModeArg,
    /// Work at this time of the day only, in local time: 18:30-19:15; may be given several times. With a mode
    /// (18:30-19:15=aggressive) it says which mode then, and leaves the rest of the day as it is
    #[arg(long, value_name = "FROM-TO[=MODE]")]
    window: Vec<Window>,
    /// Aggressive mode only while a worker's heap is past this, light mode otherwise: 'peak > 75%'
    #[arg(long, value_name = "CONDITION", value_parser = values::peak)]
    when: Option<Threshold>,
    /// Step down when requests take longer by so many milliseconds [default: 50, in light mode 5]
    #[arg(long, value_name = "MS", value_parser = values::milliseconds)]
    max_overhead: Option<f64>,
    /// So many requests in a row above --max-overhead are too many
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    max_overhead_requests: u32,
    /// Never step down, whatever the requests' overhead
    #[arg(long)]
    no_guard: bool,
    /// Step down when memprof itself needs more memory, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    max_memory: u32,
    /// Take fewer samples when memprof itself needs more of one processor, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 20)]
    max_cpu: u32,
    /// Take settings from this file, where the command line says nothing else
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Do not write these records: checkpoint, sample, models, query, scopes; may be given several times
    #[arg(long, value_name = "RECORD")]
    without: Vec<String>,
    /// The lowest level of the lines in the log: info, warning, critical
    #[arg(long, value_name = "LEVEL", value_parser = values::level, default_value = "info")]
    log_level: Level,
    /// Take records of the folder away after so many days
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    cleanup_days: u32,
    /// Take the oldest records of the folder away beyond so many MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    max_disk: u32,
    #[command(flatten)]
    run: RunFolderArgs,
    /// Detach after this time: 60, 60s, 10m, 1h; without it Ctrl-C ends
    #[arg(short, long, value_name = "TIME", value_parser = values::duration, required_if_eq("mode", "exact"))]
    duration: Option<Duration>,
    /// The share of requests recorded in full, 0 to 1 [default: 0.01 in light mode, else 1]
    #[arg(long, value_name = "SHARE", value_parser = values::share)]
    sample_rate: Option<f64>,
    /// Record only requests whose path matches: * stands for any text, ? for one character
    #[arg(long, value_name = "GLOB")]
    path: Option<String>,
    /// Record only requests of this method, as POST
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Targeted mode: the header that makes a request a recorded one
    #[arg(long, value_name = "NAME", default_value = "X-Force-Memory-Profile")]
    force_header: String,
    /// Targeted mode: what the header has to hold. Recommended: without it any client can have its requests recorded
    #[arg(long, value_name = "SECRET")]
    force_value: Option<String>,
    /// Targeted mode without --force-value: record so many requests a minute at most, and count the others
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    force_limit: u32,
    /// The folder of the records [default: /var/log/memprof/POOL]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Append the log lines to this file: the application's own storage/logs/laravel.log
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Print each record as a line of JSON on stdout
    #[arg(long)]
    json: bool,
    /// Record every sampled request, not only those past a threshold
    #[arg(long)]
    every: bool,
    /// Log requests above this: MiB, or a share of the worker's memory_limit
    #[arg(long, value_name = "MIB|%", value_parser = values::threshold, default_value = "75%")]
    warning: Threshold,
    /// Mark requests above this as critical, and dump them once they are also above 90 % of their limit: MiB, or a
    /// share of the worker's memory_limit
    #[arg(long, value_name = "MIB|%", value_parser = values::threshold, default_value = "87.5%")]
    critical: Threshold,
    /// A checkpoint of your own, when a file is loaded or the heap first grows in a function:
    /// 'boot=app/Providers/AppServiceProvider.php', 'scope=App\Scopes\CompanyScope::apply'
    #[arg(long, value_name = "LABEL=FILE|FUNCTION", value_parser = values::checkpoint)]
    checkpoint: Vec<OwnCheckpoint>,
    /// The channel in log lines
    #[arg(long, value_name = "NAME", value_parser = values::channel, default_value = "production")]
    app_env: String,
    /// The size of the kernel's ring buffer in MiB, a power of two
    #[arg(long, value_name = "MIB", value_parser = values::ring_size, default_value = "16")]
    ring_size: u32,
    /// Trace a worker above this, so that it can be stopped for a dump: MiB, or a share of its memory_limit
    #[arg(long, value_name = "MIB|%", value_parser = values::threshold, default_value = "50%")]
    freeze_above: Threshold,
    /// Stop a worker for so many milliseconds at most; what is not read by then is left out of the dump
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    max_stop: u64,
    /// Take so many dumps a minute at most
    #[arg(long, value_name = "COUNT", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    dumps_per_minute: u32,
    /// Stop no worker: take no dumps at the memory limit and at the critical threshold
    #[arg(long, conflicts_with_all = ["freeze_above", "max_stop", "dumps_per_minute"])]
    no_dumps: bool,
    /// Attach probe by probe, as on kernels before 6.6
    #[arg(long, hide = true)]
    single_uprobes: bool,
}

const EXAMPLES: &str = "\
EXAMPLES:
  sudo memprof attach --pool www
  sudo memprof attach --pool www --mode aggressive --duration 10m --out /tmp/records
  sudo memprof attach --pid 4711 --every --json | jq .message
  sudo memprof attach --pool www --mode targeted --force-value \"$SECRET\"
  sudo memprof attach --all --sample-rate 0.1 --warning 1536 --critical 1792

Ctrl-C or SIGTERM once: detach, write, print the summary; twice: at once.";

/// The values of `--mode`, with their help.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    /// A share of the requests in full; the peak and the chunk growth of every request
    Light,
    /// Every request with its growth by stack
    Aggressive,
    /// Only requests that carry the header of --force-header, in full
    Targeted,
    /// Every single allocation: slows the pool down many times, and needs --duration
    Exact,
}

impl AttachArgs {
    pub(super) fn run(self, quiet: bool) -> anyhow::Result<Exit> {
        record(&self.options(quiet)?)
    }

    fn options(self, quiet: bool) -> Result<AttachOptions, ExitError> {
        let target = if self.all {
            Some(Target::All)
        } else {
            self.target.target()
        };
        let target = target
            .ok_or_else(|| usage("name what to attach to: --pool NAME, --pid PID or --all"))?;
        let mode = match self.mode {
            ModeArg::Light => Mode::Light,
            ModeArg::Aggressive => Mode::Aggressive,
            ModeArg::Targeted => Mode::Targeted,
            ModeArg::Exact => Mode::Exact,
        };
        check_order(self.warning, self.critical)?;
        if self.when.is_some() && mode != Mode::Aggressive {
            return Err(usage(
                "--when is about aggressive mode: add --mode aggressive",
            ));
        }
        let (keep, guard) = (self.keep(), self.guard());
        Ok(AttachOptions {
            sample_rate: self.sample_rate,
            force: Force {
                header: self.force_header,
                value: self.force_value,
                most_a_minute: self.force_limit,
            },
            method: self.method,
            path: self.path,
            out: match self.out {
                Some(out) => out,
                None => default_out(&target)?,
            },
            target,
            mode,
            windows: self.window,
            when: self.when,
            without: self.without,
            log_level: self.log_level,
            keep,
            guard,
            run_folder: self.run.run_folder,
            duration: self.duration,
            log: self.log,
            json: self.json,
            every: self.every,
            warning: self.warning,
            critical: self.critical,
            checkpoints: self.checkpoint,
            app_env: self.app_env,
            ring_size_bytes: self.ring_size,
            single_uprobes: self.single_uprobes,
            quiet,
            dumps: (!self.no_dumps).then_some(DumpPolicy {
                hold_above: self.freeze_above,
                max_stop: Duration::from_millis(self.max_stop),
                per_minute: self.dumps_per_minute,
            }),
        })
    }
}

impl AttachArgs {
    fn keep(&self) -> Keep {
        Keep {
            bytes: u64::from(self.max_disk) << 20,
            age: Duration::from_secs(u64::from(self.cleanup_days) * 24 * 60 * 60),
        }
    }

    fn guard(&self) -> GuardPolicy {
        GuardPolicy {
            is_on: !self.no_guard,
            max_overhead_ms: self.max_overhead,
            requests_in_a_row: self.max_overhead_requests,
            most_memory_bytes: u64::from(self.max_memory) << 20,
            most_cpu: f64::from(self.max_cpu) / 100.0,
        }
    }
}

#[cfg(feature = "ebpf")]
fn record(options: &AttachOptions) -> anyhow::Result<Exit> {
    crate::capture::attach(options)?;
    Ok(Exit::Done)
}

#[cfg(not(feature = "ebpf"))]
fn record(_options: &AttachOptions) -> anyhow::Result<Exit> {
    Err(ExitError {
        exit: Exit::Unsupported,
        message:
            "this memprof was built without its eBPF engine; build it with `cargo xtask build`"
                .to_owned(),
    }
    .into())
}

fn usage(message: &str) -> ExitError {
    ExitError {
        exit: Exit::Usage,
        message: message.to_owned(),
    }
}

/// Thresholds of different kinds compare only at a worker's limit, which is not known yet.
fn check_order(warning: Threshold, critical: Threshold) -> Result<(), ExitError> {
    let in_order = match (warning, critical) {
        (Threshold::Bytes(warning), Threshold::Bytes(critical)) => warning <= critical,
        (Threshold::ShareOfLimit(warning), Threshold::ShareOfLimit(critical)) => {
            warning <= critical
        }
        _ => true,
    };
    if in_order {
        Ok(())
    } else {
        Err(usage("--warning is above --critical"))
    }
}

/// A folder for one pool, one set of processes, or all.
fn default_out(target: &Target) -> Result<PathBuf, ExitError> {
    let name = match target {
        Target::All => "all".to_owned(),
        Target::Pools(pools) => pools.join("+"),
        Target::Pids(pids) => {
            let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
            format!("pid-{}", pids.join("+"))
        }
    };
    crate::capture::default_out(&name)
        .ok_or_else(|| usage("no folder can be named after this pool; name one by --out DIR"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Verb {
        #[command(flatten)]
        args: AttachArgs,
    }

    fn options(line: &str) -> Result<AttachOptions, String> {
        let words = std::iter::once("attach").chain(line.split_whitespace());
        let verb = Verb::try_parse_from(words).map_err(|error| error.to_string())?;
        verb.args.options(false).map_err(|error| error.to_string())
    }

    #[test]
    fn light_is_the_default() {
        let options = options("--pool www").expect("enough");
        assert_eq!(options.target, Target::Pools(vec!["www".into()]));
        let rate = options.sample_rate_in(Mode::Light);
        assert_eq!((options.mode, rate), (Mode::Light, 0.01));
        assert_eq!(options.out, PathBuf::from("/var/log/memprof/www"));
        assert_eq!(options.warning, Threshold::ShareOfLimit(0.75));
        assert_eq!(options.critical, Threshold::ShareOfLimit(0.875));
        assert_eq!(
            (options.duration, options.ring_size_bytes),
            (None, 16 << 20)
        );
    }

    #[test]
    fn aggressive_records_every_request() {
        let options = options("--all --mode aggressive").expect("enough");
        let rate = options.sample_rate_in(Mode::Aggressive);
        assert_eq!((options.target, rate), (Target::All, 1.0));
    }

    #[test]
    fn exact_runs_only_with_a_duration() {
        assert!(options("--pool www --mode exact").is_err());
        let options = options("--pool www --mode exact --duration 10s").expect("enough");
        assert_eq!(options.duration, Some(Duration::from_secs(10)));
    }

    #[test]
    fn one_kind_of_target_is_wanted() {
        for line in [
            "",
            "--pool www --all",
            "--pool www --pid 1",
            "--pid 0",
            "--pid -1",
        ] {
            assert!(options(line).is_err(), "{line}");
        }
        let options = options("--pid 7 8").expect("enough");
        assert_eq!(options.target, Target::Pids(vec![7, 8]));
        assert_eq!(options.out, PathBuf::from("/var/log/memprof/pid-7+8"));
    }

    #[test]
    fn a_pool_cannot_lead_out_of_the_log_folder() {
        assert!(options("--pool ../../etc").is_err());
        assert!(options("--pool ../../etc --out /tmp/records").is_ok());
    }

    #[test]
    fn senseless_values_are_refused() {
        for line in [
            "--pool www --warning 90% --critical 80%",
            "--pool www --warning 2000 --critical 1000",
            "--pool www --sample-rate 2",
            "--pool www --app-env a.b:",
        ] {
            assert!(options(line).is_err(), "{line}");
        }
    }
}
