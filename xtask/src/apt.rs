//! Debian packages, downloaded and unpacked into a folder: nothing is installed, no maintainer script runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::run::{apt_update, output};

/// Signs Debian's own archives, whatever the machine trusts besides.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where this machine's own apt finds Debian.
pub struct Mirrors {
    main: String,
    security: String,
}

impl Mirrors {
    /// Asks apt.
    ///
    /// # Errors
    /// When it has no source of Debian or of Debian's security archive.
    pub fn of_this_machine() -> Result<Self> {
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
///
/// All it keeps and downloads is in one folder, which goes when this is dropped.
pub struct PrivateApt {
    folder: PathBuf,
}

impl PrivateApt {
    /// For this machine's own architecture, or another, as `arm64`. It downloads the lists of the suites.
    ///
    /// # Errors
    /// When the folder cannot be written, or a list cannot be had.
    pub fn create(
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
        apt.get(&["update"])?;
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

    fn command(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        // What it downloads without installing, it leaves in the current folder.
        apt.current_dir(&self.folder)
            .arg("--quiet")
            .arg("--config-file")
            .arg(self.folder.join("apt.conf"));
        apt
    }

    fn get(&self, arguments: &[&str]) -> Result<()> {
        output(self.command("apt-get").args(arguments)).map(drop)
    }

    /// Unpacks packages, and all that they depend on, into a root.
    ///
    /// # Errors
    /// When one cannot be had or unpacked.
    pub fn unpack(&self, wanted: &[&str], root: &Path) -> Result<()> {
        let install = ["--download-only", "--yes", "install", "base-files"];
        self.get(&[&install, wanted].concat())?;
        let mut archives = packages(&self.folder.join("cache/archives"))?;
        // base-files first: it makes the links /bin and /lib that others unpack through.
        archives.sort_by_key(|archive| !file_name(archive).starts_with("base-files_"));
        archives
            .iter()
            .try_for_each(|archive| unpack(archive, root))
    }

    /// Unpacks packages, without what they depend on, into a folder.
    ///
    /// # Errors
    /// When one cannot be had or unpacked.
    pub fn unpack_alone(&self, wanted: &[&str], folder: &Path) -> Result<()> {
        self.get(&[&["download"], wanted].concat())?;
        let archives = packages(&self.folder)?;
        archives
            .iter()
            .try_for_each(|archive| unpack(archive, folder))
    }

    /// The first package that this one depends on: of a metapackage, the one it stands for.
    ///
    /// # Errors
    /// When there is no such package, or it depends on none.
    pub fn dependency(&self, package: &str) -> Result<String> {
        let listing = output(self.command("apt-cache").args(["depends", package]))?;
        let first = listing
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "));
        first
            .map(str::to_owned)
            .with_context(|| format!("{package} depends on nothing:\n{listing}"))
    }
}

impl Drop for PrivateApt {
    fn drop(&mut self) {
        // What stays is removed when the same folder is wanted again.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn unpack(archive: &Path, root: &Path) -> Result<()> {
    fs::create_dir_all(root)?;
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

/// The Debian packages in a folder.
fn packages(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = entries(folder)?;
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "deb"));
    Ok(paths)
}

/// What is in a folder, sorted.
///
/// # Errors
/// When it cannot be listed.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listing = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut paths = listing
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// The last part of a path.
pub fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
