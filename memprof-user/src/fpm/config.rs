//! What a pool's configuration says that /proc does not.
//!
//! Reads the file that the master's title names, and what it includes, as php-fpm's own parser
//! (fpm_conf.c) would, but for a few keys only. All paths are resolved inside the master's own root
//! directory: a symbolic link of a container must not lead out of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use serde::Serialize;

use super::Master;

/// A configuration file is read up to this many bytes.
const MAX_FILE: u64 = 1 << 20;
/// No more files than these are read in all.
const MAX_FILES: usize = 256;
/// php-fpm itself refuses to include deeper than this.
const MAX_DEPTH: usize = 5;
/// No more pools than these are kept, and no more reasons for what was not read.
const MAX_POOLS: usize = 1000;

/// What the configuration of a master says about its pools.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Config {
    /// The pools, in the order of the files.
    pub pools: Vec<PoolConfig>,
    /// What was not read, and why; a pool or a key that is missing above may stand there.
    pub unread: Vec<String>,
}

/// What the configuration says about one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolConfig {
    /// The pool's name.
    pub name: String,
    /// `pm`: static, dynamic or ondemand.
    pub pm: Option<String>,
    /// `listen`: a socket's path, or an address and a port.
    pub listen: Option<String>,
    /// `access.log`
    pub access_log: Option<String>,
    /// `request_slowlog_timeout` as it is written; `None` where it is off, as it is by default.
    pub slowlog_timeout: Option<String>,
}

impl Config {
    /// Reads the configuration of a running master.
    ///
    /// This is the configuration on disk; the master may have read an older one.
    pub fn of(master: &Master) -> Self {
        Reader::read(&ProcessRoot(master), &master.config_file)
    }

    /// What it says about the pool of this name.
    pub fn pool(&self, name: &str) -> Option<&PoolConfig> {
        self.pools.iter().find(|pool| pool.name == name)
    }
}

/// Where files are read; tests have their own.
trait Files {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>>;
    fn list(&self, directory: &Path) -> std::io::Result<Vec<PathBuf>>;
}

struct ProcessRoot<'a>(&'a Master);

impl ProcessRoot<'_> {
    /// An absolute path is looked up in the process' root directory, another one in its working directory.
    fn open(&self, path: &Path, flags: OFlag) -> std::io::Result<OwnedFd> {
        let base = if path.has_root() { "root" } else { "cwd" };
        let base = File::open(self.0.process.path(base))?;
        let how = OpenHow::new()
            // Without O_NONBLOCK, opening a FIFO would wait for its writer.
            .flags(flags | OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        Ok(openat2(base, path, how)?)
    }
}

impl Files for ProcessRoot<'_> {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        let file = File::from(self.open(path, OFlag::empty())?);
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other("not a regular file"));
        }
        let mut text = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut text)?;
        Ok(text)
    }

    fn list(&self, directory: &Path) -> std::io::Result<Vec<PathBuf>> {
        let directory_fd = self.open(directory, OFlag::O_DIRECTORY)?;
        let entries = std::fs::read_dir(format!("/proc/self/fd/{}", directory_fd.as_raw_fd()))?;
        entries
            .map(|entry| Ok(directory.join(entry?.file_name())))
            .collect()
    }
}

struct Reader<'a, F> {
    files: &'a F,
    config: Config,
    /// The pool whose section is open; as in php-fpm it stays open over the end of an included file.
    pool: Option<usize>,
    files_read: usize,
}

impl<'a, F: Files> Reader<'a, F> {
    fn read(files: &'a F, path: &Path) -> Config {
        let mut reader = Self {
            files,
            config: Config::default(),
            pool: None,
            files_read: 0,
        };
        reader.file(path, 0);
        reader.config
    }

    fn file(&mut self, path: &Path, depth: usize) {
        if depth >= MAX_DEPTH || self.files_read >= MAX_FILES {
            return self.unread(path, "too many included files");
        }
        self.files_read += 1;
        match self.files.read(path) {
            Err(error) => self.unread(path, error),
            Ok(text) => {
                for line in String::from_utf8_lossy(&text).lines() {
                    self.line(line.trim(), depth);
                }
            }
        }
    }

    fn line(&mut self, line: &str, depth: usize) {
        if let Some(section) = line
            .strip_prefix('[')
            .and_then(|line| line.split(']').next())
        {
            self.section(section.trim());
        } else if !line.starts_with(';')
            && let Some((key, value)) = line.split_once('=')
        {
            match (key.trim(), value_of(value)) {
                ("include", pattern) => self.include(Path::new(pattern), depth),
                (key, value) => self.key(key, value),
            }
        }
    }

    fn section(&mut self, name: &str) {
        if name.eq_ignore_ascii_case("global") {
            self.pool = None;
            return;
        }
        let pools = &mut self.config.pools;
        self.pool = pools.iter().position(|pool| pool.name == name);
        if self.pool.is_some() {
            return;
        }
        if pools.len() >= MAX_POOLS {
            return self.unread(Path::new(name), "too many pools");
        }
        self.pool = Some(pools.len());
        pools.push(PoolConfig {
            name: name.to_owned(),
            ..PoolConfig::default()
        });
    }

    fn key(&mut self, key: &str, value: &str) {
        let Some(pool) = self.pool.and_then(|place| self.config.pools.get_mut(place)) else {
            return;
        };
        let value = Some(value.replace("$pool", &pool.name));
        match key {
            "pm" => pool.pm = value,
            "listen" => pool.listen = value,
            "access.log" => pool.access_log = value,
            "request_slowlog_timeout" => {
                pool.slowlog_timeout = value.filter(|value| !is_zero(value))
            }
            _ => {}
        }
    }

