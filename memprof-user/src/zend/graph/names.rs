//! Paths in PHP's own syntax. Names and keys only: never a value.

use super::super::frame::printable;
use super::super::memory::{MemoryError, at};
use super::super::values::Reader;
use super::nodes::{Key, Kind, Node, Number};
use super::objects::INTERNAL_FUNCTION;

/// Longest key or name shown, in characters.
const LONGEST_NAME: usize = 64;
/// Steps shown of each end of a path that is longer than both.
const STEPS_EACH_END: usize = 16;
/// `ZEND_ACC_STATIC` in `fn_flags` (7.4 to 8.6).
const STATIC: u32 = 1 << 4;

/// Names the nodes of a walk.
pub(super) struct Names<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) nodes: &'a [Node],
}

impl Names<'_> {
    /// The path to a node.
    pub(super) fn path(&self, number: Number) -> Result<String, MemoryError> {
        let mut chain = Vec::new();
        let mut next = number;
        // Owners come before what they own, so this ends.
        while let Some(node) = self.nodes.get(next as usize) {
            chain.push((next, *node));
            next = node.owner;
        }
        chain.reverse();
        let Some(((_, root), steps)) = chain.split_first() else {
            return Ok(String::new());
        };
        let (begin, end) = self.place(root, steps.first().map(|(_, node)| node.key))?;
        let mut path = begin;
        let mut owner = *root;
        let steps = steps.iter().map(|(_, node)| *node).collect::<Vec<_>>();
        let skipped = steps.len().saturating_sub(2 * STEPS_EACH_END);
        for (place, step) in steps.iter().enumerate() {
            let is_skipped =
                skipped > 0 && (STEPS_EACH_END..STEPS_EACH_END + skipped).contains(&place);
            if is_skipped {
                if place == STEPS_EACH_END {
                    path.push_str(&format!("… {skipped} steps …"));
                }
            } else {
                path.push_str(&self.step(&owner, step.key)?);
            }
            owner = *step;
        }
        Ok(path + &end)
    }

    /// What a path begins and ends with; the first step is part of it for some.
    fn place(&self, root: &Node, first: Option<Key>) -> Result<(String, String), MemoryError> {
        let inside = |end: String| (String::new(), end);
        Ok(match root.kind {
            Kind::Globals => ("$GLOBALS".to_owned(), String::new()),
            Kind::Class => (self.class(root.address)?, String::new()),
            Kind::Function | Kind::Variable => {
                let function = self.function(root.address)?;
                match first {
                    Some(Key::Same) => (format!("closure {function}"), String::new()),
                    _ => inside(format!(" in {function}")),
                }
            }
            Kind::Unreached => {
                let objects = if first.is_some() { "object" } else { "objects" };
                let class = self.class(root.address)?;
                let end = " (not reached from any root)";
                match first {
                    Some(Key::Handle(handle)) => {
                        (format!("{objects} #{handle} of {class}"), end.to_owned())
                    }
                    _ => (format!("{objects} of {class}"), end.to_owned()),
                }
            }
            Kind::Constants => (String::new(), String::new()),
            Kind::Engine => ("{PHP itself}".to_owned(), String::new()),
            Kind::Temporaries => ("{temporary value}".to_owned(), String::new()),
            Kind::Array | Kind::Object | Kind::String => (String::new(), String::new()),
        })
    }

    /// The name of a place where the walk begins, or of a group of values.
    pub(super) fn place_name(&self, node: &Node) -> Result<String, MemoryError> {
        Ok(match node.kind {
            Kind::Function => self.function(node.address)?,
            Kind::Variable => format!(
                "{} in {}",
                self.edge(None, node.key)?,
                self.function(node.address)?
            ),
            Kind::Constants => "constants".to_owned(),
            _ => {
                let (begin, end) = self.place(node, None)?;
                begin + &end
            }
        })
    }

    /// What leads from an owner to what it holds, without the signs that a path has between its steps.
    pub(super) fn edge(&self, owner: Option<&Node>, key: Key) -> Result<String, MemoryError> {
        Ok(match (key, owner) {
            (Key::Slot(slot), Some(owner)) => {
                escaped(unmangled(&self.slot_name(owner.address, slot)?))
            }
            (Key::Slot(slot), None) => format!("slot {slot}"),
            (
                Key::Variable(_) | Key::Bound(_) | Key::StaticVariable(_) | Key::StaticProperty(_),
                _,
            ) => {
                format!("${}", self.plain(key.name().unwrap_or(0))?)
            }
            (Key::This | Key::BoundThis, _) => "$this".to_owned(),
            (Key::Argument(number), _) => format!("argument {number}"),
            (Key::Handle(handle), _) => format!("#{handle}"),
            (key, _) => match key.name() {
                Some(name) => self.plain(name)?,
                None => "value".to_owned(),
            },
        })
    }

    /// The class entry of an object.
    pub(super) fn class_address(&self, object: u64) -> Option<u64> {
        let class = at(object, self.reader.layout.object.class);
        self.reader.memory.u64(class).ok()
    }

    fn step(&self, owner: &Node, key: Key) -> Result<String, MemoryError> {
        Ok(match key {
            Key::Same | Key::Handle(_) => String::new(),
            Key::Index(index) => format!("[{index}]"),
            Key::Text(text) => format!("['{}']", escaped(&self.reader.name(text)?)),
            Key::Slot(slot) => property(&self.slot_name(owner.address, slot)?),
            Key::Dynamic(name) => property(&self.reader.name(name)?),
            Key::StaticProperty(name) => format!("::${}", self.plain(name)?),
            Key::ClassConstant(name) => format!("::{}", self.plain(name)?),
            Key::Constant(name) => self.plain(name)?,
            Key::StaticVariable(name) => format!("static ${}", self.plain(name)?),
            Key::Variable(name) => format!("${}", self.plain(name)?),
            Key::This => "$this".to_owned(),
            Key::Argument(number) => format!("argument {number}"),
            Key::Bound(name) => format!("{{${}}}", self.plain(name)?),
            Key::BoundThis => "{$this}".to_owned(),
            Key::Inside(number) => format!("{{{number}}}"),
        })
    }

    fn plain(&self, name: u64) -> Result<String, MemoryError> {
        Ok(escaped(unmangled(&self.reader.name(name)?)))
    }

    /// The name of the property in an object's slot.
    fn slot_name(&self, object: u64, slot: u32) -> Result<String, MemoryError> {
        let layout = self.reader.layout;
        let memory = self.reader.memory;
        let class = memory.u64(at(object, layout.object.class))?;
        let table = memory.u64(at(class, layout.class.properties_info_table))?;
        let info = memory.u64(table.wrapping_add(u64::from(slot) * 8))?;
        self.reader
            .name(memory.u64(at(info, layout.property.name))?)
    }

    /// A class's name.
    pub(super) fn class(&self, class: u64) -> Result<String, MemoryError> {
        Ok(printable(&self.reader.class_name(class)?))
    }

    /// The class of an object.
    pub(super) fn class_of(&self, object: u64) -> Result<String, MemoryError> {
        let class = at(object, self.reader.layout.object.class);
        self.class(self.reader.memory.u64(class)?)
    }

    /// `App\Foo->bar()`, `App\Foo::make()`, `helper()`, or the file whose top level it is.
    fn function(&self, function: u64) -> Result<String, MemoryError> {
        let layout = self.reader.layout;
        let memory = self.reader.memory;
        let name = memory.u64(at(function, layout.function.function_name))?;
        if name == 0 {
            return match memory.u8(at(function, layout.function.kind))? {
                INTERNAL_FUNCTION => Ok("PHP itself".to_owned()),
                _ => {
                    let file = memory.u64(at(function, layout.op_array.filename))?;
                    self.reader.name(file)
                }
            };
        }
        let name = printable(&self.reader.name(name)?);
        let scope = memory.u64(at(function, layout.function.scope))?;
        if scope == 0 {
            return Ok(format!("{name}()"));
        }
        let flags = memory.u32(at(function, layout.function.fn_flags))?;
        let arrow = if flags & STATIC == 0 { "->" } else { "::" };
        Ok(format!("{}{arrow}{name}()", self.class(scope)?))
    }
}

