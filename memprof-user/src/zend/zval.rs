//! PHP values of a live process: zvals, the elements of arrays, the properties of objects.

use super::memory::{Bytes, MemoryError, at};
use super::values::{BUCKET, BUCKETS_A_READ, LONGEST_STRING, PACKED, Reader};

/// Most slots of one array: 20 times the 10 million that would fill a heap of 256 MiB.
pub(super) const MOST_SLOTS: u32 = 1 << 27;
/// Most property slots of one object; real ones have a few dozen.
pub(super) const MOST_PROPERTIES: u32 = 1 << 14;

/// What a zval holds; strings, arrays, objects and references by their address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    /// A deleted element, a property that is not set.
    Undefined,
    Null,
    Boolean(bool),
    Long(i64),
    Double(f64),
    String(u64),
    Array(u64),
    Object(u64),
    Resource,
    Reference(u64),
    /// What no script can hold: a constant's expression, a pointer of the engine's.
    Internal,
}

/// The key of an array's element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Index(i64),
    /// A `zend_string *`.
    Text(u64),
}

/// A property that a class declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Property {
    /// Where its zval is in an object.
    pub(super) offset: u32,
    /// Its mangled name, a `zend_string *`.
    pub(super) name: u64,
}

impl Reader<'_> {
    /// Reads the zval at `address`.
    pub(super) fn value(&self, address: u64) -> Result<Value, MemoryError> {
        let bytes = Bytes::read(self.memory, address, self.layout.zval.size as usize)?;
        self.value_in(&bytes, 0)
    }

    /// The zval at `offset` in what was read; one that points to another (`IS_INDIRECT`, in tables of
    /// properties and of globals) is that other one.
    fn value_in(&self, bytes: &Bytes, offset: u32) -> Result<Value, MemoryError> {
        let zval = self.layout.zval;
        let kind = bytes.u8(offset + zval.kind)?;
        let word = bytes.u64(offset)?;
        if kind != zval.indirect {
            return Ok(decoded(kind, word));
        }
        let target = Bytes::read(self.memory, word, zval.size as usize)?;
        match target.u8(zval.kind)? {
            // One step only: such a zval never points to another of its kind.
            kind if kind == zval.indirect => Ok(Value::Internal),
            kind => Ok(decoded(kind, target.u64(0)?)),
        }
    }

    /// What a reference refers to; any other value is itself.
    pub(super) fn dereferenced(&self, value: Value) -> Result<Value, MemoryError> {
        match value {
            Value::Reference(reference) => self.value(at(reference, self.layout.reference.value)),
            value => Ok(value),
        }
    }

    /// Visits the elements of an array in their order, without the deleted ones.
    pub(super) fn for_each_element<E: From<MemoryError>>(
        &self,
        table: u64,
        visit: &mut dyn FnMut(Key, Value) -> Result<(), E>,
    ) -> Result<(), E> {
        let array = &self.layout.array;
        let header = Bytes::read(self.memory, table, array.size as usize)?;
        let used = header.u32(array.used)?;
        if used > MOST_SLOTS {
            return Err(MemoryError::OutOfBounds {
                what: "zend_array.nNumUsed",
                address: at(table, array.used),
                found: u64::from(used),
                bound: u64::from(MOST_SLOTS),
            }
            .into());
        }
        let is_packed = header.u32(array.flags)? & PACKED != 0;
        let slot = if is_packed {
            array.packed_element
        } else {
            BUCKET
        };
        let data = header.u64(array.data)?;
        for first in (0..used).step_by(BUCKETS_A_READ as usize) {
            let length = BUCKETS_A_READ.min(used - first);
            let from = data.wrapping_add(u64::from(first) * u64::from(slot));
            let bytes = Bytes::read(self.memory, from, (length * slot) as usize)?;
            for index in 0..length {
                let offset = index * slot;
                let value = self.value_in(&bytes, offset)?;
                if value == Value::Undefined {
                    continue;
                }
                let key = if is_packed {
                    Key::Index(i64::from(first + index))
                } else {
                    key_in(&bytes, offset)?
                };
                visit(key, value)?;
            }
        }
        Ok(())
    }

    /// The element of an array under a text.
    pub(super) fn element(&self, table: u64, wanted: &str) -> Result<Option<Value>, MemoryError> {
        let mut found = None;
        self.for_each_element::<MemoryError>(table, &mut |key, value| {
            if let Key::Text(text) = key
                && self.string_length(text)? == wanted.len() as u64
                && self.string(text)? == wanted
            {
                found = Some(value);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// `zend_string.len`, in bytes.
    pub(super) fn string_length(&self, string: u64) -> Result<u64, MemoryError> {
        self.memory.u64(at(string, self.layout.string.len))
    }

    /// A name of any length, cut after 4096 bytes.
    pub(super) fn name(&self, string: u64) -> Result<String, MemoryError> {
        let length = self.string_length(string)?.min(LONGEST_STRING);
        let (length_at, text_at) = (self.layout.string.len, self.layout.string.val);
        self.text(
            "zend_string.len",
            at(string, length_at),
            at(string, text_at),
            length,
        )
    }

    /// The properties that objects of a class have slots for, inherited ones included.
    pub(super) fn properties(&self, class: u64) -> Result<Vec<Property>, MemoryError> {
        let layout = self.layout.class;
        let count_at = at(class, layout.properties_count);
        let count = self.memory.u32(count_at)?;
        if count > MOST_PROPERTIES {
            return Err(MemoryError::OutOfBounds {
                what: "zend_class_entry.default_properties_count",
                address: count_at,
                found: u64::from(count),
                bound: u64::from(MOST_PROPERTIES),
            });
        }
        let table = self.memory.u64(at(class, layout.properties_info_table))?;
        let mut properties = Vec::new();
        for slot in 0..count {
            let info = self.memory.u64(at(table, slot * 8))?;
            if info != 0 {
                properties.push(Property {
                    offset: self.memory.u32(at(info, self.layout.property.offset))?,
                    name: self.memory.u64(at(info, self.layout.property.name))?,
                });
            }
        }
        Ok(properties)
    }

    /// The value of an object's declared property, whoever may see it.
    pub(super) fn property(&self, object: u64, wanted: &str) -> Result<Option<Value>, MemoryError> {
        let class = self.memory.u64(at(object, self.layout.object.class))?;
        for property in self.properties(class)? {
            let mangled = self.name(property.name)?;
            let plain = mangled.rsplit('\0').next().unwrap_or_default();
            if plain == wanted {
                let value = self.value(at(object, property.offset))?;
                return self.dereferenced(value).map(Some);
            }
        }
        Ok(None)
    }

    /// The name of a class.
    pub(super) fn class_name(&self, class: u64) -> Result<String, MemoryError> {
        self.name(self.memory.u64(at(class, self.layout.class.name))?)
    }
}

fn key_in(bucket: &Bytes, offset: u32) -> Result<Key, MemoryError> {
    Ok(match bucket.u64(offset + 24)? {
        0 => Key::Index(bucket.u64(offset + 16)?.cast_signed()),
        text => Key::Text(text),
    })
}

/// A zval by its type (`IS_*`, 7.4 to 8.6) and its first word.
fn decoded(kind: u8, word: u64) -> Value {
    match kind {
        0 => Value::Undefined,
        1 => Value::Null,
        2 => Value::Boolean(false),
        3 => Value::Boolean(true),
        4 => Value::Long(word.cast_signed()),
        5 => Value::Double(f64::from_bits(word)),
        6 => Value::String(word),
        7 => Value::Array(word),
        8 => Value::Object(word),
        9 => Value::Resource,
        10 => Value::Reference(word),
        _ => Value::Internal,
    }
}
