//! The live objects of a process, counted by class from `EG(objects_store)`.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::ZendError;
use super::cached::Blocks;
use super::layout::Layout;
use super::memory::{Memory, MemoryError, at};
use super::recent::Recent;
use super::slots::Slots;
use super::values::Reader;

/// Most handles followed: objects of 40 bytes, the smallest, would fill 2.5 GiB.
const MOST_HANDLES: u32 = 1 << 26;
/// Bytes of the process that are kept at a time.
const KEPT_BYTES: usize = 8 << 20;
/// `OBJ_BUCKET_INVALID`: the handle is free.
const FREE_HANDLE: u64 = 1;

/// The live objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveObjects {
    /// How many there are.
    pub total: u64,
    /// The same by class, the most numerous first.
    pub classes: Vec<ClassObjects>,
    /// How many objects the table of all objects has room for; it doubles when it is full.
    pub store_slots: u64,
}

/// The live objects of one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassObjects {
    /// The class's name; an anonymous class's is followed by where it stands, as
    /// `class@anonymous /srv/app/x.php:3$0`.
    pub class: String,
    /// How many objects live.
    pub count: u64,
    /// Bytes of the slots that the objects themselves take, without what they refer to; `None` where
    /// the heap's page map does not tell it for each of them.
    pub bytes: Option<u64>,
    /// The `zend_class_entry`.
    pub(super) entry: u64,
    /// The object with the lowest handle.
    pub(super) first: u64,
}

/// What was counted so far, by class.
#[derive(Default)]
struct Tallies {
    tallies: Vec<Tally>,
    /// Where the class's tally is in `tallies`.
    index: HashMap<u64, usize>,
    recent: Recent<usize>,
}

struct Tally {
    class: u64,
    count: u64,
    bytes: Option<u64>,
    first: u64,
}

impl Tallies {
    fn add(&mut self, class: u64, object: u64, bytes: Option<u64>) {
        let place = match self.recent.get(class) {
            Some(place) => place,
            None => *self.index.entry(class).or_insert(self.tallies.len()),
        };
        self.recent.keep(class, place);
        match self.tallies.get_mut(place) {
            Some(tally) => {
                tally.count += 1;
                let sum = |(sum, bytes): (u64, u64)| sum.saturating_add(bytes);
                tally.bytes = tally.bytes.zip(bytes).map(sum);
            }
            None => self.tallies.push(Tally {
                class,
                count: 1,
                bytes,
                first: object,
            }),
        }
    }
}

/// Counts all objects; `slots` tells their bytes, where the process uses Zend's own heap.
pub(super) fn live_objects(
    reader: Reader<'_>,
    executor: u64,
    mut slots: Option<Slots>,
) -> Result<LiveObjects, ZendError> {
    let mut blocks = Blocks::new(reader.memory, None, KEPT_BYTES);
    let mut tallies = Tallies::default();
    let store = Store::read(&mut blocks, reader.layout, executor)?;
    let class_at = reader.layout.object.class;
    // Handle 0 is never given out.
    for handle in 1..store.top {
        let Some(object) = store.object(&mut blocks, handle)? else {
            continue;
        };
        let class = blocks.u64(at(object, class_at))?;
        let slot = slots.as_mut().and_then(|slots| slots.find(object));
        tallies.add(class, object, slot.map(|slot| slot.bytes));
    }
    let mut classes = Vec::with_capacity(tallies.tallies.len());
    for tally in &tallies.tallies {
        classes.push(ClassObjects {
            class: reader.class_name(tally.class)?.replace('\0', " "),
            count: tally.count,
            bytes: tally.bytes,
            entry: tally.class,
            first: tally.first,
        });
    }
    classes.sort_by(|a, b| (Reverse(a.count), &a.class).cmp(&(Reverse(b.count), &b.class)));
    Ok(LiveObjects {
        total: classes.iter().map(|class| class.count).sum(),
        classes,
        store_slots: u64::from(store.size),
    })
}

/// `EG(objects_store)`: the table of all objects by handle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Store {
    /// The table: a `zend_object *` a handle.
    pub(super) buckets: u64,
    /// Handles given out so far, freed ones included.
    pub(super) top: u32,
    /// Handles that the table has room for.
    size: u32,
}

impl Store {
    pub(super) fn read<M: Memory>(
        blocks: &mut Blocks<M>,
        layout: &Layout,
        executor: u64,
    ) -> Result<Store, MemoryError> {
        let store = at(executor, layout.executor.object_buckets);
        let top_at = at(store, layout.objects_store.top);
        let top = blocks.u32(top_at)?;
        if top > MOST_HANDLES {
            return Err(MemoryError::OutOfBounds {
                what: "EG(objects_store).top",
                address: top_at,
                found: u64::from(top),
                bound: u64::from(MOST_HANDLES),
            });
        }
        Ok(Store {
            buckets: blocks.u64(store)?,
            top,
            size: blocks.u32(at(store, layout.objects_store.size))?,
        })
    }

    /// The object with that handle; `None` where the handle is free.
    pub(super) fn object<M: Memory>(
        &self,
        blocks: &mut Blocks<M>,
        handle: u32,
    ) -> Result<Option<u64>, MemoryError> {
        let bucket = self.buckets.wrapping_add(u64::from(handle) * 8);
        let object = blocks.u64(bucket)?;
        Ok((object != 0 && object & FREE_HANDLE == 0).then_some(object))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Image;
    use super::*;

    /// An image with these objects in its store; 0 stands for a free handle.
    fn image(classes: &[u64], mut image: Image) -> Image {
        let buckets = image.memory.room((classes.len() as u64 + 1) * 8);
        for (slot, class) in (1_u64..).zip(classes) {
            let object = image.memory.room(56);
            image.memory.put_u64(object + 16, *class);
            let handle = if *class == 0 { 8 << 1 | 1 } else { object };
            image.memory.put_u64(buckets + slot * 8, handle);
        }
        let store = image.executor(image.layout.executor.object_buckets);
        image.memory.put_u64(store, buckets);
        image.memory.put_u32(store + 8, classes.len() as u32 + 1);
        image
    }

    fn count(image: &Image) -> Result<LiveObjects, ZendError> {
        let reader = Reader {
            memory: &image.memory,
            layout: &image.layout,
        };
        live_objects(reader, image.globals.executor.address, None)
    }

    #[test]
    fn free_handles_are_not_counted() -> Result<(), ZendError> {
        let mut start = Image::new("8.2.36");
        let (item, other) = (
            start.class("App\\Item", 0),
            start.class("x@anonymous\0/a.php:3$0", 0),
        );
        let found = count(&image(&[other, item, 0, item], start))?;
        let shown: Vec<_> = found
            .classes
            .iter()
            .map(|c| (c.class.as_str(), c.count, c.bytes))
            .collect();
        assert_eq!(
            shown,
            [("App\\Item", 2, None), ("x@anonymous /a.php:3$0", 1, None)]
        );
        assert_eq!(found.total, 3);
        Ok(())
    }

    #[test]
    fn a_wild_count_of_handles_is_refused() {
        let mut image = image(&[], Image::new("8.2.36"));
        let store = image.executor(image.layout.executor.object_buckets);
        image.memory.put_u32(store + 8, u32::MAX);
        assert!(matches!(
            count(&image),
            Err(ZendError::Memory(MemoryError::OutOfBounds { .. }))
        ));
    }
}
