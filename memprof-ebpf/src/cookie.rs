//! Probe cookies: what the kernel side is told of the site that was hit.

/// `php_request_startup`
pub const REQUEST_START: u64 = 1;
/// `php_request_shutdown`
pub const REQUEST_END: u64 = 2;
/// `zend_mm_shutdown`
pub const HEAP_RESET: u64 = 3;
/// `sapi_send_headers`
pub const SEND_HEADERS: u64 = 4;
/// Chunk allocator.
pub const CHUNK_TAKEN: u64 = 5;
/// The memory-limit error; the register with the bytes asked for is in bits 8 to 15.
pub const LIMIT_ERROR: u64 = 6;
/// Result of the page allocator.
pub const PAGES_TAKEN: u64 = 7;
/// `zend_mm_free_pages`
pub const PAGES_FREED: u64 = 8;
/// A store into the page map, see [`map_store`].
pub const PAGES_RESIZED: u64 = 9;
/// Return of the huge allocator.
pub const HUGE_TAKEN: u64 = 10;
/// `zend_mm_free_huge`
pub const HUGE_FREED: u64 = 11;
/// Return of the huge reallocator.
pub const HUGE_RESIZED: u64 = 12;
/// Target of `zend_compile_file`.
pub const COMPILE_FILE: u64 = 13;
/// An allocation entry; bits 8 to 9 say where the size is ([`SIZE_FIXED`] …), bits 32 on hold a fixed size.
pub const EMALLOC: u64 = 14;
/// A run of small blocks is about to be emptied in the page map, see [`map_store`].
pub const PAGES_COLLECTED: u64 = 15;
/// A function that runs the query of its statement object.
pub const EXECUTE: u64 = 16;
/// A function that runs the query in its first or second argument.
pub const QUERY: u64 = 17;
/// A function that returns the rows of a result.
pub const ROWS: u64 = 18;
/// A function that Laravel calls for each scope.
pub const SCOPE: u64 = 19;
/// A return of a function that runs a query.
pub const QUERY_RETURN: u64 = 20;
/// A return of a function that returns rows.
pub const ROWS_RETURN: u64 = 21;

/// The size is in the cookie.
pub const SIZE_FIXED: u64 = 0;
/// The size is the first argument.
pub const SIZE_FIRST: u64 = 1;
/// The size is the second argument.
pub const SIZE_SECOND: u64 = 2;

/// The kind of site.
#[must_use]
pub const fn kind(cookie: u64) -> u64 {
    cookie & 0xff
}

/// Packs `[base + index * scale + displacement] = value`: register numbers, with 31 for no
/// index, and the scale's logarithm.
#[must_use]
pub const fn map_store(
    kind: u64,
    base: u8,
    index: u8,
    scale_shift: u8,
    value: u8,
    displacement: i32,
) -> u64 {
    kind | (base as u64 & 31) << 8
        | (index as u64 & 31) << 13
        | (scale_shift as u64 & 3) << 18
        | (value as u64 & 31) << 20
        | (displacement as u32 as u64) << 32
}
