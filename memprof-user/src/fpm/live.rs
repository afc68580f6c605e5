//! The PHP inside a worker: its executable decoded, its memory ready to be read.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Executable, FpmError, Mappings, ProcessId};
use crate::binary::{BinaryError, ElfImage, PhpBinary, ProbeSite, Site};
use crate::zend::memory::{Memory, ProcessMemory};
use crate::zend::{self, ZendError};

/// Why the PHP inside a process cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The process has ended or is not shown.
    #[error(transparent)]
    Process(#[from] FpmError),
    /// The executable is not a PHP that memprof knows.
    #[error("cannot use {executable}, which process {pid} runs")]
    Binary {
        /// The process.
        pid: i32,
        /// Its executable.
        executable: PathBuf,
        /// What is wrong with it; shared by all processes that run it.
        source: Arc<BinaryError>,
    },
    /// The process maps no part of its own executable.
    #[error(
        "process {pid} does not map {executable}, its own executable; if it was just started, try again"
    )]
    NotMapped {
        /// The process.
        pid: i32,
        /// Its executable.
        executable: PathBuf,
    },
    /// The function that compiles included files is in no file: it was generated at run time.
    #[error(
        "zend_compile_file of process {pid} points to {address:#x}, which is in no file that it maps; includes cannot be seen there"
    )]
    CompileFile {
        /// The process.
        pid: i32,
        /// Where the pointer leads to.
        address: u64,
    },
    /// The memory of the process is not what its executable promises, or cannot be read.
    #[error("cannot read PHP in the memory of process {pid}")]
    Memory {
        /// The process.
        pid: i32,
        /// What did not agree.
        source: ZendError,
    },
}

/// The PHP inside one running process.
pub struct LivePhp {
    /// The process.
    pub process: ProcessId,
    /// What /proc/PID/maps calls its executable.
    pub executable: PathBuf,
    /// Its executable, decoded; shared by all processes that run it.
    pub binary: Arc<PhpBinary>,
    /// Its mappings when it was looked at.
    pub mappings: Mappings,
    /// What the process adds to the addresses in the executable.
    pub load_bias: u64,
    /// Its memory, the layout proven.
    pub zend: zend::Process,
}

/// A probe site in a file that need not be the executable.
#[derive(Clone, Debug)]
pub struct MappedSite {
    /// A path under /proc that opens the file.
    pub path: PathBuf,
    /// The file as the process names it.
    pub file: PathBuf,
    /// The site.
    pub site: ProbeSite,
}

impl LivePhp {
    /// Where the process compiles the files that it includes: `zend_compile_file` is an exported pointer, and
    /// opcache puts its own function there.
    ///
    /// # Errors
    /// [`LiveError::CompileFile`] or [`LiveError::Binary`] when the function it points to cannot be probed,
    /// [`LiveError::Memory`] when the process has ended.
    pub fn compile_file_site(&self) -> Result<MappedSite, LiveError> {
        const POINTER: &str = "zend_compile_file";
        let pid = self.process.pid;
        let unusable = |file: &Path, source| LiveError::Binary {
            pid,
            executable: file.to_owned(),
            source: Arc::new(source),
        };
        let pointer = self.binary.symbol(POINTER).ok_or_else(|| {
            unusable(
                &self.executable,
                BinaryError::NotPhp {
                    missing: POINTER.to_owned(),
                },
            )
        })?;
        let address = ProcessMemory::new(pid)
            .u64(self.load_bias.wrapping_add(pointer.address))
            .map_err(|source| LiveError::Memory {
                pid,
                source: source.into(),
            })?;
        let in_no_file = || LiveError::CompileFile { pid, address };
        let file = self.mappings.file_at(address).ok_or_else(in_no_file)?;
        let opened =
            File::open(&file.path).map_err(|source| FpmError::from_io(pid, &file.path, source))?;
        let image = ElfImage::open(opened).map_err(|source| unusable(&file.name, source))?;
        let entry = image.address_of(file.offset).ok_or_else(in_no_file)?;
        let site = image
            .entry_site(Site::CompileFile, POINTER, entry)
            .map_err(|source| unusable(&file.name, source))?;
        Ok(MappedSite {
            path: file.path,
            file: file.name,
            site,
        })
    }
}

/// The PHP executables seen so far: each is decoded once, however many workers run it.
#[derive(Default)]
pub struct Builds {
    seen: HashMap<FileVersion, Result<Arc<PhpBinary>, Arc<BinaryError>>>,
}

/// Device, inode, and the time of the inode's last change in seconds and nanoseconds: inodes are reused.
type FileVersion = (u64, u64, i64, i64);

impl Builds {
    /// The decoded executable of a process.
    ///
    /// # Errors
    /// [`LiveError::Process`], or [`LiveError::Binary`] when it is no PHP that memprof knows.
    pub fn binary(
        &mut self,
        process: ProcessId,
    ) -> Result<(Executable, Arc<PhpBinary>), LiveError> {
        let executable = process.executable()?;
        let failed = |source| FpmError::from_io(process.pid, &executable.link, source);
        let metadata = executable.file.metadata().map_err(failed)?;
        let version = (
            metadata.dev(),
            metadata.ino(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        );
        let binary = match self.seen.entry(version) {
            Entry::Occupied(seen) => seen.get().clone(),
            Entry::Vacant(unseen) => {
                let file = executable.file.try_clone().map_err(failed)?;
                unseen
                    .insert(PhpBinary::open(file).map(Arc::new).map_err(Arc::new))
                    .clone()
            }
        };
        match binary {
            Ok(binary) => Ok((executable, binary)),
            Err(source) => Err(LiveError::Binary {
                pid: process.pid,
                executable: executable.link,
                source,
            }),
        }
    }

    /// The PHP inside a process, its memory layout proven.
    ///
    /// # Errors
    /// Every [`LiveError`].
    pub fn live(&mut self, process: ProcessId) -> Result<LivePhp, LiveError> {
        let pid = process.pid;
        let (executable, binary) = self.binary(process)?;
        let mappings = Mappings::of(process)?;
        let load_bias = mappings
            .named(&executable.link)
            .and_then(|first| binary.load_bias(first.addresses.start, first.offset));
        let Some(load_bias) = load_bias else {
            return Err(LiveError::NotMapped {
                pid,
                executable: executable.link,
            });
        };
        let PhpBinary {
            globals,
            decoded,
            version,
            ..
        } = &*binary;
        let mut zend = zend::Process::attach(pid, load_bias, globals, decoded, *version)
            .map_err(|source| LiveError::Memory { pid, source })?;
        if let Some(frameless) = binary.symbol("zend_flf_functions") {
            zend = zend.with_frameless_functions(load_bias.wrapping_add(frameless.address));
        }
        if let Some(sapi_module) = binary.symbol("sapi_module") {
            zend = zend.with_sapi_module(load_bias.wrapping_add(sapi_module.address));
        }
        if !process.is_running() {
            return Err(FpmError::NoSuchProcess { pid }.into());
        }
        Ok(LivePhp {
            process,
            executable: executable.link,
            binary,
            mappings,
            load_bias,
            zend,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_that_is_no_php_is_refused_by_name() {
        let own = ProcessId::of(std::process::id().cast_signed()).expect("own process");
        let mut builds = Builds::default();
        for _ in 0..2 {
            let error = builds.live(own).err().expect("memprof is no PHP");
            assert!(matches!(error, LiveError::Binary { .. }), "{error}");
        }
        assert_eq!(builds.seen.len(), 1, "read once");
    }
}
