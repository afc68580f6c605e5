//! How a stack is named and numbered: the rules of PHP's `debug_backtrace()`, and the profiler's own.
//!
//! Pure: what goes in is what was read of each frame, from outside or by a probe in the kernel. The
//! rules are those of `zend_fetch_debug_backtrace()` in 7.4 to 8.6.
//!
//! Two conventions are in use. A *profile* gives each function with the line that it is executing
//! ([`own_lines`]). A *backtrace* gives each function with the place it was called from
//! ([`call_sites`]).

use crate::record::frame::{Frame, MAIN};

/// `This.u1.v.type` of a frame that has a `$this`.
pub(super) const IS_OBJECT: u32 = 8;
/// `ZEND_CALL_CODE` in `This.u1.type_info`: the frame runs a file's top-level code.
const CALL_CODE: u32 = 1 << 16;
/// `ZEND_CALL_TOP`: the frame was entered by the engine and not by an instruction.
const CALL_TOP: u32 = 1 << 17;
/// `ZEND_ACC_CALL_VIA_TRAMPOLINE` in `fn_flags`.
const VIA_TRAMPOLINE: u32 = 1 << 18;

/// What kind of function a frame runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FunctionKind {
    /// PHP code: a function, a method, a closure, or a file's top level.
    User,
    /// A function of PHP itself or of an extension.
    Internal,
}

impl FunctionKind {
    /// From `zend_function.type`: 1 is internal, 2 user, 4 eval'd code; `None` for anything else.
    pub fn from_type(kind: u8) -> Option<FunctionKind> {
        match kind {
            1 => Some(FunctionKind::Internal),
            2 | 4 => Some(FunctionKind::User),
            _ => None,
        }
    }
}

/// Which include a frame's current instruction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Include {
    /// `eval()`
    Eval,
    /// `include`
    Include,
    /// `include_once`
    IncludeOnce,
    /// `require`
    Require,
    /// `require_once`
    RequireOnce,
}

impl Include {
    /// From `zend_op.extended_value` of a `ZEND_INCLUDE_OR_EVAL`; `None` for an unknown kind.
    pub fn from_extended_value(value: u32) -> Option<Include> {
        match value {
            1 => Some(Include::Eval),
            2 => Some(Include::Include),
            4 => Some(Include::IncludeOnce),
            8 => Some(Include::Require),
            16 => Some(Include::RequireOnce),
            _ => None,
        }
    }

    /// The pseudo function's name in a backtrace.
    pub fn name(self) -> &'static str {
        match self {
            Include::Eval => "eval",
            Include::Include => "include",
            Include::IncludeOnce => "include_once",
            Include::Require => "require",
            Include::RequireOnce => "require_once",
        }
    }
}

/// One frame as it was read, before it has a name.
///
/// Frames without a function (`func == NULL`) are left out by whoever reads them; a `yield from`
/// placeholder among them stands for the generators behind it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RawFrame {
    /// What it runs.
    pub kind: FunctionKind,
    /// `function_name`; `None` for a file's top-level code and the engine's own frames.
    pub function: Option<String>,
    /// `scope->name`: the declaring class.
    pub class: Option<String>,
    /// `This.u1.type_info` of the frame.
    pub type_info: u32,
    /// `fn_flags` of the function.
    pub fn_flags: u32,
    /// The file of a user function.
    pub file: Option<String>,
    /// The line a user function is executing; `None` where its instruction was not readable.
    pub line: Option<u32>,
    /// The line a user function begins on; 0 for an internal one.
    pub line_start: u32,
    /// The include that a user function is executing.
    pub include: Option<Include>,
}

impl RawFrame {
    fn has_this(&self) -> bool {
        self.type_info & 0xff == IS_OBJECT
    }

    fn is_user(&self) -> bool {
        self.kind == FunctionKind::User
    }

    /// Whether this is a script that the SAPI runs, and no include.
    fn is_main(&self) -> bool {
        self.is_user()
            && self.function.is_none()
            && self.type_info & (CALL_CODE | CALL_TOP) == CALL_CODE | CALL_TOP
    }

    /// Whether the engine called this function in the middle of an instruction (`ZEND_CALL_TOP_FUNCTION`).
    fn is_callback(&self) -> bool {
        self.type_info & (CALL_CODE | CALL_TOP) == CALL_TOP
    }

    /// The line that a user function runs, or begins on where that is not known.
    fn current_line(&self) -> Option<u32> {
        let line = self.line.unwrap_or(self.line_start);
        (self.is_user() && line != 0).then_some(line)
    }

