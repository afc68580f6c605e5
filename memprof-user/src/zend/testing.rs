//! Memory images for tests: a small PHP process made by hand, and one of noise.

use std::collections::HashMap;
use std::sync::Mutex;

use nix::errno::Errno;

use crate::binary::{Decoded, Global, Globals, PhpVersion};

use super::builds;
use super::fingerprint::Fingerprint;
use super::layout::Layout;
use super::memory::{Memory, MemoryError};

/// A deterministic pseudo-random sequence (xorshift64*).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Bytes at addresses; what was not put there is not mapped.
#[derive(Clone, Default)]
pub(super) struct FakeMemory {
    pages: HashMap<u64, [u8; 4096]>,
    newest: u64,
}

impl FakeMemory {
    pub(super) fn put(&mut self, address: u64, bytes: &[u8]) {
        for (offset, byte) in (0_u64..).zip(bytes) {
            let at = address + offset;
            let page = self.pages.entry(at / 4096).or_insert([0; 4096]);
            page[(at % 4096) as usize] = *byte;
        }
    }

    pub(super) fn put_u64(&mut self, address: u64, value: u64) {
        self.put(address, &value.to_le_bytes());
    }

    pub(super) fn put_u32(&mut self, address: u64, value: u32) {
        self.put(address, &value.to_le_bytes());
    }

    /// Room for `size` zero bytes at a new address.
    pub(super) fn room(&mut self, size: u64) -> u64 {
        let address = 0x10_0000 + self.newest;
        self.newest += size.next_multiple_of(16) + 16;
        self.put(address, &vec![0; size as usize]);
        address
    }

    /// A new `zend_string`.
    pub(super) fn string(&mut self, layout: &Layout, text: &str) -> u64 {
        let address = self.room(u64::from(layout.string.val) + text.len() as u64 + 1);
        self.put_u64(address + u64::from(layout.string.len), text.len() as u64);
        self.put(address + u64::from(layout.string.val), text.as_bytes());
        address
    }

    /// A new C string.
    pub(super) fn c_string(&mut self, text: &str) -> u64 {
        let address = self.room(text.len() as u64 + 1);
        self.put(address, text.as_bytes());
        address
    }

    /// A new hash table from string keys to pointers.
    pub(super) fn table(&mut self, layout: &Layout, elements: &[(&str, u64)]) -> u64 {
        let data = self.room(elements.len() as u64 * 32);
        for (bucket, (key, value)) in (data..).step_by(32).zip(elements) {
            let hash = key.bytes().fold(5381_u64, |hash, byte| {
                hash.wrapping_mul(33).wrapping_add(u64::from(byte))
            });
            let name = self.string(layout, key);
            self.put_u64(bucket, *value);
            self.put_u32(bucket + 8, 13);
            self.put_u64(bucket + 16, hash | 1 << 63);
            self.put_u64(bucket + 24, name);
        }
        let table = self.room(56);
        self.put_u64(table + u64::from(layout.array.data), data);
        for offset in [layout.array.used, layout.array.count] {
            self.put_u32(table + u64::from(offset), elements.len() as u32);
        }
        table
    }

    /// Flips one bit somewhere in what is mapped.
    pub(super) fn flip(&mut self, random: &mut Random) {
        let mut pages: Vec<_> = self.pages.keys().copied().collect();
        pages.sort_unstable();
        let page = pages[random.below(pages.len() as u64) as usize];
        if let Some(bytes) = self.pages.get_mut(&page) {
            bytes[random.below(4096) as usize] ^= 1 << random.below(8);
        }
    }
}

impl Memory for FakeMemory {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), MemoryError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = address.wrapping_add(filled as u64);
            let within = (at % 4096) as usize;
            let length = (buffer.len() - filled).min(4096 - within);
            let page = self.pages.get(&(at / 4096));
            let page = page.ok_or(MemoryError::Unreadable {
                address,
                length: buffer.len(),
                errno: Errno::EFAULT,
            })?;
            buffer[filled..filled + length].copy_from_slice(&page[within..within + length]);
            filled += length;
        }
        Ok(())
    }
}

/// Memory whose words are drawn anew at each read: pointers into itself, small numbers, noise.
pub(super) struct Noise(pub(super) Mutex<Random>);

impl Memory for Noise {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), MemoryError> {
        let unreadable = MemoryError::Unreadable {
            address,
            length: buffer.len(),
            errno: Errno::EFAULT,
        };
        let mut random = self.0.lock().map_err(|_| unreadable.clone())?;
        // One page in 200 or so is not mapped.
        if random.below(200) <= buffer.len() as u64 / 4096 {
            return Err(unreadable);
        }
        for word in buffer.chunks_mut(8) {
            let value = match random.below(4) {
                0 => 0,
                1 => random.below(300),
                2 => 0x20_0000 + random.below(64) * 8,
                _ => random.next(),
            };
            word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
        }
        Ok(())
    }
}

