//! The analyzer against what the original script printed, and where that script died.

use std::fs::{self, File, FileTimes};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use super::*;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/analyze");

fn write_dump(directory: &Path, name: &str, content: &[u8], second: u64) {
    let path = directory.join(name);
    fs::write(&path, content).expect("writes");
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    let file = File::options().append(true).open(&path).expect("opens");
    file.set_times(FileTimes::new().set_modified(modified))
        .expect("sets the mtime");
}

/// The golden dumps with their mtimes, which version control does not keep.
fn golden_dumps() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for second in [1_770_091_501, 1_770_091_502, 1_770_091_503] {
        let name = format!("memory-dump-{second}.json");
        let content = fs::read(Path::new(GOLDEN).join(&name)).expect("the golden dump");
        write_dump(directory.path(), &name, &content, second);
    }
    directory
}

fn options(directory: &Path) -> AnalyzeOptions {
    AnalyzeOptions {
        directory: directory.to_owned(),
        recent: 10,
        summary: false,
        details: false,
        pattern: None,
        format: Format::Classic,
        findings: false,
    }
}

fn printed(options: &AnalyzeOptions) -> String {
    let mut out = Vec::new();
    analyze(options, &mut out, |_, _| ()).expect("an analysis");
    String::from_utf8(out).expect("UTF-8")
}

fn golden(name: &str) -> String {
    fs::read_to_string(Path::new(GOLDEN).join(name)).expect("the golden text")
}

#[test]
fn prints_what_the_script_printed() {
    let dumps = golden_dumps();
    let default = options(dumps.path());
    assert_eq!(printed(&default), golden("expected-default.txt"));

    let details = AnalyzeOptions {
        details: true,
        ..default.clone()
    };
    assert_eq!(printed(&details), golden("expected-details.txt"));

    let all = AnalyzeOptions {
        summary: true,
        pattern: Some("depot".to_owned()),
        ..details
    };
    assert_eq!(
        printed(&all),
        golden("expected-details-summary-pattern-depot.txt")
    );

    let newest = AnalyzeOptions {
        recent: 1,
        pattern: Some("nav".to_owned()),
        ..default
    };
    assert_eq!(printed(&newest), golden("expected-recent1-pattern-nav.txt"));
}

#[test]
fn finds_the_dumps_below_a_run_or_an_application() {
    let dumps = golden_dumps();
    for inner in ["memory-dumps", "storage/logs/memory-dumps"] {
        let root = tempfile::tempdir().expect("a directory");
        let outer = root.path().join(inner);
        fs::create_dir_all(outer.parent().expect("a parent")).expect("makes");
        std::os::unix::fs::symlink(dumps.path(), &outer).expect("links");
        assert_eq!(
            printed(&options(root.path())),
            golden("expected-default.txt")
        );
    }
}

#[test]
fn nothing_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let expected = format!(
        "📭 No memory dumps found in {}\n",
        directory.path().display()
    );
    assert_eq!(printed(&options(directory.path())), expected);

    let missing = directory.path().join("missing");
    let error = analyze(&options(&missing), &mut Vec::new(), |_, _| ()).expect_err("no directory");
    assert_eq!(
        error.to_string(),
        format!("❌ Dump directory not found: {}", missing.display())
    );
}

#[test]
fn none_selected_and_none_readable() {
    let dumps = golden_dumps();
    let none = printed(&AnalyzeOptions {
        recent: 0,
        details: true,
        summary: true,
        ..options(dumps.path())
    });
    assert!(none.starts_with("📊 Analyzing 0 memory dumps\n"), "{none}");
    assert!(
        none.ends_with("\nNo dump could be read: there is nothing to sum up.\n\n"),
        "{none}"
    );

    let directory = tempfile::tempdir().expect("a directory");
    write_dump(directory.path(), "memory-dump-1.json", b"", 1);
    write_dump(directory.path(), "memory-dump-2.json", b"{\"context\":", 2);
    write_dump(directory.path(), "memory-dump-3\x1b.json", b"[]", 3);
    write_dump(directory.path(), ".memory-dump-4.json.tmp", b"{}", 4);
    write_dump(directory.path(), "memory-dump-5.json.gz", b"{}", 5);
    fs::create_dir(directory.path().join("memory-dump-0.json")).expect("makes");
    let text = printed(&options(directory.path()));
    assert!(text.starts_with("📊 Analyzing 4 memory dumps\n"), "{text}");
    for name in [
        "memory-dump-0.json",
        "memory-dump-1.json",
        "memory-dump-2.json",
        "memory-dump-3\u{fffd}.json",
    ] {
        assert!(
            text.contains(&format!("\n⚠️  Failed to parse: {name}\n")),
            "{text}"
        );
    }
    assert!(
        text.ends_with("\nNo dump could be read: there is nothing to sum up.\n\n"),
        "{text}"
    );
}

#[test]
fn an_unreadable_dump_does_not_change_the_rest() {
    let dumps = golden_dumps();
    write_dump(
        dumps.path(),
        "memory-dump-1770091599.json",
        b"{}",
        1_770_091_599,
    );
    let expected = golden("expected-default.txt")
        .replace("Analyzing 3", "Analyzing 4")
        .replacen(
            "\n\n",
            "\n\n⚠️  Failed to parse: memory-dump-1770091599.json\n",
            1,
        );
    assert_eq!(printed(&options(dumps.path())), expected);
}

#[test]
fn dumps_of_one_second_are_ordered_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let content =
        fs::read(Path::new(GOLDEN).join("memory-dump-1770091503.json")).expect("the golden dump");
    for name in [
        "memory-dump-1-9.json",
        "memory-dump-1-10.json",
        "memory-dump-2-1.json",
    ] {
        write_dump(directory.path(), name, &content, 1_770_091_503);
    }
    write_dump(
        directory.path(),
        "memory-dump-0-1.json",
        &content,
        1_770_091_504,
    );
    let text = printed(&AnalyzeOptions {
        details: true,
        ..options(directory.path())
    });
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("📄 "))
        .collect();
    assert_eq!(
        names,
        [
            "memory-dump-0-1.json",
            "memory-dump-1-10.json",
            "memory-dump-1-9.json",
            "memory-dump-2-1.json"
        ]
    );
}

#[test]
fn json_lines() {
    let dumps = golden_dumps();
    write_dump(
        dumps.path(),
        "memory-dump-1770091599.json",
        b"{}",
        1_770_091_599,
    );
    let text = printed(&AnalyzeOptions {
        details: true,
        summary: true,
        pattern: Some("nav".to_owned()),
        format: Format::JsonLines,
        ..options(dumps.path())
    });
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let records: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["record"].as_str())
        .collect();
    assert_eq!(
        records,
        [
            "analysis",
            "unreadable",
            "dump",
            "dump",
            "dump",
            "summary",
            "match"
        ]
    );
    assert_eq!(
        (lines[0]["found"].as_u64(), lines[0]["selected"].as_u64()),
        (Some(4), Some(4))
    );
    assert_eq!(lines[1]["reason"], "it has no /context");
    assert_eq!(
        lines[2]["dump"]["memory"]["current_mb"].as_f64(),
        Some(1950.0)
    );
    assert_eq!(
        lines[5]["summary"]["memory"]["average_mb"].as_f64(),
        Some(1903.42)
    );
    assert_eq!(lines[5]["summary"]["contexts"][0]["name"], "oom_shutdown");
    assert_eq!(lines[5]["summary"]["insights"][1], "trending_upward");
    assert_eq!(lines[6]["session_keys"][0][0], "nav");
}
