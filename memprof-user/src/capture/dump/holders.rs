//! The biggest holders, as the dump shows them.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::zend::{Holder, Holders, LiveObjects};

/// What holds how much. All sizes are bytes of the allocator's slots.
#[derive(Serialize)]
pub(super) struct HoldersView<'a> {
    /// Used pages and huge blocks: what the heap has given out.
    heap_bytes: u64,
    /// What was reached, or is known to be free.
    explained_bytes: u64,
    unattributed_bytes: i128,
    /// `false` when a bound cut the walk; `left_out` of the dump has the reason.
    complete: bool,
    /// Copied out of the process while it stood still.
    read_bytes: u64,
    read_ms: f64,
    /// By kind of block: `{count, bytes}`.
    kinds: Map<String, Value>,
    top: Vec<HolderView<'a>>,
}

#[derive(Serialize)]
struct HolderView<'a> {
    path: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    elements: Option<u64>,
    own_bytes: u64,
    /// With all that was reached first through it, counted once.
    retained_bytes: u64,
    /// Whether it is also reached another way.
    shared: bool,
}

/// The table of all objects, `EG(objects_store)`, which doubles when it is full.
#[derive(Serialize)]
pub(super) struct ObjectStoreView {
    slots: u64,
    bytes: u64,
}

impl<'a> HoldersView<'a> {
    pub(super) fn of(holders: &'a Holders) -> HoldersView<'a> {
        let kind = |(name, sum): &(&'static str, crate::zend::Sum)| {
            let sum = serde_json::json!({"count": sum.count, "bytes": sum.bytes});
            ((*name).to_owned(), sum)
        };
        HoldersView {
            heap_bytes: holders.heap_bytes,
            explained_bytes: holders.explained_bytes,
            unattributed_bytes: i128::from(holders.heap_bytes)
                - i128::from(holders.explained_bytes),
            complete: holders.is_complete,
            read_bytes: holders.read_bytes,
            read_ms: milliseconds(holders.read_time),
            kinds: holders.kinds.iter().map(kind).collect(),
            top: holders.top.iter().map(HolderView::of).collect(),
        }
    }
}

impl<'a> HolderView<'a> {
    fn of(holder: &'a Holder) -> HolderView<'a> {
        HolderView {
            path: &holder.path,
            kind: holder.kind,
            class: holder.class.as_deref(),
            elements: holder.elements,
            own_bytes: holder.own_bytes,
            retained_bytes: holder.retained_bytes,
            shared: holder.is_shared,
        }
    }
}

impl ObjectStoreView {
    pub(super) fn of(objects: &LiveObjects) -> ObjectStoreView {
        ObjectStoreView {
            slots: objects.store_slots,
            bytes: objects.store_slots.saturating_mul(8),
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}
