//! What objects hold: their properties, and what those of PHP's own classes have besides.

use super::super::memory::{MemoryError, at};
use super::super::slots::Slot;
use super::arrays::Keys;
use super::classes::{Class, Insides};
use super::nodes::{Block, Key, Number};
use super::walk::{ARRAY, OBJECT, REFERENCE, STRING, Walk, zval_in};

/// Property slots copied by one read.
const SLOTS_A_READ: u32 = 64;
/// `ZEND_ACC_CLOSURE` in `fn_flags`; in PHP 7.4 it is bit 20.
const ACC_CLOSURE: u32 = 1 << 22;
const ACC_CLOSURE_7_4: u32 = 1 << 20;
/// Most bytes of one object that are looked through for values.
const MOST_INSIDE: u64 = 64 << 10;
/// `zend_function.type` of an internal function.
pub(super) const INTERNAL_FUNCTION: u8 = 1;
/// Most variables of one function; real ones have a few dozen.
pub(super) const MOST_VARIABLES: u32 = 1 << 14;

impl Walk<'_> {
    /// Follows an object's properties and insides; `from` and what is returned count its elements in the
    /// table of its properties, where it has one.
    pub(super) fn object(
        &mut self,
        owner: Number,
        address: u64,
        from: u32,
        most: u32,
    ) -> Result<Option<u32>, MemoryError> {
        let layout = self.layout.object;
        let properties = self.memory.u64(at(address, layout.properties))?;
        if from == 0 {
            let Some(slot) = self.slots.find(address) else {
                return Ok(None);
            };
            let entry = self.memory.u64(at(address, layout.class))?;
            let class = self.classes.of(&mut self.memory, self.layout, entry)?;
            let block = match class.insides {
                Insides::Closure => Block::Closure,
                _ => Block::Object,
            };
            if let (Some(recording), Block::Closure) = (&mut self.recording, block) {
                recording.closures.push(owner);
            }
            self.add(owner, block, slot.bytes);
            self.declared(owner, at(address, layout.slots), class.properties)?;
            self.insides(owner, address, slot, class)?;
            // The table can be an array's too, after a cast.
            if self.take(owner, properties, Block::Array).is_none() {
                return Ok(None);
            }
        }
        match properties {
            0 => Ok(None),
            table => self.table(owner, table, Keys::Properties, from, most),
        }
    }

    fn declared(&mut self, owner: Number, first: u64, count: u32) -> Result<(), MemoryError> {
        let mut bytes = [0; SLOTS_A_READ as usize * 16];
        for start in (0..count).step_by(SLOTS_A_READ as usize) {
            let length = SLOTS_A_READ.min(count - start);
            let bytes = &mut bytes[..length as usize * 16];
            self.memory
                .read(first.wrapping_add(u64::from(start) * 16), bytes)?;
            for number in 0..length {
                let (kind, word) = zval_in(bytes, number * 16);
                self.visit(owner, Key::Slot(start + number), kind, word)?;
            }
        }
        Ok(())
    }

    fn insides(
        &mut self,
        owner: Number,
        object: u64,
        slot: Slot,
        class: Class,
    ) -> Result<(), MemoryError> {
        let behind = at(object, self.layout.object.slots + class.properties * 16);
        match class.insides {
            Insides::None | Insides::WeakReference => Ok(()),
            Insides::Closure => self.closure(owner, object),
            Insides::WeakMap => {
                let values = self.table(owner, slot.start, Keys::Insides, 0, u32::MAX);
                self.readable(values).map(drop)
            }
            Insides::Generator => {
                let frame = at(object, self.layout.generator.execute_data);
                let frame = self.memory.u64(frame)?;
                self.values_between(owner, behind, slot.end())?;
                self.own_frame(owner, frame)
            }
            Insides::Fiber => {
                self.values_between(owner, behind, slot.end())?;
                let Some(fiber) = self.layout.fiber else {
                    return Ok(());
                };
                let frame = self.memory.u64(at(object, fiber.execute_data))?;
                self.fiber_frames(owner, frame)
            }
            Insides::ArrayObject => {
                // spl_array_object begins with the zval of its array or object.
                let (kind, word) = self.zval(slot.start)?;
                self.visit(owner, Key::Same, kind, word)
            }
            Insides::FixedArray => self.fixed_array(owner, slot.start),
            Insides::Unknown => {
                self.inside(owner, object);
                self.values_between(owner, slot.start, object)?;
                self.values_between(owner, behind, slot.end())
            }
        }
    }

    /// The elements of an SplFixedArray: `spl_fixedarray` begins with their count and their address
    /// (7.4 to 8.5).
    fn fixed_array(&mut self, owner: Number, start: u64) -> Result<(), MemoryError> {
        let elements = self.memory.u64(at(start, 8))?;
        let Some(block) = self.take(owner, elements, Block::Array) else {
            return Ok(());
        };
        let count = self.memory.u64(start)?.min(block.bytes / 16);
        for index in 0..count {
            let (kind, word) = self.zval(elements.wrapping_add(index * 16))?;
            self.visit(owner, Key::Index(index.cast_signed()), kind, word)?;
        }
        Ok(())
    }

    /// A closure's bound variables, its `$this`, and its run-time cache.
    fn closure(&mut self, owner: Number, object: u64) -> Result<(), MemoryError> {
        let function = at(object, self.layout.closure.func);
        let layout = self.layout.op_array;
        let (kind, word) = self.zval(at(function, layout.size))?;
        self.visit(owner, Key::BoundThis, kind, word)?;
        let [kind] = self.memory.word(at(function, self.layout.function.kind))?;
        if kind == INTERNAL_FUNCTION {
            return Ok(());
        }
        let variables = match self.layout.map_pointer.is_indirect {
            // There the pointer leads to this member of the closure itself.
            true => self.memory.u64(at(function, layout.static_variables))?,
            false => self.map_pointer(at(function, layout.static_variables_pointer))?,
        };
        let cache = self.map_pointer(at(function, layout.run_time_cache))?;
        // Most caches are in the request's arena, which is no closure's.
        if self
            .slots
            .find(cache)
            .is_some_and(|slot| slot.start == cache)
        {
            self.take(owner, cache, Block::Code);
        }
        if self.take(owner, variables, Block::Array).is_some() {
            self.table(owner, variables, Keys::Bound, 0, u32::MAX)?;
        }
        Ok(())
    }

    /// The frame of a generator, a block of its own.
    fn own_frame(&mut self, owner: Number, frame: u64) -> Result<(), MemoryError> {
        let Some(block) = self.take(owner, frame, Block::Object) else {
            return Ok(());
        };
        let end = self.frame(owner, frame)?;
        self.values_between(owner, end, block.end())
    }

    /// The frames of a fiber that waits, from the innermost out.
    fn fiber_frames(&mut self, owner: Number, innermost: u64) -> Result<(), MemoryError> {
        let mut frame = innermost;
        while frame != 0 {
            // Frames stand on pages of the fiber's own stack.
            let Some(page) = self.slots.find(frame) else {
                return Ok(());
            };
            self.take(owner, page.start, Block::VmStack);
            self.frame(owner, frame)?;
            let prev = self.memory.u64(at(frame, self.layout.execute_data.prev))?;
            // Callers stand below on the same page, or on another.
            if prev >= frame && self.slots.find(prev).is_some_and(|slot| slot == page) {
                return Ok(());
            }
            frame = prev;
        }
        Ok(())
    }

    /// The variables of one frame that an object holds; returns where they end.
    fn frame(&mut self, owner: Number, frame: u64) -> Result<u64, MemoryError> {
        let layout = self.layout.execute_data;
        let function = self.memory.u64(at(frame, layout.func))?;
        let first = at(frame, layout.variables);
        if function == 0 {
            return Ok(first);
        }
        let (kind, this) = self.zval(at(frame, layout.this))?;
        if kind == OBJECT {
            self.visit(owner, Key::BoundThis, kind, this)?;
        }
        self.closure_of(owner, function)?;
        let names = self.variable_names(function)?;
        let count = match names {
            Some((_, count)) => count,
            None => self
                .memory
                .u32(at(frame, layout.arguments_count))?
                .min(MOST_VARIABLES),
        };
        for number in 0..count {
            let (kind, word) = self.zval(at(first, number * 16))?;
            if kind >= STRING {
                let key = match names {
                    Some((names, _)) => Key::Bound(self.memory.u64(at(names, number * 8))?),
                    None => Key::Argument(number + 1),
                };
                self.visit(owner, key, kind, word)?;
            }
        }
        Ok(at(first, count * 16))
    }

    /// Where the names of a user function's variables are, and how many; `None` for an internal function.
    pub(super) fn variable_names(
        &mut self,
        function: u64,
    ) -> Result<Option<(u64, u32)>, MemoryError> {
        let layout = self.layout.op_array;
        let [kind] = self.memory.word(at(function, self.layout.function.kind))?;
        if kind == INTERNAL_FUNCTION {
            return Ok(None);
        }
        let count = self.memory.u32(at(function, layout.variables_count))?;
        let names = self.memory.u64(at(function, layout.variables))?;
        Ok(Some((names, count.min(MOST_VARIABLES))))
    }

    /// The closure that a running function belongs to, which its frame holds.
    pub(super) fn closure_of(&mut self, owner: Number, function: u64) -> Result<(), MemoryError> {
        let flag = match self.layout.minor {
            (7, _) => ACC_CLOSURE_7_4,
            _ => ACC_CLOSURE,
        };
        let object = function.wrapping_sub(u64::from(self.layout.closure.func));
        // The function of a closure lies in the object, others do not.
        if self
            .slots
            .find(object)
            .is_none_or(|slot| slot.start != object)
        {
            return Ok(());
        }
        let flags = self
            .memory
            .u32(at(function, self.layout.function.fn_flags))?;
        match flags & flag {
            0 => Ok(()),
            _ => self.visit(owner, Key::Same, OBJECT, object),
        }
    }

    /// The values among the words between two addresses: each must look like a zval, and what it points
    /// to must look like what its type says.
    pub(super) fn values_between(
        &mut self,
        owner: Number,
        first: u64,
        end: u64,
    ) -> Result<(), MemoryError> {
        let length = end.saturating_sub(first).min(MOST_INSIDE) & !7;
        let mut found = 0;
        let mut offset = 0;
        while offset + 16 <= length {
            let address = first.wrapping_add(offset);
            offset += match self.value_at(address)? {
                Some((kind, word)) => {
                    self.visit(owner, Key::Inside(found), kind, word)?;
                    found += 1;
                    16
                }
                None => 8,
            };
        }
        Ok(())
    }

    /// The zval at an address where there may be none.
    pub(super) fn value_at(&mut self, address: u64) -> Result<Option<(u8, u64)>, MemoryError> {
        let [word, info]: [u64; 2] = [self.memory.u64(address)?, self.memory.u64(at(address, 8))?];
        // u1.type_info: the type and its flags; u2 can be anything.
        let kind = match info as u32 {
            0x106 => STRING,
            0x307 => ARRAY,
            0x308 => OBJECT,
            0x10a => REFERENCE,
            _ => return Ok(None),
        };
        if self.slots.find(word).is_none() || word & 7 != 0 {
            return Ok(None);
        }
        // gc.u.type_info has the type in its low four bits.
        let counted = self.memory.u32(at(word, 4))?;
        Ok((counted as u8 & 0xf == kind).then_some((kind, word)))
    }
}
