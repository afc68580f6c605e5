//! Where the walk begins: what PHP code can name without holding anything yet.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::super::memory::{MemoryError, at};
use super::super::process::Addresses;
use super::super::values::Reader;
use super::super::{ZendError, values};
use super::arrays::Keys;
use super::nodes::{Block, Key, Kind, NONE, Number};
use super::walk::{OBJECT, STRING, Walk};

/// `ZEND_ACC_STATIC` in `zend_property_info.flags` (7.4 to 8.6).
const STATIC: u32 = 1 << 4;
/// Values of one variable, in all its frames, that are followed before others had their turn.
const FIRST_VALUES: u32 = 1024;
/// Most frames followed.
const MOST_FRAMES: u64 = 1 << 24;
/// Most pages of the VM's stack: 256 KiB each, 16 GiB.
pub(super) const MOST_STACK_PAGES: u32 = 1 << 16;

/// Finds the roots of one process.
pub(super) struct Roots<'r> {
    pub(super) reader: Reader<'r>,
    pub(super) addresses: Addresses,
    functions: HashMap<u64, Function>,
}

/// A function that is on the stack.
#[derive(Default)]
struct Function {
    /// Names of its variables and how many; `None` for an internal one.
    names: Option<(u64, u32)>,
    node: Option<Number>,
    /// The nodes of its variables and arguments, and how many values each has.
    variables: HashMap<u32, (Number, u32)>,
}

/// The number that stands for `$this` among a function's variables.
const THIS: u32 = u32::MAX;

