//! The chosen probe sites are passed as often as the functions that they stand for; what both cost is printed.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use memprof_tests::attached::own_pool;
use memprof_tests::{Fpm, PhpBuild};
use memprof_user::binary::{PhpBinary, Site};
use serde::Deserialize;

const TRACING: &str = "/sys/kernel/tracing";
/// What the page allocator's sites stand for.
const FUNCTION: &str = "zend_mm_alloc_pages";
const URI: &str = "churn.php?seconds=0.3";
const ROUNDS: usize = 2;

#[derive(Deserialize)]
struct Churned {
    turns: u64,
}

/// Probes of the kernel's own tracing; they go when this is dropped.
struct Traced {
    group: String,
    count: usize,
}

impl Traced {
    fn attach(name: &str, file: &Path, offsets: &[u64]) -> Self {
        let group = format!("memprof_{name}_{}", std::process::id());
        let traced = Self {
            group,
            count: offsets.len(),
        };
        for (index, offset) in offsets.iter().enumerate() {
            traced.write(&format!(
                "p:{}/at{index} {}:{offset:#x}\n",
                traced.group,
                file.display()
            ));
        }
        fs::write(format!("{TRACING}/events/{}/enable", traced.group), "1").unwrap();
        traced
    }

    fn write(&self, line: &str) {
        let events = Path::new(TRACING).join("uprobe_events");
        let mut events = OpenOptions::new().append(true).open(events).unwrap();
        events.write_all(line.as_bytes()).unwrap();
    }

    /// How often they were hit, by the kernel's count.
    fn hits(&self, file: &Path) -> u64 {
        let profile = fs::read_to_string(format!("{TRACING}/uprobe_profile")).unwrap();
        let own = profile
            .lines()
            .filter(|line| line.contains(&*file.to_string_lossy()));
        own.map(|line| {
            line.split_whitespace()
                .nth(2)
                .unwrap()
                .parse::<u64>()
                .unwrap()
        })
        .sum()
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = fs::write(format!("{TRACING}/events/{}/enable", self.group), "0");
        for index in 0..self.count {
            self.write(&format!("-:{}/at{index}\n", self.group));
        }
    }
}

/// Nanoseconds of one turn, which takes and frees one page run.
fn turn_ns(fpm: &Fpm) -> (f64, u64) {
    let churned: Churned = fpm.get(URI).unwrap().json().unwrap();
    (1e9 / churned.turns as f64, churned.turns)
}

#[test]
fn chosen_sites_are_hit_as_often_as_functions_and_cost_less() {
    for build in PhpBuild::ALL {
        let fpm = Fpm::start(
            PhpBuild::fetched(build.name).unwrap(),
            own_pool("site-cost"),
        )
        .unwrap();
        let path = fpm.binary();
        let binary = PhpBinary::open(File::open(&path).unwrap()).unwrap();
        let taken = binary
            .sites
            .iter()
            .filter(|site| site.site == Site::PagesTaken);
        let chosen: Vec<u64> = taken.map(|site| site.file_offset).collect();
        let entry = binary
            .evidence
            .iter()
            .find(|evidence| evidence.what == FUNCTION)
            .unwrap();
        let entry = u64::from_str_radix(entry.value.trim_start_matches("0x"), 16).unwrap();
        let entry = [binary.file_offset(entry).unwrap()];
        fpm.get(URI).unwrap();
        // The least of some rounds, because other processes only ever add.
        let (mut without, mut costs) = (f64::MAX, [f64::MAX; 2]);
        for _ in 0..ROUNDS {
            without = without.min(turn_ns(&fpm).0);
            for (cost, (name, offsets)) in costs
                .iter_mut()
                .zip([("chosen", &chosen[..]), ("entry", &entry[..])])
            {
                let traced = Traced::attach(name, &path, offsets);
                let (ns, turns) = turn_ns(&fpm);
                let hits = traced.hits(&path);
                // Nothing else in the script takes many page runs.
                assert!(
                    (turns..turns + 100).contains(&hits),
                    "{}: {name}: {hits} in {turns} turns",
                    build.name
                );
                *cost = cost.min(ns);
            }
        }
        let sites = chosen.len();
        let [chosen, entry] = costs.map(|cost| cost - without);
        println!(
            "{}: a hit at one of the {sites} chosen sites costs {chosen:.0} ns, at the function's entry {:.2} times as much",
            build.name,
            entry / chosen
        );
    }
}
