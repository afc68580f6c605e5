//! Applications other than Laravel, as Debian packages them.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use memprof_tests::fcgi::Request;
use memprof_tests::{Fpm, PhpBuild, repository};

use super::workload::{Client, check};
use crate::run::{heading, output};

/// Where MediaWiki keeps its database and its settings in the root of [`PhpBuild::BENCHED`].
const WIKI_DATA: &str = "srv/mediawiki";
const WIKI_SETTINGS: &str = "etc/mediawiki/LocalSettings.php";

/// MediaWiki's main page; all php-fpms of the build share one wiki.
///
/// # Errors
/// When its installer fails.
pub fn mediawiki(fpm: &Fpm, pool: &str) -> Result<Client> {
    install_mediawiki()?;
    let request = Request::get(
        "/usr/share/mediawiki/index.php",
        "/index.php?title=Main_Page",
    );
    let socket = fpm.socket(pool);
    Ok(Box::new(move || {
        let response = request.send(&socket)?;
        let text = response.text();
        check(
            &response,
            text.contains("MediaWiki has been installed") && text.ends_with("</html>"),
        )
    }))
}

/// Runs MediaWiki's installer in the build's root, where it has not been run.
fn install_mediawiki() -> Result<()> {
    let root = PhpBuild::BENCHED.folder();
    if root.join(WIKI_SETTINGS).exists() {
        return Ok(());
    }
    heading("Installing a wiki into the root of the PHP build");
    fs::create_dir_all(root.join(WIKI_DATA))?;
    let mut install = Command::new("/usr/sbin/chroot");
    install.arg(&root).args([
        "/usr/bin/php8.2",
        "/usr/share/mediawiki/maintenance/install.php",
        "--dbtype=sqlite",
        "--dbname=wiki",
        "--server=http://localhost",
        "--scriptpath=",
        "--pass=only-for-the-benchmark",
        "--confpath=/etc/mediawiki",
    ]);
    install
        .arg(format!("--dbpath=/{WIKI_DATA}"))
        .args(["Wiki", "Admin"]);
    output(install.env("PHP_INI_SCAN_DIR", "/etc/php/8.2/fpm/conf.d"))?;
    let settings = root.join(WIKI_SETTINGS);
    let mut text = fs::read_to_string(&settings).context("MediaWiki's settings")?;
    // No request does another one's work.
    text += "\n$wgJobRunRate = 0;\n";
    fs::write(&settings, text)?;
    Ok(())
}

/// The page of the Symfony test application.
///
/// # Errors
/// When the application does not fill its database.
pub fn symfony(fpm: &Fpm, pool: &str) -> Result<Client> {
    fpm.add_folder(&repository().join("tests/apps/symfony"), "symfony")?;
    fpm.make_folder("symfony/var")?;
    let page = |uri| Request::get(fpm.inside("symfony/public/index.php"), uri);
    let socket = fpm.socket(pool);
    let seeded = page("/seed").send(&socket)?;
    if seeded.text() != r#"{"seeded":true}"# {
        bail!(
            "filling Symfony's database: {} {}\n{}",
            seeded.status,
            seeded.text(),
            seeded.stderr
        );
    }
    let request = page("/products");
    Ok(Box::new(move || {
        let response = request.send(&socket)?;
        check(
            &response,
            response.text() == r#"{"products":200,"last":"Product 199"}"#,
        )
    }))
}