/// A process of one known layout, at rest: constants, classes, a heap of one chunk.
pub(super) struct Image {
    pub(super) memory: FakeMemory,
    pub(super) layout: Layout,
    pub(super) globals: Globals,
    pub(super) decoded: Decoded,
    pub(super) version: PhpVersion,
}

/// The heap's chunk in an [`Image`].
pub(super) const CHUNK: u64 = 0x4000_0000;
/// The heap in an [`Image`].
pub(super) const HEAP: u64 = CHUNK + 0x40;

impl Image {
    /// A process with the layout measured on PHP `php`.
    pub(super) fn new(php: &str) -> Image {
        let (fingerprint, layout) = builds::ALL
            .into_iter()
            .find(|(_, layout)| layout.php == php)
            .expect("a known layout");
        let mut memory = FakeMemory::default();
        let globals = globals(&mut memory, fingerprint);
        let heap_pointer = memory.room(8);
        memory.put_u64(heap_pointer, HEAP);
        let (major, minor) = layout.minor;
        let mut image = Image {
            memory,
            layout,
            globals,
            decoded: Decoded {
                heap_pointer,
                heap_size: 0x10,
                heap_peak: 0x18,
                heap_real_size: 0x110,
                heap_real_peak: 0x118,
                heap_limit: 0x120,
                chunk_map: 0x220,
                current_execute_data: layout.executor.current_execute_data,
                object_buckets: layout.executor.object_buckets,
            },
            version: PhpVersion {
                major,
                minor,
                patch: 36,
            },
        };
        image.tables();
        image.heap();
        image
    }

    /// Address of a member of `executor_globals`.
    pub(super) fn executor(&self, offset: u32) -> u64 {
        self.globals.executor.address + u64::from(offset)
    }

    fn tables(&mut self) {
        let layout = self.layout;
        let (major, minor) = layout.minor;
        let version = self.memory.string(&layout, &format!("{major}.{minor}.36"));
        let constant = self.memory.room(32);
        self.memory.put_u64(constant, version);
        let constants = self
            .memory
            .table(&layout, &[("E_ALL", constant), ("PHP_VERSION", constant)]);
        let at = self.executor(layout.executor.zend_constants);
        self.memory.put_u64(at, constants);
        let linked = 1 << 3;
        let classes = [
            ("stdclass", self.class("stdClass", linked)),
            ("traversable", self.class("Traversable", linked | 1)),
            ("app\\mixin", self.class("App\\Mixin", linked | 2)),
            ("app\\unlinked", self.class("App\\Unlinked", 0)),
            ("\0app\\later/a.php:3$0", self.class("App\\Later", linked)),
        ];
        let table = self.memory.table(&layout, &classes);
        let at = self.globals.compiler.address + u64::from(layout.compiler.class_table);
        self.memory.put_u64(at, table);
    }

    /// A new class.
    pub(super) fn class(&mut self, name: &str, flags: u32) -> u64 {
        let name = self.memory.string(&self.layout, name);
        let class = self.memory.room(528);
        self.memory
            .put_u64(class + u64::from(self.layout.class.name), name);
        self.memory
            .put_u32(class + u64::from(self.layout.class.flags), flags);
        class
    }

    /// One chunk: a page for its header, a large run of 3, a small run of 2, the rest free.
    fn heap(&mut self) {
        let memory = &mut self.memory;
        memory.put(CHUNK, &[0; 4096]);
        memory.put_u64(CHUNK, HEAP);
        memory.put_u64(CHUNK + u64::from(self.layout.chunk.next), CHUNK);
        memory.put_u32(CHUNK + u64::from(self.layout.chunk.free_pages), 506);
        memory.put(CHUNK + 0x220 - 64, &[0b11_1111]);
        let runs = [
            1 << 30 | 1,
            1 << 30 | 3,
            0,
            0,
            1 << 31 | 22,
            3 << 30 | 22 | 1 << 16,
        ];
        for (page, entry) in (0_u64..).zip(runs) {
            memory.put_u32(CHUNK + 0x220 + page * 4, entry);
        }
        for (offset, value) in [
            (0x10, 20_000),
            (0x18, 30_000),
            (0x110, 2 << 20),
            (0x118, 4 << 20),
            (0x120, 128 << 20),
            (0x148, CHUNK),
        ] {
            memory.put_u64(HEAP + offset, value);
        }
        memory.put_u32(HEAP + 0x158, 1);
        memory.put_u32(HEAP + 0x15c, 2);
    }
}

fn globals(memory: &mut FakeMemory, fingerprint: Fingerprint) -> Globals {
    let mut global = |size: u64| Global {
        address: memory.room(size),
        size,
    };
    Globals {
        executor: global(fingerprint.executor),
        compiler: global(fingerprint.compiler),
        core: global(fingerprint.core),
        sapi: global(fingerprint.sapi),
        session: fingerprint.session.map(global),
    }
}
