//! The difference of dumps and of profiles, and what cannot be compared.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::record::frame::Frame;
use crate::record::pprof::{Amounts, Profile};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/findings");

fn golden(name: &str) -> PathBuf {
    Path::new(GOLDEN).join(name)
}

fn section<'a>(comparison: &'a Comparison, title: &str) -> &'a Section {
    let mut sections = comparison.sections.iter();
    sections
        .find(|section| section.title.starts_with(title))
        .expect("the section")
}

fn row<'a>(section: &'a Section, name: &str) -> &'a Row {
    section
        .rows
        .iter()
        .find(|row| row.name == name)
        .expect("the row")
}

/// A profile whose one stack held so many bytes for that path.
fn profile(held: &[(&str, &str, u64)]) -> Vec<u8> {
    let mut profile = Profile::new(Timestamp::from_second(1_770_091_500).expect("in range"));
    profile.set_duration(Duration::from_secs(60));
    let frame = |function: &str| Frame {
        function: function.to_owned(),
        file: Some("/srv/depot/app/Foo.php".to_owned()),
        line: Some(12),
    };
    for (path, function, bytes) in held {
        let amounts = Amounts {
            alloc_space: bytes * 2,
            alloc_objects: 2,
            inuse_space: *bytes,
            inuse_objects: 1,
        };
        let stack = [
            frame(function),
            frame("App\\Foo->bar"),
            frame("App\\Foo->bar"),
        ];
        profile.add(&stack, &[("path", path), ("method", "GET")], amounts);
    }
    profile.encode().expect("compresses")
}

#[test]
fn a_page_that_was_well_and_died() {
    let comparison =
        diff(&golden("healthy.json"), &golden("accumulation.json")).expect("a comparison");
    assert_eq!(comparison.after.of, "GET /admin, pid 4712");
    let used = row(section(&comparison, "totals"), "memory_get_usage()");
    assert_eq!(used.change, Some(112 << 20));
    let first = &section(&comparison, "held by variable").rows[0];
    assert_eq!(first.name, "App\\Models\\Scopes\\CompanyScope::$kept");
    assert_eq!(
        (first.change, first.count_after),
        (Some((113 << 20) - 56), Some(19))
    );
    let classes = section(&comparison, "objects by class");
    assert_eq!(classes.rows[0].name, "App\\Models\\Permission");
    assert_eq!(classes.rows[0].count_after, Some(4_060));
    // Only the classes with the most objects are listed: what is not among them is unknown.
    assert_eq!(row(classes, "App\\Models\\Call").change, None);
    assert_eq!(
        section(&comparison, "taken and still held").rows[0].before,
        None
    );
}

#[test]
fn dumps_of_an_in_app_profiler_have_their_totals() {
    let in_app = Path::new(GOLDEN).join("../analyze");
    let name = |second: u64| in_app.join(format!("memory-dump-{second}.json"));
    let comparison = diff(&name(1_770_091_501), &name(1_770_091_503)).expect("a comparison");
    assert_eq!(comparison.sections.len(), 1);
    assert_eq!(comparison.sections[0].rows.len(), 2);
}

#[test]
fn two_profiles_by_path_function_and_stack() {
    let folder = tempfile::tempdir().expect("a folder");
    let (before, after) = (folder.path().join("a.pb.gz"), folder.path().join("b.pb.gz"));
    fs::write(&before, profile(&[("/a", "f", 1000), ("/b", "g", 50)])).expect("writes");
    fs::write(&after, profile(&[("/a", "f", 1200), ("/c", "h", 5000)])).expect("writes");
    let comparison = diff(&before, &after).expect("a comparison");
    let names = |title: &str| {
        let rows = section(&comparison, title).rows.iter();
        rows.map(|row| (row.name.as_str(), row.change.expect("known")))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names("held at each request's peak, by path"),
        [("GET /c", 5000), ("GET /a", 200), ("GET /b", -50)]
    );
    assert_eq!(
        names("held at the peak, by the function that took it"),
        [("h", 5000), ("f", 200), ("g", -50)]
    );
    // Twice on the stack, and counted once.
    assert_eq!(
        names("held at the peak, by function with all that it called")[0],
        ("App\\Foo->bar", 5150)
    );
    assert_eq!(
        names("held at the peak, by stack")[0].0,
        "h Foo.php:12 < App\\Foo->bar Foo.php:12 < App\\Foo->bar Foo.php:12"
    );
}

#[test]
fn of_a_folder_the_newest_is_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = diff(folder.path(), folder.path()).expect_err("nothing there");
    assert!(matches!(error, DiffError::Nothing(_)), "{error}");
    fs::write(
        folder.path().join("profile-1.pb.gz"),
        profile(&[("/a", "f", 1)]),
    )
    .expect("writes");
    let comparison = diff(folder.path(), folder.path()).expect("profiles");
    assert_eq!(comparison.before.kind, "profile");
    let dumps = folder.path().join("memory-dumps");
    fs::create_dir(&dumps).expect("makes");
    fs::copy(golden("healthy.json"), dumps.join("memory-dump-1.json")).expect("copies");
    let comparison = diff(folder.path(), folder.path()).expect("dumps");
    assert_eq!(comparison.before.path, dumps.join("memory-dump-1.json"));
}

#[test]
fn what_cannot_be_compared_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("writes");
        path
    };
    let good = file("a.pb.gz", &profile(&[("/a", "f", 1)]));
    let dump = golden("healthy.json");
    for (one, other) in [(&good, &dump), (&dump, &good)] {
        let error = diff(one, other).expect_err("different kinds");
        assert!(
            error.to_string().contains("name two memory-dump-*.json"),
            "{error}"
        );
    }
    for bad in [
        file("empty.json", b""),
        file("list.json", b"[]"),
        file("cut.pb.gz", &GZIP),
        folder.path().join("missing.json"),
    ] {
        let error = diff(&bad, &dump).expect_err("no record");
        let name = bad
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        assert!(error.to_string().contains(&name), "{error}");
    }
}