    /// `Class->method`, `Class::method` or `function`.
    fn display_name(&self) -> Option<String> {
        let function = printable(self.function.as_deref()?);
        Some(match &self.class {
            Some(class) => {
                let arrow = if self.has_this() { "->" } else { "::" };
                format!("{}{arrow}{function}", printable(class))
            }
            None => function,
        })
    }
}

/// Names a stack for a profile: each function with the line it is executing, innermost first.
///
/// The script's top level is `{main}`, an included file's is the include's name. Frames that the
/// engine made for its own ends are left out.
pub fn own_lines(stack: &[RawFrame]) -> Vec<Frame> {
    stack
        .iter()
        .enumerate()
        .filter_map(|(index, frame)| {
            let function = match frame.display_name() {
                Some(name) => name,
                None if frame.is_main() => MAIN.to_owned(),
                None if frame.is_user() => include_of(stack.get(index + 1)).name().to_owned(),
                None => return None,
            };
            Some(Frame {
                function,
                file: frame.file.clone(),
                line: frame.current_line(),
            })
        })
        .collect()
}

/// Which include brought in a file, told by its caller's instruction.
///
/// Where the caller is not in the stack (it is cut) or is no user code (`spl_autoload`), the
/// plain `include` is as good a name as any.
fn include_of(caller: Option<&RawFrame>) -> Include {
    caller
        .and_then(|caller| caller.include)
        .unwrap_or(Include::Include)
}

/// Names a stack as `debug_backtrace()` does: each function with the place it was called from,
/// innermost first and without `{main}`.
///
/// A function that an internal one called (a callback of `array_map`) has no file and no line.
pub fn call_sites(stack: &[RawFrame]) -> Vec<Frame> {
    let mut frames = Vec::with_capacity(stack.len());
    for (index, frame) in stack.iter().enumerate() {
        let callers = &stack[index + 1..];
        if callers.is_empty() && frame.is_main() {
            break;
        }
        let caller = callers.first().filter(|caller| caller.is_user());
        let site = call_site(callers);
        let place = |function: String| Frame {
            function,
            file: site.and_then(|site| site.file.clone()),
            line: site.and_then(RawFrame::current_line),
        };
        let include = caller.and_then(|caller| caller.include);
        match (frame.display_name(), include) {
            (Some(name), _) => frames.push(place(name)),
            (None, Some(include)) => frames.push(place(include.name().to_owned())),
            // PHP keeps a nameless frame only where it is the last to know the file and the line.
            (None, None) if caller.is_some() => frames.push(place("unknown".to_owned())),
            (None, None) => {}
        }
        // A stream wrapper that an include opens its file with stands on that include's frame.
        if let (true, Some(include)) = (frame.is_callback(), include) {
            frames.push(place(include.name().to_owned()));
        }
    }
    frames
}

/// The frame whose file and line a backtrace shows for a function with these callers.
fn call_site(callers: &[RawFrame]) -> Option<&RawFrame> {
    callers
        .iter()
        .find(|caller| caller.is_user() || caller.fn_flags & VIA_TRAMPOLINE == 0)
        .filter(|caller| caller.is_user())
}

