//! The length that PHP's `serialize()` would give, computed from the values where they lie.
//!
//! Nothing of a value leaves this module but its length. The rules are those of
//! `php_var_serialize_intern()` in ext/standard/var.c, the same from 7.4 to 8.6 in what counts here.

use std::collections::HashMap;
use std::rc::Rc;

use super::memory::{MemoryError, at};
use super::values::{INTERNAL_CLASS, Reader};
use super::zval::{Key, Property, Value};
use crate::record::number;

/// Deepest nesting followed.
const MOST_LEVELS: usize = 200;
/// Most values visited: a session has some thousands.
const MOST_VALUES: u64 = 10_000_000;
/// Longest chain of parents followed.
const MOST_PARENTS: usize = 64;
/// PHP's default for ini serialize_precision: the shortest digits that read back as the same number.
const SHORTEST: &str = "-1";
/// `ZEND_ACC_ANON_CLASS` in `zend_class_entry.ce_flags` (7.4 to 8.6).
const ANONYMOUS: u32 = 1 << 2;
/// `ZEND_ACC_ENUM` in `zend_class_entry.ce_flags` (8.1 to 8.6).
const ENUM: u32 = 1 << 28;
/// `IS_OBJ_LAZY_UNINITIALIZED` and `IS_OBJ_LAZY_PROXY` in `zend_object.extra_flags` (8.4 to 8.6).
const LAZY: u32 = 1 << 31 | 1 << 30;

/// Why the length of a value is not known.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum Unsized {
    /// It could not be read.
    #[error(transparent)]
    Unread(#[from] MemoryError),
    /// Only PHP itself could tell.
    #[error("{0}")]
    Unknown(String),
}

/// How objects of a class are serialized.
enum Shape {
    /// `O:`, with these properties.
    Plain { name: u64, properties: Vec<Slot> },
    /// `E:`, with the name of the case.
    Enum { name: u64 },
    /// Not by a rule that memprof knows.
    Unknown(String),
}

/// A declared property with the length of its mangled name.
struct Slot {
    offset: u32,
    name: u64,
}

/// One call of `serialize()`.
pub(super) struct Serializer<'a> {
    reader: Reader<'a>,
    /// ini serialize_precision
    precision: Option<String>,
    classes: HashMap<u64, Rc<Shape>>,
    /// Objects and references met so far, with the number that a back-reference to them has.
    seen: HashMap<u64, u64>,
    numbered: u64,
    visited: u64,
}

