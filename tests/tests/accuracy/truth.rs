//! What each function of a generated program holds at its peak, by PHP's own count of every operation.

/// Bytes of a slot by bin, and pages of a run of such slots: `ZEND_MM_BINS_INFO` (7.4 to 8.5).
const BINS: [(u64, u64); BIN_COUNT] = [
    (8, 1),
    (16, 1),
    (24, 1),
    (32, 1),
    (40, 1),
    (48, 1),
    (56, 1),
    (64, 1),
    (80, 1),
    (96, 1),
    (112, 1),
    (128, 1),
    (160, 1),
    (192, 1),
    (224, 1),
    (256, 1),
    (320, 5),
    (384, 3),
    (448, 1),
    (512, 1),
    (640, 5),
    (768, 3),
    (896, 2),
    (1024, 2),
    (1280, 5),
    (1536, 3),
    (1792, 7),
    (2048, 4),
    (2560, 5),
    (3072, 3),
];
pub const BIN_COUNT: usize = 30;
const LARGEST_SLOT: u64 = 3072;
const PAGE: u64 = 4096;
/// A `zend_array` has its header in a slot of its own, beside its table.
const ARRAY_HEADER: u64 = 56;
/// A huge block has a node in the heap's list of them, in a slot.
const HUGE_NODE: u64 = 24;
/// Numbers that `Account` notes of an operation.
const NOTE: usize = 4;

/// What one function holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Held {
    /// Slots, page runs and huge blocks of the values that it made or last resized.
    pub slots: u64,
    /// The same, but for small values the runs that it made the heap take, whoever uses their slots.
    pub runs: u64,
}

/// The account of a program.
#[derive(Debug)]
pub struct Truth {
    /// By function.
    pub held: Vec<Held>,
    /// By how much PHP's own doings changed the heap between the operations, in bytes.
    pub by_php: u64,
}

struct Block {
    function: usize,
    /// Arrays are filled by the function that made them, so that the header has the same holder.
    is_array: bool,
    bytes: u64,
    holds: u32,
}

impl Block {
    /// The part that moves when the value grows.
    fn moving(&self) -> u64 {
        self.bytes - if self.is_array { ARRAY_HEADER } else { 0 }
    }
}

struct Account {
    blocks: Vec<Block>,
    /// Which block each number of the program's means.
    names: Vec<Option<usize>>,
    free_slots: [u64; BIN_COUNT],
    truth: Truth,
}

impl Truth {
    /// Goes through what `Account` noted; `free_slots` is what each bin had before the first operation.
    pub fn of(log: &[i64], functions: usize, free_slots: [u64; BIN_COUNT]) -> Result<Self, String> {
        let mut account = Account {
            blocks: Vec::new(),
            names: Vec::new(),
            free_slots,
            truth: Truth {
                held: vec![Held::default(); functions],
                by_php: 0,
            },
        };
        for note in log.chunks(NOTE) {
            account.enter(note).ok_or_else(|| {
                format!("PHP noted {note:?}, which fits no operation, block or slot size")
            })?;
        }
        Ok(account.truth)
    }
}

impl Account {
    fn enter(&mut self, note: &[i64]) -> Option<()> {
        let &[kind, function, name, change] = note else {
            return None;
        };
        match kind {
            0 | 1 => self.make(function, name, change, kind == 1),
            2 => self.resize(function, name, change),
            3 => self.share(function, name, change),
            4 => self.release(name, change),
            5 => {
                self.truth.by_php += change.unsigned_abs();
                Some(())
            }
            _ => None,
        }
    }

    fn make(&mut self, function: i64, name: i64, change: i64, is_array: bool) -> Option<()> {
        let function = usize::try_from(function).ok()?;
        let bytes = u64::try_from(change).ok()?;
        let block = Block {
            function,
            is_array,
            bytes,
            holds: 1,
        };
        if is_array {
            self.take(function, ARRAY_HEADER)?;
        }
        self.take(function, block.moving())?;
        self.blocks.push(block);
        self.set_name(name, self.blocks.len() - 1)
    }

    /// PHP takes the new place before it gives the old one back; where it has not to move, the sums are the same.
    fn resize(&mut self, function: i64, name: i64, change: i64) -> Option<()> {
        let at = self.block(name)?;
        if self.blocks[at].holds > 1 {
            // Who writes to a shared value gets a copy.
            self.blocks[at].holds -= 1;
            let is_array = self.blocks[at].is_array;
            return self.make(function, name, change, is_array);
        }
        if change == 0 {
            return Some(());
        }
        let old = self.blocks[at].moving();
        let function = usize::try_from(function).ok()?;
        self.take(function, old.checked_add_signed(change)?)?;
        self.give_back(self.blocks[at].function, old)?;
        let block = &mut self.blocks[at];
        if block.is_array && block.function != function {
            return None;
        }
        block.function = function;
        block.bytes = block.bytes.checked_add_signed(change)?;
        Some(())
    }

