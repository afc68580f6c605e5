//! An ELF file: its symbols, its segments, and the bounds of its functions.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;

use gimli::UnwindSection;
use object::read::{ReadCache, RelocationTarget};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol};

use super::{BinaryError, Global};

/// No PHP build comes near this size in bytes (the largest measured has 16 MB).
const LARGEST_FILE: u64 = 512 << 20;

/// Whether an executable is PHP: told by what it exports, never by its name.
///
/// Reads only the headers and the dynamic symbols, so it can be asked of every process.
/// `false` for a file that is not ELF.
///
/// # Errors
/// [`BinaryError::Read`] if the file cannot be read at all.
pub fn is_php(file: &File) -> Result<bool, BinaryError> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let cache = ReadCache::new(file);
    let Ok(elf) = object::File::parse(&cache) else {
        return Ok(false);
    };
    let (mut heap, mut globals) = (false, false);
    for symbol in elf
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition())
    {
        match symbol.name_bytes() {
            Ok(b"zend_mm_get_heap") => heap = true,
            Ok(b"executor_globals" | b"executor_globals_offset") => globals = true,
            _ => {}
        }
    }
    Ok(heap && globals)
}

/// An ELF file, read whole.
pub struct ElfImage {
    data: Vec<u8>,
    machine: object::Architecture,
    build_id: Option<String>,
    segments: Vec<Segment>,
    symbols: HashMap<String, Global>,
    /// Slot of the global offset table -> the name of the function that the loader puts there.
    imports: HashMap<u64, String>,
    /// Slot of the global offset table -> the address that the loader puts there.
    pointers: HashMap<u64, u64>,
    /// Bounds of every function and every cold part of one, sorted.
    functions: Vec<Range<u64>>,
}

/// A loaded segment.
#[derive(Clone, Copy)]
struct Segment {
    address: u64,
    offset: u64,
    size: u64,
}

impl ElfImage {
    /// Reads an ELF file.
    ///
    /// # Errors
    /// [`BinaryError::Read`], [`BinaryError::TooLarge`] or [`BinaryError::Malformed`].
    pub fn open(file: File) -> Result<Self, BinaryError> {
        let size = file.metadata()?.len();
        let too_large = |size| BinaryError::TooLarge {
            size,
            limit: LARGEST_FILE,
        };
        if size > LARGEST_FILE {
            return Err(too_large(size));
        }
        let mut data = Vec::new();
        // The file may grow while it is read.
        file.take(LARGEST_FILE + 1).read_to_end(&mut data)?;
        if data.len() as u64 > LARGEST_FILE {
            return Err(too_large(data.len() as u64));
        }
        Self::parse(data)
    }

    fn parse(data: Vec<u8>) -> Result<Self, BinaryError> {
        let malformed = |error: object::Error| BinaryError::Malformed(error.to_string());
        let elf = object::File::parse(data.as_slice()).map_err(malformed)?;
        let segments = elf
            .segments()
            .map(|segment| {
                let (offset, size) = segment.file_range();
                Segment {
                    address: segment.address(),
                    offset,
                    size,
                }
            })
            .collect();
        let symbols = elf
            .dynamic_symbols()
            .filter(|symbol| symbol.is_definition())
            .filter_map(|symbol| {
                let global = Global {
                    address: symbol.address(),
                    size: symbol.size(),
                };
                Some((symbol.name().ok()?.to_owned(), global))
            })
            .collect();
        let (imports, pointers) = slots(&elf);
        let functions = functions(&elf)?;
        Ok(Self {
            machine: elf.architecture(),
            build_id: elf.build_id().map_err(malformed)?.map(hex),
            segments,
            symbols,
            imports,
            pointers,
            functions,
            data,
        })
    }

    /// The processor that the code is for.
    pub fn machine(&self) -> object::Architecture {
        self.machine
    }

    /// The GNU build-id in hex.
    pub fn build_id(&self) -> Option<&str> {
        self.build_id.as_deref()
    }

    /// A symbol that the file defines and exports.
    pub fn symbol(&self, name: &str) -> Option<Global> {
        self.symbols.get(name).copied()
    }

    /// The names of all symbols that the file defines and exports, in no order.
    pub fn symbol_names(&self) -> impl Iterator<Item = &str> {
        self.symbols.keys().map(String::as_str)
    }

    /// The exported name of the function that starts at an address.
    pub fn name_at(&self, address: u64) -> Option<&str> {
        // Several names may share an address; the first in order keeps the answer stable.
        self.symbols
            .iter()
            .filter(|(_, symbol)| symbol.address == address)
            .map(|(name, _)| name.as_str())
            .min()
    }

