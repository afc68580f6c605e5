//! From the kernel side's ids to named stacks.

use std::collections::HashMap;

use memprof_ebpf::{FunctionEvent, StackFrame, frame_flags, stack_flags};

use crate::{
    profile::{StackId, Stacks},
    record::frame::Frame,
    zend::frame::{FunctionKind, Include, RawFrame, own_lines},
};

/// What stands for the frames further out than the walk went.
const CUT: &str = "[deeper frames not recorded]";

/// Functions and stacks as the kernel side has named them so far.
///
/// What keeps its meaning for as long as php-fpm runs is kept; what is one request's alone (code
/// outside opcache's memory) is forgotten when the worker's next request starts, but for the stacks where
/// they are asked for later: their ids hold the request's number, so none means two things.
#[derive(Debug, Default)]
pub struct Names {
    keep_stacks: bool,
    lasting: Table,
    passing: HashMap<u32, Table>,
}

#[derive(Debug, Default)]
struct Table {
    functions: HashMap<u64, Function>,
    stacks: HashMap<u64, StackId>,
}

#[derive(Clone, Debug)]
struct Function {
    kind: FunctionKind,
    name: Option<String>,
    class: Option<String>,
    file: Option<String>,
    fn_flags: u32,
    line_start: u32,
}

impl Names {
    /// None so far.
    #[must_use]
    pub fn new(keep_stacks: bool) -> Self {
        Self {
            keep_stacks,
            ..Self::default()
        }
    }

    /// A worker starts a request.
    pub fn request_started(&mut self, pid: u32) {
        if let Some(passed) = self.passing.remove(&pid)
            && self.keep_stacks
        {
            self.lasting.stacks.extend(passed.stacks);
        }
    }

    /// A function that was seen for the first time.
    pub fn add_function(&mut self, event: &FunctionEvent) {
        let internal = event.flags & frame_flags::INTERNAL != 0;
        let function = Function {
            kind: if internal {
                FunctionKind::Internal
            } else {
                FunctionKind::User
            },
            name: text(&event.name, event.name_length),
            class: text(&event.class, event.class_length),
            file: text(&event.file, event.file_length),
            fn_flags: event.fn_flags,
            line_start: event.line_start,
        };
        let passing = event.flags & frame_flags::PASSING != 0;
        self.table(event.header.pid, passing)
            .functions
            .insert(event.function, function);
    }

    /// A stack that was seen for the first time.
    pub fn add_stack(
        &mut self,
        pid: u32,
        id: u64,
        flags: u32,
        frames: &[StackFrame],
        stacks: &mut Stacks,
    ) {
        let raw: Vec<RawFrame> = frames.iter().map(|frame| self.raw(pid, frame)).collect();
        let named = own_lines(&raw).into_iter().map(|frame| Frame {
            function: frame.function,
            file: frame.file,
            line: (frame.line != 0).then_some(frame.line),
        });
        let cut = (flags & stack_flags::CUT != 0).then(|| Frame {
            function: CUT.to_owned(),
            file: None,
            line: None,
        });
        let stack = stacks.intern(named.chain(cut));
        let passing = flags & stack_flags::PASSING != 0;
        self.table(pid, passing).stacks.insert(id, stack);
    }

    /// The stack that an event names; `None` where its description was lost.
    #[must_use]
    pub fn stack(&self, pid: u32, id: u64) -> Option<StackId> {
        if id == 0 {
            return Some(StackId::NONE);
        }
        let passing = self
            .passing
            .get(&pid)
            .and_then(|table| table.stacks.get(&id));
        passing.or_else(|| self.lasting.stacks.get(&id)).copied()
    }

    fn table(&mut self, pid: u32, passing: bool) -> &mut Table {
        if passing {
            self.passing.entry(pid).or_default()
        } else {
            &mut self.lasting
        }
    }

    fn raw(&self, pid: u32, frame: &StackFrame) -> RawFrame {
        let passing = self.passing.get(&pid);
        let function = passing
            .and_then(|table| table.functions.get(&frame.function))
            .or_else(|| self.lasting.functions.get(&frame.function));
        let known = frame.flags & (frame_flags::INTERNAL | frame_flags::NO_LINE) == 0;
        let Some(function) = function.cloned() else {
            return unknown(frame);
        };
        RawFrame {
            kind: function.kind,
            function: function.name,
            class: function.class,
            type_info: frame.type_info,
            fn_flags: function.fn_flags,
            file: function.file,
            line: known.then_some(frame.line),
            line_start: function.line_start,
            include: Include::from_extended_value(frame.include),
        }
    }
}

/// A frame whose function's description was lost.
fn unknown(frame: &StackFrame) -> RawFrame {
    RawFrame {
        kind: FunctionKind::Internal,
        function: Some("[unknown function]".to_owned()),
        class: None,
        type_info: frame.type_info,
        fn_flags: 0,
        file: None,
        line: None,
        line_start: 0,
        include: None,
    }
}

/// The filled part of a buffer; `None` where nothing is in it.
fn text(bytes: &[u8], length: u32) -> Option<String> {
    let filled = bytes.get(..length as usize)?;
    (!filled.is_empty()).then(|| String::from_utf8_lossy(filled).into_owned())
}
