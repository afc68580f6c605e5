//! The length that PHP's `serialize()` would give, computed from the values where they lie.
//!
//! Nothing of a value leaves this module but its length. The rules are those of
//! `php_var_serialize_intern()` in ext/standard/var.c; 8.1 changed which objects it remembers.

use std::collections::{HashMap, HashSet};
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

/// Where a value stands.
#[derive(Clone, Copy)]
struct Place {
    /// 0 for what is serialized as a whole.
    level: usize,
    /// Whether it may be met again because an array around it is shared (`in_rcn_array`).
    is_shared: bool,
}

impl Place {
    const WHOLE: Place = Place {
        level: 0,
        is_shared: false,
    };

    fn within(self, is_shared: bool) -> Place {
        Place {
            level: self.level + 1,
            is_shared,
        }
    }
}

/// One call of `serialize()`.
pub(super) struct Serializer<'a> {
    reader: Reader<'a>,
    /// ini serialize_precision
    precision: Option<String>,
    classes: HashMap<u64, Rc<Shape>>,
    /// Objects and references met so far, with the number that a back-reference to them has.
    seen: HashMap<u64, u64>,
    /// Those that PHP may not have remembered.
    once: HashSet<u64>,
    /// The array or the object that is serialized as a whole: the call holds it once more.
    whole: u64,
    /// Arrays whose elements are being visited.
    open: HashSet<u64>,
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
            once: HashSet::new(),
            whole: 0,
            open: HashSet::new(),
            numbered: 0,
            visited: 0,
        }
    }

    /// `strlen(serialize($value))`
    pub(super) fn length(&mut self, value: Value) -> Result<u64, Unsized> {
        self.seen.clear();
        self.open.clear();
        self.once.clear();
        (self.numbered, self.visited) = (0, 0);
        // An argument is passed by value.
        let value = self.reader.dereferenced(value)?;
        self.whole = match value {
            Value::Array(counted) | Value::Object(counted) => counted,
            _ => 0,
        };
        self.value(value, Place::WHOLE)
    }

    fn value(&mut self, value: Value, place: Place) -> Result<u64, Unsized> {
        self.visited += 1;
        if self.visited > MOST_VALUES || place.level > MOST_LEVELS {
            return Err(Unsized::Unknown(format!(
                "it has more than {MOST_VALUES} values or {MOST_LEVELS} levels"
            )));
        }
        if let Some(number) = self.back_reference(value, place)? {
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
            Value::Array(table) => {
                let is_shared = place.level > 0 && (place.is_shared || self.is_shared(table)?);
                2 + self.elements(table, place.within(is_shared))?
            }
            Value::Object(object) => self.object(object, place)?,
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
    fn back_reference(&mut self, value: Value, place: Place) -> Result<Option<u64>, Unsized> {
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
            if self.once.contains(&identity) {
                let reason =
                    "it holds an object that comes again by a reference to what is around it";
                return Err(Unsized::Unknown(reason.to_owned()));
            }
            self.numbered -= u64::from(is_reference);
            return Ok(Some(*number));
        }
        if !is_reference && self.is_met_once(identity, place)? {
            self.once.insert(identity);
        }
        self.seen.insert(identity, self.numbered);
        Ok(None)
    }

    /// Whether PHP takes it that an object cannot come again, and so may not remember it (from 8.1 on).
    fn is_met_once(&self, object: u64, place: Place) -> Result<bool, MemoryError> {
        if self.builds_tables() || place.is_shared || self.is_shared(object)? {
            return Ok(false);
        }
        let table = at(object, self.reader.layout.object.properties);
        match self.reader.memory.u64(table)? {
            0 => Ok(true),
            table => Ok(!self.is_shared(table)?),
        }
    }

    /// Whether PHP makes a table of an object's properties to serialize it: it does not from 8.1 on, where
    /// the object has none yet.
    fn builds_tables(&self) -> bool {
        self.reader.layout.minor < (8, 1)
    }

    /// `2:{i:0;...}`: the count and the elements of an array, or of an object's table of properties.
    fn elements(&mut self, table: u64, place: Place) -> Result<u64, Unsized> {
        let reader = self.reader;
        let (mut count, mut length) = (0, 0_u64);
        reader.for_each_element::<Unsized>(table, &mut |key, value| {
            let key = match key {
                Key::Index(index) => 3 + index.to_string().len() as u64,
                Key::Text(text) => quoted(reader.string_length(text)?),
            };
            count += 1;
            length = add(length, add(key, self.element(table, value, place)?)?)?;
            Ok(())
        })?;
        add(digits(count) + 3, length)
    }

    /// An element of the array or of the table of properties at `container`.
    fn element(&mut self, container: u64, value: Value, place: Place) -> Result<u64, Unsized> {
        let value = self.unshared(value)?;
        let Value::Array(table) = value else {
            return self.value(value, place);
        };
        // PHP releases differ in where they cut it off.
        if table == container || !self.open.insert(table) {
            let reason = "it holds an array that comes again within itself";
            return Err(Unsized::Unknown(reason.to_owned()));
        }
        let length = self.value(value, place);
        self.open.remove(&table);
        length
    }

    /// A reference that nobody shares is its value.
    fn unshared(&self, value: Value) -> Result<Value, MemoryError> {
        match value {
            Value::Reference(reference) if !self.is_shared(reference)? => {
                self.reader.dereferenced(value)
            }
            value => Ok(value),
        }
    }

    /// Whether an array, an object or a reference is referred to more than once; all begin with their
    /// `gc.refcount`.
    fn is_shared(&self, counted: u64) -> Result<bool, MemoryError> {
        let refcount = at(counted, self.reader.layout.reference.refcount);
        Ok(counted == self.whole || self.reader.memory.u32(refcount)? != 1)
    }

    /// `O:8:"stdClass":1:{...}` or `E:11:"Suit:Hearts";`
    fn object(&mut self, object: u64, place: Place) -> Result<u64, Unsized> {
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
                    0 => self.slots(object, properties, place.within(self.builds_tables()))?,
                    // PHP holds the table itself meanwhile.
                    table => self.elements(table, place.within(true))?,
                };
                add(head, body)
            }
        }
    }

    /// The declared properties of an object that has no table of them.
    fn slots(&mut self, object: u64, properties: &[Slot], place: Place) -> Result<u64, Unsized> {
        let (mut count, mut length) = (0, 0_u64);
        for property in properties {
            let value = self.reader.value(at(object, property.offset))?;
            if value == Value::Undefined {
                continue;
            }
            count += 1;
            let value = self.element(object, value, place)?;
            length = add(length, add(quoted(property.name), value)?)?;
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
