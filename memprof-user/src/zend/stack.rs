//! The PHP stack of a live process, read from outside.
//!
//! The process is not stopped, so a stack may be torn: frames of one moment below frames of the
//! next. Where a frame makes no sense the walk ends there and says so. The line of a function
//! that computes without calling anything is that of its last call, because PHP writes the
//! instruction pointer back to memory only there.

use std::collections::{HashMap, HashSet, VecDeque};

use super::ZendError;
use super::frame::{FunctionKind, IS_OBJECT, Include, RawFrame};
use super::memory::{Bytes, MemoryError, at};
use super::recursion::{Recursion, Seen, Turns, WINDOW};
use super::values::Reader;

/// Longest chain of `yield from` that is followed in one place.
const MOST_GENERATORS: usize = 1024;

/// A stack, innermost frame first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The frames, unnamed: [`own_lines`](super::frame::own_lines) and
    /// [`call_sites`](super::frame::call_sites) name them.
    pub frames: Vec<RawFrame>,
    /// How the stack ends.
    pub end: StackEnd,
}

/// Both ends of a stack that may be too deep to be kept whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackEnds {
    /// The innermost frames, innermost first.
    pub innermost: Vec<RawFrame>,
    /// How many frames between the two ends were passed over.
    pub skipped: u64,
    /// The outermost frames, innermost first.
    pub outermost: Vec<RawFrame>,
    /// The circle that its innermost frames turn in, with all its turns.
    pub recursion: Option<Recursion>,
    /// Whether it is all there.
    pub end: StackEnd,
}

/// The frames of a stack behind its innermost ones.
#[derive(Default)]
struct Rest {
    /// The innermost frames, which are taken already.
    to_pass: u64,
    skipped: u64,
    /// Addresses and functions of the outermost frames.
    last: VecDeque<(u64, u64)>,
    turns: Option<Turns>,
}

/// How a stack ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StackEnd {
    /// At its outermost frame. Of a process that was not standing still this does not prove that
    /// all frames are of one moment.
    Whole,
    /// After as many frames as were asked for; there are more.
    Cut,
    /// At a frame that could not be read or came twice: the process went on while it was read.
    Torn(String),
}

/// What a function's own memory says of it; the same for all its frames.
#[derive(Clone)]
struct FunctionFacts {
    kind: FunctionKind,
    name: Option<String>,
    class: Option<String>,
    fn_flags: u32,
    code: Option<Code>,
}

/// What only a user function has.
#[derive(Clone)]
struct Code {
    file: Option<String>,
    line_start: u32,
    opcodes: u64,
    /// Bytes of instructions at `opcodes`.
    length: u64,
}

/// What a frame's current instruction says.
#[derive(Default)]
struct Instruction {
    line: Option<u32>,
    include: Option<Include>,
    /// The function that a frameless call is for.
    frameless: Option<u64>,
}

