//! One process, named so that a reused process id is not taken for it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::FpmError;

/// A process title longer than this is cut. php-fpm's own titles are a path or a pool name long.
const MAX_TITLE: u64 = 4096;

/// A process and when it started: process ids are reused, the pair is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ProcessId {
    /// The process id as /proc shows it to memprof.
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of /proc/PID/stat).
    pub start_time: u64,
}

/// The file that a process runs.
#[derive(Debug)]
pub struct Executable {
    /// The file, opened through /proc/PID/exe: this works in containers, and when the file was deleted
    /// or replaced by an upgrade.
    pub file: File,
    /// What the link says, as /proc/PID/maps names it too; ends in ` (deleted)` for a deleted file.
    pub link: PathBuf,
    /// The file's device number.
    pub device: u64,
    /// The file's inode: uprobes belong to it.
    pub inode: u64,
}

/// Whether process ids here are those of the whole machine; `None` where it can't be told.
pub fn in_first_pid_namespace() -> Option<bool> {
    /// `PROC_PID_INIT_INO` (linux/proc_fs.h): the first namespace's inode on every Linux.
    const FIRST: u64 = 0xEFFF_FFFC;
    let namespace = std::fs::metadata("/proc/self/ns/pid").ok()?;
    Some(std::os::unix::fs::MetadataExt::ino(&namespace) == FIRST)
}

impl ProcessId {
    /// The process that has this id now.
    ///
    /// # Errors
    /// [`FpmError::NoSuchProcess`] when there is none, [`FpmError::Read`] when /proc cannot be read.
    pub fn of(pid: i32) -> Result<Self, FpmError> {
        Ok(stat(pid)?.0)
    }

    /// Whether this very process still runs; a zombie does not.
    pub fn is_running(self) -> bool {
        matches!(stat(self.pid), Ok((process, state)) if process == self && state != 'Z' && state != 'X')
    }

    /// Opens the file that the process runs.
    ///
    /// # Errors
    /// [`FpmError::Permission`] for another user's process without CAP_SYS_PTRACE;
    /// [`FpmError::NoSuchProcess`] when it has ended.
    pub fn executable(self) -> Result<Executable, FpmError> {
        let path = self.path("exe");
        let failed = |source| FpmError::from_io(self.pid, &path, source);
        let link = std::fs::read_link(&path).map_err(failed)?;
        let file = File::open(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        Ok(Executable {
            file,
            link,
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    /// Resident memory in bytes, shared pages included (field 2 of /proc/PID/statm).
    ///
    /// # Errors
    /// [`FpmError::NoSuchProcess`] when it has ended.
    pub fn rss_bytes(self) -> Result<u64, FpmError> {
        let statm = procfs_process(self.pid)?
            .statm()
            .map_err(|error| FpmError::from_procfs(self.pid, self.path("statm"), error))?;
        Ok(statm.resident.saturating_mul(procfs::page_size()))
    }

    /// Proportional resident memory in bytes: pages shared with others count in part (/proc/PID/smaps_rollup).
    ///
    /// The kernel walks all of the process's pages for it.
    ///
    /// # Errors
    /// [`FpmError::NoSuchProcess`] when it has ended, [`FpmError::Permission`] for another user's process.
    pub fn pss_bytes(self) -> Result<Option<u64>, FpmError> {
        let rollup = procfs_process(self.pid)?
            .smaps_rollup()
            .map_err(|error| FpmError::from_procfs(self.pid, self.path("smaps_rollup"), error))?;
        let all = rollup.memory_map_rollup.iter().next();
        Ok(all.and_then(|all| all.extension.map.get("Pss").copied()))
    }

    /// Whether the process neither handles nor blocks a signal, so that what it does by default is done.
    #[cfg(feature = "ebpf")]
    pub fn leaves_alone(self, signal: i32) -> bool {
        let status = procfs_process(self.pid).and_then(|process| {
            let status = process.status();
            status.map_err(|error| FpmError::from_procfs(self.pid, self.path("status"), error))
        });
        let bit = 1_u64 << (signal - 1);
        status.is_ok_and(|status| (status.sigcgt | status.sigblk) & bit == 0)
    }

    /// A file of this process in /proc.
    pub(super) fn path(self, name: impl AsRef<Path>) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join(name)
    }
}

fn procfs_process(pid: i32) -> Result<procfs::process::Process, FpmError> {
    procfs::process::Process::new(pid)
        .map_err(|error| FpmError::from_procfs(pid, format!("/proc/{pid}"), error))
}

fn stat(pid: i32) -> Result<(ProcessId, char), FpmError> {
    let stat = procfs_process(pid)?
        .stat()
        .map_err(|error| FpmError::from_procfs(pid, format!("/proc/{pid}/stat"), error))?;
    let process = ProcessId {
        pid,
        start_time: stat.starttime,
    };
    Ok((process, stat.state))
}

/// What /proc tells everyone about a process.
pub(super) struct Facts {
    pub process: ProcessId,
    pub parent: i32,
    pub uid: u32,
}

/// Reads a process' identity, parent and effective user.
pub(super) fn facts(pid: i32) -> Result<Facts, FpmError> {
    let process = procfs_process(pid)?;
    let failed =
        |name: &str, error| FpmError::from_procfs(pid, format!("/proc/{pid}/{name}"), error);
    let stat = process.stat().map_err(|error| failed("stat", error))?;
    // The owner of /proc/PID is root for a worker that changed its user: ask the kernel's own record.
    let status = process.status().map_err(|error| failed("status", error))?;
    Ok(Facts {
        process: ProcessId {
            pid,
            start_time: stat.starttime,
        },
        parent: stat.ppid,
        uid: status.euid,
    })
}

/// The process' title: its command line up to the first NUL. `None` when it has none or has ended.
pub(super) fn title(pid: i32) -> Option<String> {
    let file = File::open(format!("/proc/{pid}/cmdline")).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_TITLE).read_to_end(&mut bytes).ok()?;
    let title = bytes.split(|&byte| byte == 0).next()?;
    (!title.is_empty()).then(|| String::from_utf8_lossy(title).into_owned())
}

/// The children of a single-threaded process in the order of their birth.
///
/// `None` when it has ended, or on a kernel without CONFIG_PROC_CHILDREN. A child may be missing from the
/// answer while another one is ending (proc(5)).
pub(super) fn children(pid: i32) -> Option<Vec<i32>> {
    let children = procfs_process(pid)
        .ok()?
        .task_main_thread()
        .ok()?
        .children()
        .ok()?;
    children
        .into_iter()
        .map(|child| i32::try_from(child).ok())
        .collect()
}
