//! A directory that files are put into safely: by its open descriptor, and never through a symbolic link.

use std::fs::{DirBuilder, File, FileTimes};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o750);
const FILE_MODE: Mode = Mode::from_bits_truncate(0o640);
const OPEN_DIRECTORY: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);
const CREATE_FILE: OFlag = OFlag::O_WRONLY
    .union(OFlag::O_CREAT)
    .union(OFlag::O_EXCL)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// A file in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnFile {
    /// Its name.
    pub(super) name: String,
    /// Its length.
    pub(super) bytes: u64,
    /// Its mtime in Unix seconds.
    pub(super) modified: i64,
}

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    descriptor: OwnedFd,
}

impl Directory {
    /// Opens a directory, and makes it and those above it (mode 0750) where there are none.
    pub(super) fn open_or_create(path: &Path) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE.bits())
            .create(path)?;
        let descriptor = openat(AT_FDCWD, path, OPEN_DIRECTORY, Mode::empty())?;
        Ok(Self {
            path: path.to_owned(),
            descriptor,
        })
    }

    /// Opens a directory in this one, and makes it (mode 0750) where there is none.
    pub(super) fn subdirectory(&self, name: &str) -> io::Result<Self> {
        match mkdirat(&self.descriptor, name, DIRECTORY_MODE) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let descriptor = openat(&self.descriptor, name, OPEN_DIRECTORY, Mode::empty())?;
        Ok(Self {
            path: self.path.join(name),
            descriptor,
        })
    }

    /// Where that name is in it.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether there is anything under that name, be it a link to nowhere.
    pub(super) fn contains(&self, name: &str) -> io::Result<bool> {
        match fstatat(&self.descriptor, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The regular files in it that belong to the user who runs this, and have no other name elsewhere.
    pub(super) fn own_files(&self) -> io::Result<Vec<OwnFile>> {
        // A descriptor of its own, because reading moves it.
        let mut listing = Dir::openat(&self.descriptor, ".", OPEN_DIRECTORY, Mode::empty())?;
        let mut files = Vec::new();
        for entry in listing.iter() {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            // It went meanwhile where this fails.
            let Ok(found) = fstatat(&self.descriptor, name, AtFlags::AT_SYMLINK_NOFOLLOW) else {
                continue;
            };
            let is_file =
                SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG;
            if is_file && found.st_uid == geteuid().as_raw() && found.st_nlink == 1 {
                files.push(OwnFile {
                    name: name.to_owned(),
                    bytes: u64::try_from(found.st_size).unwrap_or(0),
                    modified: found.st_mtime,
                });
            }
        }
        Ok(files)
    }

    /// Takes a file away.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(
            &self.descriptor,
            name,
            UnlinkatFlags::NoRemoveDir,
        )?)
    }

    /// Gives a file another name in the same directory.
    pub(super) fn rename(&self, name: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.descriptor, name, &self.descriptor, to)?)
    }

    /// Puts a file (mode 0640) there in one step, in place of what has that name: nobody sees a part of it.
    ///
    /// It is written as `.NAME.tmp`, which no glob for records matches. `modified` becomes its mtime.
    pub(super) fn put(
        &self,
        name: &str,
        content: &[u8],
        modified: Option<SystemTime>,
    ) -> io::Result<()> {
        let temporary = format!(".{name}.tmp");
        // What a run that was killed left behind.
        match unlinkat(
            &self.descriptor,
            temporary.as_str(),
            UnlinkatFlags::NoRemoveDir,
        ) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let file = File::from(openat(
            &self.descriptor,
            temporary.as_str(),
            CREATE_FILE,
            FILE_MODE,
        )?);
        let written = fill(file, content, modified).and_then(|()| {
            Ok(renameat(
                &self.descriptor,
                temporary.as_str(),
                &self.descriptor,
                name,
            )?)
        });
        if written.is_err() {
            // The first error is the one to tell.
            let _ = unlinkat(
                &self.descriptor,
                temporary.as_str(),
                UnlinkatFlags::NoRemoveDir,
            );
        }
        written
    }
}

fn fill(mut file: File, content: &[u8], modified: Option<SystemTime>) -> io::Result<()> {
    file.write_all(content)?;
    match modified {
        Some(modified) => file.set_times(FileTimes::new().set_modified(modified)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn makes_what_is_missing() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("a/b");
        let directory = Directory::open_or_create(&path).expect("made");
        directory.subdirectory("c").expect("made");
        directory.subdirectory("c").expect("opened again");
        for made in [path.parent().expect("a"), &path, &path.join("c")] {
            assert_eq!(fs::metadata(made).expect("made").mode() & 0o7777, 0o750);
        }
    }

    #[test]
    fn puts_a_file_in_one_step() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = Directory::open_or_create(root.path()).expect("opens");
        fs::write(root.path().join(".a.tmp"), "left behind").expect("writes");
        let modified = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_770_091_501);
        directory.put("a", b"one", Some(modified)).expect("written");
        let metadata = fs::metadata(root.path().join("a")).expect("there");
        assert_eq!(
            (metadata.mode() & 0o7777, metadata.mtime()),
            (0o640, 1_770_091_501)
        );
        directory.put("a", b"two", None).expect("written");
        assert_eq!(fs::read(root.path().join("a")).expect("there"), b"two");
        assert_eq!(fs::read_dir(root.path()).expect("lists").count(), 1);
        assert!(directory.contains("a").expect("stat") && !directory.contains("b").expect("stat"));
    }

    #[test]
    fn follows_no_links() {
        let root = tempfile::tempdir().expect("a directory");
        let (real, link) = (root.path().join("real"), root.path().join("link"));
        let directory = Directory::open_or_create(&real).expect("made");
        symlink(&real, &link).expect("symlink");
        assert!(Directory::open_or_create(&link).is_err());
        symlink(root.path(), real.join("sub")).expect("symlink");
        assert!(directory.subdirectory("sub").is_err());

        let target = root.path().join("target");
        fs::write(&target, "untouched").expect("writes");
        symlink(&target, real.join("a")).expect("symlink");
        symlink(&target, real.join(".a.tmp")).expect("symlink");
        directory.put("a", b"new", None).expect("written");
        assert_eq!(fs::read(&target).expect("there"), b"untouched");
        assert_eq!(fs::read(real.join("a")).expect("there"), b"new");
    }

    #[test]
    fn leaves_nothing_behind_on_failure() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = Directory::open_or_create(root.path()).expect("opens");
        directory.subdirectory("taken").expect("made");
        assert!(directory.put("taken", b"x", None).is_err());
        assert!(!directory.contains(".taken.tmp").expect("stat"));
    }
}
