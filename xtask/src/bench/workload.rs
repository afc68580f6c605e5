//! What the php-fpms are asked for: pages of real applications, and scripts that do one thing.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use memprof_tests::fcgi::{Request, Response};
use memprof_tests::{Fpm, Laravel, repository};

use super::applications;

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Laravel: a navigation of 28 badges.
    Admin,
    /// Laravel: 125 rows with 26 LONGTEXT columns.
    Calls,
    /// MediaWiki's main page.
    MediaWiki,
    /// Symfony: a page with 200 entities that Doctrine loads.
    Symfony,
    /// Page runs that are kept, so many MiB.
    Growth { mib: u32 },
    /// The same small blocks, taken and given back 100,000 times: inside pages that the heap owns.
    Churn,
    /// A recursion so deep, and then 200 page runs.
    Recursion { depth: u32 },
}

/// Sends one request, and checks its answer; how long it took.
pub type Client = Box<dyn FnMut() -> Result<Duration> + Send>;

impl Workload {
    /// For a heading.
    pub fn title(self) -> String {
        match self {
            Self::Admin => "Laravel: /admin".to_owned(),
            Self::Calls => "Laravel: /t/calls".to_owned(),
            Self::MediaWiki => "MediaWiki: the main page".to_owned(),
            Self::Symfony => "Symfony with Doctrine: 200 entities".to_owned(),
            Self::Growth { mib } => format!("growth only: {mib} MiB of page runs that are kept"),
            Self::Churn => "churn only: 100,000 times the same small blocks".to_owned(),
            Self::Recursion { depth } => format!("{depth} calls deep: 200 page runs"),
        }
    }

    /// Prepares a php-fpm for it, and gives who sends its requests to the pool.
    ///
    /// # Errors
    /// When the application can't be set up.
    pub fn open(self, fpm: &Fpm, pool: &str) -> Result<Client> {
        match self {
            Self::Admin | Self::Calls => self.laravel(fpm, pool),
            Self::MediaWiki => applications::mediawiki(fpm, pool),
            Self::Symfony => applications::symfony(fpm, pool),
            Self::Growth { mib } => script(
                fpm,
                pool,
                &format!("growth.php?mib={mib}"),
                &mib.to_string(),
            ),
            Self::Churn => script(fpm, pool, "churn.php?count=100000", "100000"),
            Self::Recursion { depth } => {
                let uri = format!("recursion.php?depth={depth}");
                script(fpm, pool, &uri, &depth.to_string())
            }
        }
    }

    fn laravel(self, fpm: &Fpm, pool: &str) -> Result<Client> {
        let mut laravel = Laravel::install(fpm, pool)?;
        laravel.get("/t/login/1?perm=580")?;
        Ok(Box::new(move || {
            let (page, is_right): (_, fn(&str) -> bool) = match self {
                Self::Calls => ("/t/calls", |text| text == r#"{"calls":125}"#),
                _ => ("/admin", |text| {
                    text.matches("class=\"badge\"").count() == 28
                }),
            };
            let response = laravel.get(page)?;
            check(&response, is_right(&response.text()))
        }))
    }
}

/// The time of a right answer.
///
/// # Errors
/// When it is not right.
pub fn check(response: &Response, is_right: bool) -> Result<Duration> {
    if response.status != 200 || !is_right {
        bail!(
            "a wrong answer: {} {}\n{}",
            response.status,
            response.text(),
            response.stderr
        );
    }
    Ok(response.duration)
}

/// A script of `tests/apps/bench`, and all that it answers.
fn script(fpm: &Fpm, pool: &str, uri: &str, answer: &str) -> Result<Client> {
    fpm.add_folder(&repository().join("tests/apps/bench"), "bench")?;
    let file = uri.split('?').next().unwrap_or(uri);
    let request = Request::get(fpm.inside(&format!("bench/{file}")), format!("/{uri}"));
    let socket: PathBuf = fpm.socket(pool);
    let answer = answer.to_owned();
    Ok(Box::new(move || {
        let response = request.send(&socket)?;
        check(&response, response.text() == answer)
    }))
}
