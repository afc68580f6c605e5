//! The PHP functions that are watched: where they are, and what a call of them means.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    path::PathBuf,
};

use memprof_ebpf::{Call, CallEvent, UNKNOWN};

use super::names::Names;
use crate::{
    binary::{ElfImage, Handler, ProbeSite, Site},
    fpm::LivePhp,
    framework::laravel::{ModelEvent, Seen, Subject},
    profile::{Application, Query, StackId, Stacks},
    record::{
        frame::Frame,
        sql::{Anonymous, anonymous},
    },
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

/// Where the watched functions of a worker are.
#[derive(Debug, Default)]
pub struct CallSites {
    /// The sites, by a path under /proc that opens their file.
    pub files: BTreeMap<PathBuf, Vec<ProbeSite>>,
    /// Functions that the worker has and that can't be probed.
    pub unwatched: u64,
}

impl CallSites {
    /// Looks the functions up in a worker. What it does not have is left out.
    pub fn of(live: &LivePhp) -> Self {
        let mut found = Self::default();
        let mut images = HashMap::new();
        let mut seen = HashSet::new();
        for (class, function, handler) in WATCHED {
            let address = live.zend.handler(class, function);
            let sites = match address {
                Ok(None) => continue,
                // Two names of one function are one site.
                Ok(Some(address)) if !seen.insert(address) => continue,
                Ok(Some(address)) => sites_of(live, &mut images, function, handler, address),
                Err(_) => None,
            };
            match sites {
                Some((path, sites)) => found.files.entry(path).or_default().extend(sites),
                None => found.unwatched += 1,
            }
        }
        found
    }
}

/// The entry of a handler and, where its end is of interest, its returns; with the file that they are in.
fn sites_of(
    live: &LivePhp,
    images: &mut HashMap<PathBuf, Option<ElfImage>>,
    function: &str,
    handler: Handler,
    address: u64,
) -> Option<(PathBuf, Vec<ProbeSite>)> {
    let file = live.mappings.file_at(address)?;
    let image = images.entry(file.path.clone()).or_insert_with(|| {
        let opened = File::open(&file.path).ok()?;
        ElfImage::open(opened).ok()
    });
    let image = image.as_ref()?;
    let entry = image.address_of(file.offset)?;
    let mut sites = Vec::new();
    if handler != Handler::Scope {
        let site = Site::HandlerReturn(handler);
        sites = image.return_sites(site, function, entry).ok()?;
    }
    let site = Site::Handler(handler);
    sites.push(image.entry_site(site, function, entry).ok()?);
    Some((file.path, sites))
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
            let Anonymous { text, placeholders } = text(event);
            if let Some((model, what)) = seen.written(&text) {
                application.model(model, what, 1, bytes);
            }
            let query = Query {
                sql: text,
                bindings: placeholders,
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
fn text(event: &CallEvent) -> Anonymous {
    if event.sql_length == 0 {
        return Anonymous {
            text: "[unknown query]".to_owned(),
            placeholders: 0,
        };
    }
    let filled = event.sql.get(..event.sql_length as usize);
    let mut text = String::from_utf8_lossy(filled.unwrap_or_default()).into_owned();
    if text.len() >= event.sql.len() {
        text.push('…');
    }
    anonymous(&text)
}
