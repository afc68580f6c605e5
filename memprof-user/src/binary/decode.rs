//! Offsets recovered from the code of small exported functions.
//!
//! Which function shows which value was measured on 17 builds from 7.4 to 8.6. Each value that
//! a second function shows too is compared; a difference is an error, never a choice.

use memchr::memmem;

use super::allocator::AllocatorFunctions;
use super::arch::{Effect, Instruction};
use super::code::{Code, Function};
use super::flow::{Root, Value};
use super::map;
use super::{BinaryError, Decoded, Evidence, Global, PhpVersion};

/// Where the pointer `AG(mm_heap)` is kept: what `zend_mm_get_heap` returns.
///
/// # Errors
/// [`BinaryError::NotPhp`] or [`BinaryError::NotFound`].
pub fn heap_pointer(code: &Code<'_>, evidence: &mut Vec<Evidence>) -> Result<u64, BinaryError> {
    const WHAT: &str = "AG(mm_heap)";
    let function = code.exported("zend_mm_get_heap")?;
    let returned = function
        .returns()
        .find_map(|(_, state)| match state.get(code.arch.result()) {
            Some(Value::Global(address)) => Some(address),
            _ => None,
        });
    let load = function.effects().find(
        |(.., effect)| matches!(effect, Effect::Load { to, .. } if *to == code.arch.result()),
    );
    match (returned, load) {
        (Some(address), Some((instruction, ..))) => {
            evidence.push(Evidence {
                what: WHAT.to_owned(),
                value: format!("{address:#x}"),
                how: code.cite(&function, instruction),
            });
            Ok(address)
        }
        _ => Err(BinaryError::not_found(
            WHAT,
            "zend_mm_get_heap does not return a value kept at a fixed address",
        )),
    }
}

/// All offsets, given the heap pointer and the allocator's static functions.
///
/// # Errors
/// [`BinaryError::NotPhp`], [`BinaryError::NotFound`] or [`BinaryError::Disagree`].
pub fn decode(
    code: &Code<'_>,
    heap_pointer: u64,
    executor: Global,
    allocator: &AllocatorFunctions,
    evidence: &mut Vec<Evidence>,
) -> Result<Decoded, BinaryError> {
    let heap = Root::Global(heap_pointer);
    let mut search = Search { code, evidence };
    let (heap_size, heap_real_size) =
        search.pair("zend_memory_usage", heap, ["size", "real_size"])?;
    let (heap_peak, heap_real_peak) =
        search.pair("zend_memory_peak_usage", heap, ["peak", "real_peak"])?;
    let heap_limit = search.limit(heap)?;
    let emalloc_large = code.exported("_emalloc_large")?;
    search.also_used(
        &emalloc_large,
        heap,
        &[("size", heap_size), ("peak", heap_peak)],
    )?;
    search.also_used(
        &allocator.alloc_pages,
        Root::Argument(0),
        &[
            ("real_size", heap_real_size),
            ("real_peak", heap_real_peak),
            ("limit", heap_limit),
        ],
    )?;
    let chunk_map = search.chunk_map(allocator)?;
    let current_execute_data = search.current_execute_data(executor)?;
    let object_buckets = search.object_buckets(executor)?;
    Ok(Decoded {
        heap_pointer,
        heap_size,
        heap_peak,
        heap_real_size,
        heap_real_peak,
        heap_limit,
        chunk_map,
        current_execute_data,
        object_buckets,
    })
}

/// The version that the binary states about itself.
///
/// # Errors
/// [`BinaryError::NotFound`], or [`BinaryError::Disagree`] if `php_version_id` (exported from
/// 8.3 on) says otherwise; [`BinaryError::UnsupportedVersion`] below 7.4.
pub fn version(code: &Code<'_>, evidence: &mut Vec<Evidence>) -> Result<PhpVersion, BinaryError> {
    const BANNER: &[u8] = b"X-Powered-By: PHP/";
    const WHAT: &str = "the PHP version";
    let data = code.image.data();
    let stated = memmem::find_iter(data, BANNER)
        .find_map(|at| parse_version(data.get(at + BANNER.len()..)?))
        .ok_or_else(|| {
            BinaryError::not_found(
                WHAT,
                "the text \"X-Powered-By: PHP/x.y.z\" is not in the file",
            )
        })?;
    let mut how = format!("the text \"X-Powered-By: PHP/{stated}\"");
    if code.image.symbol("php_version_id").is_some() {
        let function = code.exported("php_version_id")?;
        let id = function
            .returns()
            .find_map(|(_, state)| match state.get(code.arch.result()) {
                Some(Value::Constant(id)) => Some(id),
                _ => None,
            });
        let expected = stated.id();
        if id != Some(u64::from(expected)) {
            return Err(BinaryError::disagree(
                WHAT,
                format!("the text \"X-Powered-By: PHP/{stated}\" means {expected}"),
                format!("php_version_id returns {id:?}"),
            ));
        }
        how.push_str(&format!("; php_version_id returns {expected}"));
    }
    evidence.push(Evidence {
        what: WHAT.to_owned(),
        value: stated.to_string(),
        how,
    });
    if (stated.major, stated.minor) < (7, 4) {
        return Err(BinaryError::UnsupportedVersion(stated));
    }
    Ok(stated)
}

