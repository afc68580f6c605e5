//! A worker made ready: its PHP read and proven, its probe sites and the kernel side's configuration.

use std::{collections::HashMap, fs::File, path::Path, path::PathBuf, rc::Rc};

use memprof_ebpf::{Offsets, Range, WorkerConfig};

use crate::{
    binary::{BinaryError, ElfImage, PhpBinary, ProbeSite, Site},
    fpm::{FpmError, Mappings, ProcessId, Worker},
    zend::{
        Process, ZendError,
        layout::FileName,
        memory::{Memory, MemoryError, ProcessMemory},
    },
};

/// Why a worker can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It can't be looked at.
    #[error(transparent)]
    Process(#[from] FpmError),
    /// Its executable is not a PHP that memprof can decode.
    #[error("the executable {path} of worker {pid} can't be used")]
    Binary {
        /// The worker.
        pid: i32,
        /// Its executable.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: BinaryError,
    },
    /// Its memory does not agree with what the executable promises.
    #[error("worker {pid} can't be read")]
    Zend {
        /// The worker.
        pid: i32,
        /// What is wrong.
        #[source]
        source: ZendError,
    },
    /// A pointer in it can't be read.
    #[error("worker {pid} can't be read")]
    Memory {
        /// The worker.
        pid: i32,
        /// What is wrong.
        #[source]
        source: MemoryError,
    },
    /// Its executable is not mapped where /proc says.
    #[error(
        "{path} is not among the mappings of worker {pid}: it may have just been replaced; try again"
    )]
    NotMapped {
        /// The worker.
        pid: i32,
        /// Its executable.
        path: PathBuf,
    },
}

/// An executable by its device and inode: probes belong to it and not to a process.
pub type FileId = (u64, u64);

/// A worker that probes can be attached to.
pub struct Ready {
    /// The worker.
    pub worker: Worker,
    /// Its executable.
    pub file: FileId,
    /// A path that opens the executable whatever happened to it on disk.
    pub path: PathBuf,
    /// What is known of the executable.
    pub binary: Rc<PhpBinary>,
    /// What the kernel side is told.
    pub config: WorkerConfig,
    /// Where files are compiled, and the file that this code is in; `None` where it was not found.
    pub compile_file: Option<(PathBuf, ProbeSite)>,
}

/// The executables seen so far; each is decoded once.
#[derive(Default)]
pub struct Binaries(HashMap<FileId, Rc<PhpBinary>>);

impl Binaries {
    /// Reads and proves a worker.
    ///
    /// # Errors
    /// It has ended, is no PHP that is known, or does not agree with its executable.
    pub fn ready(&mut self, worker: &Worker) -> Result<Ready, WorkerError> {
        let pid = worker.process.pid;
        let executable = worker.process.executable()?;
        let file = (executable.device, executable.inode);
        let binary = match self.0.get(&file) {
            Some(binary) => Rc::clone(binary),
            None => {
                let opened = PhpBinary::open(executable.file);
                let binary = Rc::new(opened.map_err(|source| WorkerError::Binary {
                    pid,
                    path: executable.link.clone(),
                    source,
                })?);
                self.0.insert(file, Rc::clone(&binary));
                binary
            }
        };
        let mappings = Mappings::of(worker.process)?;
        let bias = load_bias(&binary, &mappings, worker.process, &executable.link)?;
        let process = Process::attach(pid, bias, &binary.globals, &binary.decoded, binary.version)
            .map_err(|source| WorkerError::Zend { pid, source })?;
        let live = Live {
            memory: ProcessMemory::new(pid),
            binary: &binary,
            bias,
            mappings: &mappings,
        };
        let config = live
            .config(&process, worker.parent)
            .map_err(|error| error.of(pid))?;
        let compile_file = live.compile_file(worker.process);
        Ok(Ready {
            worker: worker.clone(),
            file,
            path: PathBuf::from(format!("/proc/{pid}/exe")),
            binary,
            config,
            compile_file,
        })
    }
}

fn load_bias(
    binary: &PhpBinary,
    mappings: &Mappings,
    process: ProcessId,
    link: &Path,
) -> Result<u64, WorkerError> {
    mappings
        .named(link)
        .and_then(|mapping| {
            binary
                .image()
                .load_bias(mapping.addresses.start, mapping.offset)
        })
        .ok_or_else(|| WorkerError::NotMapped {
            pid: process.pid,
            path: link.to_owned(),
        })
}