    /// Where in the file the byte at an ELF virtual address is, as uprobes want it.
    pub fn file_offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let within = address.checked_sub(segment.address)?;
            (within < segment.size)
                .then(|| segment.offset.checked_add(within))
                .flatten()
        })
    }

    /// The ELF virtual address of a byte of the file.
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let within = offset.checked_sub(segment.offset)?;
            (within < segment.size)
                .then(|| segment.address.checked_add(within))
                .flatten()
        })
    }

    /// What a process adds to this file's addresses, told by one line of its `/proc/PID/maps`:
    /// where the mapping starts and which offset of the file is there. `None` if no loaded
    /// segment of this file is mapped from that offset: then the mapping is of another file.
    pub fn load_bias(&self, mapping_start: u64, mapping_offset: u64) -> Option<u64> {
        self.load_bias_in_pages(procfs::page_size(), mapping_start, mapping_offset)
    }

    /// The same where the kernel's pages, from whose boundaries it maps a file, have `page` bytes:
    /// 4096 on x86-64, up to 65536 on aarch64.
    fn load_bias_in_pages(
        &self,
        page: u64,
        mapping_start: u64,
        mapping_offset: u64,
    ) -> Option<u64> {
        let from_page_of = |offset: u64| offset - offset.checked_rem(page).unwrap_or(0);
        let starts_there =
            |segment: &&Segment| from_page_of(segment.offset) == mapping_offset && segment.size > 0;
        // The loader makes a part of a segment read-only: its mapping begins inside.
        let reaches_there = |segment: &&Segment| {
            let within = mapping_offset.checked_sub(segment.offset);
            within.is_some_and(|within| within < segment.size)
        };
        let segment = self
            .segments
            .iter()
            .find(starts_there)
            .or_else(|| self.segments.iter().find(reaches_there))?;
        let address = segment
            .address
            .wrapping_sub(segment.offset)
            .wrapping_add(mapping_offset);
        Some(mapping_start.wrapping_sub(address))
    }

    /// The file's bytes behind a range of ELF virtual addresses.
    pub fn bytes(&self, range: Range<u64>) -> Option<&[u8]> {
        let length = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        let start = usize::try_from(self.file_offset(range.start)?).ok()?;
        self.data.get(start..start.checked_add(length)?)
    }

    /// The file's bytes, for searching strings.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The bounds of the function, or of the cold part of one, that holds an address: from
    /// `.eh_frame`, which survives stripping.
    pub fn function_at(&self, address: u64) -> Option<Range<u64>> {
        let after = self.functions.partition_point(|f| f.start <= address);
        let function = self.functions.get(after.checked_sub(1)?)?;
        function.contains(&address).then(|| function.clone())
    }

    /// The bounds of every function and every cold part of one, sorted by address.
    pub fn functions(&self) -> &[Range<u64>] {
        &self.functions
    }

    /// The name of the imported function whose address the loader puts into a slot.
    pub fn import(&self, slot: u64) -> Option<&str> {
        self.imports.get(&slot).map(String::as_str)
    }

    /// The address in this file that the loader puts into a slot.
    pub fn pointer(&self, slot: u64) -> Option<u64> {
        self.pointers.get(&slot).copied()
    }
}

/// The dynamic relocations: what the loader writes where.
fn slots(elf: &object::File<'_>) -> (HashMap<u64, String>, HashMap<u64, u64>) {
    let (mut imports, mut pointers) = (HashMap::new(), HashMap::new());
    let names = elf.dynamic_symbol_table();
    for (slot, relocation) in elf.dynamic_relocations().into_iter().flatten() {
        let addend = relocation.addend();
        match relocation.target() {
            RelocationTarget::Absolute => {
                pointers.insert(slot, addend as u64);
            }
            RelocationTarget::Symbol(index) => {
                let symbol = names.as_ref().and_then(|n| {
                    use object::ObjectSymbolTable;
                    n.symbol_by_index(index).ok()
                });
                let Some(symbol) = symbol else { continue };
                if symbol.is_definition() {
                    pointers.insert(slot, symbol.address().wrapping_add_signed(addend));
                } else if let Ok(name) = symbol.name() {
                    imports.insert(slot, name.to_owned());
                }
            }
            _ => {}
        }
    }
    (imports, pointers)
}