/// `8.2.36` and whatever follows (a zero byte, or a suffix such as `RC3`).
fn parse_version(text: &[u8]) -> Option<PhpVersion> {
    let end = text
        .iter()
        .take(16)
        .position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
    let text = std::str::from_utf8(text.get(..end)?).ok()?;
    let mut parts = text.split('.').map(str::parse::<u8>);
    let version = PhpVersion {
        major: parts.next()?.ok()?,
        minor: parts.next()?.ok()?,
        patch: parts.next()?.ok()?,
    };
    parts.next().is_none().then_some(version)
}

struct Search<'a> {
    code: &'a Code<'a>,
    evidence: &'a mut Vec<Evidence>,
}

impl Search<'_> {
    /// Records a value; an offset that does not fit a structure is an error.
    fn found(&mut self, what: &str, offset: i64, how: String) -> Result<u32, BinaryError> {
        // zend_mm_heap is the largest structure read here, at less than 1 KiB.
        let value = u32::try_from(offset)
            .ok()
            .filter(|value| *value < 0x1_0000)
            .ok_or_else(|| BinaryError::not_found(what, format!("{how} gives {offset:#x}")))?;
        self.evidence.push(Evidence {
            what: what.to_owned(),
            value: format!("{value:#x}"),
            how,
        });
        Ok(value)
    }

    /// The two fields that a usage function chooses between. The used size stands before the
    /// mapped size in every zend_mm_heap since 7.0, so the lower offset is the used one.
    fn pair(
        &mut self,
        name: &str,
        heap: Root,
        fields: [&str; 2],
    ) -> Result<(u32, u32), BinaryError> {
        let function = self.code.exported(name)?;
        let mut loads: Vec<(i64, &Instruction)> =
            function.loads(heap, 8).map(|(i, o)| (o, i)).collect();
        loads.sort_by_key(|(offset, _)| *offset);
        loads.dedup_by_key(|(offset, _)| *offset);
        let [(used, first), (real, second)] = loads[..] else {
            return Err(BinaryError::not_found(
                format!("zend_mm_heap.{} and .{}", fields[0], fields[1]),
                format!("{name} loads {} fields of the heap, not 2", loads.len()),
            ));
        };
        let how = self.code.cite(&function, first);
        let used = self.found(&format!("zend_mm_heap.{}", fields[0]), used, how)?;
        let how = self.code.cite(&function, second);
        let real = self.found(&format!("zend_mm_heap.{}", fields[1]), real, how)?;
        Ok((used, real))
    }

    /// A second witness for fields of the heap: a function that must use them too.
    fn also_used(
        &self,
        function: &Function,
        heap: Root,
        fields: &[(&str, u32)],
    ) -> Result<(), BinaryError> {
        for (field, value) in fields {
            if !function.uses(heap).any(|used| used == i64::from(*value)) {
                return Err(BinaryError::disagree(
                    format!("zend_mm_heap.{field}"),
                    format!("an exported accessor shows {value:#x}"),
                    format!("{} does not use it", function.name),
                ));
            }
        }
        Ok(())
    }

    /// What `zend_set_memory_limit` stores first.
    fn limit(&mut self, heap: Root) -> Result<u32, BinaryError> {
        const WHAT: &str = "zend_mm_heap.limit";
        let function = self.code.exported("zend_set_memory_limit")?;
        let Some((instruction, offset)) = function.stores(heap, 8).next() else {
            return Err(BinaryError::not_found(
                WHAT,
                "zend_set_memory_limit stores no field of the heap",
            ));
        };
        let how = self.code.cite(&function, instruction);
        self.found(WHAT, offset, how)
    }

    /// The displacement of `_efree`'s access to the page map; the page allocator's store of a
    /// run and the page release's store of 0 must show the same.
    fn chunk_map(&mut self, allocator: &AllocatorFunctions) -> Result<u32, BinaryError> {
        const WHAT: &str = "zend_mm_chunk.map";
        let efree = self.code.exported("_efree")?;
        // The map is behind the chunk's header and heap slot (0x40 + zend_mm_heap); accesses
        // with smaller offsets are to other arrays.
        let found = efree.effects().find_map(|(instruction, state, effect)| {
            let Effect::Load { place, size: 4, .. } = *effect else {
                return None;
            };
            let entry = map::entry(state, place)?;
            (entry.indexed && entry.offset > 0x140).then_some((instruction, entry.offset))
        });
        let Some((instruction, offset)) = found else {
            return Err(BinaryError::not_found(
                WHAT,
                "_efree has no indexed load of 4 bytes",
            ));
        };
        let how = self.code.cite(&efree, instruction);
        let map = self.found(WHAT, offset, how)?;
        let second = large_run_store(&allocator.alloc_pages);
        if second != Some(offset) {
            return Err(BinaryError::disagree(
                WHAT,
                format!("_efree loads from {map:#x}"),
                format!("zend_mm_alloc_pages marks a run at {second:#x?}"),
            ));
        }
        Ok(map)
    }

    /// The first field of executor_globals that `zend_get_executed_scope` loads; the same must
    /// be the first that `get_active_function_name` loads. (Not zend_get_executed_lineno: from
    /// 8.2 on it reads an override first.)
    fn current_execute_data(&mut self, executor: Global) -> Result<u32, BinaryError> {
        const WHAT: &str = "executor_globals.current_execute_data";
        let (first, first_how) = self.executor_field(WHAT, "zend_get_executed_scope", executor)?;
        let (second, second_how) =
            self.executor_field(WHAT, "get_active_function_name", executor)?;
        if first != second {
            return Err(BinaryError::disagree(WHAT, first_how, second_how));
        }
        self.found(WHAT, first, first_how)
    }

    /// The first 8-byte load from executor_globals.
    fn executor_field(
        &self,
        what: &str,
        name: &str,
        executor: Global,
    ) -> Result<(i64, String), BinaryError> {
        let function = self.code.exported(name)?;
        let (instruction, offset) =
            executor_loads(&function, executor, 8)
                .next()
                .ok_or_else(|| {
                    BinaryError::not_found(
                        what,
                        format!("{name} loads nothing from executor_globals"),
                    )
                })?;
        Ok((offset, self.code.cite(&function, instruction)))
    }

    /// The one 8-byte field of executor_globals that `zend_objects_store_put` loads. The
    /// store's `top` and `free_list_head` follow at 8 and 16 (zend_objects_API.h, 7.4 to 8.6)
    /// and are loaded there too.
    fn object_buckets(&mut self, executor: Global) -> Result<u32, BinaryError> {
        const WHAT: &str = "executor_globals.objects_store.object_buckets";
        let (offset, how) = self.executor_field(WHAT, "zend_objects_store_put", executor)?;
        let function = self.code.exported("zend_objects_store_put")?;
        for (field, distance) in [("top", 8), ("free_list_head", 16)] {
            let wanted = offset.saturating_add(distance);
            if !executor_loads(&function, executor, 4).any(|(_, found)| found == wanted) {
                return Err(BinaryError::disagree(
                    WHAT,
                    how,
                    format!("the same function loads no objects_store.{field} at {wanted:#x}"),
                ));
            }
        }
        self.found(WHAT, offset, how)
    }
}