/// `name` of `\0Class\0name`.
fn unmangled(name: &str) -> &str {
    name.rsplit('\0').next().unwrap_or(name)
}

/// `->name`, or `->{'any name'}` where it is no identifier.
fn property(mangled: &str) -> String {
    let name = unmangled(mangled);
    let is_identifier = !name.is_empty()
        && name.chars().count() <= LONGEST_NAME
        && name.chars().all(|c| c == '_' || c.is_alphanumeric())
        && !name.starts_with(|c: char| c.is_ascii_digit());
    match is_identifier {
        true => format!("->{name}"),
        false => format!("->{{'{}'}}", escaped(name)),
    }
}

/// A name as it may stand between single quotes: cut where it is long, without control characters.
fn escaped(name: &str) -> String {
    let mut shown = String::new();
    for (place, character) in name.chars().enumerate() {
        if place == LONGEST_NAME {
            shown.push('…');
            break;
        }
        match character {
            '\'' | '\\' => shown.extend(['\\', character]),
            c if c.is_control() => shown.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_be_more_than_a_name() {
        assert_eq!(escaped("it's\n\u{1b}[31m"), "it\\'s\\x0a\\x1b[31m");
        assert_eq!(escaped(&"k".repeat(70)), format!("{}…", "k".repeat(64)));
        assert_eq!(property("\0App\\Foo\0rows"), "->rows");
        assert_eq!(property("added é"), "->{'added é'}");
        assert_eq!(property("5"), "->{'5'}");
        assert_eq!(property(""), "->{''}");
    }
}
