//! What the kernel side has to know of a worker before its probes.

use std::path::Path;

use memprof_ebpf::{HoldConfig, Offsets, Range, WorkerConfig};

use crate::{
    fpm::{LiveError, LivePhp},
    zend::{
        Process, ZendError,
        layout::FileName,
        memory::{Memory, MemoryError, ProcessMemory},
    },
};

/// The kernel side's configuration for a worker of the master `master`, held still as `hold` says.
///
/// # Errors
/// [`LiveError::Memory`] where the worker has ended or does not use Zend's own heap.
pub fn config(live: &LivePhp, master: i32, hold: HoldConfig) -> Result<WorkerConfig, LiveError> {
    let pid = live.process.pid;
    let unreadable = |source| LiveError::Memory { pid, source };
    let pointer = |name| exported_pointer(live, name).map_err(|error| unreadable(error.into()));
    let addresses = live.zend.addresses();
    let lasting = lasting(live);
    Ok(WorkerConfig {
        heap: addresses.heap,
        executor_globals: addresses.executor,
        sapi_globals: addresses.sapi,
        frameless_functions: pointer("zend_flf_functions")?,
        generator_class: pointer("zend_ce_generator")?,
        identity: identity(live, master, &lasting),
        lasting,
        watched_lengths: 0,
        offsets: offsets(&live.zend).ok_or_else(|| unreadable(ZendError::CustomHeap))?,
        hold,
    })
}

/// The pointer in an exported variable; 0 where this build has no such variable.
fn exported_pointer(live: &LivePhp, name: &str) -> Result<u64, MemoryError> {
    match live.binary.symbol(name) {
        Some(global) => {
            ProcessMemory::new(live.process.pid).u64(live.load_bias.wrapping_add(global.address))
        }
        None => Ok(0),
    }
}

/// opcache's shared memory, which is the largest that workers share, and the C heap.
fn lasting(live: &LivePhp) -> [Range; 2] {
    let shared = live
        .mappings
        .shared_memory()
        .max_by_key(|mapping| mapping.addresses.end - mapping.addresses.start);
    let heap = live.mappings.named(Path::new("[heap]"));
    [shared, heap].map(|mapping| {
        mapping.map_or_else(Range::default, |mapping| Range {
            start: mapping.addresses.start,
            end: mapping.addresses.end,
        })
    })
}

/// What the workers of one master share, and those of another do not. A master that restarts keeps
/// its process id, but address randomisation moves the rest.
fn identity(live: &LivePhp, master: i32, lasting: &[Range]) -> u64 {
    let start = u64::from(master.unsigned_abs()) ^ live.load_bias.rotate_left(20);
    lasting
        .iter()
        .fold(start, |id, range| id.rotate_left(7) ^ range.start)
}

/// The offsets that the kernel side uses; `None` for a heap that is not Zend's own.
fn offsets(process: &Process) -> Option<Offsets> {
    let layout = process.layout();
    let heap = process.heap_layout()?;
    Some(Offsets {
        current_execute_data: layout.executor.current_execute_data,
        opcodes: layout.op_array.opcodes,
        last: layout.op_array.last,
        opline_before_exception: layout.executor.opline_before_exception,
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
        class_properties_count: layout.class.properties_count,
    })
}
