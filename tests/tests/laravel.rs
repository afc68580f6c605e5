//! The Laravel test application does what its pages are for.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use memprof_tests::fcgi::Response;
use memprof_tests::{Fpm, Laravel, PhpBuild, Pool, Settings};

const MIB: u64 = 1_048_576;

fn start(memory_limit: &str) -> (Fpm, Laravel) {
    let build = PhpBuild::fetched(PhpBuild::LARAVEL).unwrap();
    let mut pool = Pool::new("www");
    pool.memory_limit = memory_limit.to_owned();
    let settings = Settings {
        pools: vec![pool],
        ..Settings::default()
    };
    let fpm = Fpm::start(build, settings).unwrap();
    let laravel = Laravel::install(&fpm, "www").unwrap();
    (fpm, laravel)
}

fn number(response: &Response, header: &str) -> u64 {
    response.header(header).unwrap().parse().unwrap()
}

#[test]
fn its_pages_take_what_they_take() {
    let (_fpm, mut laravel) = start("128M");
    assert_eq!(laravel.send(laravel.request("/admin")).unwrap().status, 403);
    let login = laravel.get("/t/login/1?perm=580").unwrap();
    assert_eq!(login.text(), r#"{"user":1,"permissions":580}"#);

    laravel.get("/admin").unwrap();
    let admin = laravel.get("/admin").unwrap();
    assert_eq!(admin.text().matches("class=\"badge\"").count(), 28);
    assert!(number(&admin, "X-Included-Files") > 400);
    let calls = laravel.get("/t/calls").unwrap();
    assert_eq!(calls.text(), r#"{"calls":125}"#);
    // 125 rows of about 50 kB.
    assert!(number(&calls, "X-Memory-Peak") > number(&admin, "X-Memory-Peak") + 6 * MIB);
}

#[test]
fn its_bugs_exhaust_the_limit() {
    let (_fpm, mut laravel) = start("128M");
    laravel.get("/t/login/1").unwrap();
    for bug in ["recursion", "accumulate"] {
        let response = laravel
            .send(laravel.request("/admin").header("X-Bug", bug))
            .unwrap();
        assert!(
            response.stderr.contains("Allowed memory size"),
            "{bug}: {response:?}"
        );
    }
    assert!(laravel.log().unwrap().contains("Allowed memory size"));
    // The first one compiles the page's view.
    laravel.get("/admin").unwrap();
    let healthy = laravel.get("/admin").unwrap();
    for bug in ["longtext", "builders"] {
        let response = laravel
            .send(laravel.request("/admin").header("X-Bug", bug))
            .unwrap();
        assert_eq!(response.status, 200);
        assert!(
            number(&response, "X-Memory-Peak") > number(&healthy, "X-Memory-Peak"),
            "{bug}"
        );
    }
}
