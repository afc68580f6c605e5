//! Where probes go, and what the registers hold there.

/// A machine register by its index in the architecture's user `pt_regs`.
///
/// x86-64: the field order of `struct pt_regs` (0 = r15, 1 = r14, 2 = r13, 3 = r12, 4 = rbp,
/// 5 = rbx, 6 = r11, 7 = r10, 8 = r9, 9 = r8, 10 = rax, 11 = rcx, 12 = rdx, 13 = rsi, 14 = rdi,
/// 19 = rsp). aarch64: 0 = x0 … 30 = x30.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u8);

/// The address of an entry of a chunk's page map: `base + index * scale + displacement`.
///
/// The chunk is the address rounded down to 2 MiB; the page's number is what lies between it
/// and the entry, less [`Decoded::chunk_map`](super::Decoded::chunk_map), divided by 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// Base register.
    pub base: Register,
    /// Index register.
    pub index: Option<Register>,
    /// 1, 2, 4 or 8.
    pub scale: u8,
    /// Displacement in bytes; may be negative.
    pub displacement: i32,
}

/// A store of a run's new length into the chunk's page map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapStore {
    /// The entry written: that of the run's first page.
    pub entry: MapEntry,
    /// The register whose low 10 bits are the new page count.
    pub value: Register,
}

/// How an `_emalloc*` or `_erealloc*` entry tells the size asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmallocSize {
    /// `_emalloc_56`: the size is in the name, in bytes.
    Fixed(u32),
    /// The size is the first argument.
    FirstArgument,
    /// The size is the second argument.
    SecondArgument,
}

/// What a probe at a site sees. Arguments are the ABI's integer argument registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// `php_request_startup`: the request's environment is there, no script has run.
    RequestStart,
    /// `php_request_shutdown`: the script has ended; shutdown functions and destructors follow.
    RequestEnd,
    /// `zend_mm_shutdown`: the heap is about to be reset; its peaks are final.
    HeapReset,
    /// `sapi_send_headers`
    SendHeaders,
    /// The result of the static `zend_mm_alloc_pages`: the return register holds the run's address, or 0.
    PagesTaken,
    /// The static `zend_mm_free_pages`: second to fourth argument are chunk, first page, page count.
    PagesFreed,
    /// `zend_mm_gc` frees a run of small blocks by code of its own: the run's map entry is about
    /// to be set to 0. It still holds the bin's number in its low 5 bits
    /// (`ZEND_MM_SRUN_BIN_NUM`, zend_alloc.c), which tells the page count.
    PagesCollected(MapEntry),
    /// A page run grows or shrinks in place (inlined into the realloc functions).
    PagesResized(MapStore),
    /// A return of the static `zend_mm_alloc_huge`: the return register holds the block, or 0;
    /// the block is the heap's newest `huge_list` node.
    HugeTaken,
    /// The static `zend_mm_free_huge`, or `zend_mm_del_huge_block` where the first is inlined:
    /// the second argument is the block.
    HugeFreed,
    /// A return of the static `zend_mm_realloc_huge` that did not move the block: the return
    /// register holds it, its `huge_list` node has the new size.
    HugeResized,
    /// The static chunk allocator: new memory is about to be mapped for a chunk or a huge block.
    ChunkTaken,
    /// The static memory-limit error function. `size` holds the bytes asked for.
    LimitError {
        /// The argument register with the bytes asked for.
        size: Register,
    },
    /// The target of `zend_compile_file`, found at run time: the first argument is the `zend_file_handle`.
    CompileFile,
    /// An `_emalloc*` or `_erealloc*` entry.
    Emalloc(EmallocSize),
    /// The entry of a PHP function's handler, found at run time: the first argument is its
    /// `zend_execute_data`, the second the zval for its result.
    Handler(Handler),
    /// A return of such a handler.
    HandlerReturn(Handler),
}

/// What a PHP function does that is written in C and watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// Runs the query of its statement object.
    Execute,
    /// Runs the query in its first or second argument.
    Query,
    /// Returns all rows of a result.
    Rows,
    /// Is called by Laravel for each scope that it applies.
    Scope,
}

/// One place where a probe may sit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSite {
    /// What is seen there.
    pub site: Site,
    /// The function it is in, by its C name.
    pub function: String,
    /// ELF virtual address.
    pub address: u64,
    /// The same as an offset in the file, as uprobes want it.
    pub file_offset: u64,
    /// The instruction as text.
    pub instruction: String,
    /// Whether the kernel emulates it at a uprobe; if not it is single-stepped, which costs a second trap.
    pub emulated: bool,
    /// Why this place: how the function was found and why this instruction.
    pub why: String,
}
