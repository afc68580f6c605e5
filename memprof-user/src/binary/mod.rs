//! The PHP executable on disk: ELF, symbols, decoding, probe sites.
//!
//! Everything here is learned from the file alone, so it is true of every process that maps it.
//! Addresses are ELF virtual addresses; [`PhpBinary::file_offset`] turns one into what a uprobe
//! wants, a live process adds its load bias.

mod allocator;
mod arch;
#[cfg(test)]
mod builds;
mod code;
mod decode;
mod elf;
mod error;
mod flow;
mod map;
mod php;
mod site;
mod sites;

pub use elf::{ElfImage, is_php};
pub use error::BinaryError;
pub use php::PhpBinary;
pub use site::{EmallocSize, Handler, MapEntry, MapStore, ProbeSite, Register, Site};

/// A PHP version, as the binary states it (`X-Powered-By: PHP/8.2.36`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PhpVersion {
    /// 8 in 8.2.36.
    pub major: u8,
    /// 2 in 8.2.36.
    pub minor: u8,
    /// 36 in 8.2.36.
    pub patch: u8,
}

impl PhpVersion {
    /// `PHP_VERSION_ID`: 80236 for 8.2.36.
    pub fn id(self) -> u32 {
        u32::from(self.major) * 10_000 + u32::from(self.minor) * 100 + u32::from(self.patch)
    }
}

impl std::fmt::Display for PhpVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// An exported object: where it is and how large the linker says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Global {
    /// ELF virtual address.
    pub address: u64,
    /// `st_size` in bytes; five of them together are the layout's fingerprint.
    pub size: u64,
}

/// The exported globals of a non-thread-safe build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Globals {
    /// `executor_globals`
    pub executor: Global,
    /// `compiler_globals`
    pub compiler: Global,
    /// `core_globals`
    pub core: Global,
    /// `sapi_globals`
    pub sapi: Global,
    /// `ps_globals`; `None` where the session extension is not in this binary.
    pub session: Option<Global>,
}

/// Offsets recovered from code, in bytes; nothing here comes from a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Where the pointer `AG(mm_heap)` is kept (ELF virtual address).
    pub heap_pointer: u64,
    /// `zend_mm_heap.size`
    pub heap_size: u32,
    /// `zend_mm_heap.peak`
    pub heap_peak: u32,
    /// `zend_mm_heap.real_size`
    pub heap_real_size: u32,
    /// `zend_mm_heap.real_peak`
    pub heap_real_peak: u32,
    /// `zend_mm_heap.limit`
    pub heap_limit: u32,
    /// `zend_mm_chunk.map`
    pub chunk_map: u32,
    /// `executor_globals.current_execute_data`
    pub current_execute_data: u32,
    /// `executor_globals.objects_store.object_buckets`
    pub object_buckets: u32,
}

/// How one value or address was found, for `memprof doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What was looked for: `zend_mm_heap.real_size`.
    pub what: String,
    /// What was found: `0x110`.
    pub value: String,
    /// Where it was read: `zend_memory_usage+0xc: mov rax, [rax+110h]`.
    pub how: String,
}
