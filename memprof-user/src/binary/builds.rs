//! Holds every PHP build below the folder `MEMPROF_PHP_BINARIES` against what was measured.
//!
//! The expected values were measured without this decoder: by `offsetof` on each version's
//! headers, and for the allocator's private structures by reading live processes.

use std::fs::File;
use std::path::{Path, PathBuf};

use object::Architecture;

use super::{
    Decoded, ElfImage, EmallocSize, MapEntry, PhpBinary, PhpVersion, ProbeSite, Site, is_php,
};
use crate::zend::Machine;
use crate::zend::layout::Layout;

/// What differs between the versions: offsets in bytes.
struct Expected {
    version: (u8, u8, u8),
    executor_size: u64,
    real_size: u32,
    chunk_map: u32,
    current_execute_data: u32,
    object_buckets: u32,
}

const fn expected(
    version: (u8, u8, u8),
    executor_size: u64,
    real_size: u32,
    chunk_map: u32,
    current_execute_data: u32,
    object_buckets: u32,
) -> Expected {
    Expected {
        version,
        executor_size,
        real_size,
        chunk_map,
        current_execute_data,
        object_buckets,
    }
}

/// For both architectures: what is read from these structures stands at the same offsets.
const EXPECTED: [Expected; 12] = [
    expected((7, 4, 33), 1664, 0x110, 0x208, 488, 840),
    expected((8, 2, 20), 1776, 0x110, 0x208, 488, 840),
    expected((8, 2, 32), 1776, 0x110, 0x208, 488, 840),
    expected((8, 2, 36), 1800, 0x110, 0x220, 488, 840),
    expected((8, 3, 8), 1792, 0x110, 0x208, 488, 840),
    expected((8, 4, 14), 1960, 0x118, 0x260, 488, 856),
    expected((8, 4, 24), 1960, 0x118, 0x260, 488, 856),
    expected((8, 4, 27), 1984, 0x118, 0x270, 488, 856),
    expected((8, 4, 28), 1984, 0x118, 0x270, 488, 856),
    expected((8, 5, 2), 1984, 0x118, 0x250, 512, 880),
    expected((8, 5, 7), 1984, 0x118, 0x250, 512, 880),
    expected((8, 6, 0), 2200, 0x118, 0x250, 512, 928),
];

/// Addresses in one aarch64 build, by a decoder of its own that shares no code with this one.
struct Found {
    build_id: &'static str,
    heap_pointer: u64,
    alloc_pages: u64,
    alloc_huge: u64,
    alloc_small_slow: u64,
    chunk_alloc: u64,
    limit_error: u64,
    /// Of each of [`ENTRIES`]: bytes from its start to the first emulated instruction in front of
    /// which no argument is lost.
    entries: [u64; 10],
}

const ENTRIES: [&str; 10] = [
    "_emalloc",
    "_emalloc_56",
    "_emalloc_huge",
    "_emalloc_large",
    "_erealloc2",
    "php_request_startup",
    "php_request_shutdown",
    "sapi_send_headers",
    "zend_mm_chunk_alloc_int",
    "zend_mm_safe_error",
];