    fn share(&mut self, name: i64, copy: i64, change: i64) -> Option<()> {
        let at = self.block(name)?;
        self.blocks[at].holds += 1;
        self.set_name(copy, at)?;
        (change == 0).then_some(())
    }

    fn release(&mut self, name: i64, change: i64) -> Option<()> {
        let at = self.block(name)?;
        self.names[usize::try_from(name).ok()?] = None;
        let block = &mut self.blocks[at];
        block.holds -= 1;
        if block.holds > 0 {
            return (change == 0).then_some(());
        }
        let (function, moving, is_array) = (block.function, block.moving(), block.is_array);
        let freed = std::mem::take(&mut block.bytes);
        if is_array {
            self.give_back(function, ARRAY_HEADER)?;
        }
        self.give_back(function, moving)?;
        (change == -i64::try_from(freed).ok()?).then_some(())
    }

    /// Takes a slot, pages, or a huge block with its node.
    fn take(&mut self, function: usize, bytes: u64) -> Option<()> {
        let (pages, slot) = parts(bytes)?;
        let held = self.truth.held.get_mut(function)?;
        held.slots += bytes;
        held.runs += pages;
        let Some(bin) = slot else { return Some(()) };
        if self.free_slots[bin] == 0 {
            let (size, pages) = BINS[bin];
            held.runs += pages * PAGE;
            self.free_slots[bin] = pages * PAGE / size;
        }
        self.free_slots[bin] -= 1;
        Some(())
    }

    /// Gives it back; a slot stays in its run.
    fn give_back(&mut self, function: usize, bytes: u64) -> Option<()> {
        let (pages, slot) = parts(bytes)?;
        let held = self.truth.held.get_mut(function)?;
        held.slots = held.slots.checked_sub(bytes)?;
        held.runs = held.runs.checked_sub(pages)?;
        if let Some(bin) = slot {
            self.free_slots[bin] += 1;
        }
        Some(())
    }

    fn block(&self, name: i64) -> Option<usize> {
        *self.names.get(usize::try_from(name).ok()?)?
    }

    fn set_name(&mut self, name: i64, block: usize) -> Option<()> {
        let name = usize::try_from(name).ok()?;
        if self.names.len() <= name {
            self.names.resize(name + 1, None);
        }
        self.names[name] = Some(block);
        Some(())
    }
}

/// What a value takes: bytes of whole pages, and the bin of a slot.
fn parts(bytes: u64) -> Option<(u64, Option<usize>)> {
    let slot = if bytes <= LARGEST_SLOT {
        bytes
    } else {
        bytes % PAGE
    };
    if bytes > LARGEST_SLOT && slot != 0 && slot != HUGE_NODE {
        return None;
    }
    let bin = BINS.iter().position(|(size, _)| *size == slot);
    (slot == 0 || bin.is_some()).then_some((bytes - slot, bin))
}

#[test]
fn runs_belong_to_who_takes_them_and_slots_to_who_uses_them() {
    // Function 0 makes two strings of 2048 and gives one back; 1 takes the free slot, then makes a page and doubles it.
    let log = [
        [0, 0, 0, 2048],
        [0, 0, 1, 2048],
        [4, 0, 1, -2048],
        [0, 1, 2, 2048],
        [0, 1, 3, 4096],
        [2, 1, 3, 4096],
    ]
    .concat();
    let truth = Truth::of(&log, 2, [0; BIN_COUNT]).unwrap();
    let held = |slots, runs| Held { slots, runs };
    assert_eq!(truth.held, [held(2048, 4 * PAGE), held(2048 + 8192, 8192)]);
}

#[test]
fn who_writes_to_a_shared_string_gets_a_copy() {
    let log = [
        [0, 0, 0, 320],
        [3, 0, 1, 0],
        [2, 1, 1, 384],
        [4, 0, 0, -320],
    ]
    .concat();
    let truth = Truth::of(&log, 2, [1; BIN_COUNT]).unwrap();
    let held = |slots, runs| Held { slots, runs };
    assert_eq!(truth.held, [held(0, 0), held(384, 0)]);
}

#[test]
fn what_is_no_slot_is_refused() {
    assert!(Truth::of(&[0, 0, 0, 2000], 1, [0; BIN_COUNT]).is_err());
    assert!(Truth::of(&[4, 0, 0, -2048], 1, [0; BIN_COUNT]).is_err());
}
