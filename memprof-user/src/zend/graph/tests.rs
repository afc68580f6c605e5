//! Heaps of noise: whatever is in them, the walk ends, and explains no more than there is.

use super::super::heap::HeapLayout;
use super::super::testing::{CHUNK, HEAP, Image, Random};
use super::*;

/// Pages of the heap that are used: the chunk's own, and those of the runs below.
const PAGES: u64 = 40;

/// A chunk of runs of small slots and one large run, filled with words that look like PHP's.
fn noise(random: &mut Random) -> Image {
    let mut image = Image::new("8.2.36");
    let memory = &mut image.memory;
    memory.put(CHUNK + 0x220 - 64, &[0xff; (PAGES / 8) as usize]);
    let free = CHUNK + u64::from(image.layout.chunk.free_pages);
    memory.put_u32(free, 512 - PAGES as u32);
    for page in 1..PAGES {
        // Bins of one page each; the last pages are one run.
        let entry = match page {
            36 => 1 << 30 | 4,
            37.. => 0,
            page => 1 << 31 | (page as u32 % 12 + 3),
        };
        memory.put_u32(CHUNK + 0x220 + page * 4, entry);
        let words: Vec<u8> = (0..512).flat_map(|_| word(random).to_le_bytes()).collect();
        memory.put(CHUNK + page * PAGE_SIZE, &words);
    }
    let executor = image.globals.executor;
    for offset in (0..executor.size).step_by(8) {
        memory.put_u64(executor.address + offset, word(random));
    }
    let constants = image.executor(image.layout.executor.zend_constants);
    image.memory.put_u64(constants, word(random));
    image
}

/// A pointer into the heap, a zval's type, a small number, or anything.
fn word(random: &mut Random) -> u64 {
    match random.below(8) {
        0..4 => CHUNK + PAGE_SIZE + random.below((PAGES - 1) * 512) * 8,
        4 => [6, 7, 8, 10, 11, 12, 0x106, 0x307, 0x308, 0x10a][random.below(10) as usize],
        5 => random.below(64) << 32 | random.below(64),
        6 => 0,
        _ => random.next(),
    }
}

fn walked(image: &Image, scope: Scope) -> Result<Holders, ZendError> {
    let heap_layout = HeapLayout::scan(&image.memory, HEAP, &image.layout, &image.decoded)?;
    let reader = Reader {
        memory: &image.memory,
        layout: &image.layout,
    };
    let graph = Graph {
        heap: HeapReader {
            memory: &image.memory,
            layout: &image.layout,
            heap_layout: &heap_layout.expect("a whole image"),
            heap: HEAP,
        },
        reader,
        addresses: Addresses {
            executor: image.globals.executor.address,
            compiler: image.globals.compiler.address,
            sapi: image.globals.sapi.address,
            session: None,
            heap: HEAP,
        },
        globals: &Region::of(&image.globals, 0),
    };
    graph.holders(&image.memory, None, scope)
}

#[test]
fn the_walk_of_any_heap_ends() {
    let mut finished = 0;
    for seed in 0..60 {
        let image = noise(&mut Random::new(seed));
        let Ok(holders) = walked(&image, Scope::Holders) else {
            continue;
        };
        let whole = walked(&image, Scope::Graph).expect("as before");
        assert!(whole.explained_bytes <= whole.heap_bytes, "{seed}");
        let graph = whole.graph.expect("no deadline");
        let own: u64 = graph.nodes.iter().map(|node| node.self_bytes).sum();
        assert!(own <= whole.explained_bytes, "{seed}");
        let edges: u64 = graph.nodes.iter().map(|node| u64::from(node.edges)).sum();
        assert_eq!(edges, graph.edges.len() as u64);
        finished += 1;
        assert_eq!(holders.heap_bytes, PAGES * PAGE_SIZE);
        assert!(holders.explained_bytes <= holders.heap_bytes, "{seed}");
        let retained = holders.top.iter().map(|holder| holder.retained_bytes).max();
        assert!(retained.unwrap_or(0) <= holders.heap_bytes, "{seed}");
    }
    assert!(finished > 10, "{finished} of the heaps could be begun with");
}
