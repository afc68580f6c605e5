//! Which program belongs to a probe site, and what the program is told of it.

use memprof_ebpf::cookie;

use crate::binary::{EmallocSize, Handler, MapEntry, ProbeSite, Register, Site};

/// A BPF program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The moments of a request.
    Request,
    /// Page runs and huge blocks.
    Growth,
    /// Files as they are loaded.
    Include,
    /// Every allocation call.
    Exact,
    /// Watched PHP functions as they are called, and as they return.
    Call,
    /// The memory-limit error, beside [`Program::Request`].
    Hold,
}

impl Program {
    /// Its name in the object.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Growth => "growth",
            Self::Include => "include",
            Self::Exact => "exact",
            Self::Call => "call",
            Self::Hold => "hold",
        }
    }
}

/// The program that handles a site.
#[must_use]
pub fn program_of(site: &Site) -> Program {
    match site {
        Site::RequestStart
        | Site::RequestEnd
        | Site::HeapReset
        | Site::SendHeaders
        | Site::ChunkTaken
        | Site::LimitError { .. } => Program::Request,
        Site::PagesTaken
        | Site::PagesFreed
        | Site::PagesCollected(_)
        | Site::PagesResized(_)
        | Site::HugeTaken
        | Site::HugeFreed
        | Site::HugeResized => Program::Growth,
        Site::CompileFile => Program::Include,
        Site::Emalloc(_) => Program::Exact,
        Site::Handler(_) | Site::HandlerReturn(_) => Program::Call,
    }
}

/// The cookie that a probe at this site carries.
#[must_use]
pub fn cookie_of(site: &ProbeSite) -> u64 {
    match site.site {
        Site::RequestStart => cookie::REQUEST_START,
        Site::RequestEnd => cookie::REQUEST_END,
        Site::HeapReset => cookie::HEAP_RESET,
        Site::SendHeaders => cookie::SEND_HEADERS,
        Site::ChunkTaken => cookie::CHUNK_TAKEN,
        Site::LimitError { size } => cookie::LIMIT_ERROR | u64::from(size.0) << 8,
        Site::PagesTaken => cookie::PAGES_TAKEN,
        Site::PagesFreed => cookie::PAGES_FREED,
        Site::PagesCollected(entry) => map_entry(cookie::PAGES_COLLECTED, entry, Register(0)),
        Site::PagesResized(store) => map_entry(cookie::PAGES_RESIZED, store.entry, store.value),
        Site::HugeTaken => cookie::HUGE_TAKEN,
        Site::HugeFreed => cookie::HUGE_FREED,
        Site::HugeResized => cookie::HUGE_RESIZED,
        Site::CompileFile => cookie::COMPILE_FILE,
        Site::Emalloc(EmallocSize::Fixed(bytes)) => {
            cookie::EMALLOC | cookie::SIZE_FIXED << 8 | u64::from(bytes) << 32
        }
        Site::Emalloc(EmallocSize::FirstArgument) => cookie::EMALLOC | cookie::SIZE_FIRST << 8,
        Site::Emalloc(EmallocSize::SecondArgument) => cookie::EMALLOC | cookie::SIZE_SECOND << 8,
        Site::Handler(Handler::Execute) => cookie::EXECUTE,
        Site::Handler(Handler::Query) => cookie::QUERY,
        Site::Handler(Handler::Rows) => cookie::ROWS,
        Site::Handler(Handler::Scope) => cookie::SCOPE,
        Site::HandlerReturn(Handler::Rows) => cookie::ROWS_RETURN,
        Site::HandlerReturn(_) => cookie::QUERY_RETURN,
    }
}

fn map_entry(kind: u64, entry: MapEntry, value: Register) -> u64 {
    let scale_shift = entry.scale.max(1).ilog2() as u8;
    let index = entry.index.map_or(31, |register| register.0);
    cookie::map_store(
        kind,
        entry.base.0,
        index,
        scale_shift,
        value.0,
        entry.displacement,
    )
}
