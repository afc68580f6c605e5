//! Starts a php-fpm of its own: a copy of the binary, a folder, a configuration and sockets that nobody else uses.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::fcgi::{Request, Response};
use crate::{PhpBuild, repository};

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);
/// `nobody` and `nogroup`, the same numbers in every Debian (base-passwd).
const NOBODY: u32 = 65_534;

/// How the php-fpm under test is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The pools; each gets a socket of its own.
    pub pools: Vec<Pool>,
    /// Whether opcache works, and with its compiler or not.
    pub opcache: Opcache,
    /// Who the workers run as.
    pub user: User,
    /// Further php.ini settings of the whole master, as `("opcache.preload", "/srv/...")`.
    pub ini: Vec<(String, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pools: vec![Pool::new("www")],
            opcache: Opcache::On,
            user: User::Root,
            ini: Vec::new(),
        }
    }
}

/// One pool with a fixed number of workers.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name, as it stands in the workers' titles.
    pub name: String,
    /// How many workers, started with the master.
    pub workers: usize,
    /// PHP's memory_limit, as `128M`.
    pub memory_limit: String,
    /// Further settings of the pool, as `("pm.max_requests", "1")`.
    pub directives: Vec<(String, String)>,
}

impl Pool {
    /// A pool of one worker with PHP's usual 128M.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            workers: 1,
            memory_limit: "128M".to_owned(),
            directives: Vec::new(),
        }
    }
}

/// What opcache does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcache {
    /// Nothing: every file is compiled in every request.
    Off,
    /// Caches compiled files.
    On,
    /// Caches, and compiles hot code to machine code (tracing JIT, PHP 8.0 and later).
    Jit,
}

/// Who the workers run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// root, as the master.
    Root,
    /// nobody.
    Nobody,
}

/// A running php-fpm; it ends when this is dropped.
#[derive(Debug)]
pub struct Fpm {
    master: Child,
    folder: TempDir,
    /// The folder's path as php-fpm sees it.
    inside: PathBuf,
    settings: Settings,
}

