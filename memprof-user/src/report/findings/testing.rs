//! Dumps for the rules' tests.

use serde_json::{Value, json};

use super::super::dump_view::DumpView;
use super::super::facts::Facts;
use super::{Finding, Rule, of_dump};

const MIB: u64 = 1 << 20;

/// A dump at the memory limit of 128 MiB.
pub(in crate::report) struct Sample {
    pub(in crate::report) json: Value,
}

/// A holder of so many MiB.
pub(in crate::report) fn holder(path: &str, mib: u64) -> Value {
    json!({"path": path, "kind": "array", "elements": 2000, "own_bytes": 65_536, "retained_bytes": mib * MIB, "shared": false})
}

/// A frame of the application's, or of a library's with `vendor` in its file.
pub(in crate::report) fn frame(function: &str, file: &str, line: u32) -> Value {
    json!({"function": function, "file": file, "line": line})
}

impl Sample {
    /// With so many MiB in use.
    pub(in crate::report) fn new(used_mib: u64) -> Self {
        let json = json!({
            "context": "oom_shutdown", "timestamp": "2026-02-03T04:05:06.250000Z",
            "memory": {"current_mb": 128, "peak_mb": 128, "limit_mb": 128, "usage_percent": 100},
            "session": {"size_mb": 0.5, "keys": ["_token", "permissions_cache"], "largest_keys": {"permissions_cache": "512 KB"}},
            "external": {
                "pid": 4711, "memory_limit_bytes": 128 * MIB,
                "request": {"method": "GET", "path": "/admin", "script": "/srv/app/public/index.php"},
                "heap": {"size_bytes": used_mib * MIB, "real_size_bytes": 128 * MIB},
            },
        });
        Self { json }
    }

    /// With this under `external`.
    pub(in crate::report) fn with(mut self, key: &str, value: Value) -> Self {
        self.json["external"][key] = value;
        self
    }

    /// With these holders.
    pub(in crate::report) fn holders(self, top: &[Value]) -> Self {
        let used = self.json["external"]["heap"]["size_bytes"].clone();
        self.with(
            "holders",
            json!({"heap_bytes": used, "complete": true, "top": top}),
        )
    }

    pub(in crate::report) fn facts(&self) -> Facts {
        let view = DumpView::new(&self.json).expect("a view");
        Facts::new("memory-dump-1.json".to_owned(), &self.json, view)
    }

    /// What the rule finds in it.
    pub(in crate::report) fn finding(&self, rule: Rule) -> Option<Finding> {
        let findings = of_dump(&self.facts());
        findings.into_iter().find(|finding| finding.rule == rule)
    }

    /// The rules that find something, the first first.
    pub(in crate::report) fn rules(&self) -> Vec<Rule> {
        of_dump(&self.facts())
            .iter()
            .map(|finding| finding.rule)
            .collect()
    }
}
