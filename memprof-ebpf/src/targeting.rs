//! Which requests are recorded, as the agent tells the programs.

use bytemuck::{Pod, Zeroable};

/// Names of FastCGI variables and values that are compared are at most so long.
pub const TEXT_BYTES: usize = 64;
/// Patterns of paths are at most so long.
pub const PATTERN_BYTES: usize = 128;
/// Methods are at most so long, with a zero behind.
pub const METHOD_BYTES: usize = 16;

/// A worker that stops for a forced request: the record of the ring `URGENT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ForcedStart {
    /// CLOCK_MONOTONIC in ns.
    pub time: u64,
    /// Process id of the worker.
    pub pid: u32,
    /// [`crate::WorkerState::request`]
    pub request: u32,
}

/// A short text, with zeros behind.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Text {
    /// Bytes; 0 stands for no text.
    pub length: u32,
    /// For the name of a FastCGI variable: its hash.
    pub hash: u32,
    /// The bytes.
    pub words: [u64; TEXT_BYTES / 8],
}

impl Text {
    /// `None` where the text is longer than [`TEXT_BYTES`].
    #[must_use]
    pub const fn new(text: &[u8]) -> Option<Self> {
        if text.len() > TEXT_BYTES {
            return None;
        }
        let mut words = [0; TEXT_BYTES / 8];
        let mut index = 0;
        while index < text.len() {
            words[index / 8] |= (text[index] as u64) << (index % 8 * 8);
            index += 1;
        }
        Some(Self {
            length: text.len() as u32,
            hash: hash(text),
            words,
        })
    }

    /// The name of a FastCGI variable that is known when this is compiled.
    #[must_use]
    pub const fn known(name: &[u8]) -> Self {
        match Self::new(name) {
            Some(text) => text,
            None => panic!("longer than TEXT_BYTES"),
        }
    }
}

/// `FCGI_HASH_FUNC` (main/fastcgi.c, 7.4 to 8.6).
const fn hash(name: &[u8]) -> u32 {
    let length = name.len();
    if length <= 3 {
        return length as u32;
    }
    ((name[3] as u32) << 2)
        + ((name[length - 2] as u32) << 4)
        + ((name[length - 1] as u32) << 2)
        + length as u32
}

/// A pattern of paths: `*` stands for any bytes, `?` for one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Pattern {
    /// Bytes; 0 matches every path.
    pub length: u32,
    /// Keeps the struct's size a multiple of eight.
    pub reserved: u32,
    /// The pattern.
    pub bytes: [u8; PATTERN_BYTES],
}

/// Which requests are recorded: the value of the map `TARGETING`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Targeting {
    /// The FastCGI variable of the header that forces a request's recording; none where the share
    /// of the requests decides.
    pub header: Text,
    /// What the header has to hold; none where it only has to be there.
    pub value: Text,
    /// 1 if each forced request takes one of the permits that the agent gives out.
    pub is_limited: u32,
    /// 1 if `method` has to be the request's.
    pub has_method: u32,
    /// The method, with zeros behind.
    pub method: [u8; METHOD_BYTES],
    /// The pattern that the request's path has to match.
    pub path: Pattern,
}
