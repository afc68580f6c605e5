//! Strings, hash tables and class counts of a live process.

use super::ZendError;
use super::layout::Layout;
use super::memory::{Bytes, Memory, MemoryError, at};

/// Longest name, path or key that is read: `PATH_MAX`, and far above any class or function name.
pub(super) const LONGEST_STRING: u64 = 4096;
/// Most slots read of one hash table: 10 times the classes of the largest applications known.
const MOST_BUCKETS: u32 = 1 << 18;
/// Buckets fetched by one read.
pub(super) const BUCKETS_A_READ: u32 = 1024;
/// Size of a `Bucket`: a zval, the hash and the key.
pub(super) const BUCKET: u32 = 32;
/// `HASH_FLAG_PACKED`: a list without keys.
pub(super) const PACKED: u32 = 1 << 2;
/// Smallest page size of the machines known: a read inside one page is mapped wholly or not at all.
const PAGE: u64 = 4096;

/// `ZEND_ACC_INTERFACE` in `zend_class_entry.ce_flags` (7.4 to 8.6).
const INTERFACE: u32 = 1 << 0;
/// `ZEND_ACC_TRAIT` (7.4 to 8.6).
const TRAIT: u32 = 1 << 1;
/// `ZEND_ACC_LINKED`: the class is declared, with its parents and interfaces (7.4 to 8.6).
const LINKED: u32 = 1 << 3;

/// `ZEND_INTERNAL_FUNCTION` in `zend_function.type` (7.4 to 8.6).
const INTERNAL_FUNCTION: u8 = 1;

/// `ZEND_INTERNAL_CLASS` in `zend_class_entry.type` (7.4 to 8.6).
pub(super) const INTERNAL_CLASS: u8 = 1;

/// How many classes and files the request has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What `count(get_declared_classes())` gives: classes and enums, PHP's own included.
    pub classes: u64,
    /// What `count(get_declared_interfaces())` gives.
    pub interfaces: u64,
    /// What `count(get_declared_traits())` gives.
    pub traits: u64,
    /// What `count(get_included_files())` gives.
    pub included_files: u64,
}

/// One element of a hash table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    /// The value's first word: a pointer for everything read here.
    pub(super) value: u64,
    hash: u64,
    pub(super) key: u64,
}

/// Reads PHP's values through a layout.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) memory: &'a dyn Memory,
    pub(super) layout: &'a Layout,
}