/// What can go wrong inside one worker, before it is known which.
enum LiveError {
    Zend(ZendError),
    Memory(MemoryError),
}

impl LiveError {
    fn of(self, pid: i32) -> WorkerError {
        match self {
            Self::Zend(source) => WorkerError::Zend { pid, source },
            Self::Memory(source) => WorkerError::Memory { pid, source },
        }
    }
}

impl From<MemoryError> for LiveError {
    fn from(source: MemoryError) -> Self {
        Self::Memory(source)
    }
}

/// One worker's memory beside its executable.
struct Live<'a> {
    memory: ProcessMemory,
    binary: &'a PhpBinary,
    bias: u64,
    mappings: &'a Mappings,
}

impl Live<'_> {
    /// The pointer in an exported variable; 0 where this build has no such variable.
    fn exported_pointer(&self, name: &str) -> Result<u64, MemoryError> {
        match self.binary.image().symbol(name) {
            Some(global) => self.memory.u64(self.bias.wrapping_add(global.address)),
            None => Ok(0),
        }
    }

    fn config(&self, process: &Process, master: i32) -> Result<WorkerConfig, LiveError> {
        let addresses = process.addresses();
        let offsets = offsets(process).ok_or(LiveError::Zend(ZendError::CustomHeap))?;
        let lasting = self.lasting();
        Ok(WorkerConfig {
            heap: addresses.heap,
            executor_globals: addresses.executor,
            sapi_globals: addresses.sapi,
            frameless_functions: self.exported_pointer("zend_flf_functions")?,
            generator_class: self.exported_pointer("zend_ce_generator")?,
            // A restarted master keeps its process id, but address randomisation moves the rest.
            identity: lasting.iter().fold(
                u64::from(master.unsigned_abs()) ^ self.bias.rotate_left(20),
                |id, range| id.rotate_left(7) ^ range.start,
            ),
            lasting,
            offsets,
        })
    }

    /// opcache's shared memory, which is the largest that workers share, and the C heap.
    fn lasting(&self) -> [Range; 2] {
        let shared = self
            .mappings
            .shared_memory()
            .max_by_key(|mapping| mapping.addresses.end - mapping.addresses.start);
        let heap = self.mappings.named(Path::new("[heap]"));
        [shared, heap].map(|mapping| {
            mapping.map_or_else(Range::default, |mapping| Range {
                start: mapping.addresses.start,
                end: mapping.addresses.end,
            })
        })
    }

    /// Where `zend_compile_file` points to: opcache puts its own function there.
    fn compile_file(&self, process: ProcessId) -> Option<(PathBuf, ProbeSite)> {
        let target = self.exported_pointer("zend_compile_file").ok()?;
        let mapped = self.mappings.file_at(target)?;
        let own = process.executable().ok()?;
        if mapped.name == own.link {
            let address = target.wrapping_sub(self.bias);
            let site = self
                .binary
                .site_at_entry(Site::CompileFile, "zend_compile_file", address);
            return Some((
                PathBuf::from(format!("/proc/{}/exe", process.pid)),
                site.ok()?,
            ));
        }
        let image = ElfImage::open(File::open(&mapped.path).ok()?).ok()?;
        let address = image.address_of(mapped.offset)?;
        let site = image.entry_site(Site::CompileFile, "zend_compile_file", address);
        Some((mapped.path, site.ok()?))
    }
}

/// The offsets that the kernel side uses; `None` for a heap that is not Zend's own.
fn offsets(process: &Process) -> Option<Offsets> {
    let layout = process.layout();
    let heap = process.heap_layout()?;
    Some(Offsets {
        current_execute_data: layout.executor.current_execute_data,
        opcodes: layout.op_array.opcodes,
        filename: layout.op_array.filename,
        line_start: layout.op_array.line_start,
        generator_execute_data: layout.generator.execute_data,
        generator_parent: layout.generator.parent,
        heap_size: heap.size,
        heap_real_size: heap.real_size,
        heap_huge_list: heap.huge_list,
        heap_chunks_count: heap.chunks_count,
        chunk_free_pages: layout.chunk.free_pages,
        chunk_map: heap.map,
        filename_is_string: u32::from(layout.file_handle.filename_is == FileName::ZendString),
        reserved: 0,
    })
}
