//! One live PHP process, its layout proven.

use std::time::Instant;

use crate::binary::{Decoded, Globals, PhpVersion};
use crate::record::request::UserId;

use super::ZendError;
use super::fingerprint::Machine;
use super::graph::{Graph, Holders, Region, Scope};
use super::heap::{Heap, HeapCounters, HeapLayout, HeapReader};
use super::laravel;
use super::layout::Layout;
use super::memory::{Memory, ProcessMemory, at};
use super::objects::{self, LiveObjects};
use super::prove::{Proof, Prover};
use super::request::{self, Request};
use super::session::{self, Session, Started};
use super::slots::Slots;
use super::stack::{Stack, StackEnds, Walk};
use super::values::{Loaded, Reader};

/// A live PHP process, read from outside; it is neither stopped nor changed.
pub struct Process {
    memory: Box<dyn Memory>,
    layout: Layout,
    addresses: Addresses,
    /// `None` where the process does not use Zend's own heap.
    heap_layout: Option<HeapLayout>,
    proofs: Vec<Proof>,
    frameless_functions: Option<u64>,
    sapi_module: Option<u64>,
    globals: Vec<Region>,
}

/// Where a live process has its globals: their addresses in the file plus the load bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// `executor_globals`
    pub executor: u64,
    /// `compiler_globals`
    pub compiler: u64,
    /// `sapi_globals`
    pub sapi: u64,
    /// `ps_globals`; `None` where the session extension is not in the binary.
    pub session: Option<u64>,
    /// The `zend_mm_heap` itself.
    pub heap: u64,
}

impl Process {
    /// Finds the heap of process `pid` and proves the layout on it.
    ///
    /// `load_bias` is what the process adds to the addresses in the file; 0 where it is not
    /// position-independent.
    ///
    /// # Errors
    /// [`ZendError::Layout`] for a build with unknown struct layouts, [`ZendError::NotProven`] when
    /// the process's memory does not agree with what was derived, [`ZendError::Memory`] when it
    /// cannot be read.
    pub fn attach(
        pid: i32,
        load_bias: u64,
        globals: &Globals,
        decoded: &Decoded,
        version: PhpVersion,
    ) -> Result<Process, ZendError> {
        let memory = Box::new(ProcessMemory::new(pid));
        Process::open(memory, load_bias, globals, decoded, version)
    }

    /// The same for any source of memory.
    ///
    /// # Errors
    /// As [`Process::attach`].
    pub fn open(
        memory: Box<dyn Memory>,
        load_bias: u64,
        globals: &Globals,
        decoded: &Decoded,
        version: PhpVersion,
    ) -> Result<Process, ZendError> {
        let layout = Layout::find(globals, version, Machine::HOST)?;
        let live = |address: u64| load_bias.wrapping_add(address);
        let heap = memory.u64(live(decoded.heap_pointer))?;
        let is_custom = memory
            .u32(at(heap, layout.heap.use_custom_heap))
            .map_err(|source| ZendError::NoHeap {
                pointer: live(decoded.heap_pointer),
                source,
            })?
            != 0;
        let addresses = Addresses {
            executor: live(globals.executor.address),
            compiler: live(globals.compiler.address),
            sapi: live(globals.sapi.address),
            session: globals.session.map(|session| live(session.address)),
            heap,
        };
        let mut prover = Prover {
            reader: Reader {
                memory: memory.as_ref(),
                layout: &layout,
            },
            decoded,
            version,
            proofs: Vec::new(),
        };
        prover.table();
        prover.constants(addresses.executor);
        prover.classes(addresses.compiler);
        let heap_layout = if is_custom { None } else { prover.heap(heap) };
        let proofs = prover.finish()?;
        Ok(Process {
            memory,
            layout,
            addresses,
            heap_layout,
            proofs,
            frameless_functions: None,
            sapi_module: None,
            globals: Region::of(globals, load_bias),
        })
    }

    /// Also names frameless calls (PHP 8.4 on), given the live address of the exported pointer
    /// `zend_flf_functions`. Without it they are left out of stacks.
    #[must_use]
    pub fn with_frameless_functions(mut self, address: u64) -> Process {
        self.frameless_functions = Some(address);
        self
    }