/// Debian's builds for aarch64.
const FOUND: [Found; 6] = [
    // 7.4.33
    Found {
        build_id: "ae6a0fab2a7f1e76f08c52c9337c74362f21cad8",
        heap_pointer: 0x49_b248,
        alloc_pages: 0x25_aa10,
        alloc_huge: 0x25_af90,
        alloc_small_slow: 0x25_aeb0,
        chunk_alloc: 0x25_9fb0,
        limit_error: 0xd_2278,
        entries: [0, 0, 0, 4, 4, 4, 4, 4, 0x10, 4],
    },
    // 8.2.36
    Found {
        build_id: "d036f70f1cb258627546f514cf8b5cb1d01f96b0",
        heap_pointer: 0x57_8fe0,
        alloc_pages: 0x2a_f5b4,
        alloc_huge: 0x2a_fc00,
        alloc_small_slow: 0x2a_faf0,
        chunk_alloc: 0x2a_e820,
        limit_error: 0xe_9230,
        entries: [0, 0, 0, 4, 4, 4, 4, 4, 0x10, 8],
    },
    // 8.4.28
    Found {
        build_id: "100b2f44526171e1ec0db8e87d3649ae23850d60",
        heap_pointer: 0x5e_94d0,
        alloc_pages: 0x30_9aec,
        alloc_huge: 0x30_a140,
        alloc_small_slow: 0x30_9fa4,
        chunk_alloc: 0x30_8b50,
        limit_error: 0xe_d93c,
        entries: [4, 4, 4, 8, 8, 8, 0x18, 8, 0x14, 0xc],
    },
    // 8.4.27
    Found {
        build_id: "43c189fd81143fad53e770244453f31bfc204780",
        heap_pointer: 0x5f_9890,
        alloc_pages: 0x31_5b0c,
        alloc_huge: 0x31_6170,
        alloc_small_slow: 0x31_5fe0,
        chunk_alloc: 0x31_4be0,
        limit_error: 0xe_dc60,
        entries: [4, 4, 4, 8, 4, 8, 0x18, 8, 0x14, 8],
    },
    // 8.5.7
    Found {
        build_id: "59f433e029fecf809408bfa47cfe32f9835842e0",
        heap_pointer: 0x9c_bd78,
        alloc_pages: 0x4b_6040,
        alloc_huge: 0x4b_65cc,
        alloc_small_slow: 0x4b_6460,
        chunk_alloc: 0x4b_51e0,
        limit_error: 0x14_4bf4,
        entries: [4, 4, 4, 8, 4, 8, 0x18, 8, 0x14, 0x14],
    },
    // 8.6.0rc3
    Found {
        build_id: "b349a0dc81661950619d0a4aa89e858c2c1d36d3",
        heap_pointer: 0xbd_c5c8,
        alloc_pages: 0x4f_3480,
        alloc_huge: 0x4f_3a40,
        alloc_small_slow: 0x4f_38d0,
        chunk_alloc: 0x4f_23e0,
        limit_error: 0x14_e534,
        entries: [4, 4, 4, 8, 4, 8, 0x18, 8, 0x14, 0x14],
    },
];

#[test]
fn every_x86_64_build_decodes_to_what_was_measured() {
    check_builds(Architecture::X86_64);
}

#[test]
fn every_aarch64_build_decodes_to_what_was_measured() {
    check_builds(Architecture::Aarch64);
}

fn check_builds(machine: Architecture) {
    let Some(folder) = folder() else { return };
    let open = |path: &Path| File::open(path).ok();
    let wanted = |path: &Path| {
        open(path).is_some_and(|file| is_php(&file).unwrap_or(false))
            && open(path)
                .and_then(|file| ElfImage::open(file).ok())
                .is_some_and(|image| image.machine() == machine)
    };
    let mut binaries = Vec::new();
    collect(&folder, 8, &wanted, &mut binaries);
    assert!(!binaries.is_empty(), "no {machine:?} PHP below {folder:?}");
    let mut compared = 0;
    for path in binaries {
        let name = path.display();
        let file = File::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let start = std::time::Instant::now();
        let binary = PhpBinary::open(file).unwrap_or_else(|error| panic!("{name}: {error}"));
        eprintln!("{name}: PHP {} in {:?}", binary.version, start.elapsed());
        for site in &binary.sites {
            let ProbeSite {
                address,
                function,
                instruction,
                emulated,
                ..
            } = site;
            eprintln!(
                "  {:?} {function} {address:#x} {instruction} {emulated}",
                site.site
            );
        }
        check_sites(&binary);
        check_layout(&binary);
        if let Some(found) = FOUND
            .iter()
            .find(|found| binary.build_id() == Some(found.build_id))
        {
            check_addresses(&binary, found);
        }
        let known = EXPECTED.iter().find(|e| version(e) == binary.version);
        match known {
            Some(expected) => {
                check_offsets(&binary, expected);
                compared += 1;
            }
            None => eprintln!("  not in the table: offsets not compared"),
        }
    }
    assert!(compared > 0, "no binary of a version in the table");
}

/// The folder with the PHP builds. Without it there is nothing to hold the decoder against; in
/// continuous integration that is an error.
fn folder() -> Option<PathBuf> {
    const VARIABLE: &str = "MEMPROF_PHP_BINARIES";
    let folder = std::env::var_os(VARIABLE).map(PathBuf::from);
    if folder.is_none() {
        let missing = format!("{VARIABLE} is not set; `cargo xtask test` sets it to target/php");
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{missing}");
        eprintln!("skipped: {missing}");
    }
    folder
}

fn collect(folder: &Path, depth: usize, wanted: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // Links are not followed: every binary counts once.
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && depth > 0 {
            collect(&path, depth - 1, wanted, found);
        } else if kind.is_file() && wanted(&path) {
            found.push(path);
        }
    }
}

fn version(expected: &Expected) -> PhpVersion {
    let (major, minor, patch) = expected.version;
    PhpVersion {
        major,
        minor,
        patch,
    }
}