impl Reader<'_> {
    /// The text of a `zend_string`; bytes that are no UTF-8 are replaced.
    pub(super) fn string(&self, address: u64) -> Result<String, MemoryError> {
        let length_at = at(address, self.layout.string.len);
        let length = self.memory.u64(length_at)?;
        self.text(
            "zend_string.len",
            length_at,
            at(address, self.layout.string.val),
            length,
        )
    }

    /// `length` bytes of text at `address`; `what` and `length_at` say where the length is from.
    pub(super) fn text(
        &self,
        what: &'static str,
        length_at: u64,
        address: u64,
        length: u64,
    ) -> Result<String, MemoryError> {
        if length > LONGEST_STRING {
            return Err(MemoryError::OutOfBounds {
                what,
                address: length_at,
                found: length,
                bound: LONGEST_STRING,
            });
        }
        let mut bytes = vec![0; length as usize];
        self.memory.read(address, &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A `char *`, or `None` where it is null; cut after 4096 bytes.
    pub(super) fn c_string(&self, address: u64) -> Result<Option<String>, MemoryError> {
        if address == 0 {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < LONGEST_STRING {
            let from = address.wrapping_add(bytes.len() as u64);
            let mut part = vec![0; (PAGE - from % PAGE).min(256) as usize];
            self.memory.read(from, &mut part)?;
            let end = part.iter().position(|byte| *byte == 0);
            bytes.extend_from_slice(&part[..end.unwrap_or(part.len())]);
            if end.is_some() {
                break;
            }
        }
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The elements of a hash table with string keys, in their order.
    pub(super) fn buckets(&self, table: u64) -> Result<Vec<Bucket>, ZendError> {
        let array = &self.layout.array;
        let header = Bytes::read(self.memory, table, array.size as usize)?;
        let used = header.u32(array.used)?;
        if used > MOST_BUCKETS {
            return Err(ZendError::Memory(MemoryError::OutOfBounds {
                what: "zend_array.nNumUsed",
                address: at(table, array.used),
                found: u64::from(used),
                bound: u64::from(MOST_BUCKETS),
            }));
        }
        if used > 0 && header.u32(array.flags)? & PACKED != 0 {
            return Err(ZendError::Inconsistent {
                what: "a hash table with string keys is marked as packed",
                address: table,
            });
        }
        let data = header.u64(array.data)?;
        let mut buckets = Vec::new();
        for first in (0..used).step_by(BUCKETS_A_READ as usize) {
            let length = BUCKETS_A_READ.min(used - first);
            let from = at(data, first * BUCKET);
            let slots = Bytes::read(self.memory, from, (length * BUCKET) as usize)?;
            for offset in (0..length).map(|slot| slot * BUCKET) {
                let is_deleted = slots.u8(offset + 8)? == 0;
                if !is_deleted {
                    buckets.push(Bucket {
                        value: slots.u64(offset)?,
                        hash: slots.u64(offset + 16)?,
                        key: slots.u64(offset + 24)?,
                    });
                }
            }
        }
        Ok(buckets)
    }

    /// The value under a string key.
    pub(super) fn find(&self, table: u64, key: &str) -> Result<Option<u64>, ZendError> {
        let wanted = string_hash(key.as_bytes());
        for bucket in self.buckets(table)? {
            if bucket.hash == wanted && bucket.key != 0 && self.string(bucket.key)? == key {
                return Ok(Some(bucket.value));
            }
        }
        Ok(None)
    }

    /// The code behind a function written in C, or behind such a method of a class, by their names in
    /// lower case; `None` where there is no such function, or it is written in PHP.
    pub(super) fn handler(
        &self,
        compiler: u64,
        class: Option<&str>,
        function: &str,
    ) -> Result<Option<u64>, ZendError> {
        let functions = match class {
            None => self
                .memory
                .u64(at(compiler, self.layout.compiler.function_table))?,
            Some(class) => {
                let classes = self
                    .memory
                    .u64(at(compiler, self.layout.compiler.class_table))?;
                match self.find(classes, class)? {
                    Some(entry) => at(entry, self.layout.class.function_table),
                    None => return Ok(None),
                }
            }
        };
        let Some(found) = self.find(functions, function)? else {
            return Ok(None);
        };
        let kind = self.memory.u8(at(found, self.layout.function.kind))?;
        if kind != INTERNAL_FUNCTION {
            return Ok(None);
        }
        Ok(Some(
            self.memory.u64(at(found, self.layout.function.handler))?,
        ))
    }

    /// `nNumOfElements` of a hash table.
    pub(super) fn count(&self, table: u64) -> Result<u64, MemoryError> {
        let count = self.memory.u32(at(table, self.layout.array.count))?;
        Ok(u64::from(count))
    }

    /// What an ini setting is now; `None` where there is no such setting, or it has no value.
    pub(super) fn ini(&self, executor: u64, name: &str) -> Result<Option<String>, ZendError> {
        let directives = at(executor, self.layout.executor.ini_directives);
        let Some(entry) = self.find(self.memory.u64(directives)?, name)? else {
            return Ok(None);
        };
        match self.memory.u64(at(entry, self.layout.ini_entry.value))? {
            0 => Ok(None),
            value => Ok(Some(self.string(value)?)),
        }
    }

    /// The keys of a hash table, in their order.
    pub(super) fn keys(&self, table: u64) -> Result<Vec<String>, ZendError> {
        let with_key = self
            .buckets(table)?
            .into_iter()
            .filter(|bucket| bucket.key != 0);
        with_key
            .map(|bucket| Ok(self.string(bucket.key)?))
            .collect()
    }

    /// Counts the declared classes as PHP's `get_declared_*` functions do.
    pub(super) fn loaded(&self, executor: u64, compiler: u64) -> Result<Loaded, ZendError> {
        let class_table = self
            .memory
            .u64(at(compiler, self.layout.compiler.class_table))?;
        let included_files = at(executor, self.layout.executor.included_files);
        let mut loaded = Loaded {
            classes: 0,
            interfaces: 0,
            traits: 0,
            included_files: self.count(included_files)?,
        };
        for bucket in self.buckets(class_table)? {
            // A key that begins with NUL is a definition that has not been declared yet.
            let declared =
                bucket.key != 0 && self.memory.u8(at(bucket.key, self.layout.string.val))? != 0;
            let flags = self.memory.u32(at(bucket.value, self.layout.class.flags))?;
            if !declared || flags & LINKED == 0 {
                continue;
            }
            if flags & INTERFACE != 0 {
                loaded.interfaces += 1;
            } else if flags & TRAIT != 0 {
                loaded.traits += 1;
            } else {
                loaded.classes += 1;
            }
        }
        Ok(loaded)
    }
}

/// PHP's hash of a string key: `zend_inline_hash_func` (DJB's times 33), 7.4 to 8.6.
fn string_hash(key: &[u8]) -> u64 {
    key.iter().fold(5381_u64, |hash, byte| {
        hash.wrapping_mul(33).wrapping_add(u64::from(*byte))
    }) | 1 << 63
}

#[cfg(test)]
mod tests {
    use super::super::testing::Image;
    use super::*;

    fn reader(image: &Image) -> Reader<'_> {
        Reader {
            memory: &image.memory,
            layout: &image.layout,
        }
    }

    #[test]
    fn strings_are_bounded() {
        let mut image = Image::new("8.2.36");
        let text = image.memory.string(&image.layout, "App\\Foo");
        assert_eq!(reader(&image).string(text).as_deref(), Ok("App\\Foo"));
        image.memory.put_u64(text + 16, 1 << 40);
        assert!(matches!(
            reader(&image).string(text),
            Err(MemoryError::OutOfBounds { found, .. }) if found == 1 << 40
        ));
    }

    #[test]
    fn a_c_string_may_end_at_the_end_of_what_is_mapped() {
        let mut image = Image::new("8.2.36");
        image.memory.put(0x7000_0ffc, b"end\0");
        let read = |address| reader(&image).c_string(address);
        assert_eq!(read(0x7000_0ffc), Ok(Some("end".to_owned())));
        assert_eq!(read(0), Ok(None));
        assert!(read(0x9999_0000).is_err());
    }

    #[test]
    fn a_key_is_found_by_its_hash_and_text() -> Result<(), ZendError> {
        let mut image = Image::new("8.2.36");
        let table = image.memory.table(&image.layout, &[("one", 1), ("two", 2)]);
        assert_eq!(reader(&image).find(table, "two")?, Some(2));
        assert_eq!(reader(&image).find(table, "three")?, None);
        Ok(())
    }

    #[test]
    fn a_table_with_a_wild_count_is_refused() {
        let mut image = Image::new("8.2.36");
        let table = image.memory.table(&image.layout, &[("one", 1)]);
        image.memory.put_u32(table + 24, u32::MAX);
        assert!(matches!(
            reader(&image).buckets(table),
            Err(ZendError::Memory(MemoryError::OutOfBounds { .. }))
        ));
    }
}
