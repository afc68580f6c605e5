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

const EXPECTED: [Expected; 10] = [
    expected((7, 4, 33), 1664, 0x110, 0x208, 488, 840),
    expected((8, 2, 20), 1776, 0x110, 0x208, 488, 840),
    expected((8, 2, 36), 1800, 0x110, 0x220, 488, 840),
    expected((8, 3, 8), 1792, 0x110, 0x208, 488, 840),
    expected((8, 4, 14), 1960, 0x118, 0x260, 488, 856),
    expected((8, 4, 24), 1960, 0x118, 0x260, 488, 856),
    expected((8, 4, 27), 1984, 0x118, 0x270, 488, 856),
    expected((8, 5, 2), 1984, 0x118, 0x250, 512, 880),
    expected((8, 5, 7), 1984, 0x118, 0x250, 512, 880),
    expected((8, 6, 0), 2200, 0x118, 0x250, 512, 928),
];

#[test]
fn every_build_decodes_to_what_was_measured() {
    let Some(folder) = std::env::var_os("MEMPROF_PHP_BINARIES") else {
        eprintln!("skipped: needs MEMPROF_PHP_BINARIES, a folder with php-fpm binaries");
        return;
    };
    let mut binaries = Vec::new();
    let is_php = |path: &Path| File::open(path).is_ok_and(|file| is_php(&file).unwrap_or(false));
    collect(Path::new(&folder), 8, &is_php, &mut binaries);
    assert!(!binaries.is_empty(), "no PHP binary below {folder:?}");
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

#[test]
fn a_stripped_module_is_probed_by_address() {
    let Some(folder) = std::env::var_os("MEMPROF_PHP_BINARIES") else {
        eprintln!("skipped: needs MEMPROF_PHP_BINARIES, a folder with opcache.so");
        return;
    };
    let mut modules = Vec::new();
    let is_opcache = |path: &Path| path.ends_with("opcache.so");
    collect(Path::new(&folder), 8, &is_opcache, &mut modules);
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
        ("pages freed", |s| *s == Site::PagesFreed),
        ("pages collected", |s| matches!(s, Site::PagesCollected(_))),
        ("huge taken", |s| *s == Site::HugeTaken),
        ("huge resized", |s| *s == Site::HugeResized),
        ("huge freed", |s| *s == Site::HugeFreed),
        ("chunk taken", |s| *s == Site::ChunkTaken),
        ("limit error", |s| matches!(s, Site::LimitError { .. })),
    ] {
        assert_eq!(count(wanted), 1, "{name}");
    }
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
