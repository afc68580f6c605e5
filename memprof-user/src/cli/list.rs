//! `memprof list`: what of php-fpm runs here, and what each worker is doing.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::exit::{Exit, sudo_line};
use super::table::{Align, Table, UNKNOWN, mib, printable};
use crate::fpm::{self, Builds, Config, FpmError, Master, Processes, Worker};
use crate::zend::{self, HeapCounters};

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
    php_version: Option<String>,
    build_id: Option<String>,
    /// Resident memory, the part shared with other workers included.
    rss_bytes: Option<u64>,
    state: Option<State>,
    /// What a busy worker serves.
    request: Option<RequestView>,
    heap: Option<HeapView>,
    /// Why a value is not known.
    unread: Vec<String>,
    /// Whether that is a matter of permission.
    #[serde(skip)]
    is_denied: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Idle,
    Busy,
}

#[derive(Serialize)]
struct RequestView {
    method: Option<String>,
    path: Option<String>,
    script: Option<String>,
}

#[derive(Serialize)]
struct HeapView {
    /// What `memory_get_usage(true)` gives; cached chunks included.
    real_size_bytes: u64,
    /// `memory_limit`; `None` where there is none.
    limit_bytes: Option<u64>,
    /// Chunks of 2 MiB that an earlier request needed and this one does not.
    cached_chunks: u32,
}

impl ListArgs {
    pub(super) fn run(self, quiet: bool) -> anyhow::Result<Exit> {
        let processes = fpm::discover()?;
        if processes.masters.is_empty() && processes.workers.is_empty() {
            return Err(FpmError::NoFpm.into());
        }
        let mut builds = Builds::default();
        let listing = Listing {
            masters: processes.masters.iter().map(master_view).collect(),
            workers: processes
                .workers
                .iter()
                .map(|worker| worker_view(worker, &processes, &mut builds))
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

fn worker_view(worker: &Worker, processes: &Processes, builds: &mut Builds) -> WorkerView {
    let process = worker.process;
    let mut view = WorkerView {
        pid: process.pid,
        pool: worker.pool.clone(),
        master: processes.master_of(worker).map(|master| master.process.pid),
        uid: worker.uid,
        php_version: None,
        build_id: None,
        rss_bytes: None,
        state: None,
        request: None,
        heap: None,
        unread: Vec::new(),
        is_denied: false,
    };
    view.rss_bytes = view.known(process.rss_bytes());
    let Some((_, binary)) = view.known(builds.binary(process)) else {
        return view;
    };
    view.php_version = Some(binary.version.to_string());
    view.build_id = binary.build_id().map(str::to_owned);
    if let Some(live) = view.known(builds.live(process)) {
        view.heap = view.known(live.zend.heap_counters()).map(heap_view);
        let request = view.known(live.zend.request());
        view.state = request.as_ref().map(|request| match request {
            Some(_) => State::Busy,
            None => State::Idle,
        });
        view.request = request.flatten().map(request_view);
    }
    view
}

fn heap_view(counters: HeapCounters) -> HeapView {
    HeapView {
        real_size_bytes: counters.real_size,
        limit_bytes: i64::try_from(counters.limit)
            .ok()
            .filter(|limit| *limit != i64::MAX)
            .map(i64::cast_unsigned),
        cached_chunks: counters.cached_chunks,
    }
}

fn request_view(request: zend::Request) -> RequestView {
    RequestView {
        method: request.method,
        path: request.path,
        script: request.script,
    }
}

impl WorkerView {
    /// The value, or none and the reason among the `unread`.
    fn known<T, E: Into<anyhow::Error>>(&mut self, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.not_known(&error.into())).ok()
    }

    fn not_known(&mut self, error: &anyhow::Error) {
        self.is_denied |= Exit::of(error) == Exit::Denied;
        self.unread.push(format!("{error:#}"));
    }
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
        ("PHP", Align::Left),
        ("BUILD-ID", Align::Left),
        ("RSS", Align::Right),
        ("HEAP", Align::Right),
        ("LIMIT", Align::Right),
        ("CACHED", Align::Right),
        ("REQUEST", Align::Left),
    ]);
    for worker in &listing.workers {
        table.row(row(worker));
    }
    text.push('\n');
    text + &table.text()
}