impl<'r> Roots<'r> {
    pub(super) fn new(reader: Reader<'r>, addresses: Addresses) -> Roots<'r> {
        Roots {
            reader,
            addresses,
            functions: HashMap::new(),
        }
    }

    /// Static properties, static variables, constants, `$GLOBALS` and the stack, in this order.
    pub(super) fn find(&mut self, walk: &mut Walk<'_>) -> Result<(), MemoryError> {
        let classes = self.table(walk, self.compiler(self.reader.layout.compiler.class_table))?;
        for class in &classes {
            let found = self.class(walk, class.value);
            walk.readable(found.map(Some))?;
        }
        for class in &classes {
            let methods = at(class.value, self.reader.layout.class.function_table);
            self.static_variables(walk, methods)?;
        }
        let functions = self.compiler(self.reader.layout.compiler.function_table);
        let functions = walk.memory.u64(functions)?;
        self.static_variables(walk, functions)?;
        self.constants(walk)?;
        let layout = self.reader.layout.executor;
        let globals = at(self.addresses.executor, layout.symbol_table);
        let node = walk.place(NONE, Key::Same, Kind::Globals, globals);
        let followed = walk.table(node, globals, Keys::Elements, 0, u32::MAX);
        walk.readable(followed)?;
        self.stack_pages(walk)?;
        self.frames(walk, &(1..=FIRST_VALUES))
    }

    /// The variables that had more values than were followed at first.
    pub(super) fn other_frames(&mut self, walk: &mut Walk<'_>) -> Result<(), MemoryError> {
        let mut counts = self
            .functions
            .values()
            .flat_map(|known| known.variables.values());
        if counts.all(|(_, count)| *count <= FIRST_VALUES) {
            return Ok(());
        }
        for known in self.functions.values_mut() {
            known
                .variables
                .values_mut()
                .for_each(|(_, count)| *count = 0);
        }
        self.frames(walk, &(FIRST_VALUES + 1..=u32::MAX))
    }

    fn compiler(&self, offset: u32) -> u64 {
        at(self.addresses.compiler, offset)
    }

    /// The elements of the table that the pointer at `address` leads to.
    fn table(&self, walk: &mut Walk<'_>, address: u64) -> Result<Vec<values::Bucket>, MemoryError> {
        let table = walk.memory.u64(address)?;
        self.buckets(walk, table)
    }

    fn buckets(&self, walk: &mut Walk<'_>, table: u64) -> Result<Vec<values::Bucket>, MemoryError> {
        match self.reader.buckets(table) {
            Ok(buckets) => Ok(buckets),
            Err(ZendError::Memory(MemoryError::TimeUp)) => Err(MemoryError::TimeUp),
            Err(_) => {
                walk.lost += 1;
                Ok(Vec::new())
            }
        }
    }

    /// A class's static properties and constants.
    fn class(&mut self, walk: &mut Walk<'_>, class: u64) -> Result<(), MemoryError> {
        let layout = self.reader.layout.class;
        let mut node = None;
        let count = walk.memory.u32(at(class, layout.static_members_count))?;
        let members = match count {
            0 => 0,
            _ => walk.map_pointer(at(class, layout.static_members))?,
        };
        if members != 0 {
            for property in self.buckets(walk, at(class, layout.properties_info))? {
                let info = self.reader.layout.property;
                let offset = walk.memory.u32(at(property.value, info.offset))?;
                let flags = walk.memory.u32(at(property.value, info.flags))?;
                let declaring = walk.memory.u64(at(property.value, info.class))?;
                if flags & STATIC == 0 || declaring != class || offset >= count {
                    continue;
                }
                let (kind, word) = walk.zval(members.wrapping_add(u64::from(offset) * 16))?;
                if kind >= STRING {
                    let node = node_of(walk, &mut node, Kind::Class, class);
                    walk.visit(node, Key::StaticProperty(property.key), kind, word)?;
                }
            }
            let owner = node_of(walk, &mut node, Kind::Class, class);
            walk.take(owner, members, Block::Code);
        }
        let constants = match layout.mutable_data {
            Some(offset) => match walk.map_pointer(at(class, offset))? {
                0 => 0,
                // zend_class_mutable_data.constants_table
                own => walk.memory.u64(at(own, 8))?,
            },
            None => 0,
        };
        let constants = match constants {
            0 => at(class, layout.constants),
            own => own,
        };
        for constant in self.buckets(walk, constants)? {
            // zend_class_constant begins with the value.
            let (kind, word) = walk.zval(constant.value)?;
            if kind >= STRING && walk.slots.find(word).is_some() {
                let node = node_of(walk, &mut node, Kind::Class, class);
                walk.visit(node, Key::ClassConstant(constant.key), kind, word)?;
            }
        }
        Ok(())
    }

    /// The static variables of a table's functions.
    fn static_variables(&self, walk: &mut Walk<'_>, table: u64) -> Result<(), MemoryError> {
        let layout = self.reader.layout;
        for function in self.buckets(walk, table)? {
            let [kind] = walk.memory.word(at(function.value, layout.function.kind))?;
            if kind == super::objects::INTERNAL_FUNCTION {
                continue;
            }
            let pointer = at(function.value, layout.op_array.static_variables_pointer);
            let variables = walk.map_pointer(pointer);
            let Some(variables) = walk.readable(variables.map(Some))? else {
                continue;
            };
            if variables == 0 || walk.slots.find(variables).is_none() {
                continue;
            }
            let node = walk.place(NONE, Key::Same, Kind::Function, function.value);
            if walk.take(node, variables, Block::Array).is_some() {
                let rest = walk.table(node, variables, Keys::StaticVariables, 0, u32::MAX);
                walk.readable(rest)?;
            }
        }
        Ok(())
    }

    fn constants(&self, walk: &mut Walk<'_>) -> Result<(), MemoryError> {
        let layout = self.reader.layout.executor;
        let mut node = None;
        for constant in self.table(walk, at(self.addresses.executor, layout.zend_constants))? {
            // zend_constant begins with the value.
            let value = walk.zval(constant.value);
            let Some((kind, word)) = walk.readable(value.map(Some))? else {
                continue;
            };
            if kind >= STRING && walk.slots.find(word).is_some() {
                let node = node_of(walk, &mut node, Kind::Constants, 0);
                let visited = walk.visit(node, Key::Constant(constant.key), kind, word);
                walk.readable(visited.map(Some))?;
            }
        }
        Ok(())
    }

    /// The pages of the VM's stack, and the table of all objects.
    fn stack_pages(&self, walk: &mut Walk<'_>) -> Result<(), MemoryError> {
        let layout = self.reader.layout;
        let store = walk.store.buckets;
        walk.take(NONE, store, Block::ObjectStore);
        let mut page = walk
            .memory
            .u64(at(self.addresses.executor, layout.executor.vm_stack))?;
        for _ in 0..MOST_STACK_PAGES {
            if page == 0 || walk.take(NONE, page, Block::VmStack).is_none() {
                break;
            }
            page = walk.memory.u64(at(page, layout.vm_stack.prev))?;
        }
        Ok(())
    }

    /// The variables of the frames on the stack, the innermost first; of the values that each variable has
    /// in them those of these numbers, from 1 on.
    fn frames(
        &mut self,
        walk: &mut Walk<'_>,
        numbers: &RangeInclusive<u32>,
    ) -> Result<(), MemoryError> {
        let layout = self.reader.layout;
        let current = layout.executor.current_execute_data;
        let mut frame = walk.memory.u64(at(self.addresses.executor, current))?;
        // Brent's way to find a loop.
        let (mut landmark, mut next_landmark) = (0, 1_u64);
        for steps in 1..MOST_FRAMES {
            if frame == 0 || frame == landmark {
                break;
            }
            if steps == next_landmark {
                (landmark, next_landmark) = (frame, next_landmark.saturating_mul(2));
                walk.memory.in_time()?;
            }
            let taken = self.frame(walk, frame, numbers);
            walk.readable(taken.map(Some))?;
            frame = walk.memory.u64(at(frame, layout.execute_data.prev))?;
        }
        Ok(())
    }

    fn frame(
        &mut self,
        walk: &mut Walk<'_>,
        frame: u64,
        numbers: &RangeInclusive<u32>,
    ) -> Result<(), MemoryError> {
        let layout = self.reader.layout.execute_data;
        let function = walk.memory.u64(at(frame, layout.func))?;
        if function == 0 {
            return Ok(());
        }
        if let std::collections::hash_map::Entry::Vacant(entry) = self.functions.entry(function) {
            entry.insert(Function {
                names: walk.variable_names(function)?,
                ..Function::default()
            });
        }
        if self.is_global(walk, frame, function)? {
            return Ok(());
        }
        let names = self.functions.get(&function).and_then(|known| known.names);
        let (kind, this) = walk.zval(at(frame, layout.this))?;
        if kind == OBJECT {
            self.value(walk, function, (THIS, Key::This), (kind, this), numbers)?;
        }
        let owner = self.functions.get_mut(&function);
        if let Some(known) = owner {
            let owner = node_of(walk, &mut known.node, Kind::Function, function);
            walk.closure_of(owner, function)?;
        }
        let first = at(frame, layout.variables);
        let count = match names {
            Some((_, count)) => count,
            None => walk
                .memory
                .u32(at(frame, layout.arguments_count))?
                .min(super::objects::MOST_VARIABLES),
        };
        for number in 0..count {
            let value = walk.zval(at(first, number * 16))?;
            if value.0 < STRING {
                continue;
            }
            let key = match names {
                Some((names, _)) => Key::Variable(walk.memory.u64(at(names, number * 8))?),
                None => Key::Argument(number + 1),
            };
            self.value(walk, function, (number, key), value, numbers)?;
        }
        Ok(())
    }

    /// Whether a frame's variables are those of `$GLOBALS`.
    fn is_global(
        &self,
        walk: &mut Walk<'_>,
        frame: u64,
        function: u64,
    ) -> Result<bool, MemoryError> {
        let layout = self.reader.layout;
        let name = at(function, layout.function.function_name);
        let table = at(frame, layout.execute_data.symbol_table);
        let globals = at(self.addresses.executor, layout.executor.symbol_table);
        Ok(walk.memory.u64(name)? == 0 && walk.memory.u64(table)? == globals)
    }

    /// Takes one variable's value.
    fn value(
        &mut self,
        walk: &mut Walk<'_>,
        function: u64,
        (number, key): (u32, Key),
        (kind, word): (u8, u64),
        numbers: &RangeInclusive<u32>,
    ) -> Result<(), MemoryError> {
        let Some(known) = self.functions.get_mut(&function) else {
            return Ok(());
        };
        let (node, count) = match known.variables.get_mut(&number) {
            Some(found) => found,
            None => {
                let owner = node_of(walk, &mut known.node, Kind::Function, function);
                let node = walk.place(owner, key, Kind::Variable, function);
                known.variables.entry(number).or_insert((node, 0))
            }
        };
        *count += 1;
        match numbers.contains(count) {
            true => walk.visit(*node, Key::Same, kind, word),
            false => Ok(()),
        }
    }
}

/// The node of a place, made when it is first needed.
fn node_of(walk: &mut Walk<'_>, node: &mut Option<Number>, kind: Kind, address: u64) -> Number {
    *node.get_or_insert_with(|| walk.place(NONE, Key::Same, kind, address))
}
