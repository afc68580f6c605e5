//! Which routes take most, by the log that a run leaves beside its dumps.

use std::fs::OpenOptions;
use std::io::BufReader;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use indexmap::IndexMap;
use nix::libc::O_NONBLOCK;
use serde::Serialize;
use serde_json::Value;

use crate::record::Record;
use crate::record::checkpoint::CheckpointRecord;
use crate::record::log::LogReader;
use crate::report::text::short;

/// The log of a run, as the store names it.
const LOG: &str = "memprof.log";
/// Routes that are told apart; the rest are one.
const MAX_ROUTES: usize = 1000;
/// Routes that are told.
const TOLD: usize = 10;
/// Stands for the routes beyond [`MAX_ROUTES`].
const OTHER: &str = "[other routes]";

/// The requests of one route that were high enough for a record.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct LogRoute {
    /// Method and path, without the query.
    pub(super) route: String,
    /// How many requests.
    pub(super) requests: u64,
    /// The highest `memory_get_peak_usage(true)`, in MiB.
    pub(super) peak_mb: f64,
}

/// The routes with the highest peaks in the log beside these dumps, or among them; none where there is no log.
pub(super) fn highest(dumps: &Path) -> Vec<LogRoute> {
    let folders = dumps.parent().into_iter().chain([dumps]);
    let log = folders.map(|folder| folder.join(LOG)).find_map(|path| {
        // O_NONBLOCK: opening a named pipe must not wait for a writer.
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .custom_flags(O_NONBLOCK)
            .open(path)
            .ok()?;
        file.metadata()
            .is_ok_and(|metadata| metadata.is_file())
            .then_some(file)
    });
    let Some(log) = log else {
        return Vec::new();
    };
    let mut routes: IndexMap<String, LogRoute> = IndexMap::new();
    // What could be read until an error counts.
    for line in LogReader::new(BufReader::new(log)).map_while(Result::ok) {
        if line.message == CheckpointRecord::MESSAGE {
            add(&mut routes, &line.context);
        }
    }
    let mut routes: Vec<LogRoute> = routes.into_values().collect();
    routes.sort_by(|one, other| other.peak_mb.total_cmp(&one.peak_mb));
    routes.truncate(TOLD);
    routes
}

fn add(routes: &mut IndexMap<String, LogRoute>, record: &Value) {
    let text = |key: &str| record["checkpoints"][0][key].as_str();
    let (Some(uri), Some(peak_mb)) = (text("uri"), record["peak_mb"].as_f64()) else {
        return;
    };
    let path = uri.split_once('?').map_or(uri, |(path, _)| path);
    let mut name = short(&format!("{} {path}", text("method").unwrap_or_default()));
    if routes.len() >= MAX_ROUTES && !routes.contains_key(&name) {
        name = OTHER.to_owned();
    }
    let route = routes.entry(name.clone()).or_insert(LogRoute {
        route: name,
        requests: 0,
        peak_mb,
    });
    route.requests += 1;
    route.peak_mb = route.peak_mb.max(peak_mb);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn requests_of_one_route_are_put_together() {
        let run = tempfile::tempdir().expect("a folder");
        let dumps = run.path().join("memory-dumps");
        fs::create_dir(&dumps).expect("makes");
        assert_eq!(highest(&dumps), []);
        let line = |uri: &str, peak: f64| {
            format!(
                "[2026-02-03 04:05:06] production.WARNING: High memory usage detected \
                 {{\"peak_mb\":{peak},\"checkpoints\":[{{\"uri\":\"{uri}\",\"method\":\"GET\"}}]}} \n"
            )
        };
        let log = [
            line("/a?page=1", 100.0),
            line("/b", 300.5),
            "[2026-02-03 04:05:06] production.WARNING: High memory usage detected {\"peak_mb\":1} \n".to_owned(),
            line("/a?page=2", 200.0),
        ];
        fs::write(run.path().join(LOG), log.concat()).expect("writes");
        let route = |route: &str, requests, peak_mb| LogRoute {
            route: route.to_owned(),
            requests,
            peak_mb,
        };
        let expected = [route("GET /b", 1, 300.5), route("GET /a", 2, 200.0)];
        assert_eq!(highest(&dumps), expected);
    }

    #[test]
    fn routes_are_bounded() {
        let mut routes = IndexMap::new();
        for number in 0..MAX_ROUTES + 7 {
            let record =
                serde_json::json!({"peak_mb": 1, "checkpoints": [{"uri": format!("/{number}")}]});
            add(&mut routes, &record);
        }
        assert_eq!((routes.len(), routes[OTHER].requests), (MAX_ROUTES + 1, 7));
    }
}
