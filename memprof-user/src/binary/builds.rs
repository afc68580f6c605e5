//! Holds every PHP build in the folder `MEMPROF_PHP_BINARIES` against what was measured.

#[test]
fn dump() {
    for path in std::env::var("MEMPROF_PHP_BINARIES").unwrap().split(':') {
        let start = std::time::Instant::now();
        match super::PhpBinary::open(std::fs::File::open(path).unwrap()) {
            Err(e) => println!("{path}: {e}"),
            Ok(b) => {
                println!(
                    "{path} {} {:?} {:#x?}",
                    b.version,
                    start.elapsed(),
                    b.decoded
                );
                for e in &b.evidence {
                    println!("  {} = {} ({})", e.what, e.value, e.how);
                }
                for s in &b.sites {
                    println!(
                        "  {:?} {} {:#x} {} {} {}",
                        s.site,
                        s.function,
                        s.address,
                        s.instruction,
                        if s.emulated { "EMU" } else { "step" },
                        s.why
                    );
                }
            }
        }
    }
}
