//! From the kernel side's ids to named stacks.

use std::collections::HashMap;

use memprof_ebpf::{ClassEvent, FunctionEvent, StackFrame, frame_flags, stack_flags};

use crate::{
    profile::{StackId, Stacks},
    record::frame::Frame,
    zend::frame::{FunctionKind, Include, RawFrame, own_lines},
};

/// What stands for the frames further out than the walk went.
const CUT: &str = "[deeper frames not recorded]";

/// What stands for a function whose name could not be had.
const UNKNOWN: &str = "[unknown function]";

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
    classes: HashMap<u64, String>,
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
        // Without a name it would pass for a file's top-level code.
        let unread = (event.incomplete != 0).then(|| UNKNOWN.to_owned());
        let function = Function {
            kind: if internal {
                FunctionKind::Internal
            } else {
                FunctionKind::User
            },
            name: text(&event.name, event.name_length).or(unread),
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

    /// A class that was seen for the first time.
    pub fn add_class(&mut self, event: &ClassEvent) {
        let passing = event.flags & frame_flags::PASSING != 0;
        if let Some(name) = text(&event.name, event.name_length) {
            self.table(event.header.pid, passing)
                .classes
                .insert(event.class, name);
        }
    }

    /// The name of a class; `None` where it is 0, or its description was lost.
    #[must_use]
    pub fn class(&self, pid: u32, id: u64) -> Option<&str> {
        let passing = self.passing.get(&pid);
        passing
            .and_then(|table| table.classes.get(&id))
            .or_else(|| self.lasting.classes.get(&id))
            .map(String::as_str)
    }

    /// A stack that was seen for the first time.
    pub fn add_stack(
        &mut self,
        pid: u32,
        id: u64,
        flags: u32,
        frames: &[StackFrame],
        stacks: &mut Stacks,
    ) -> StackId {
        let raw: Vec<RawFrame> = frames.iter().map(|frame| self.raw(pid, frame)).collect();
        let cut = (flags & stack_flags::CUT != 0).then(|| Frame {
            function: CUT.to_owned(),
            file: None,
            line: None,
        });
        let stack = stacks.intern(own_lines(&raw).into_iter().chain(cut));
        let passing = flags & stack_flags::PASSING != 0;
        self.table(pid, passing).stacks.insert(id, stack);
        stack
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
        function: Some(UNKNOWN.to_owned()),
        class: None,
        type_info: frame.type_info,
        fn_flags: 0,
        file: None,
        line: None,
        line_start: 0,
        include: None,
    }
}

/// The filled part of a buffer; `None` where nothing is in it. What fills it all was longer.
fn text(bytes: &[u8], length: u32) -> Option<String> {
    let filled = bytes.get(..length as usize)?;
    let mut text = String::from_utf8_lossy(filled).into_owned();
    if filled.len() == bytes.len() {
        text.push('…');
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    const PID: u32 = 7;
    const FUNCTION: u64 = 1;

    fn function(name: &str, flags: u32) -> FunctionEvent {
        let mut event = FunctionEvent::zeroed();
        event.header.pid = PID;
        event.function = FUNCTION;
        event.flags = flags;
        event.name[..name.len()].copy_from_slice(name.as_bytes());
        event.name_length = name.len() as u32;
        event
    }

    /// The names of a stack of one frame, as the kernel side would send it after these functions.
    fn named(names: &mut Names, flags: u32) -> Vec<String> {
        let mut stacks = Stacks::default();
        let frame = StackFrame {
            function: FUNCTION,
            ..StackFrame::zeroed()
        };
        names.add_stack(PID, 2, flags, &[frame], &mut stacks);
        let stack = names.stack(PID, 2).expect("it was added");
        let frames = stacks.frames(stack);
        frames.map(|frame| frame.function.clone()).collect()
    }

    #[test]
    fn what_was_cut_is_marked() {
        let mut names = Names::default();
        names.add_function(&function("short", frame_flags::INTERNAL));
        assert_eq!(named(&mut names, 0), ["short"]);
        assert_eq!(named(&mut names, stack_flags::CUT), ["short", CUT]);
        let long = "x".repeat(memprof_ebpf::NAME_BYTES);
        names.add_function(&function(&long, frame_flags::INTERNAL));
        assert_eq!(named(&mut names, 0), [long + "…"]);
    }

    #[test]
    fn a_name_that_could_not_be_read_is_unknown() {
        let mut names = Names::default();
        let mut unread = function("", 0);
        names.add_function(&unread);
        assert_eq!(named(&mut names, 0), ["include"]);
        unread.incomplete = 1;
        names.add_function(&unread);
        assert_eq!(named(&mut names, 0), [UNKNOWN]);
    }

    #[test]
    fn what_is_one_requests_alone_is_forgotten_with_it() {
        let mut names = Names::default();
        let passing = frame_flags::INTERNAL | frame_flags::PASSING;
        names.add_function(&function("first", passing));
        assert_eq!(named(&mut names, stack_flags::PASSING), ["first"]);
        names.request_started(PID + 1);
        assert!(names.stack(PID, 2).is_some());
        names.request_started(PID);
        assert_eq!(names.stack(PID, 2), None);
        assert_eq!(named(&mut names, stack_flags::PASSING), [UNKNOWN]);
    }
}
