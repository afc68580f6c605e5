//! Bounded, typed reads of another process's memory.
//!
//! What is read belongs to a running process, possibly a hostile one: every read has a bound,
//! every sum of addresses is checked, and a failed read says which address and how many bytes.

use std::io::IoSliceMut;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use thiserror::Error;

/// Why a read failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MemoryError {
    /// The kernel refused, the process is gone, or the address is not mapped.
    #[error("cannot read {length} bytes at {address:#x}: {}{}", .errno.desc(), cure(*.errno))]
    Unreadable {
        /// First address of the read.
        address: u64,
        /// Bytes asked for.
        length: usize,
        /// What the kernel answered.
        errno: Errno,
    },
    /// A length that the memory itself gave is past its bound.
    #[error(
        "{what} at {address:#x} is {found}, past the bound of {bound}: the memory changed while it was read, or it is not what it was taken for"
    )]
    OutOfBounds {
        /// What was read: `zend_string.len`.
        what: &'static str,
        /// Where it was read.
        address: u64,
        /// The value found.
        found: u64,
        /// The largest value accepted.
        bound: u64,
    },
    /// The process was held for as long as it may be, and goes on.
    #[error("the process could be held no longer; allow more with --max-stop")]
    TimeUp,
}

fn cure(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => " (run as root, or give memprof CAP_SYS_PTRACE)",
        Errno::ESRCH => " (the process has ended)",
        _ => "",
    }
}

/// A source of memory: a live process, a copy of one, an image made for a test.
///
/// All values are little-endian, as on both machines that memprof knows.
pub trait Memory: Send + Sync {
    /// Fills `buffer` from `address` on, wholly or not at all.
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`] when a byte of the range cannot be read.
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), MemoryError>;

    /// Reads one byte.
    ///
    /// # Errors
    /// As [`Memory::read`].
    fn u8(&self, address: u64) -> Result<u8, MemoryError> {
        let mut buffer = [0; 1];
        self.read(address, &mut buffer)?;
        Ok(buffer[0])
    }

    /// Reads a 32-bit word.
    ///
    /// # Errors
    /// As [`Memory::read`].
    fn u32(&self, address: u64) -> Result<u32, MemoryError> {
        let mut buffer = [0; 4];
        self.read(address, &mut buffer)?;
        Ok(u32::from_le_bytes(buffer))
    }

    /// Reads a 64-bit word, a pointer for example.
    ///
    /// # Errors
    /// As [`Memory::read`].
    fn u64(&self, address: u64) -> Result<u64, MemoryError> {
        let mut buffer = [0; 8];
        self.read(address, &mut buffer)?;
        Ok(u64::from_le_bytes(buffer))
    }
}

impl<M: Memory + ?Sized> Memory for &M {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), MemoryError> {
        (**self).read(address, buffer)
    }
}

/// The memory of a live process, read with `process_vm_readv`; the process is not stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessMemory {
    pid: Pid,
}

impl ProcessMemory {
    /// Names the process; nothing is opened or read until the first [`Memory::read`].
    pub fn new(pid: i32) -> ProcessMemory {
        ProcessMemory {
            pid: Pid::from_raw(pid),
        }
    }
}

impl Memory for ProcessMemory {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), MemoryError> {
        let length = buffer.len();
        let unreadable = |errno| MemoryError::Unreadable {
            address,
            length,
            errno,
        };
        let base = usize::try_from(address).map_err(|_| unreadable(Errno::EFAULT))?;
        let remote = [RemoteIoVec { base, len: length }];
        let read = process_vm_readv(self.pid, &mut [IoSliceMut::new(buffer)], &remote)
            .map_err(unreadable)?;
        if read == length {
            Ok(())
        } else {
            Err(unreadable(Errno::EFAULT))
        }
    }
}

/// The bytes of one struct, read at once; fields are then taken by their offset.
#[derive(Clone, Debug)]
pub(super) struct Bytes {
    address: u64,
    data: Vec<u8>,
}

impl Bytes {
    /// Reads `length` bytes at `address`.
    pub(super) fn read(
        memory: &dyn Memory,
        address: u64,
        length: usize,
    ) -> Result<Bytes, MemoryError> {
        let mut data = vec![0; length];
        memory.read(address, &mut data)?;
        Ok(Bytes { address, data })
    }

    /// The byte at `offset`.
    pub(super) fn u8(&self, offset: u32) -> Result<u8, MemoryError> {
        self.field::<1>(offset).map(|[byte]| byte)
    }

    /// The 32-bit word at `offset`.
    pub(super) fn u32(&self, offset: u32) -> Result<u32, MemoryError> {
        self.field(offset).map(u32::from_le_bytes)
    }

    /// The 64-bit word at `offset`.
    pub(super) fn u64(&self, offset: u32) -> Result<u64, MemoryError> {
        self.field(offset).map(u64::from_le_bytes)
    }

    fn field<const N: usize>(&self, offset: u32) -> Result<[u8; N], MemoryError> {
        self.data
            .get(offset as usize..)
            .and_then(|tail| tail.first_chunk::<N>())
            .copied()
            .ok_or(MemoryError::Unreadable {
                address: self.address.wrapping_add(u64::from(offset)),
                length: N,
                errno: Errno::EFAULT,
            })
    }
}

/// `base + offset`, where `base` came out of the memory that is read.
///
/// Wraps instead of panicking: an address past the end is simply not mapped.
pub(super) fn at(base: u64, offset: u32) -> u64 {
    base.wrapping_add(u64::from(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> ProcessMemory {
        ProcessMemory::new(Pid::this().as_raw())
    }

    #[test]
    fn a_process_is_read_where_it_is_mapped() {
        let word = 0x1122_3344_5566_7788_u64;
        let address = &raw const word as u64;
        assert_eq!(own().u64(address), Ok(word));
        assert_eq!(own().u32(address), Ok(0x5566_7788));
        assert_eq!(own().u8(address + 7), Ok(0x11));
    }

    #[test]
    fn a_failed_read_says_where_how_much_and_why() {
        let error = own().u64(8).map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("cannot read 8 bytes at 0x8: Bad address".to_owned())
        );
        // No process has this number: the kernel's largest is 2^22.
        let error = ProcessMemory::new(i32::MAX).u64(8);
        assert!(matches!(
            error,
            Err(MemoryError::Unreadable {
                errno: Errno::ESRCH,
                ..
            })
        ));
    }

    #[test]
    fn a_field_outside_of_what_was_read_is_an_error() {
        let bytes = Bytes {
            address: 0x1000,
            data: vec![1; 12],
        };
        assert!(bytes.u64(4).is_ok());
        assert!(bytes.u64(5).is_err());
        assert!(bytes.u8(u32::MAX).is_err());
    }
}
