//! A live PHP process read from outside: memory, layout, values, stack, heap, request.
//!
//! [`Process::attach`] finds the heap and proves the layout; everything else is read through it.

mod builds;
mod cached;
mod fingerprint;
pub mod frame;
mod graph;
mod heap;
mod laravel;
pub mod layout;
pub mod memory;
mod objects;
mod process;
mod prove;
mod recent;
mod recursion;
mod request;
mod serialize;
mod session;
mod slots;
mod stack;
#[cfg(test)]
mod testing;
mod values;
mod zval;

use nix::errno::Errno;
use thiserror::Error;

pub use cached::CachedMemory;
pub use fingerprint::{Fingerprint, Machine, UnknownLayout};
pub use graph::{Holder, Holders, Scope, Sum};
pub use heap::{CHUNK_SIZE, Heap, HeapCounters, HeapLayout, HugeBlock, PAGE_SIZE, PAGES_A_CHUNK};
pub use objects::{ClassObjects, LiveObjects};
pub use process::{Addresses, Process};
pub use prove::Proof;
pub use recursion::Recursion;
pub use request::Request;
pub use session::{Session, SessionSource, SessionValue};
pub use stack::{Stack, StackEnd, StackEnds};
pub use values::Loaded;

use memory::MemoryError;

/// Why a PHP process could not be read.
#[derive(Debug, Error)]
pub enum ZendError {
    /// A read failed.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The build's struct layouts are not known.
    #[error(transparent)]
    Layout(#[from] UnknownLayout),
    /// The pointer to the heap leads nowhere.
    #[error("no Zend heap behind the pointer at {pointer:#x}: {source}")]
    NoHeap {
        /// Live address of `AG(mm_heap)`.
        pointer: u64,
        /// The failed read.
        source: MemoryError,
    },
    /// The process's memory does not agree with what was derived.
    #[error("the memory layout could not be proven on the live process: {}", disagreement(.proofs))]
    NotProven {
        /// Every proof that was made, in order; at least one does not agree.
        proofs: Vec<Proof>,
    },
    /// The process does not use Zend's own heap.
    #[error(
        "the process does not use Zend's own memory manager (use_custom_heap is set): \
         unset USE_ZEND_ALLOC, or disable the extension that replaced it"
    )]
    CustomHeap,
    /// What was read cannot be so: most often the process went on while it was read.
    #[error("{what} (at {address:#x}): the process changed it while it was read; try again")]
    Inconsistent {
        /// What is wrong.
        what: &'static str,
        /// Where.
        address: u64,
    },
}

impl ZendError {
    /// Whether the kernel refused to let this process be read.
    pub fn is_permission(&self) -> bool {
        self.errno() == Some(Errno::EPERM)
    }

    /// Whether the process has ended.
    pub fn is_gone(&self) -> bool {
        self.errno() == Some(Errno::ESRCH)
    }

    fn errno(&self) -> Option<Errno> {
        match self {
            ZendError::Memory(source) | ZendError::NoHeap { source, .. } => match source {
                MemoryError::Unreadable { errno, .. } => Some(*errno),
                MemoryError::OutOfBounds { .. } | MemoryError::TimeUp => None,
            },
            _ => None,
        }
    }
}

fn disagreement(proofs: &[Proof]) -> String {
    match proofs.iter().find(|proof| !proof.agrees) {
        Some(proof) => format!("it does not hold that {}: {}", proof.what, proof.found),
        None => "no proof was made".to_owned(),
    }
}