fn check_offsets(binary: &PhpBinary, expected: &Expected) {
    assert_eq!(binary.globals.executor.size, expected.executor_size);
    assert_eq!(
        binary.decoded,
        Decoded {
            heap_pointer: binary.decoded.heap_pointer,
            heap_size: 0x10,
            heap_peak: 0x18,
            heap_real_size: expected.real_size,
            heap_real_peak: expected.real_size + 8,
            heap_limit: expected.real_size + 16,
            chunk_map: expected.chunk_map,
            current_execute_data: expected.current_execute_data,
            object_buckets: expected.object_buckets,
        }
    );
}

/// The globals' sizes must name a known layout of the binary's own machine.
fn check_layout(binary: &PhpBinary) {
    let (machine, other) = match binary.machine() {
        Architecture::Aarch64 => (Machine::Aarch64, Machine::X86_64),
        _ => (Machine::X86_64, Machine::Aarch64),
    };
    let find = |machine| Layout::find(&binary.globals, binary.version, machine);
    let layout = find(machine).unwrap_or_else(|error| panic!("{error}"));
    let started = match (machine, binary.version.minor) {
        (_, 6) => 250,
        (Machine::Aarch64, _) => 420,
        (Machine::X86_64, _) => 436,
    };
    assert_eq!(layout.sapi.sapi_started, started);
    assert!(find(other).is_err(), "the machines' layouts differ");
}

/// Addresses are true of one build only: what another decoder found in it.
fn check_addresses(binary: &PhpBinary, found: &Found) {
    assert_eq!(binary.decoded.heap_pointer, found.heap_pointer);
    for (what, address) in [
        ("zend_mm_alloc_pages", found.alloc_pages),
        ("zend_mm_alloc_huge", found.alloc_huge),
        ("zend_mm_chunk_alloc_int", found.chunk_alloc),
        ("zend_mm_safe_error", found.limit_error),
    ] {
        let evidence = binary.evidence.iter().find(|e| e.what == what);
        let value = evidence.map(|evidence| evidence.value.clone());
        assert_eq!(value, Some(format!("{address:#x}")), "{what}");
    }
    let small = format!("sub_{:x}", found.alloc_small_slow);
    let taken = |site: &&ProbeSite| site.site == Site::PagesTaken && site.function == small;
    assert_eq!(binary.sites.iter().filter(taken).count(), 1, "{small}");
    for (name, offset) in ENTRIES.iter().zip(found.entries) {
        let start = match *name {
            "zend_mm_chunk_alloc_int" => found.chunk_alloc,
            "zend_mm_safe_error" => found.limit_error,
            _ => binary.symbol(name).expect("exported").address,
        };
        let site = |site: &&ProbeSite| site.address == start + offset && site.emulated;
        assert_eq!(binary.sites.iter().filter(site).count(), 1, "{name}");
    }
}

#[test]
fn a_stripped_module_is_probed_by_address() {
    let Some(folder) = folder() else { return };
    let mut modules = Vec::new();
    let is_opcache = |path: &Path| path.ends_with("opcache.so");
    collect(&folder, 8, &is_opcache, &mut modules);
    for path in &modules {
        let module = ElfImage::open(File::open(path).expect("readable")).expect("ELF");
        assert_eq!(module.symbol("persistent_compile_file"), None, "static");
        for function in module.functions().iter().skip(1).take(200) {
            let site = module
                .entry_site(Site::CompileFile, "function", function.start)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(function.contains(&site.address), "{site:?}");
        }
    }
    assert!(!modules.is_empty(), "no opcache.so below {folder:?}");
}

