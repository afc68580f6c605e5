//! What of a real application's heap can be explained.

use std::fs;
use std::thread;

use memprof_tests::{Fpm, Laravel, Opcache, PhpBuild};

use crate::script::{Taken, settings, wait_until_held};

/// Dumps the worker at the end of a page's request.
fn dump_page(fpm: &Fpm, laravel: &mut Laravel, page: &str) -> Taken {
    let worker = fpm.workers("www").unwrap()[0];
    let file = fpm.folder().join("go");
    let request = laravel.request(&format!("{page}?hold={}", fpm.inside("go")));
    let taken = thread::scope(|scope| {
        let waiting = scope.spawn(|| laravel.send(request).unwrap());
        wait_until_held(worker, &file);
        let taken = Taken::of(worker, &["--max-stop", "60000"]);
        fs::write(&file, "").unwrap();
        assert_eq!(waiting.join().unwrap().status, 200);
        taken
    });
    for name in ["go", "go.ready"] {
        fs::remove_file(fpm.folder().join(name)).unwrap();
    }
    taken
}

#[test]
fn nearly_all_of_laravels_heap_is_explained() {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    for opcache in [Opcache::On, Opcache::Off] {
        let mut settings = settings(opcache);
        // php-fpm changes to the folder of the script.
        let append = "../../scripts/hold.php".to_owned();
        settings.ini.push(("auto_append_file".to_owned(), append));
        let fpm = Fpm::start(build, settings).unwrap();
        let mut laravel = Laravel::install(&fpm, "www").unwrap();
        laravel.get("/t/login/1?perm=580").unwrap();
        for page in ["/admin", "/t/calls"] {
            laravel.get(page).unwrap();
            let taken = dump_page(&fpm, &mut laravel, page);
            let holders = taken.external("/holders");
            assert_eq!(holders["complete"], true, "{}", taken.external("/left_out"));
            let bytes = |key: &str| holders[key].as_i64().unwrap();
            let share = bytes("unattributed_bytes") as f64 / bytes("heap_bytes") as f64;
            println!(
                "{page} {opcache:?}: {:.2} % of {} unattributed",
                share * 100.0,
                bytes("heap_bytes")
            );
            println!("{}", holders["kinds"]);
            for holder in holders["top"].as_array().unwrap().iter().take(30) {
                println!(
                    "{} {} {}",
                    holder["retained_bytes"], holder["shared"], holder["path"]
                );
            }
            assert!((0.0..0.05).contains(&share), "{holders:#}");
        }
    }
}