fn row(worker: &WorkerView) -> [String; 9] {
    let or_unknown = |value: Option<String>| value.unwrap_or_else(|| UNKNOWN.to_owned());
    let heap = |show: fn(&HeapView) -> String| or_unknown(worker.heap.as_ref().map(show));
    [
        worker.pid.to_string(),
        worker.pool.clone().unwrap_or_default(),
        or_unknown(worker.php_version.clone()),
        // Enough to tell two builds apart; --json has the whole.
        or_unknown(
            worker
                .build_id
                .as_ref()
                .map(|id| id.chars().take(8).collect()),
        ),
        or_unknown(worker.rss_bytes.map(mib)),
        heap(|heap| mib(heap.real_size_bytes)),
        heap(|heap| heap.limit_bytes.map_or("none".to_owned(), mib)),
        heap(|heap| heap.cached_chunks.to_string()),
        doing(worker),
    ]
}

/// `idle`, or `GET /admin`
fn doing(worker: &WorkerView) -> String {
    match (worker.state, &worker.request) {
        (None, _) => UNKNOWN.to_owned(),
        (Some(State::Idle), _) => "idle".to_owned(),
        (Some(State::Busy), request) => {
            let part = |get: fn(&RequestView) -> &Option<String>| {
                request
                    .as_ref()
                    .and_then(|request| get(request).as_deref())
                    .unwrap_or(UNKNOWN)
            };
            format!(
                "{} {}",
                part(|request| &request.method),
                part(|request| &request.path)
            )
        }
    }
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
    let denied = listing
        .workers
        .iter()
        .filter(|worker| worker.is_denied)
        .count();
    if denied > 0 {
        eprintln!(
            "memprof: no permission to look into {denied} workers, it takes CAP_SYS_PTRACE: {}",
            sudo_line()
        );
    }
    for worker in listing.workers.iter().filter(|worker| !worker.is_denied) {
        for reason in &worker.unread {
            eprintln!("memprof: worker {}: {}", worker.pid, printable(reason));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown_worker() -> WorkerView {
        WorkerView {
            pid: 4711,
            pool: Some("www".to_owned()),
            master: None,
            uid: 33,
            php_version: None,
            build_id: None,
            rss_bytes: None,
            state: None,
            request: None,
            heap: None,
            unread: Vec::new(),
            is_denied: false,
        }
    }

    fn counters(limit: u64) -> HeapCounters {
        HeapCounters {
            size: 1 << 20,
            peak: 3 << 20,
            real_size: 4 << 20,
            real_peak: 4 << 20,
            limit,
            chunks: 1,
            cached_chunks: 1,
            peak_chunks: 2,
        }
    }

    #[test]
    fn what_is_not_known_is_a_question_mark_and_never_0() {
        let cells = row(&unknown_worker());
        assert_eq!(cells[..2], ["4711", "www"]);
        assert_eq!(cells[2..], [UNKNOWN; 7]);
        let json = serde_json::to_value(unknown_worker()).expect("plain");
        for key in ["rss_bytes", "heap", "state", "request"] {
            assert!(json[key].is_null(), "{key}");
        }
    }

    #[test]
    fn a_busy_worker_shows_its_request() {
        let worker = WorkerView {
            state: Some(State::Busy),
            request: Some(RequestView {
                method: Some("GET".to_owned()),
                path: Some("/admin".to_owned()),
                script: None,
            }),
            heap: Some(heap_view(counters(128 << 20))),
            ..unknown_worker()
        };
        assert_eq!(row(&worker)[5..], ["4.0M", "128.0M", "1", "GET /admin"]);
    }

    #[test]
    fn a_limit_of_minus_1_is_none() {
        assert_eq!(heap_view(counters(i64::MAX as u64)).limit_bytes, None);
        assert_eq!(heap_view(counters(u64::MAX)).limit_bytes, None);
        assert_eq!(heap_view(counters(128 << 20)).limit_bytes, Some(128 << 20));
    }

    #[test]
    fn a_reason_of_permission_is_known_as_one() {
        let mut worker = unknown_worker();
        let denied = FpmError::Permission {
            path: "/proc/4711/exe".into(),
        };
        assert_eq!(worker.known(Err::<u64, _>(denied)), None);
        assert!(worker.is_denied);
        assert_eq!(worker.unread.len(), 1);
    }
}
