//! Reading a process out of made-up memory.

use std::sync::Mutex;
use std::time::Duration;

use super::super::testing::{CHUNK, FakeMemory, HEAP, Image, Noise, Random};
use super::super::{HugeBlock, StackEnd};
use super::*;

fn open(image: &Image, memory: FakeMemory) -> Result<Process, ZendError> {
    Process::open(
        Box::new(memory),
        0,
        &image.globals,
        &image.decoded,
        image.version,
    )
}

#[test]
fn a_process_at_rest_is_proven_and_read() -> Result<(), ZendError> {
    let image = Image::new("8.2.36");
    let process = open(&image, image.memory.clone())?;
    assert!(process.proofs().iter().all(|proof| proof.agrees));
    assert_eq!(process.addresses().heap, HEAP);
    let heap = process.heap()?;
    assert_eq!(heap.counters.size, 20_000);
    assert_eq!(heap.counters.real_peak, 4 << 20);
    assert_eq!(heap.counters.peak_chunks, 2);
    assert_eq!(heap.used_pages, 6);
    assert_eq!(process.request()?, None);
    assert_eq!(process.stack(16)?.end, StackEnd::Whole);
    let loaded = process.loaded()?;
    assert_eq!(
        (loaded.classes, loaded.interfaces, loaded.traits),
        (1, 1, 1)
    );
    Ok(())
}

#[test]
fn huge_blocks_are_listed_and_summed() -> Result<(), ZendError> {
    let image = Image::new("8.2.36");
    let mut memory = image.memory.clone();
    let node = memory.room(24);
    memory.put_u64(node, 0x5000_0000);
    memory.put_u64(node + 8, 3 << 20);
    memory.put_u64(HEAP + 0x140, node);
    memory.put_u64(HEAP + 0x110, 5 << 20);
    let block = HugeBlock {
        address: 0x5000_0000,
        size: 3 << 20,
    };
    assert_eq!(open(&image, memory)?.heap()?.huge, [block]);
    Ok(())
}

#[test]
fn each_disagreement_is_named() {
    let image = Image::new("8.2.36");
    let changes: [(&str, u64, u64); 6] = [
        ("points back to the heap", CHUNK, HEAP + 8),
        ("points to its main chunk", HEAP + 0x148, CHUNK + 8),
        ("within the limit", HEAP + 0x110, 512 << 20),
        ("fit the chunks", HEAP + 0x10, 3 << 20),
        ("512 pages", CHUNK + 0x220 + 8 * 2, 1 << 31 | 23),
        ("stdClass", image.globals.compiler.address + 64, 0),
    ];
    for (what, address, value) in changes {
        let mut memory = image.memory.clone();
        memory.put_u64(address, value);
        let error = open(&image, memory).err().map(|error| error.to_string());
        assert!(
            error.as_ref().is_some_and(|error| error.contains(what)),
            "{what}: {error:?}"
        );
    }
}

#[test]
fn a_version_that_is_not_the_binarys_is_refused() {
    let mut image = Image::new("8.2.36");
    image.version.patch = 3;
    let error = open(&image, image.memory.clone()).err();
    assert!(matches!(error, Some(ZendError::NotProven { .. })));
}

#[test]
fn a_custom_heap_has_no_figures() -> Result<(), ZendError> {
    let image = Image::new("8.2.36");
    let mut memory = image.memory.clone();
    memory.put_u32(HEAP, 1);
    let process = open(&image, memory)?;
    assert_eq!(process.heap_layout(), None);
    assert!(matches!(process.heap(), Err(ZendError::CustomHeap)));
    Ok(())
}

#[test]
fn a_heap_pointer_to_nowhere_says_so() {
    let image = Image::new("8.2.36");
    let mut memory = image.memory.clone();
    memory.put_u64(image.decoded.heap_pointer, 0x10);
    let error = open(&image, memory).err();
    assert!(matches!(error, Some(ZendError::NoHeap { .. })));
}

/// Calls every reader; what they return does not matter, that they return does.
fn read_everything(process: &Process) {
    let _ = process.heap_counters();
    let _ = process.loaded();
    let _ = process.request();
    let _ = process.included_files();
    let _ = process.stack_ends(8);
    // A heap of noise has no end worth waiting for; heaps that have one are walked in graph/tests.rs.
    let soon = Instant::now() + Duration::from_millis(50);
    let _ = process.holders(process.memory.as_ref(), Some(soon), Scope::Graph);
    if let Ok(objects) = process.objects() {
        let _ = process.session(&objects);
        let _ = process.cache_driver(&objects);
    }
    let _ = process.heap_reader().map(|heap| {
        let _ = heap.page_map();
        heap.heap()
    });
    if let Ok(stack) = process.stack(64) {
        assert!(stack.frames.len() <= 64);
        super::super::frame::call_sites(&stack.frames);
        super::super::frame::own_lines(&stack.frames);
    }
}

#[test]
fn no_reader_panics_on_noise() -> Result<(), ZendError> {
    for seed in 0..100 {
        let image = Image::new("8.4.27");
        let mut process = Process {
            memory: Box::new(image.memory.clone()),
            layout: image.layout,
            addresses: Addresses {
                executor: 0x20_0000,
                compiler: 0x20_0000,
                sapi: 0x20_0000,
                session: Some(0x20_0000),
                heap: HEAP,
            },
            heap_layout: HeapLayout::scan(&image.memory, HEAP, &image.layout, &image.decoded)?,
            proofs: Vec::new(),
            frameless_functions: Some(0x20_0000),
            sapi_module: Some(0x20_0000),
            globals: Region::of(&image.globals, 0),
        };
        process.memory = Box::new(Noise(Mutex::new(Random::new(seed))));
        read_everything(&process);
    }
    Ok(())
}

#[test]
fn no_reader_panics_on_a_damaged_process() {
    let image = Image::new("8.2.36");
    let mut random = Random::new(7);
    for _ in 0..100 {
        let mut memory = image.memory.clone();
        for _ in 0..random.below(40) {
            memory.flip(&mut random);
        }
        if let Ok(process) = open(&image, memory) {
            read_everything(&process);
        }
    }
}