    /// Also tells php-fpm from other PHPs, given the live address of the exported `sapi_module`.
    /// Without it every process is taken for php-fpm.
    #[must_use]
    pub fn with_sapi_module(mut self, address: u64) -> Process {
        self.sapi_module = Some(address);
        self
    }

    /// The same process, read through another source of its memory: a [`CachedMemory`](super::CachedMemory).
    #[must_use]
    pub fn through(&self, memory: Box<dyn Memory>) -> Process {
        Process {
            memory,
            layout: self.layout,
            addresses: self.addresses,
            heap_layout: self.heap_layout,
            proofs: self.proofs.clone(),
            frameless_functions: self.frameless_functions,
            sapi_module: self.sapi_module,
            globals: self.globals.clone(),
        }
    }

    /// The proofs that the layout passed.
    pub fn proofs(&self) -> &[Proof] {
        &self.proofs
    }

    /// The offsets in use.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The heap's offsets; `None` where the process does not use Zend's own heap
    /// (`USE_ZEND_ALLOC=0`, or an extension replaced it).
    pub fn heap_layout(&self) -> Option<&HeapLayout> {
        self.heap_layout.as_ref()
    }

    /// Where the globals are.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Reads the heap's sums and counts, in one read.
    ///
    /// # Errors
    /// [`ZendError::CustomHeap`], or [`ZendError::Memory`] when the process has ended.
    pub fn heap_counters(&self) -> Result<HeapCounters, ZendError> {
        self.heap_reader()?.counters()
    }

    /// Reads the heap with its huge blocks and pages: one read a chunk and a block.
    ///
    /// # Errors
    /// As [`Process::heap_counters`]; [`ZendError::Inconsistent`] when the process changed its
    /// lists each of the 20 times that they were read.
    pub fn heap(&self) -> Result<Heap, ZendError> {
        self.heap_reader()?.heap()
    }

    /// Reads at most `most_frames` frames of the PHP stack, innermost first.
    ///
    /// # Errors
    /// [`ZendError::Memory`] when the process has ended. A stack that the running process tore is
    /// no error: [`Stack::end`] says so.
    pub fn stack(&self, most_frames: usize) -> Result<Stack, ZendError> {
        self.walk(most_frames).run()
    }

    /// Reads `each_end` frames of both ends of the PHP stack, and counts those between.
    ///
    /// # Errors
    /// As [`Process::stack`].
    pub fn stack_ends(&self, each_end: usize) -> Result<StackEnds, ZendError> {
        self.walk(each_end).ends(each_end)
    }

    /// Whether a request is being served.
    ///
    /// # Errors
    /// [`ZendError::Memory`] when the process has ended.
    pub fn in_request(&self) -> Result<bool, ZendError> {
        Ok(request::in_request(self.reader(), self.addresses.sapi)?)
    }

    /// Reads the request being served; `None` for an idle worker.
    ///
    /// # Errors
    /// [`ZendError::Memory`] when the process has ended or the request ended while it was read.
    pub fn request(&self) -> Result<Option<Request>, ZendError> {
        request::request(self.reader(), self.addresses.sapi, self.sapi_module)
    }

    /// Counts declared classes and included files.
    ///
    /// # Errors
    /// [`ZendError::Memory`] or [`ZendError::Inconsistent`] when the process changed its tables
    /// while they were read, or has ended.
    pub fn loaded(&self) -> Result<Loaded, ZendError> {
        self.reader()
            .loaded(self.addresses.executor, self.addresses.compiler)
    }

    /// Where the code of a function written in C is in the process, or that of such a method of a class,
    /// by their names in lower case; `None` where there is no such function, or it is written in PHP.
    ///
    /// # Errors
    /// As [`Process::loaded`].
    pub fn handler(&self, class: Option<&str>, function: &str) -> Result<Option<u64>, ZendError> {
        self.reader()
            .handler(self.addresses.compiler, class, function)
    }

    /// The paths of the included files, in the order of their first inclusion.
    ///
    /// # Errors
    /// As [`Process::loaded`].
    pub fn included_files(&self) -> Result<Vec<String>, ZendError> {
        let table = at(self.addresses.executor, self.layout.executor.included_files);
        self.reader().keys(table)
    }

