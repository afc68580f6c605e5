//! What page runs and huge blocks tell of all that is asked for: the same requests in aggressive mode and in exact mode.

use std::collections::HashMap;

use memprof_tests::attached::{attach_to, own_pool};
use memprof_tests::{Fpm, Laravel, PhpBuild};
use memprof_user::record::pprof::ReadProfile;

use crate::profile_of;
use crate::score::spearman;

const MIB: f64 = 1_048_576.0;
/// Functions whose order is compared: those that ask for most.
const TOP: usize = 20;
/// Reads rows of large columns: nearly all that it asks for takes pages of its own.
const LARGE_VALUES: &str = "PDOStatement->fetchAll";
const PAGES: [&str; 2] = ["/admin", "/t/calls"];

/// A profile's `alloc_space` by its innermost function: taken, or in exact mode asked for.
fn by_function(profile: &ReadProfile) -> HashMap<String, u64> {
    let mut bytes: HashMap<String, u64> = HashMap::new();
    for sample in &profile.samples {
        if let Some(innermost) = profile.stack(sample).next() {
            *bytes.entry(innermost.function.clone()).or_default() += sample.amounts.alloc_space;
        }
    }
    bytes
}

/// Runs one request, which has run before, on a php-fpm of its own in each mode: taken and asked for by function.
fn in_both_modes(run: impl Fn(&Fpm) -> Box<dyn FnMut()>) -> [HashMap<String, u64>; 2] {
    let modes: [&[&str]; 2] = [
        &["--mode", "aggressive"],
        &["--mode", "exact", "--duration", "5m"],
    ];
    modes.map(|mode| {
        let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
        let fpm = Fpm::start(build, own_pool("exact")).unwrap();
        let mut request = run(&fpm);
        // The first requests compile, and fill the worker's caches.
        for _ in 0..3 {
            request();
        }
        let memprof = attach_to(&fpm, &[mode, &["--every"]].concat()).unwrap();
        request();
        memprof.wait_for("checkpoint", 1).unwrap();
        memprof.stop().unwrap();
        by_function(&profile_of(&fpm))
    })
}

/// Prints both sides of the functions that ask for most; the rank correlation of the two.
fn print_largest(title: &str, taken: &HashMap<String, u64>, asked: &HashMap<String, u64>) -> f64 {
    let sum = |of: &HashMap<String, u64>| of.values().sum::<u64>() as f64 / MIB;
    println!(
        "{title}: asked for {:.2} MiB, taken {:.2} MiB",
        sum(asked),
        sum(taken)
    );
    let mut functions: Vec<&String> = asked.keys().collect();
    functions.sort_by_key(|function| std::cmp::Reverse(asked[*function]));
    functions.truncate(TOP);
    let of = |all: &HashMap<String, u64>| -> Vec<u64> {
        let bytes = functions.iter().map(|function| all.get(*function));
        bytes.map(|bytes| bytes.copied().unwrap_or(0)).collect()
    };
    let (taken, asked) = (of(taken), of(asked));
    for ((function, taken), asked) in functions.iter().zip(&taken).zip(&asked) {
        println!(
            "  {:9.1} KiB asked for, {:9.1} KiB taken: {function}",
            *asked as f64 / 1024.0,
            *taken as f64 / 1024.0
        );
    }
    spearman(&taken, &asked).unwrap_or(0.0)
}

#[test]
fn taken_is_what_is_asked_for_less_what_finds_room() {
    for page in PAGES {
        let [taken, asked] = in_both_modes(|fpm| {
            let mut laravel = Laravel::install(fpm, fpm.pool()).unwrap();
            laravel.get("/t/login/1?perm=580").unwrap();
            Box::new(move || drop(laravel.get(page).unwrap()))
        });
        let rank = print_largest(page, &taken, &asked);
        println!("  rank correlation of these: {rank:.3}");
        // Small values find room in runs that are there; a reallocation asks for the whole anew.
        assert!(taken.values().sum::<u64>() < asked.values().sum::<u64>());
        assert!(rank > 0.3, "{page}: {rank}");
        if page == "/t/calls" {
            // Rounded up to pages.
            let ratio = taken[LARGE_VALUES] as f64 / asked[LARGE_VALUES] as f64;
            assert!((1.0..1.25).contains(&ratio), "{ratio}");
        }
    }
}

#[test]
fn churn_is_seen_by_exact_mode_alone() {
    let [taken, asked] = in_both_modes(|fpm| {
        let request = fpm.script("strings.php?count=5000");
        let socket = fpm.socket(fpm.pool());
        Box::new(move || drop(request.send(&socket).unwrap()))
    });
    print_largest(
        "5,000 strings of 1,000 bytes, one at a time",
        &taken,
        &asked,
    );
    assert_eq!(asked["str_repeat"], 5000 * 1032);
    // One run of slots of 1,280 bytes, at most.
    assert!(
        taken
            .get("str_repeat")
            .is_none_or(|taken| *taken <= 5 * 4096)
    );
}
