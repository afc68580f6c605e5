//! The PHP functions that are watched: where they are, and what a call of them means.

use std::{collections::BTreeMap, path::PathBuf};

use memprof_ebpf::{Call, CallEvent, UNKNOWN};
use procfs::sys::kernel::Version;

use super::names::Names;
use crate::{
    binary::{Handler, ProbeSite, Site},
    fpm::LivePhp,
    framework::laravel::{ModelEvent, Seen, Subject},
    profile::{Application, Query, StackId, Stacks},
    record::{frame::Frame, sql},
};

/// Class and function in lower case, as PHP's tables have them, and what the function does.
const WATCHED: [(Option<&str>, &str, Handler); 13] = [
    (Some("pdostatement"), "execute", Handler::Execute),
    (Some("pdostatement"), "fetchall", Handler::Rows),
    (Some("pdo"), "query", Handler::Query),
    (Some("pdo"), "exec", Handler::Query),
    (None, "mysqli_query", Handler::Query),
    (None, "mysqli_real_query", Handler::Query),
    (None, "mysqli_multi_query", Handler::Query),
    (None, "pg_query", Handler::Query),
    (None, "pg_query_params", Handler::Query),
    (Some("sqlite3"), "query", Handler::Query),
    (Some("sqlite3"), "exec", Handler::Query),
    (Some("sqlite3"), "querysingle", Handler::Query),
    (None, "array_unshift", Handler::Scope),
];

/// Probe sites in one file.
#[derive(Debug)]
pub struct CallSites {
    /// A path under /proc that opens the file.
    pub path: PathBuf,
    /// Where the watched functions begin.
    pub begins: Vec<ProbeSite>,
    /// Those of them whose return is watched as well.
    pub returns: Vec<ProbeSite>,
}

/// Linux 6.11 made the return of a probed function a system call, which a seccomp filter answers with
/// the death of the process; 6.14 lets it pass.
const RETURNS_ARE_FILTERED: std::ops::Range<(u8, u8)> = (6, 11)..(6, 14);

/// Whether probes on returns could kill a process.
pub fn returns_could_kill(pid: i32) -> bool {
    let Ok(kernel) = Version::current() else {
        return true;
    };
    let status = procfs::process::Process::new(pid).and_then(|process| process.status());
    let is_filtered = status.map_or(true, |status| status.seccomp != Some(0));
    is_filtered && RETURNS_ARE_FILTERED.contains(&(kernel.major, kernel.minor))
}

/// Where the watched functions of a worker are. What it does not have is left out.
pub fn sites(live: &LivePhp) -> Vec<CallSites> {
    let mut files: BTreeMap<PathBuf, Vec<ProbeSite>> = BTreeMap::new();
    for (class, function, handler) in WATCHED {
        let Ok(Some(address)) = live.zend.handler(class, function) else {
            continue;
        };
        let Some(file) = live.mappings.file_at(address) else {
            continue;
        };
        let sites = files.entry(file.path).or_default();
        // Two names of one function are one site.
        if sites.iter().all(|site| site.file_offset != file.offset) {
            sites.push(ProbeSite {
                site: Site::Handler(handler),
                function: function.to_owned(),
                address,
                file_offset: file.offset,
                instruction: "the first".to_owned(),
                emulated: false,
                why: "the handler in PHP's own function table".to_owned(),
            });
        }
    }
    let is_scope = |site: &ProbeSite| site.site == Site::Handler(Handler::Scope);
    let call_sites = |(path, begins): (PathBuf, Vec<ProbeSite>)| CallSites {
        path,
        returns: begins
            .iter()
            .filter(|site| !is_scope(site))
            .cloned()
            .collect(),
        begins,
    };
    files.into_iter().map(call_sites).collect()
}

/// Enters a call into the account of its request.
///
/// # Errors
/// Why it can't be: what is counted.
pub fn enter(
    event: &CallEvent,
    stack: StackId,
    names: &Names,
    stacks: &Stacks,
    application: &mut Application,
) -> Result<(), &'static str> {
    let call = Call::from_number(event.call).ok_or("events of an unknown kind")?;
    let bytes = event.real_size;
    if bytes == UNKNOWN {
        return Err("heap counters that could not be read");
    }
    let class = |id: u64| names.class(event.header.pid, id);
    let frames: Vec<&Frame> = stacks.frames(stack).take(event.subjects.len()).collect();
    let subjects = event.subjects.map(|subject| Subject {
        class: class(subject.class),
        second: class(subject.second),
    });
    let seen = Seen {
        frames: &frames,
        subjects: &subjects,
    };
    match call {
        Call::Query => {
            let text = text(event);
            if let Some((model, what)) = seen.written(&text) {
                application.model(model, what, 1, bytes);
            }
            let query = Query {
                sql: text,
                start_ns: event.start,
                end_ns: event.end,
                bytes,
                rows: None,
            };
            application.query(query, seen.is_query());
        }
        Call::Rows => {
            let rows = (event.rows != UNKNOWN).then_some(event.rows);
            application.fetched(event.end, bytes, rows);
            if let (Some(model), Some(rows)) = (seen.retrieved(), rows) {
                application.model(model, ModelEvent::Retrieved, rows, bytes);
            }
        }
        Call::Scope => {
            if let Some((model, scope)) = seen.scope(&event.variables.map(class)) {
                application.scope(model, scope, bytes);
            }
        }
    }
    Ok(())
}

/// A query's text without its values; what fills all the room was longer.
fn text(event: &CallEvent) -> String {
    let filled = event.sql.get(..event.sql_length as usize);
    let mut text = String::from_utf8_lossy(filled.unwrap_or_default()).into_owned();
    if text.len() >= event.sql.len() {
        text.push('…');
    }
    sql::anonymous(&text)
}