fn functions(elf: &object::File<'_>) -> Result<Vec<Range<u64>>, BinaryError> {
    let Some(section) = elf.section_by_name(".eh_frame") else {
        return Err(BinaryError::Malformed(
            "there is no .eh_frame section, which bounds functions".to_owned(),
        ));
    };
    let malformed = |error: gimli::Error| BinaryError::Malformed(format!(".eh_frame: {error}"));
    let data = section
        .data()
        .map_err(|error| BinaryError::Malformed(format!(".eh_frame: {error}")))?;
    let endian = if elf.is_little_endian() {
        gimli::RunTimeEndian::Little
    } else {
        gimli::RunTimeEndian::Big
    };
    let mut frames = gimli::EhFrame::new(data, endian);
    frames.set_address_size(if elf.is_64() { 8 } else { 4 });
    let bases = gimli::BaseAddresses::default().set_eh_frame(section.address());
    let mut functions = Vec::new();
    let mut entries = frames.entries(&bases);
    while let Some(entry) = entries.next().map_err(malformed)? {
        let gimli::CieOrFde::Fde(partial) = entry else {
            continue;
        };
        let frame = partial
            .parse(gimli::EhFrame::cie_from_offset)
            .map_err(malformed)?;
        functions.push(frame.initial_address()..frame.end_address());
    }
    functions.sort_by_key(|function| (function.start, function.end));
    // Functions do not overlap; a file in which they do would make every scan endless.
    let mut end = 0;
    functions.retain(|function| {
        let follows = function.start >= end && function.end > function.start;
        if follows {
            end = function.end;
        }
        follows
    });
    Ok(functions)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn this_test() -> File {
        File::open("/proc/self/exe").expect("the running test can be read")
    }

    fn with_segments(segments: &[(u64, u64, u64)]) -> ElfImage {
        ElfImage {
            data: Vec::new(),
            machine: object::Architecture::X86_64,
            build_id: None,
            segments: segments
                .iter()
                .map(|&(address, offset, size)| Segment {
                    address,
                    offset,
                    size,
                })
                .collect(),
            symbols: HashMap::new(),
            imports: HashMap::new(),
            pointers: HashMap::new(),
            functions: Vec::new(),
        }
    }

    /// As `readelf -l` shows Debian's php-fpm 8.2: data 0x1000 further than its offset says.
    fn like_php() -> ElfImage {
        with_segments(&[
            (0, 0, 0x5_0000),
            (0x5_0000, 0x5_0000, 0x30_0000),
            (0x54_fd50, 0x54_ed50, 0x3_0000),
        ])
    }

    #[test]
    fn the_load_bias_comes_from_any_mapping() {
        let image = like_php();
        let bias = 0x5555_5555_0000;
        let load_bias = |start, offset| image.load_bias_in_pages(0x1000, start, offset);
        assert_eq!(load_bias(bias, 0), Some(bias));
        assert_eq!(load_bias(bias + 0x5_0000, 0x5_0000), Some(bias));
        assert_eq!(load_bias(bias + 0x54_f000, 0x54_e000), Some(bias));
        // What the loader split off after making its start read-only.
        assert_eq!(load_bias(bias + 0x56_f000, 0x56_e000), Some(bias));
        assert_eq!(load_bias(bias, 0x90_0000), None, "not of this file");
    }

    #[test]
    fn larger_pages_begin_earlier_in_the_file() {
        // As `readelf -l` shows Debian's arm64 php-fpm 8.4: aligned to 64 KiB.
        let image = with_segments(&[(0, 0, 0x52_e1f8), (0x53_ffa8, 0x52_ffa8, 0x9_1a50)]);
        let bias = 0xaaaa_aaaa_0000;
        for (page, offset) in [
            (0x1000, 0x52_f000),
            (0x4000, 0x52_c000),
            (0x1_0000, 0x52_0000),
        ] {
            let start = bias + 0x1_0000 + offset;
            assert_eq!(image.load_bias_in_pages(page, start, offset), Some(bias));
            assert_eq!(image.load_bias_in_pages(page, bias, 0), Some(bias));
        }
    }

    #[test]
    fn file_offsets_and_addresses_undo_each_other() {
        let image = like_php();
        assert_eq!(image.file_offset(0x55_0000), Some(0x54_f000));
        assert_eq!(image.address_of(0x54_f000), Some(0x55_0000));
        assert_eq!(
            image.file_offset(0x54_fd50 + 0x3_0000),
            None,
            "behind the file's bytes"
        );
        assert_eq!(image.file_offset(u64::MAX), None);
    }

    #[test]
    fn functions_are_sorted_and_hold_their_start() {
        let image = ElfImage::open(this_test()).expect("the running test is ELF");
        assert!(image.functions().len() > 100);
        assert!(image.functions().windows(2).all(|f| f[0].end <= f[1].start));
        for function in image.functions().iter().take(50) {
            assert_eq!(image.function_at(function.start).as_ref(), Some(function));
            assert_eq!(image.function_at(function.end - 1).as_ref(), Some(function));
        }
        assert_eq!(image.function_at(0), None);
    }

    #[test]
    fn other_files_are_not_php() {
        assert!(!is_php(&this_test()).expect("readable"));
        let mut text = tempfile::tempfile().expect("a temporary file");
        assert!(!is_php(&text).expect("readable"), "empty");
        text.write_all(b"#!/bin/sh\n").expect("written");
        assert!(!is_php(&text).expect("readable"));
    }

    #[test]
    fn a_cut_file_is_an_error() {
        let mut whole = Vec::new();
        this_test().read_to_end(&mut whole).expect("readable");
        for length in [0, 1, 63, 64, 1000, whole.len() / 2] {
            let cut = whole[..length].to_vec();
            assert!(ElfImage::parse(cut).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn another_machine_is_named() {
        let mut whole = Vec::new();
        this_test().read_to_end(&mut whole).expect("readable");
        // e_machine: EM_RISCV.
        whole[18..20].copy_from_slice(&243_u16.to_le_bytes());
        let image = ElfImage::parse(whole).expect("still ELF");
        let error = super::super::code::Code::new(&image)
            .err()
            .expect("not decoded");
        assert!(error.to_string().contains("Riscv64"), "{error}");
    }
}