/// A name without the path that PHP hides behind a NUL in the names of anonymous classes
/// (`class@anonymous\0/srv/app/x.php:3$0`), as PHP's own messages print it.
pub(super) fn printable(name: &str) -> String {
    match name.split_once('\0') {
        None => name.to_owned(),
        Some((shown, hidden)) => match hidden.split_once("::") {
            Some((_, rest)) => format!("{shown}::{rest}"),
            None => shown.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NESTED: u32 = 0;

    fn user(function: &str, line: u32) -> RawFrame {
        RawFrame {
            kind: FunctionKind::User,
            function: Some(function.to_owned()),
            class: None,
            type_info: NESTED,
            fn_flags: 0,
            file: Some("/srv/app/a.php".to_owned()),
            line: Some(line),
            line_start: 1,
            include: None,
        }
    }

    fn main(line: u32) -> RawFrame {
        RawFrame {
            function: None,
            type_info: CALL_CODE | CALL_TOP,
            ..user("", line)
        }
    }

    fn internal(function: &str) -> RawFrame {
        RawFrame {
            kind: FunctionKind::Internal,
            file: None,
            line: None,
            line_start: 0,
            ..user(function, 0)
        }
    }

    fn method(class: &str, function: &str, type_info: u32) -> RawFrame {
        RawFrame {
            class: Some(class.to_owned()),
            type_info,
            ..user(function, 7)
        }
    }

    /// Names and lines, 0 for none.
    fn shown(frames: &[Frame]) -> Vec<(&str, u32)> {
        frames
            .iter()
            .map(|frame| (frame.function.as_str(), frame.line.unwrap_or(0)))
            .collect()
    }

    #[test]
    fn methods_are_named_by_class_and_arrow() {
        let stack = [
            method("App\\Foo", "bar", IS_OBJECT),
            method("App\\Foo", "make", NESTED),
            method("App\\Foo", "App\\{closure}", IS_OBJECT),
            method("class@anonymous\0/srv/x.php:3$0", "go", IS_OBJECT),
            user("{closure:class@anonymous\0/srv/x.php:3$0::go():5}", 9),
        ];
        let names: Vec<_> = own_lines(&stack).into_iter().map(|f| f.function).collect();
        assert_eq!(
            names,
            [
                "App\\Foo->bar",
                "App\\Foo::make",
                "App\\Foo->App\\{closure}",
                "class@anonymous->go",
                "{closure:class@anonymous::go():5}"
            ]
        );
    }

    #[test]
    fn a_profile_has_own_lines_and_a_backtrace_call_sites() {
        let stack = [
            internal("strlen"),
            user("inner", 12),
            user("outer", 5),
            main(30),
        ];
        assert_eq!(
            shown(&own_lines(&stack)),
            [("strlen", 0), ("inner", 12), ("outer", 5), ("{main}", 30)]
        );
        assert_eq!(
            shown(&call_sites(&stack)),
            [("strlen", 12), ("inner", 5), ("outer", 30)]
        );
    }

    #[test]
    fn a_callback_of_an_internal_function_has_no_call_site() {
        let stack = [user("{closure}", 4), internal("array_map"), main(9)];
        let frames = call_sites(&stack);
        assert_eq!(shown(&frames), [("{closure}", 0), ("array_map", 9)]);
        assert_eq!(frames[0].file, None);
    }

    #[test]
    fn a_trampoline_does_not_hide_the_call_site() {
        let mut invoke = internal("__invoke");
        invoke.fn_flags = VIA_TRAMPOLINE;
        let stack = [user("{closure}", 4), invoke, main(9)];
        assert_eq!(
            shown(&call_sites(&stack)),
            [("{closure}", 9), ("__invoke", 9)]
        );
    }

    #[test]
    fn an_included_file_has_the_includes_name() {
        let file = RawFrame {
            function: None,
            type_info: CALL_CODE,
            ..user("", 3)
        };
        let requirer = RawFrame {
            include: Some(Include::RequireOnce),
            ..main(8)
        };
        let stack = [user("boot", 2), file.clone(), requirer];
        assert_eq!(
            shown(&call_sites(&stack)),
            [("boot", 3), ("require_once", 8)]
        );
        assert_eq!(
            shown(&own_lines(&stack)),
            [("boot", 2), ("require_once", 3), ("{main}", 8)]
        );
        assert_eq!(shown(&own_lines(&[file])), [("include", 3)]);
    }

    #[test]
    fn a_stream_wrapper_stands_on_the_include_that_opens_it() {
        let open = RawFrame {
            type_info: CALL_TOP | IS_OBJECT,
            ..method("Wrapper", "stream_open", 0)
        };
        let includer = RawFrame {
            include: Some(Include::Include),
            ..main(8)
        };
        assert_eq!(
            shown(&call_sites(&[open, includer])),
            [("Wrapper->stream_open", 8), ("include", 8)]
        );
    }

    #[test]
    fn a_fibers_nameless_bottom_frame_is_left_out() {
        let bottom = RawFrame {
            function: None,
            ..internal("")
        };
        let stack = [user("{closure}", 4), bottom, internal("start"), main(9)];
        assert_eq!(shown(&call_sites(&stack)), [("{closure}", 0), ("start", 9)]);
        assert_eq!(own_lines(&stack).len(), 3);
    }

    #[test]
    fn a_shutdown_function_has_nobody_below() {
        let mut last = user("{closure}", 4);
        last.type_info = CALL_TOP;
        assert_eq!(shown(&call_sites(&[last])), [("{closure}", 0)]);
    }

    #[test]
    fn an_unreadable_instruction_leaves_the_line_the_function_begins_on() {
        let mut frame = user("f", 0);
        frame.line = None;
        frame.line_start = 17;
        assert_eq!(shown(&own_lines(&[frame])), [("f", 17)]);
    }
}
