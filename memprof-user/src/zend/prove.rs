//! Proofs that a layout is the live process's own.
//!
//! A table or a decoder that is wrong by 8 bytes reads plausible garbage. So before the first
//! record, what was derived is held against facts that the process's memory must agree with.

use crate::binary::{Decoded, PhpVersion};

use super::ZendError;
use super::heap::{CHUNK_SIZE, Heap, HeapLayout, HeapReader, chunk_of, retried};
use super::memory::at;
use super::values::Reader;

/// One check of the layout on the live process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What must hold: `main chunk points back to the heap`.
    pub what: String,
    /// What was found.
    pub found: String,
    /// Whether it holds.
    pub agrees: bool,
}

impl Proof {
    fn equal(what: &str, found: u64, expected: u64) -> Proof {
        Proof {
            what: what.to_owned(),
            found: format!("{found:#x}, expected {expected:#x}"),
            agrees: found == expected,
        }
    }
}

/// The proofs made so far on one process.
pub(super) struct Prover<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) decoded: &'a Decoded,
    pub(super) version: PhpVersion,
    pub(super) proofs: Vec<Proof>,
}

impl Prover<'_> {
    fn add(&mut self, what: &str, agrees: bool, found: String) {
        self.proofs.push(Proof {
            what: what.to_owned(),
            found,
            agrees,
        });
    }

    /// What the table says against what the binary says.
    pub(super) fn table(&mut self) {
        let layout = self.reader.layout;
        let PhpVersion { major, minor, .. } = self.version;
        self.add(
            "the layout belongs to the binary's PHP version",
            layout.minor == (major, minor),
            format!("layout of PHP {}, binary of {major}.{minor}", layout.php),
        );
        self.proofs.push(Proof::equal(
            "executor_globals.current_execute_data in the code is the table's",
            u64::from(self.decoded.current_execute_data),
            u64::from(layout.executor.current_execute_data),
        ));
        self.proofs.push(Proof::equal(
            "executor_globals.objects_store in the code is the table's",
            u64::from(self.decoded.object_buckets),
            u64::from(layout.executor.object_buckets),
        ));
    }

    /// The executor's constants have the version.
    pub(super) fn constants(&mut self, executor: u64) {
        let PhpVersion {
            major,
            minor,
            patch,
        } = self.version;
        let expected = format!("{major}.{minor}.{patch}");
        let found = self.found_or(|reader| php_version(reader, executor));
        let agrees = found.as_deref().is_ok_and(|found| {
            found
                .strip_prefix(&expected)
                .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
        });
        self.add(
            "the constant PHP_VERSION is the binary's",
            agrees,
            format!("{}, expected {expected}", either(found)),
        );
    }

    /// The class table has the class that every PHP has.
    pub(super) fn classes(&mut self, compiler: u64) {
        let found = self.found_or(|reader| std_class(reader, compiler));
        self.add(
            "the class table has stdClass",
            found.as_deref() == Ok("stdClass"),
            either(found),
        );
    }

    /// Runs a look-up; an error becomes the text of what was found.
    fn found_or(
        &self,
        look_up: impl Fn(Reader<'_>) -> Result<Option<String>, ZendError>,
    ) -> Result<String, String> {
        match retried(|| look_up(self.reader)) {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err("nothing".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The heap is where and what it was taken for; `None` where a proof failed.
    pub(super) fn heap(&mut self, heap: u64) -> Option<HeapLayout> {
        let memory = self.reader.memory;
        let layout = self.reader.layout;
        self.proofs.push(Proof::equal(
            "the heap lies in its main chunk's slot",
            heap.wrapping_sub(chunk_of(heap)),
            u64::from(layout.chunk.heap_slot),
        ));
        let back = memory.u64(at(chunk_of(heap), layout.chunk.heap));
        self.add(
            "the main chunk points back to the heap",
            back == Ok(heap),
            match back {
                Ok(back) => format!("{back:#x}, expected {heap:#x}"),
                Err(error) => error.to_string(),
            },
        );
        let scanned = HeapLayout::scan(memory, heap, layout, self.decoded);
        self.add(
            "the heap points to its main chunk",
            matches!(scanned, Ok(Some(_))),
            match &scanned {
                Ok(Some(found)) => format!("main_chunk at {:#x}", found.main_chunk),
                Ok(None) => format!("no word behind limit holds {:#x}", chunk_of(heap)),
                Err(error) => error.to_string(),
            },
        );
        let heap_layout = scanned.ok().flatten()?;
        let heap_reader = HeapReader {
            memory,
            layout,
            heap_layout: &heap_layout,
            heap,
        };
        self.counters(&heap_reader);
        self.page_map(&heap_reader);
        Some(heap_layout)
    }

    /// The sums are in order and made of chunks and huge blocks.
    fn counters(&mut self, heap: &HeapReader<'_>) {
        let found = retried(|| {
            let real_size = heap.counters().map_err(text_of)?.real_size;
            let limit = highest_limit(heap)?;
            let text = format!("real_size {real_size}, highest limit {limit}");
            must(real_size <= limit, text)
        });
        self.outcome("real_size is within the limit", found);
        // PHP 7.4 does not add a chunk to real_size that it takes from its cache (measured on
        // 7.4.33; 8.2 and later do; 8.0 and 8.1 are not known to).
        let counts_reused_chunks = self.version >= PHP_8_2;
        let found = retried(|| {
            let heap = heap.heap().map_err(text_of)?;
            let sums = Sums::of(&heap);
            let whole_chunks = sums.uncounted.is_multiple_of(CHUNK_SIZE);
            let exact = sums.uncounted == 0 || (whole_chunks && !counts_reused_chunks);
            must(exact && heap.counters.size <= sums.mapped, sums.text)
        });
        self.outcome("size and real_size fit the chunks and huge blocks", found);
    }

    fn page_map(&mut self, heap: &HeapReader<'_>) {
        let found = retried(|| {
            let map = heap.page_map().map_err(text_of)?;
            let text = format!(
                "{} free, {} used, {} of them in runs",
                map.free, map.used, map.in_runs
            );
            must(map.is_whole(), text)
        });
        self.outcome(
            "the main chunk's page map accounts for its 512 pages",
            found,
        );
    }

    fn outcome(&mut self, what: &str, found: Result<String, String>) {
        let agrees = found.is_ok();
        self.add(what, agrees, either(found));
    }

    /// All proofs, if all agree.
    pub(super) fn finish(self) -> Result<Vec<Proof>, ZendError> {
        if self.proofs.iter().all(|proof| proof.agrees) {
            Ok(self.proofs)
        } else {
            Err(ZendError::NotProven {
                proofs: self.proofs,
            })
        }
    }
}

/// The first release that is known to count reused chunks in `real_size`.
const PHP_8_2: PhpVersion = PhpVersion {
    major: 8,
    minor: 2,
    patch: 0,
};

/// The heap's sums, held against each other.
struct Sums {
    /// Bytes of all chunks, cached ones included, and huge blocks.
    mapped: u64,
    /// By how much that is more than `real_size`.
    uncounted: u64,
    text: String,
}

impl Sums {
    fn of(heap: &Heap) -> Sums {
        let counters = heap.counters;
        let huge: u64 = heap
            .huge
            .iter()
            .fold(0, |sum, block| sum.saturating_add(block.size));
        let chunks = u64::from(counters.chunks) + u64::from(counters.cached_chunks);
        let mapped = (chunks * CHUNK_SIZE).saturating_add(huge);
        Sums {
            mapped,
            uncounted: mapped.wrapping_sub(counters.real_size),
            text: format!(
                "{} chunks, {} cached, {huge} bytes of huge blocks; size {}, real_size {}",
                counters.chunks, counters.cached_chunks, counters.size, counters.real_size
            ),
        }
    }
}

/// The limit, or how far `real_size` may overshoot it where the build has a hard limit.
fn highest_limit(heap: &HeapReader<'_>) -> Result<u64, String> {
    let limit = heap.counters().map_err(text_of)?.limit;
    match heap.layout.heap.hard_limit {
        Some(offset) => {
            let hard_limit = heap
                .memory
                .u64(at(heap.heap, offset))
                .map_err(|error| error.to_string())?;
            Ok(limit.max(hard_limit))
        }
        None => Ok(limit),
    }
}

fn text_of(error: ZendError) -> String {
    error.to_string()
}

/// Makes a failed check an error, so that it is tried again: a running process may have torn it.
fn must(holds: bool, text: String) -> Result<String, String> {
    if holds { Ok(text) } else { Err(text) }
}

fn either(found: Result<String, String>) -> String {
    found.unwrap_or_else(|error| error)
}

/// The value of the constant `PHP_VERSION`.
fn php_version(reader: Reader<'_>, executor: u64) -> Result<Option<String>, ZendError> {
    let constants = reader
        .memory
        .u64(at(executor, reader.layout.executor.zend_constants))?;
    // A zend_constant begins with its value, a zval, whose first word is the zend_string.
    match reader.find(constants, "PHP_VERSION")? {
        Some(constant) => {
            let value = reader.memory.u64(constant)?;
            Ok(Some(reader.string(value)?))
        }
        None => Ok(None),
    }
}

/// The name of the class that the class table has under `stdclass`.
fn std_class(reader: Reader<'_>, compiler: u64) -> Result<Option<String>, ZendError> {
    let classes = reader
        .memory
        .u64(at(compiler, reader.layout.compiler.class_table))?;
    match reader.find(classes, "stdclass")? {
        Some(class) => {
            let name = reader.memory.u64(at(class, reader.layout.class.name))?;
            Ok(Some(reader.string(name)?))
        }
        None => Ok(None),
    }
}
