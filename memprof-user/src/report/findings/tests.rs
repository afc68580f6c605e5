//! The findings of one dump of each cause, to the byte.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::report::analyze::{AnalyzeOptions, Format, analyze};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/findings");

/// A folder with these golden dumps.
fn folder(names: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in names {
        let dump = Path::new(GOLDEN).join(format!("{name}.json"));
        let copy = folder.path().join(format!("memory-dump-{name}.json"));
        fs::copy(dump, copy).expect("copies");
    }
    folder
}

fn printed(folder: PathBuf, format: Format) -> String {
    let options = AnalyzeOptions {
        directory: folder,
        recent: 10,
        summary: false,
        details: false,
        pattern: None,
        format,
        findings: true,
    };
    let mut out = Vec::new();
    analyze(&options, &mut out, |_, _| ()).expect("an analysis");
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn each_dump_has_its_cause_first() {
    for name in [
        "recursion",
        "accumulation",
        "result",
        "session",
        "cached",
        "healthy",
    ] {
        let folder = folder(&[name]);
        let text = printed(folder.path().to_owned(), Format::Classic);
        let start = text.find("🧭 FINDINGS").expect("the findings");
        let golden = Path::new(GOLDEN).join(format!("{name}.txt"));
        let expected = fs::read_to_string(golden).expect("the golden text");
        assert_eq!(&text[start..], expected, "{name}");
    }
}

#[test]
fn together_they_are_ranked_and_a_route_is_compared_with_itself() {
    let folder = folder(&["recursion", "healthy", "cached"]);
    let text = printed(folder.path().to_owned(), Format::JsonLines);
    let findings: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|line: &serde_json::Value| line["record"] == "finding")
        .collect();
    let rules: Vec<&str> = findings
        .iter()
        .filter_map(|line| line["finding"]["rule"].as_str())
        .collect();
    assert_eq!(rules[0], "recursion");
    assert_eq!(findings[0]["rank"], 1);
    assert_eq!(findings[0]["finding"]["bytes"], 523_149_424_u64);
    assert!(
        rules.contains(&"route") && rules.contains(&"cached_chunks"),
        "{rules:?}"
    );
}

#[test]
fn what_is_no_dump_of_memprofs_has_no_findings_and_no_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let head = r#"{"context":"oom_shutdown","timestamp":"t","memory":{"current_mb":1e300,"peak_mb":-1,"limit_mb":0,"usage_percent":0}"#;
    let huge = u64::MAX;
    let externals = [
        "".to_owned(),
        r#","external":null"#.to_owned(),
        r#","external":{"heap":[],"stack":{"depth":1e9,"recursion":{"cycle":[{}],"times":0,"frames":5000}},"holders":{"top":[{}]}}"#.to_owned(),
        format!(
            r#","external":{{"tried_bytes":{huge},"heap":{{"size_bytes":{huge},"real_size_bytes":{huge},"cached_chunks":{huge},"free_bytes_in_used_chunks":{huge}}},
            "objects":{{"total":{huge},"by_class":[{{"class":"A","count":{huge},"bytes":{huge}}}]}},"object_store":{{"slots":{huge}}},
            "stack":{{"depth":{huge},"recursion":{{"cycle":[{{"function":"f"}}],"times":{huge},"frames":{huge}}}}},
            "growth":{{"top":[{{"held_bytes":{huge},"stack":["f"]}},{{"held_bytes":{huge},"stack":["f"]}}]}},
            "holders":{{"heap_bytes":{huge},"unattributed_bytes":-1,"kinds":{{"strings":{{"count":{huge},"bytes":{huge}}},"objects":{{"count":{huge},"bytes":{huge}}}}},
            "top":[{{"path":"A::$b","retained_bytes":{huge},"elements":{huge}}},{{"path":"A::$c","retained_bytes":{huge},"elements":0}}]}}}}"#
        ),
    ];
    for (number, external) in externals.iter().enumerate() {
        let path = folder.path().join(format!("memory-dump-{number}.json"));
        fs::write(path, format!("{head}{external}}}")).expect("writes");
    }
    let text = printed(folder.path().to_owned(), Format::Classic);
    assert!(
        text.contains("2 of 4 dumps are an in-app profiler's"),
        "{text}"
    );
}
