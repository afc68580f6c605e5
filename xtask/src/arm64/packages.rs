//! What the virtual machine is made of, from Debian: qemu, the kernels, and a userland of busybox and libc.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use memprof_tests::target_dir;

use super::Kernel;
use crate::apt::{Mirrors, PrivateApt, entries, file_name};
use crate::run::{heading, need_root, output};

/// Kernel modules for the disks, the file system on them and the shared folders. Some are built into some kernels.
const MODULES: [&str; 6] = [
    "crc32c_generic",
    "virtio_pci",
    "virtio_blk",
    "ext4",
    "9pnet_virtio",
    "9p",
];
/// What the machine runs besides the tests.
const USERLAND: [&str; 3] = ["busybox-static", "libc6", "libgcc-s1"];
/// Runs as the first process.
const INIT: &str = include_str!("init.sh");

/// Where the machine's parts are kept.
pub fn folder() -> PathBuf {
    target_dir().join("arm64")
}

/// The qemu of this machine's processor, unpacked with all its libraries. It is not installed because it does not go
/// together with the newer qemu-utils that some machines have.
///
/// # Errors
/// When it cannot be had.
pub fn qemu() -> Result<Command> {
    let root = folder().join("qemu");
    if !root.join("whole").is_file() {
        heading(&format!(
            "To be unpacked into {}, from Debian trixie: qemu-system-arm",
            root.display()
        ));
        let apt = private_apt("qemu", &["trixie", "trixie-security"], None)?;
        apt.unpack(&["qemu-system-arm"], &fresh(&root)?)?;
        fs::write(root.join("whole"), "")?;
    }
    let libraries = root.join("usr/lib");
    let find = |folder: &Path, start: &str| {
        let found = entries(folder)?
            .into_iter()
            .find(|path| file_name(path).starts_with(start));
        found.with_context(|| format!("qemu's root has no {start}* in {}", folder.display()))
    };
    let libraries = find(&libraries, std::env::consts::ARCH)?;
    let mut qemu = Command::new(find(&libraries, "ld-linux-")?);
    let paths = format!(
        "{}:{}",
        libraries.display(),
        libraries.join("pulseaudio").display()
    );
    qemu.arg("--library-path").arg(paths);
    qemu.arg(root.join("usr/bin/qemu-system-aarch64"));
    qemu.arg("-L").arg(root.join("usr/share/qemu"));
    Ok(qemu)
}

/// Fetches a kernel where it is missing, and makes the memory file system that it starts from; the paths of both.
///
/// # Errors
/// When one cannot be had or made.
pub fn kernel(kernel: &Kernel) -> Result<(PathBuf, PathBuf)> {
    let home = folder().join(format!("kernel-{}", kernel.version));
    let whole = home.join("whole");
    if !whole.is_file() {
        need_root("unpacking Debian packages into the machine's root")?;
        fetch_kernel(kernel, &fresh(&home)?)?;
        fs::write(whole, "")?;
    }
    let root = home.join("root");
    let init = root.join("init");
    fs::write(&init, INIT).with_context(|| format!("writing {}", init.display()))?;
    fs::set_permissions(&init, Permissions::from_mode(0o755))?;
    let archive = home.join("initramfs.gz");
    pack(&root, &archive)?;
    Ok((home.join("vmlinuz"), archive))
}

/// Leaves the kernel and the root of its memory file system in the folder.
fn fetch_kernel(kernel: &Kernel, home: &Path) -> Result<()> {
    let name = format!("kernel-{}", kernel.version);
    let apt = private_apt(&name, kernel.suites, Some("arm64"))?;
    let package = apt.dependency("linux-image-arm64")?;
    heading(&format!(
        "To be unpacked into {}, from Debian arm64: {package} {}",
        home.display(),
        USERLAND.join(" ")
    ));
    // The modules are in /lib or in /usr/lib, as the release has it.
    let unpacked = home.join("package");
    fs::create_dir_all(unpacked.join("usr/lib"))?;
    symlink("usr/lib", unpacked.join("lib"))?;
    apt.unpack_alone(&[&package], &unpacked)?;
    let image = entries(&unpacked.join("boot"))?
        .into_iter()
        .find(|file| file_name(file).starts_with("vmlinuz-"))
        .with_context(|| format!("{package} holds no vmlinuz"))?;
    fs::rename(image, home.join("vmlinuz"))?;
    let root = home.join("root");
    apt.unpack(&USERLAND, &root)?;
    take_modules(&unpacked, &root)?;
    fs::remove_dir_all(&unpacked).context("removing what of the kernel's package is not needed")
}

/// Copies the modules that the machine needs, and the list of what they depend on.
fn take_modules(package: &Path, root: &Path) -> Result<()> {
    let releases = entries(&package.join("lib/modules"))?;
    let [from] = releases.as_slice() else {
        bail!(
            "the kernel's package has modules of {} kernels",
            releases.len()
        );
    };
    let release = file_name(from);
    output(
        Command::new("/usr/sbin/depmod")
            .arg("-b")
            .arg(package)
            .arg(&release),
    )?;
    let to = root.join("lib/modules").join(&release);
    let list = fs::read_to_string(from.join("modules.dep"))?;
    for line in list.lines() {
        let (module, needed) = line
            .split_once(':')
            .context("modules.dep has a line without a colon")?;
        let stem = module.rsplit('/').next().unwrap_or(module);
        let name = stem.split(".ko").next().unwrap_or(stem).replace('-', "_");
        if !MODULES.contains(&name.as_str()) {
            continue;
        }
        for file in needed.split_whitespace().chain([module]) {
            let copy = to.join(file);
            fs::create_dir_all(copy.parent().unwrap_or(&to))?;
            fs::copy(from.join(file), &copy)
                .with_context(|| format!("copying the kernel module {file}"))?;
        }
    }
    fs::write(to.join("modules.dep"), list)?;
    Ok(())
}

/// Makes the archive that the kernel unpacks into memory.
fn pack(root: &Path, archive: &Path) -> Result<()> {
    let script = r#"cd "$1" && find . | cpio --quiet --create --format=newc | gzip -1 > "$2""#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(root).arg(archive);
    output(&mut shell).map(drop)
}

fn private_apt(name: &str, suites: &[&str], architecture: Option<&str>) -> Result<PrivateApt> {
    let download = folder().join(format!("{name}.download"));
    PrivateApt::create(download, suites, architecture, &Mirrors::of_this_machine()?)
}

/// Makes the folder, empty.
fn fresh(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("removing the old {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder.to_owned())
}