impl<'a> Serializer<'a> {
    /// A process with that ini serialize_precision.
    pub(super) fn new(reader: Reader<'a>, precision: Option<String>) -> Serializer<'a> {
        Serializer {
            reader,
            precision,
            classes: HashMap::new(),
            seen: HashMap::new(),
            numbered: 0,
            visited: 0,
        }
    }

    /// `strlen(serialize($value))`
    pub(super) fn length(&mut self, value: Value) -> Result<u64, Unsized> {
        self.seen.clear();
        (self.numbered, self.visited) = (0, 0);
        // An argument is passed by value.
        let value = self.reader.dereferenced(value)?;
        self.value(value, 0)
    }

    fn value(&mut self, value: Value, level: usize) -> Result<u64, Unsized> {
        self.visited += 1;
        if self.visited > MOST_VALUES || level > MOST_LEVELS {
            return Err(Unsized::Unknown(format!(
                "it has more than {MOST_VALUES} values or {MOST_LEVELS} levels"
            )));
        }
        if let Some(number) = self.back_reference(value)? {
            // r:1; or R:1;
            return Ok(3 + digits(number));
        }
        let value = self.reader.dereferenced(value)?;
        Ok(match value {
            Value::Null | Value::Undefined => 2,
            // i:0; for a resource.
            Value::Boolean(_) | Value::Resource => 4,
            Value::Long(number) => 3 + number.to_string().len() as u64,
            Value::Double(number) => 3 + self.double(number)?,
            Value::String(string) => quoted(self.reader.string_length(string)?),
            Value::Array(table) => 2 + self.elements(table, level)?,
            Value::Object(object) => self.object(object, level)?,
            Value::Reference(_) | Value::Internal => {
                return Err(Unsized::Unknown(
                    "it holds a value of no known type".to_owned(),
                ));
            }
        })
    }

    fn double(&self, number: f64) -> Result<u64, Unsized> {
        if number.is_nan() {
            return Ok(3);
        }
        if number.is_infinite() {
            return Ok(if number > 0.0 { 3 } else { 4 });
        }
        match self.precision.as_deref() {
            Some(SHORTEST) => Ok(number::shortest(number).len() as u64),
            other => Err(Unsized::Unknown(format!(
                "it holds a float, and serialize_precision is {} and not {SHORTEST}",
                other.unwrap_or("unknown")
            ))),
        }
    }

    /// Numbers a value as `php_add_var_hash()` does; the number of its first occurrence if it came before.
    fn back_reference(&mut self, value: Value) -> Result<Option<u64>, MemoryError> {
        self.numbered += 1;
        let (identity, is_reference) = match value {
            Value::Object(object) => (object, false),
            // A reference to an object counts as the object.
            Value::Reference(reference) => match self.reader.dereferenced(value)? {
                Value::Object(object) => (object, true),
                _ => (reference, true),
            },
            _ => return Ok(None),
        };
        if let Some(number) = self.seen.get(&identity) {
            self.numbered -= u64::from(is_reference);
            return Ok(Some(*number));
        }
        self.seen.insert(identity, self.numbered);
        Ok(None)
    }

    /// `2:{i:0;...}`: the count and the elements of an array, or of an object's table of properties.
    fn elements(&mut self, table: u64, level: usize) -> Result<u64, Unsized> {
        let reader = self.reader;
        let (mut count, mut length) = (0, 0_u64);
        reader.for_each_element::<Unsized>(table, &mut |key, value| {
            let key = match key {
                Key::Index(index) => 3 + index.to_string().len() as u64,
                Key::Text(text) => quoted(reader.string_length(text)?),
            };
            count += 1;
            length = add(length, add(key, self.element(value, level)?)?)?;
            Ok(())
        })?;
        add(digits(count) + 3, length)
    }

    /// A reference that nobody shares is its value.
    fn element(&mut self, value: Value, level: usize) -> Result<u64, Unsized> {
        let value = match value {
            Value::Reference(reference) if !self.is_shared(reference)? => {
                self.reader.dereferenced(value)?
            }
            value => value,
        };
        self.value(value, level + 1)
    }

    fn is_shared(&self, reference: u64) -> Result<bool, MemoryError> {
        let refcount = at(reference, self.reader.layout.reference.refcount);
        Ok(self.reader.memory.u32(refcount)? != 1)
    }

    /// `O:8:"stdClass":1:{...}` or `E:11:"Suit:Hearts";`
    fn object(&mut self, object: u64, level: usize) -> Result<u64, Unsized> {
        let reader = self.reader;
        let layout = reader.layout.object;
        if let Some(flags) = layout.extra_flags
            && reader.memory.u32(at(object, flags))? & LAZY != 0
        {
            return Err(Unsized::Unknown("it holds a lazy object".to_owned()));
        }
        let class = reader.memory.u64(at(object, layout.class))?;
        match &*self.shape(class)? {
            Shape::Unknown(reason) => Err(Unsized::Unknown(reason.clone())),
            Shape::Enum { name } => match reader.property(object, "name")? {
                Some(Value::String(case)) => {
                    let case = reader.string_length(case)?;
                    Ok(quoted(add(add(*name, 1)?, case)?))
                }
                _ => Err(Unsized::Unknown(
                    "it holds an enum case without a name".to_owned(),
                )),
            },
            Shape::Plain { name, properties } => {
                let head = quoted(*name);
                let table = reader.memory.u64(at(object, layout.properties))?;
                let body = match table {
                    0 => self.slots(object, properties, level)?,
                    table => self.elements(table, level)?,
                };
                add(head, body)
            }
        }
    }

    /// The declared properties of an object that has no table of them.
    fn slots(&mut self, object: u64, properties: &[Slot], level: usize) -> Result<u64, Unsized> {
        let (mut count, mut length) = (0, 0_u64);
        for property in properties {
            let value = self.reader.value(at(object, property.offset))?;
            if value != Value::Undefined {
                count += 1;
                let value = self.element(value, level)?;
                length = add(length, add(quoted(property.name), value)?)?;
            }
        }
        add(digits(count) + 3, length)
    }

    fn shape(&mut self, class: u64) -> Result<Rc<Shape>, MemoryError> {
        if let Some(shape) = self.classes.get(&class) {
            return Ok(Rc::clone(shape));
        }
        let shape = Rc::new(self.read_shape(class)?);
        self.classes.insert(class, Rc::clone(&shape));
        Ok(shape)
    }

    fn read_shape(&self, class: u64) -> Result<Shape, MemoryError> {
        let reader = self.reader;
        let layout = reader.layout.class;
        let flags = reader.memory.u32(at(class, layout.flags))?;
        let unknown = |what| {
            let name = reader.class_name(class)?.replace('\0', " ");
            Ok(Shape::Unknown(format!(
                "it holds an object of {name}, {what}"
            )))
        };
        if flags & ANONYMOUS != 0 {
            return unknown("an anonymous class, which cannot be serialized");
        }
        if !self.is_plain(class)? {
            return unknown("which is or extends a class of PHP itself");
        }
        let methods = at(class, layout.function_table);
        let has = |method| Ok(reader.element(methods, method)?.is_some());
        if has("__serialize")? || has("__sleep")? || (has("serialize")? && has("unserialize")?) {
            return unknown("which serializes itself");
        }
        let name = reader.string_length(reader.memory.u64(at(class, layout.name))?)?;
        if reader.layout.minor >= (8, 1) && flags & ENUM != 0 {
            return Ok(Shape::Enum { name });
        }
        let sized = |property: Property| {
            Ok(Slot {
                offset: property.offset,
                name: reader.string_length(property.name)?,
            })
        };
        let properties = reader.properties(class)?;
        Ok(Shape::Plain {
            name,
            properties: properties
                .into_iter()
                .map(sized)
                .collect::<Result<_, MemoryError>>()?,
        })
    }

    /// Whether a class and all its parents are PHP code, or it is `stdClass`.
    fn is_plain(&self, class: u64) -> Result<bool, MemoryError> {
        let reader = self.reader;
        let layout = reader.layout.class;
        let mut entry = class;
        for _ in 0..MOST_PARENTS {
            if entry == 0 {
                return Ok(true);
            }
            if reader.memory.u8(at(entry, layout.kind))? == INTERNAL_CLASS {
                return Ok(reader.class_name(entry)? == "stdClass");
            }
            entry = reader.memory.u64(at(entry, layout.parent))?;
        }
        Ok(false)
    }
}

/// `s:3:"abc";`, and as long: `O:3:"abc":`
fn quoted(length: u64) -> u64 {
    length.saturating_add(digits(length) + 6)
}

/// How many digits a number has.
fn digits(number: u64) -> u64 {
    u64::from(number.checked_ilog10().unwrap_or(0)) + 1
}

fn add(a: u64, b: u64) -> Result<u64, Unsized> {
    a.checked_add(b)
        .ok_or_else(|| Unsized::Unknown("its lengths add up to more than 2^64".to_owned()))
}

#[cfg(test)]
mod tests;
