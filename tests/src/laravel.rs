//! The Laravel test application (`tests/apps/laravel`) in a php-fpm of its own.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::fcgi::{Cookies, Request, Response};
use crate::{Fpm, repository};

/// Where Laravel writes; git keeps no empty folders.
const WRITABLE: &[&str] = &[
    "bootstrap/cache",
    "database",
    "storage/framework/cache",
    "storage/framework/sessions",
    "storage/framework/views",
    "storage/logs",
];

/// A copy of the application with its own database and sessions, and the browser of one user.
#[derive(Debug)]
pub struct Laravel {
    folder: PathBuf,
    index: String,
    socket: PathBuf,
    cookies: Cookies,
}

impl Laravel {
    /// Copies the application into the folder of `fpm`, fills its database, and sends its requests to `pool`.
    ///
    /// # Errors
    /// When files cannot be copied, or the database cannot be filled: only the build [`crate::PhpBuild::LARAVEL`] has Laravel.
    pub fn install(fpm: &Fpm, pool: &str) -> Result<Self> {
        fpm.add_folder(&repository().join("tests/apps/laravel"), "laravel")?;
        for folder in WRITABLE {
            fpm.make_folder(&format!("laravel/{folder}"))?;
        }
        let socket = fpm.socket(pool);
        let seed =
            Request::get(fpm.inside("laravel/public/seed.php"), "/seed.php").send(&socket)?;
        if seed.status != 200 || !seed.text().ends_with(r#"{"seeded":true}"#) {
            bail!(
                "filling Laravel's database failed: {} {}\n{}",
                seed.status,
                seed.text(),
                seed.stderr
            );
        }
        Ok(Self {
            folder: fpm.folder().join("laravel"),
            index: fpm.inside("laravel/public/index.php"),
            socket,
            cookies: Cookies::default(),
        })
    }

    /// A GET of one of its pages, as `/admin`.
    pub fn request(&self, uri: &str) -> Request {
        Request::get(self.index.clone(), uri)
    }

    /// Sends a request with this browser's cookies, and keeps those of the answer.
    ///
    /// # Errors
    /// As [`Request::send`].
    pub fn send(&mut self, request: Request) -> Result<Response> {
        let response = self.cookies.send_with(request).send(&self.socket)?;
        self.cookies.keep(&response);
        Ok(response)
    }

    /// Sends a GET that has to be answered with 200.
    ///
    /// # Errors
    /// As [`Request::send`], and when the status is another.
    pub fn get(&mut self, uri: &str) -> Result<Response> {
        let response = self.send(self.request(uri))?;
        if response.status != 200 {
            bail!(
                "GET {uri}: {} {}\n{}",
                response.status,
                response.text(),
                response.stderr
            );
        }
        Ok(response)
    }

    /// The application's own log, `storage/logs/laravel.log`.
    ///
    /// # Errors
    /// When there is none, because nothing was logged yet.
    pub fn log(&self) -> Result<String> {
        let file = self.folder.join("storage/logs/laravel.log");
        fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
    }
}
