//! A php of the command line, of the same builds.

use std::fs;

use memprof_tests::{CommandLine, Fpm, Opcache, PhpBuild};
use serde_json::Value;

use crate::script::{Facts, Taken, WHOLE, check, settings, wait_until_held};

#[test]
fn a_php_of_the_command_line_is_what_it_says_itself() {
    for build in PhpBuild::ALL {
        println!("{}", build.name);
        let build = PhpBuild::fetched(build.name).unwrap();
        let fpm = Fpm::start(build, settings(Opcache::On)).unwrap();
        let file = fpm.folder().join("cli");
        let argument = format!("file={}", fpm.inside("cli"));
        let script = fpm.inside("scripts/dump.php");
        let mut php = CommandLine::start(build, &script, &[&argument]).unwrap();
        wait_until_held(php.pid(), &file);
        let taken = Taken::of(php.pid(), &WHOLE);
        fs::write(&file, "").unwrap();
        let facts: Facts = serde_json::from_reader(php.0.stdout.take().unwrap()).unwrap();
        assert!(facts.unchanged && php.0.wait().unwrap().success());
        check(&taken, &facts);
        assert_eq!(taken.external("/pool"), &Value::Null);
    }
}