fn executor_loads(
    function: &Function,
    executor: Global,
    size: u8,
) -> impl Iterator<Item = (&Instruction, i64)> {
    function
        .loads(Root::Address, size)
        .filter_map(move |(instruction, address)| {
            let offset = u64::try_from(address).ok()?.checked_sub(executor.address)?;
            (offset < executor.size).then_some((instruction, i64::try_from(offset).ok()?))
        })
}

/// The offset in a chunk at which a function writes the map entry of a large run.
fn large_run_store(function: &Function) -> Option<i64> {
    function.effects().find_map(|(_, state, effect)| {
        let Effect::Store {
            place,
            value,
            size: 4,
        } = *effect
        else {
            return None;
        };
        map::stores_large_run(state, value)?;
        map::entry(state, place).map(|entry| entry.offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_end_at_the_first_foreign_byte() {
        let version = |text: &[u8]| parse_version(text).map(|version| version.id());
        assert_eq!(version(b"8.2.36\0"), Some(80_236));
        assert_eq!(version(b"8.6.0RC3\0"), Some(80_600));
        assert_eq!(version(b"7.4.33-dev\0"), Some(70_433));
        assert_eq!(version(b"8.2\0"), None);
        assert_eq!(version(b"8.2.36.1\0"), None);
        assert_eq!(version(b"8.2.999\0"), None, "does not fit");
        assert_eq!(version(b"%s\0"), None);
        assert_eq!(version(b"8.2.36"), None, "cut by the file's end");
    }
}