/// What holds for the sites of every build.
fn check_sites(binary: &PhpBinary) {
    let count = |wanted: fn(&Site) -> bool| {
        binary
            .sites
            .iter()
            .filter(|site| wanted(&site.site))
            .count()
    };
    for (name, wanted) in [
        (
            "request start",
            (|s| *s == Site::RequestStart) as fn(&Site) -> bool,
        ),
        ("request end", |s| *s == Site::RequestEnd),
        ("heap reset", |s| *s == Site::HeapReset),
        ("headers", |s| *s == Site::SendHeaders),
        ("pages collected", |s| matches!(s, Site::PagesCollected(_))),
        ("huge taken", |s| *s == Site::HugeTaken),
        ("huge resized", |s| *s == Site::HugeResized),
        ("huge freed", |s| *s == Site::HugeFreed),
        ("chunk taken", |s| *s == Site::ChunkTaken),
        ("limit error", |s| matches!(s, Site::LimitError { .. })),
    ] {
        assert_eq!(count(wanted), 1, "{name}");
    }
    // Its entry, or each of its calls.
    let freed = match binary.machine() {
        Architecture::Aarch64 => 5..=6,
        _ => 1..=1,
    };
    assert!(freed.contains(&count(|s| *s == Site::PagesFreed)));
    // alloc_small_slow, alloc_large and _emalloc_large; growing and shrinking in 4 functions;
    // 30 size classes, _emalloc, _large, _huge and two reallocs: as zend_alloc.c has them.
    assert_eq!(count(|s| *s == Site::PagesTaken), 3);
    assert_eq!(count(|s| matches!(s, Site::PagesResized(_))), 8);
    assert_eq!(count(|s| matches!(s, Site::Emalloc(_))), 35);
    // What zend_compile_file points to unless something replaced it.
    let compile_file = binary.symbol("compile_file").expect("exported").address;
    let include = binary.site_at_entry(Site::CompileFile, "compile_file", compile_file);
    check_bytes(binary, &include.expect("compile_file is a function"));
    let inside = binary.site_at_entry(Site::CompileFile, "compile_file", compile_file + 1);
    assert!(inside.is_err(), "no function starts there");
    for site in &binary.sites {
        check_bytes(binary, site);
        if let Site::Emalloc(size) = site.site {
            let symbol = binary.symbol(&site.function).expect("exported");
            let symbol = symbol.address..symbol.address + symbol.size;
            assert!(symbol.contains(&site.address), "{site:?}");
            let class = site.function.strip_prefix("_emalloc_");
            match class.and_then(|bytes| bytes.parse().ok()) {
                Some(bytes) => assert_eq!(size, EmallocSize::Fixed(bytes)),
                None => assert!(!matches!(size, EmallocSize::Fixed(_)), "{site:?}"),
            }
        }
        if let Site::PagesResized(store) = site.site {
            check_entry(binary, store.entry);
        }
    }
}

/// The kernel's rule on the raw bytes, independent of the decoder.
fn check_bytes(binary: &PhpBinary, site: &ProbeSite) {
    assert_eq!(binary.file_offset(site.address), Some(site.file_offset));
    let range = site.address..site.address + 4;
    let bytes = binary.image.bytes(range).expect("in the file");
    let bytes = bytes.try_into().expect("4 bytes");
    let emulated = match binary.machine() {
        Architecture::Aarch64 => {
            let word = u32::from_le_bytes(bytes);
            assert!(!refused_on_aarch64(word), "{site:?} {word:#x}");
            emulated_on_aarch64(word)
        }
        _ => emulated_on_x86_64(bytes),
    };
    assert_eq!(site.emulated, emulated, "{site:?} {bytes:x?}");
}

/// push, nop, call, jmp and jcc with a relative target.
fn emulated_on_x86_64(bytes: [u8; 4]) -> bool {
    match bytes[0] {
        0x50..=0x57 | 0x70..=0x7f | 0x90 | 0xe8 | 0xe9 | 0xeb => true,
        0x41 => (0x50..=0x57).contains(&bytes[1]),
        0x0f => (0x80..=0x8f).contains(&bytes[1]),
        _ => false,
    }
}

/// adr and adrp, b and bl, b.cond, cbz and cbnz, tbz and tbnz, br, blr and ret.
fn emulated_on_aarch64(word: u32) -> bool {
    word & 0x1f00_0000 == 0x1000_0000
        || word & 0x7c00_0000 == 0x1400_0000
        || word & 0xff00_0010 == 0x5400_0000
        || word & 0x7c00_0000 == 0x3400_0000
        || matches!(word & 0xffff_fc1f, 0xd61f_0000 | 0xd63f_0000 | 0xd65f_0000)
}

/// ldr of a literal, exclusive loads and stores, autiasp, retaa and retab, exceptions.
fn refused_on_aarch64(word: u32) -> bool {
    word & 0x3b00_0000 == 0x1800_0000
        || word & 0x3f00_0000 == 0x0800_0000
        || word & 0xffff_ffbf == 0xd503_23bf
        || word & 0xffff_fbff == 0xd65f_0bff
        || word & 0xff00_0000 == 0xd400_0000
}

/// An entry is named by a register for the chunk, and by an index or all of the map's offset.
fn check_entry(binary: &PhpBinary, entry: MapEntry) {
    let whole = entry.displacement == binary.decoded.chunk_map as i32;
    assert!(entry.index.is_some() || whole, "{entry:?}");
    assert!(entry.index.is_none() || entry.scale == 4, "{entry:?}");
}