    /// php-fpm takes a glob(3) pattern; wildcards are usual in the file's name only.
    fn include(&mut self, pattern: &Path, depth: usize) {
        let (Some(directory), Some(name)) = (pattern.parent(), pattern.file_name()) else {
            return self.unread(pattern, "not the path of a file");
        };
        if !pattern.has_root() {
            return self.unread(pattern, "relative to a prefix that is built into php-fpm");
        }
        if is_pattern(directory.as_os_str()) {
            return self.unread(pattern, "wildcards in a directory's name");
        }
        if !is_pattern(name) {
            return self.file(pattern, depth + 1);
        }
        let Some(name) = name.to_str().and_then(|name| glob::Pattern::new(name).ok()) else {
            return self.unread(pattern, "not a pattern");
        };
        match self.files.list(directory) {
            Err(error) => self.unread(directory, error),
            Ok(mut paths) => {
                paths.retain(|path| matches(&name, path));
                paths.sort();
                paths.iter().for_each(|path| self.file(path, depth + 1));
            }
        }
    }

    fn unread(&mut self, path: &Path, why: impl std::fmt::Display) {
        if self.config.unread.len() < MAX_POOLS {
            self.config
                .unread
                .push(format!("{}: {why}", path.display()));
        }
    }
}

/// `10s`, `"10s"`, `10s ; a comment`
fn value_of(text: &str) -> &str {
    let text = text.trim();
    for quote in ['"', '\''] {
        if let Some(quoted) = text.strip_prefix(quote) {
            return quoted.split(quote).next().unwrap_or_default();
        }
    }
    text.split(';').next().unwrap_or_default().trim_end()
}

/// A time in php-fpm's notation, with an optional unit, that is no time at all.
fn is_zero(time: &str) -> bool {
    time.trim_end_matches(['s', 'm', 'h', 'd']).parse() == Ok(0)
}

fn is_pattern(name: &OsStr) -> bool {
    name.as_encoded_bytes()
        .iter()
        .any(|byte| b"*?[".contains(byte))
}

fn matches(pattern: &glob::Pattern, path: &Path) -> bool {
    // As glob(3): a leading dot is matched by a dot only.
    let options = glob::MatchOptions {
        require_literal_leading_dot: true,
        ..glob::MatchOptions::new()
    };
    let name = path.file_name().and_then(OsStr::to_str);
    name.is_some_and(|name| pattern.matches_with(name, options))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::ErrorKind;

    use super::*;

    struct Disk(BTreeMap<&'static str, &'static str>);

    impl Files for Disk {
        fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
            let text = path.to_str().and_then(|path| self.0.get(path));
            text.map(|text| text.as_bytes().to_vec())
                .ok_or(ErrorKind::NotFound.into())
        }

        fn list(&self, directory: &Path) -> std::io::Result<Vec<PathBuf>> {
            let paths = self.0.keys().map(PathBuf::from);
            Ok(paths
                .filter(|path| path.parent() == Some(directory))
                .collect())
        }
    }

    fn read(files: &[(&'static str, &'static str)]) -> Config {
        Reader::read(
            &Disk(files.iter().copied().collect()),
            Path::new("/fpm.conf"),
        )
    }

    const WWW: &str = "; the pool\n[www]\nlisten = /run/$pool.sock\npm = \"dynamic\"\n\
        ;request_slowlog_timeout = 1\nrequest_slowlog_timeout = 5s ; slow\naccess.log = log/$pool.log\n";

    #[test]
    fn pools_come_from_included_files() {
        let config = read(&[
            (
                "/fpm.conf",
                "[global]\npid = /run/fpm.pid\ninclude=/pool.d/*.conf\n",
            ),
            ("/pool.d/.hidden.conf", "[hidden]\n"),
            (
                "/pool.d/admin.conf",
                "[admin]\npm = ondemand\nrequest_slowlog_timeout = 0s\n",
            ),
            ("/pool.d/www.conf", WWW),
            ("/pool.d/old.conf.bak", "[old]\n"),
        ]);
        assert_eq!(config.unread, [""; 0]);
        assert_eq!(config.pools.len(), 2);
        let www = PoolConfig {
            name: "www".into(),
            pm: Some("dynamic".into()),
            listen: Some("/run/www.sock".into()),
            access_log: Some("log/www.log".into()),
            slowlog_timeout: Some("5s".into()),
        };
        assert_eq!(config.pool("www"), Some(&www));
        assert_eq!(
            config
                .pool("admin")
                .and_then(|pool| pool.slowlog_timeout.as_ref()),
            None
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let config = read(&[(
            "/fpm.conf",
            "[www]\ninclude=pool.d/*.conf\ninclude=/gone.conf\ninclude=/*/x.conf\n",
        )]);
        assert_eq!(config.unread.len(), 3, "{config:?}");
        assert!(config.unread[1].starts_with("/gone.conf: "));
        assert!(config.pool("www").is_some());
        assert_eq!(read(&[]).unread.len(), 1);
    }

    #[test]
    fn a_file_that_includes_itself_ends() {
        let config = read(&[("/fpm.conf", "include=/fpm.conf\ninclude=/fpm.conf\n[www]\n")]);
        assert_eq!(config.pools.len(), 1);
        assert!(!config.unread.is_empty());
    }

    #[test]
    fn a_section_opened_twice_is_one_pool() {
        let config = read(&[(
            "/fpm.conf",
            "[www]\npm = static\n[global]\npm = no\n[www]\nlisten = 9000\n",
        )]);
        assert_eq!(config.pools.len(), 1);
        assert_eq!(config.pools[0].pm.as_deref(), Some("static"));
        assert_eq!(config.pools[0].listen.as_deref(), Some("9000"));
    }
}