    /// Counts the live objects by class, with the bytes of the objects themselves.
    ///
    /// An idle worker has none: what its store shows is the last request's.
    ///
    /// # Errors
    /// [`ZendError::Memory`] when the process freed objects while they were read, or has ended.
    pub fn objects(&self) -> Result<LiveObjects, ZendError> {
        if !self.in_request()? {
            return Ok(LiveObjects {
                total: 0,
                classes: Vec::new(),
                store_slots: 0,
            });
        }
        let slots = match self.heap_reader() {
            Ok(heap) => Some(Slots::new(heap)?),
            Err(_) => None,
        };
        objects::live_objects(self.reader(), self.addresses.executor, slots)
    }

    /// Reads the keys of the session, and how long its values would be if they were serialized:
    /// Laravel's session if one of the `objects` is its store, else `$_SESSION`. `None` where none was
    /// started.
    ///
    /// # Errors
    /// As [`Process::objects`].
    pub fn session(&self, objects: &LiveObjects) -> Result<Option<Session>, ZendError> {
        session::session(self.reader(), objects, self.addresses, Started::Now)
    }

    /// The same at a request's end, when Laravel has written its session and closed it.
    ///
    /// # Errors
    /// As [`Process::objects`].
    pub fn session_at_end(&self, objects: &LiveObjects) -> Result<Option<Session>, ZendError> {
        session::session(self.reader(), objects, self.addresses, Started::Before)
    }

    /// The name of Laravel's default cache store, if one of the `objects` is its configuration.
    ///
    /// # Errors
    /// As [`Process::objects`].
    pub fn cache_driver(&self, objects: &LiveObjects) -> Result<Option<String>, ZendError> {
        Ok(laravel::cache_driver(self.reader(), objects)?)
    }

    /// Walks the heap, read through `source` until `deadline`: the biggest holders, and what is in the heap by
    /// kind. The process has to stand still meanwhile. `None` for an idle worker.
    ///
    /// # Errors
    /// [`ZendError::CustomHeap`], or [`ZendError::Memory`] when not even the heap's chunks can be read. What
    /// is not reached in time is no error: [`Holders::left_out`] says so.
    pub fn holders(
        &self,
        source: &dyn Memory,
        deadline: Option<Instant>,
        scope: Scope,
    ) -> Result<Option<Holders>, ZendError> {
        if !self.in_request()? {
            return Ok(None);
        }
        let graph = Graph {
            heap: self.heap_reader()?,
            reader: self.reader(),
            addresses: self.addresses,
            globals: &self.globals,
        };
        graph.holders(source, deadline, scope).map(Some)
    }

    /// The id of the user whom Laravel knows, if one of the `objects` is its session guard and has loaded one.
    ///
    /// # Errors
    /// As [`Process::objects`].
    pub fn user_id(&self, objects: &LiveObjects) -> Result<Option<UserId>, ZendError> {
        Ok(laravel::user_id(self.reader(), objects)?)
    }

    /// The ini setting memory_limit as it is written: `128M`.
    ///
    /// # Errors
    /// As [`Process::loaded`].
    pub fn memory_limit_setting(&self) -> Result<Option<String>, ZendError> {
        self.reader().ini(self.addresses.executor, "memory_limit")
    }

    fn walk(&self, most_frames: usize) -> Walk<'_> {
        Walk::new(
            self.reader(),
            self.addresses.executor,
            self.frameless_functions,
            most_frames,
        )
    }

    fn reader(&self) -> Reader<'_> {
        Reader {
            memory: self.memory.as_ref(),
            layout: &self.layout,
        }
    }

    fn heap_reader(&self) -> Result<HeapReader<'_>, ZendError> {
        let heap_layout = self.heap_layout.as_ref().ok_or(ZendError::CustomHeap)?;
        Ok(HeapReader {
            memory: self.memory.as_ref(),
            layout: &self.layout,
            heap_layout,
            heap: self.addresses.heap,
        })
    }
}

#[cfg(test)]
mod tests;