/// Walks one stack.
pub(super) struct Walk<'a> {
    reader: Reader<'a>,
    executor: u64,
    /// The table `zend_flf_functions`.
    frameless_functions: Option<u64>,
    most_frames: usize,
    functions: HashMap<u64, FunctionFacts>,
    seen: HashSet<u64>,
    frames: Vec<RawFrame>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        reader: Reader<'a>,
        executor: u64,
        frameless_functions: Option<u64>,
        most_frames: usize,
    ) -> Walk<'a> {
        Walk {
            reader,
            executor,
            frameless_functions,
            most_frames,
            functions: HashMap::new(),
            seen: HashSet::new(),
            frames: Vec::new(),
        }
    }

    /// Walks from `EG(current_execute_data)` outwards.
    pub(super) fn run(mut self) -> Result<Stack, ZendError> {
        let current = at(
            self.executor,
            self.reader.layout.executor.current_execute_data,
        );
        let mut address = self.reader.memory.u64(current)?;
        let mut end = loop {
            if address == 0 {
                break StackEnd::Whole;
            }
            if self.frames.len() >= self.most_frames {
                break StackEnd::Cut;
            }
            match self.frame(address) {
                Ok(prev) => address = prev,
                Err(error) => break StackEnd::Torn(error.to_string()),
            }
        };
        // One step can take several frames: generators that wait for each other, a frameless call.
        if self.frames.len() > self.most_frames {
            self.frames.truncate(self.most_frames);
            end = StackEnd::Cut;
        }
        Ok(Stack {
            frames: self.frames,
            end,
        })
    }

    /// Walks the whole stack, and takes `each_end` frames from both of its ends.
    ///
    /// Those between are counted, but for generators that wait in `yield from`.
    pub(super) fn ends(mut self, each_end: usize) -> Result<StackEnds, ZendError> {
        let layout = self.reader.layout;
        let current = at(self.executor, layout.executor.current_execute_data);
        let current = self.reader.memory.u64(current)?;
        let (mut address, mut passed) = (current, 0);
        let mut end = StackEnd::Whole;
        while address != 0 && self.frames.len() < each_end {
            match self.frame(address) {
                Ok(prev) => (address, passed) = (prev, passed + 1),
                Err(error) => (address, end) = (0, StackEnd::Torn(error.to_string())),
            }
        }
        let innermost = std::mem::take(&mut self.frames);
        let mut rest = Rest {
            to_pass: passed,
            turns: Turns::find(&self.window(current)),
            ..Rest::default()
        };
        if end == StackEnd::Whole
            && let Err(error) = self.pass(current, each_end, &mut rest)
        {
            end = StackEnd::Torn(error.to_string());
        }
        if let Err(error) = self.named(rest.last.iter().map(|(address, _)| *address)) {
            end = StackEnd::Torn(error.to_string());
        }
        let outermost = std::mem::take(&mut self.frames);
        let recursion = rest.turns.and_then(|turns| {
            self.named(turns.first_turn().iter().copied()).ok()?;
            Some(turns.into_recursion(std::mem::take(&mut self.frames)))
        });
        Ok(StackEnds {
            innermost,
            skipped: rest.skipped,
            outermost,
            recursion,
            end,
        })
    }

    /// Takes the frames at these addresses.
    fn named(&mut self, addresses: impl IntoIterator<Item = u64>) -> Result<(), ZendError> {
        self.seen.clear();
        for address in addresses {
            self.frame(address)?;
        }
        Ok(())
    }

    /// The innermost frames that have a function, as far as they can be read.
    fn window(&mut self, mut address: u64) -> Vec<Seen> {
        let mut window = Vec::new();
        // Frames without a function are few.
        for _ in 0..2 * WINDOW {
            if address == 0 || window.len() == WINDOW {
                break;
            }
            let Ok((function, prev)) = self.links(address) else {
                break;
            };
            if function != 0 {
                let Ok(facts) = self.function(function) else {
                    break;
                };
                window.push(Seen {
                    address,
                    function,
                    code: facts.code.map_or(function, |code| code.opcodes),
                });
            }
            address = prev;
        }
        window
    }

    /// The function of a frame, and its caller's address.
    fn links(&self, address: u64) -> Result<(u64, u64), MemoryError> {
        let layout = self.reader.layout.execute_data;
        Ok((
            self.reader.memory.u64(at(address, layout.func))?,
            self.reader.memory.u64(at(address, layout.prev))?,
        ))
    }

    /// Goes from `address` to the outermost frame; counts the frames behind those `to_pass`, but the
    /// last `kept`.
    fn pass(&self, mut address: u64, kept: usize, rest: &mut Rest) -> Result<(), ZendError> {
        // Brent's way to find a loop: it needs no memory, of which a million frames would take much.
        let (mut landmark, mut steps, mut next_landmark) = (0, 0_u64, 1_u64);
        while address != 0 {
            if address == landmark {
                return Err(ZendError::Inconsistent {
                    what: "the stack leads back to a frame that it already passed",
                    address,
                });
            }
            steps += 1;
            if steps == next_landmark {
                (landmark, next_landmark) = (address, next_landmark.saturating_mul(2));
            }
            let (function, prev) = self.links(address)?;
            if function != 0
                && let Some(turns) = &mut rest.turns
            {
                turns.next(function);
            }
            if steps > rest.to_pass {
                rest.last.push_back((address, function));
            }
            if rest.last.len() > kept
                && let Some((_, function)) = rest.last.pop_front()
            {
                rest.skipped += u64::from(function != 0);
            }
            address = prev;
        }
        Ok(())
    }

    /// Takes the frame at `address` and returns its caller's address.
    fn frame(&mut self, address: u64) -> Result<u64, ZendError> {
        let layout = self.reader.layout.execute_data;
        let bytes = self.execute_data(address)?;
        let prev = bytes.u64(layout.prev)?;
        if bytes.u64(layout.func)? != 0 {
            self.push(&bytes)?;
        } else if bytes.u32(layout.type_info)? & 0xff == IS_OBJECT {
            self.delegating_generators(bytes.u64(layout.this)?)?;
        }
        Ok(prev)
    }

    fn execute_data(&mut self, address: u64) -> Result<Bytes, ZendError> {
        if !self.seen.insert(address) {
            return Err(ZendError::Inconsistent {
                what: "the stack leads back to a frame that it already passed",
                address,
            });
        }
        let size = self.reader.layout.execute_data.size as usize;
        Ok(Bytes::read(self.reader.memory, address, size)?)
    }

    /// Takes a frame that has a function.
    fn push(&mut self, execute_data: &Bytes) -> Result<(), ZendError> {
        let layout = self.reader.layout.execute_data;
        let facts = self.function(execute_data.u64(layout.func)?)?;
        let instruction = match &facts.code {
            Some(code) => self.instruction(execute_data.u64(layout.opline)?, code)?,
            None => Instruction::default(),
        };
        if let Some(callee) = instruction.frameless {
            self.frameless_call(callee)?;
        }
        self.frames.push(RawFrame {
            kind: facts.kind,
            function: facts.name,
            class: facts.class,
            type_info: execute_data.u32(layout.type_info)?,
            fn_flags: facts.fn_flags,
            line_start: facts.code.as_ref().map_or(0, |code| code.line_start),
            file: facts.code.and_then(|code| code.file),
            line: instruction.line,
            include: instruction.include,
        });
        Ok(())
    }

    /// The frames of the generators that wait in `yield from`, innermost first.
    ///
    /// The innermost generator of such a chain runs on a frame of its own; below it stands one
    /// placeholder frame whose `$this` is the outermost, for all the others.
    fn delegating_generators(&mut self, outermost: u64) -> Result<(), ZendError> {
        if !self.is_generator(outermost)? {
            return Ok(());
        }
        let layout = self.reader.layout.generator;
        let mut waiting = Vec::new();
        let mut generator = outermost;
        loop {
            let parent = self.reader.memory.u64(at(generator, layout.parent))?;
            if parent == 0 {
                break;
            }
            waiting.push(generator);
            if waiting.len() > MOST_GENERATORS {
                return Err(ZendError::Inconsistent {
                    what: "a chain of `yield from` does not end",
                    address: outermost,
                });
            }
            generator = parent;
        }
        for generator in waiting.into_iter().rev() {
            let frame = self.reader.memory.u64(at(generator, layout.execute_data))?;
            let execute_data = self.execute_data(frame)?;
            self.push(&execute_data)?;
        }
        Ok(())
    }

    fn is_generator(&self, object: u64) -> Result<bool, MemoryError> {
        let layout = self.reader.layout;
        let class = self.reader.memory.u64(at(object, layout.object.class))?;
        let name = self.reader.memory.u64(at(class, layout.class.name))?;
        Ok(self.reader.string(name)? == "Generator")
    }

    /// The function at `address`, read once a walk.
    fn function(&mut self, address: u64) -> Result<FunctionFacts, ZendError> {
        if let Some(facts) = self.functions.get(&address) {
            return Ok(facts.clone());
        }
        let layout = self.reader.layout;
        let header = Bytes::read(self.reader.memory, address, layout.function.size as usize)?;
        let kind = FunctionKind::from_type(header.u8(layout.function.kind)?).ok_or(
            ZendError::Inconsistent {
                what: "a frame's function is of no known type",
                address,
            },
        )?;
        let scope = header.u64(layout.function.scope)?;
        let class = match scope {
            0 => None,
            scope => self.optional_string(self.reader.memory.u64(at(scope, layout.class.name))?)?,
        };
        let code = match kind {
            FunctionKind::User => Some(self.code(address)?),
            FunctionKind::Internal => None,
        };
        let facts = FunctionFacts {
            kind,
            name: self.optional_string(header.u64(layout.function.function_name)?)?,
            class,
            fn_flags: header.u32(layout.function.fn_flags)?,
            code,
        };
        self.functions.insert(address, facts.clone());
        Ok(facts)
    }

    fn code(&self, op_array: u64) -> Result<Code, MemoryError> {
        let memory = self.reader.memory;
        let layout = self.reader.layout;
        let last = memory.u32(at(op_array, layout.op_array.last))?;
        let filename = memory.u64(at(op_array, layout.op_array.filename))?;
        Ok(Code {
            file: self.optional_string(filename)?,
            line_start: memory.u32(at(op_array, layout.op_array.line_start))?,
            opcodes: memory.u64(at(op_array, layout.op_array.opcodes))?,
            length: u64::from(last) * u64::from(layout.op.size),
        })
    }

    fn optional_string(&self, address: u64) -> Result<Option<String>, MemoryError> {
        match address {
            0 => Ok(None),
            address => self.reader.string(address).map(Some),
        }
    }

    /// Reads the instruction that a frame stands at.
    fn instruction(&self, opline: u64, code: &Code) -> Result<Instruction, MemoryError> {
        if opline == 0 {
            return Ok(Instruction::default());
        }
        let layout = self.reader.layout;
        let bytes = Bytes::read(self.reader.memory, opline, layout.op.size as usize)?;
        let opcode = bytes.u8(layout.op.opcode)?;
        let is_own = (code.opcodes..code.opcodes.saturating_add(code.length)).contains(&opline);
        if !is_own {
            // While an exception unwinds, the frame stands at an instruction of the engine's.
            let line = match opcode == layout.opcodes.handle_exception {
                true => self.line_before_exception()?,
                false => None,
            };
            return Ok(Instruction {
                line,
                ..Instruction::default()
            });
        }
        let extended_value = bytes.u32(layout.op.extended_value)?;
        let include = (opcode == layout.opcodes.include_or_eval)
            .then(|| Include::from_extended_value(extended_value))
            .flatten();
        let is_frameless = layout
            .opcodes
            .frameless
            .is_some_and(|(first, last)| (first..=last).contains(&opcode));
        let frameless = match self.frameless_functions {
            Some(table) if is_frameless => {
                let functions = self.reader.memory.u64(table)?;
                let entry = functions.wrapping_add(u64::from(extended_value) * 8);
                Some(self.reader.memory.u64(entry)?)
            }
            _ => None,
        };
        Ok(Instruction {
            line: Some(bytes.u32(layout.op.lineno)?),
            include,
            frameless,
        })
    }

    fn line_before_exception(&self) -> Result<Option<u32>, MemoryError> {
        let layout = self.reader.layout;
        let opline = self
            .reader
            .memory
            .u64(at(self.executor, layout.executor.opline_before_exception))?;
        match opline {
            0 => Ok(None),
            opline => self
                .reader
                .memory
                .u32(at(opline, layout.op.lineno))
                .map(Some),
        }
    }

    /// The frame that `debug_backtrace()` shows for a frameless call, which has none (PHP 8.4 on).
    fn frameless_call(&mut self, function: u64) -> Result<(), ZendError> {
        let facts = self.function(function)?;
        self.frames.push(RawFrame {
            kind: FunctionKind::Internal,
            function: facts.name,
            class: facts.class,
            type_info: 0,
            fn_flags: facts.fn_flags,
            file: None,
            line: None,
            line_start: 0,
            include: None,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
