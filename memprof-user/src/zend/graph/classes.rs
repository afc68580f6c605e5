//! What the walk must know of an object's class.

use std::collections::HashMap;

use super::super::cached::Blocks;
use super::super::layout::Layout;
use super::super::memory::{Memory, MemoryError, at};
use super::super::recent::Recent;
use super::super::values::INTERNAL_CLASS;
use super::super::zval::MOST_PROPERTIES;

/// Most classes remembered: more than any application has.
const MOST_CLASSES: usize = 1 << 16;
/// Longest chain of parents that is followed.
const MOST_PARENTS: u32 = 1024;
/// Longest name of a class that is known here.
const LONGEST_NAME: u64 = 16;

/// A class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    /// Property slots of an object.
    pub(super) properties: u32,
    /// What an object has besides.
    pub(super) insides: Insides,
}

/// What objects of a class hold besides their properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insides {
    /// Nothing.
    None,
    /// A `zend_closure`.
    Closure,
    /// A `zend_generator`.
    Generator,
    /// A `zend_fiber`.
    Fiber,
    /// A `spl_fixedarray_object`.
    FixedArray,
    /// A `spl_array_object`.
    ArrayObject,
    /// A `zend_weakref`, which holds nothing.
    WeakReference,
    /// A `zend_weakmap`, which holds its values and not its keys.
    WeakMap,
    /// Something that only PHP or the extension knows.
    Unknown,
}

/// The classes met so far.
#[derive(Default)]
pub(super) struct Classes {
    classes: HashMap<u64, Class>,
    recent: Recent<Class>,
}

impl Classes {
    #[inline]
    pub(super) fn of<M: Memory>(
        &mut self,
        memory: &mut Blocks<M>,
        layout: &Layout,
        entry: u64,
    ) -> Result<Class, MemoryError> {
        if let Some(class) = self.recent.get(entry) {
            return Ok(class);
        }
        let class = match self.classes.get(&entry) {
            Some(class) => *class,
            None => {
                let class = read(memory, layout, entry)?;
                if self.classes.len() >= MOST_CLASSES {
                    self.classes.clear();
                }
                self.classes.insert(entry, class);
                class
            }
        };
        self.recent.keep(entry, class);
        Ok(class)
    }
}

fn read<M: Memory>(
    memory: &mut Blocks<M>,
    layout: &Layout,
    entry: u64,
) -> Result<Class, MemoryError> {
    let count_at = at(entry, layout.class.properties_count);
    let properties = memory.u32(count_at)?;
    if properties > MOST_PROPERTIES {
        return Err(MemoryError::OutOfBounds {
            what: "zend_class_entry.default_properties_count",
            address: count_at,
            found: u64::from(properties),
            bound: u64::from(MOST_PROPERTIES),
        });
    }
    let mut ancestor = entry;
    let mut insides = Insides::None;
    for _ in 0..MOST_PARENTS {
        let [kind] = memory.word(at(ancestor, layout.class.kind))?;
        if kind == INTERNAL_CLASS {
            insides = insides_of(memory, layout, ancestor)?;
        }
        ancestor = memory.u64(at(ancestor, layout.class.parent))?;
        if ancestor == 0 {
            break;
        }
    }
    Ok(Class {
        properties,
        insides,
    })
}

/// By the name of the outermost class of PHP's own: those below it keep what it has.
fn insides_of<M: Memory>(
    memory: &mut Blocks<M>,
    layout: &Layout,
    entry: u64,
) -> Result<Insides, MemoryError> {
    let string = memory.u64(at(entry, layout.class.name))?;
    let length = memory.u64(at(string, layout.string.len))?;
    let mut name = [0; LONGEST_NAME as usize];
    let name = &mut name[..length.min(LONGEST_NAME) as usize];
    memory.read(at(string, layout.string.val), name)?;
    Ok(match &*name {
        b"stdClass" | b"Exception" | b"Error" => Insides::None,
        b"Closure" => Insides::Closure,
        b"Generator" => Insides::Generator,
        b"Fiber" => Insides::Fiber,
        b"SplFixedArray" => Insides::FixedArray,
        b"ArrayObject" | b"ArrayIterator" => Insides::ArrayObject,
        b"WeakReference" => Insides::WeakReference,
        b"WeakMap" => Insides::WeakMap,
        _ => Insides::Unknown,
    })
}