impl Fpm {
    /// Starts the build's php-fpm and waits until every pool listens and every worker has its title.
    ///
    /// The scripts in `tests/apps/scripts` are in its folder.
    ///
    /// # Errors
    /// When this is not root, or php-fpm does not come up within 60 s; the error then holds its log.
    pub fn start(build: &PhpBuild, settings: Settings) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("starting php-fpm for a test needs root (it is run by chroot): run it with sudo");
        }
        if settings.opcache == Opcache::Jit && build.version.starts_with("7.") {
            bail!("{} has no JIT, PHP has it from 8.0 on", build.name);
        }
        let (folder, inside) = work_folder(build)?;
        let config = folder.path().join("fpm.conf");
        fs::write(&config, configuration(&settings, &inside))
            .with_context(|| format!("writing {}", config.display()))?;
        // A uprobe sits on an inode: with a copy of its own no other php-fpm ever meets this test's probes.
        let binary = build.fpm_binary()?;
        fs::copy(&binary, folder.path().join("php-fpm"))
            .with_context(|| format!("copying {}", binary.display()))?;

        let master = command(build, &settings, &inside)
            .spawn()
            .with_context(|| format!("starting php-fpm of {}", build.name))?;
        let mut fpm = Self {
            master,
            folder,
            inside,
            settings,
        };
        fpm.add_folder(&repository().join("tests/apps/scripts"), "scripts")?;
        fpm.wait_until_ready()
            .with_context(|| format!("waiting for php-fpm of {}", build.name))?;
        Ok(fpm)
    }

    /// The master's process id.
    pub fn master(&self) -> i32 {
        self.master.id().cast_signed()
    }

    /// The process ids of the workers that carry their pool's title, oldest first.
    ///
    /// # Errors
    /// When the master is gone.
    pub fn workers(&self, pool: &str) -> Result<Vec<i32>> {
        let title = format!("php-fpm: pool {pool}");
        let children = self.children()?;
        Ok(children
            .into_iter()
            .filter(|pid| has_title(*pid, &title))
            .collect())
    }

    /// The name of its first pool.
    pub fn pool(&self) -> &str {
        self.settings.pools.first().map_or("", |pool| &pool.name)
    }

    /// The copy of php-fpm that runs, as a path on this machine.
    pub fn binary(&self) -> PathBuf {
        self.folder.path().join("php-fpm")
    }

    /// The folder of this php-fpm, as a path on this machine.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The path of a file in the folder, as php-fpm sees it.
    pub fn inside(&self, file: &str) -> String {
        self.inside.join(file).display().to_string()
    }

    /// The pool's socket, as a path on this machine.
    pub fn socket(&self, pool: &str) -> PathBuf {
        // By way of /proc it is short however deep the repository lies: a socket's path may have 107 bytes.
        let file = self.inside(&format!("{pool}.sock"));
        PathBuf::from(format!("/proc/{}/root{file}", self.master.id()))
    }

    /// php-fpm's own log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("fpm.log")).unwrap_or_default()
    }

    /// Copies a folder into this php-fpm's folder, under `name`, owned by the workers' user.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn add_folder(&self, from: &Path, name: &str) -> Result<()> {
        let to = self.folder.path().join(name);
        copy_tree(from, &to, self.owner())
            .with_context(|| format!("copying {} to {}", from.display(), to.display()))
    }

    /// Makes a folder for the workers' user to write in, with those above it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_folder(&self, name: &str) -> Result<()> {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder)
            .and_then(|()| chown(&folder, Some(self.owner()), Some(self.owner())))
            .with_context(|| format!("making {}", folder.display()))
    }

    /// A GET of one of the scripts in `tests/apps/scripts`, as `memory.php?mb=8`, in the first pool.
    ///
    /// # Errors
    /// As [`Request::send`].
    pub fn get(&self, uri: &str) -> Result<Response> {
        self.script(uri).send(&self.socket(self.pool()))
    }

    /// The request that [`Fpm::get`] sends, to be sent elsewhere or with headers.
    pub fn script(&self, uri: &str) -> Request {
        let file = uri.split('?').next().unwrap_or(uri);
        Request::get(self.inside(&format!("scripts/{file}")), format!("/{uri}"))
    }

    fn owner(&self) -> u32 {
        match self.settings.user {
            User::Root => 0,
            User::Nobody => NOBODY,
        }
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !self.is_ready()? {
            if let Some(status) = self.master.try_wait()? {
                bail!("it ended with {status}; its log:\n{}", self.log());
            }
            if Instant::now() > deadline {
                bail!(
                    "it does not listen after {} s; its log:\n{}",
                    START_LIMIT.as_secs(),
                    self.log()
                );
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn is_ready(&self) -> Result<bool> {
        for pool in &self.settings.pools {
            if UnixStream::connect(self.socket(&pool.name)).is_err()
                || self.workers(&pool.name)?.len() < pool.workers
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn children(&self) -> Result<Vec<i32>> {
        let pid = self.master.id();
        let file = format!("/proc/{pid}/task/{pid}/children");
        let list = fs::read_to_string(&file)
            .with_context(|| format!("the master is gone: {file}; its log:\n{}", self.log()))?;
        list.split_whitespace()
            .map(|pid| pid.parse().with_context(|| format!("reading {file}")))
            .collect()
    }

    fn has_ended_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if !matches!(self.master.try_wait(), Ok(None)) {
                return true;
            }
            thread::sleep(POLL);
        }
        false
    }
}

impl Drop for Fpm {
    fn drop(&mut self) {
        let workers = self.children().unwrap_or_default();
        // SIGTERM makes the master end its workers; what does not listen is killed. Nothing is left to do on an error here.
        let _ = kill(Pid::from_raw(self.master()), Signal::SIGTERM);
        if !self.has_ended_within(STOP_LIMIT) {
            let _ = self.master.kill();
            let _ = self.master.wait();
            for worker in workers {
                let _ = kill(Pid::from_raw(worker), Signal::SIGKILL);
            }
        }
    }
}

/// Makes the folder; gives also its path as php-fpm will see it.
fn work_folder(build: &PhpBuild) -> Result<(TempDir, PathBuf)> {
    let root = build.folder();
    let parent = if build.is_chroot() {
        root.join("srv")
    } else {
        std::env::temp_dir()
    };
    let folder = tempfile::Builder::new()
        .prefix("memprof-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir_in(&parent)
        .with_context(|| format!("making a folder in {}", parent.display()))?;
    let inside = match folder.path().strip_prefix(&root) {
        Ok(rest) => Path::new("/").join(rest),
        Err(_) => folder.path().to_owned(),
    };
    Ok((folder, inside))
}

fn configuration(settings: &Settings, inside: &Path) -> String {
    let inside = inside.display();
    let user = match settings.user {
        User::Root => "user = root\ngroup = root",
        User::Nobody => "user = nobody\ngroup = nogroup",
    };
    let mut text = format!("[global]\nerror_log = {inside}/fpm.log\ndaemonize = no\n");
    for pool in &settings.pools {
        text += &format!(
            "[{name}]\n{user}\nlisten = {inside}/{name}.sock\npm = static\npm.max_children = {workers}\n\
             php_value[memory_limit] = {limit}\n",
            name = pool.name,
            workers = pool.workers,
            limit = pool.memory_limit,
        );
        for (name, value) in &pool.directives {
            text += &format!("{name} = {value}\n");
        }
    }
    text
}

fn command(build: &PhpBuild, settings: &Settings, inside: &Path) -> Command {
    let binary = inside.join("php-fpm");
    let mut command = if build.is_chroot() {
        let mut chroot = Command::new("/usr/sbin/chroot");
        chroot.arg(build.folder()).arg(binary);
        chroot
    } else {
        Command::new(binary)
    };
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.args(["--nodaemonize", "--allow-to-run-as-root", "--fpm-config"]);
    command.arg(inside.join("fpm.conf"));
    let native = build.folder().join("native");
    if !build.is_chroot() {
        command.env("LD_LIBRARY_PATH", native.join("lib"));
    }
    // 8.5 has opcache built in; the Debian roots load it by their conf.d.
    let module = native.join("php/modules/opcache.so");
    let mut ini = vec![
        ("display_errors", "0"),
        ("log_errors", "1"),
        ("date.timezone", "UTC"),
    ];
    let module_path = module.display().to_string();
    if module.is_file() {
        ini.push(("zend_extension", &module_path));
    }
    // Files younger than 2 s are not cached by default: the test's own are.
    ini.push(("opcache.file_update_protection", "0"));
    match settings.opcache {
        Opcache::Off => ini.push(("opcache.enable", "0")),
        Opcache::On => ini.extend([("opcache.enable", "1"), ("opcache.jit", "0")]),
        Opcache::Jit => ini.extend([
            ("opcache.enable", "1"),
            ("opcache.jit", "tracing"),
            ("opcache.jit_buffer_size", "64M"),
        ]),
    }
    ini.extend(
        settings
            .ini
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    );
    for (name, value) in ini {
        command.arg("-d").arg(format!("{name}={value}"));
    }
    command
}

fn has_title(pid: i32, title: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let end = line
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(line.len());
    String::from_utf8_lossy(&line[..end]).trim_end() == title
}

fn copy_tree(from: &Path, to: &Path, owner: u32) -> Result<()> {
    match fs::create_dir(to) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
        _ => chown(to, Some(owner), Some(owner))?,
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target, owner)?;
        } else {
            fs::copy(entry.path(), &target)?;
            chown(&target, Some(owner), Some(owner))?;
        }
    }
    Ok(())
}
