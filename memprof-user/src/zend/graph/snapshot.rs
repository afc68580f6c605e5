//! The whole graph, for people's own tools.

use std::collections::HashMap;

use crate::record::heap_snapshot::{EdgeName, HeapSnapshot, NodeKind, SnapshotEdge, SnapshotNode};

use super::super::memory::MemoryError;
use super::super::values::Reader;
use super::names::Names;
use super::nodes::{Key, Kind, NONE, Node, Number};
use super::walk::Walk;

/// What a walk notes down besides, when the whole graph is wanted.
#[derive(Default)]
pub(super) struct Recording {
    edges: Vec<Edge>,
    /// Objects that are closures.
    pub(super) closures: Vec<Number>,
}

/// What leads from a node to a slot.
#[derive(Clone, Copy)]
struct Edge {
    owner: Number,
    key: Key,
    /// Where the slot begins.
    slot: u64,
}

impl Recording {
    pub(super) fn edge(&mut self, owner: Number, key: Key, slot: u64) {
        self.edges.push(Edge { owner, key, slot });
    }
}

/// Makes the graph of a walk that recorded it. The process must still stand still: names are read.
///
/// # Errors
/// [`MemoryError::TimeUp`]; a name that cannot be read is `?`.
pub(super) fn snapshot(
    walk: &mut Walk<'_>,
    recording: Recording,
    reader: Reader<'_>,
) -> Result<HeapSnapshot, MemoryError> {
    let nodes = std::mem::take(&mut walk.nodes);
    let names = Names {
        reader,
        nodes: &nodes,
    };
    let made = graph(walk, recording, &names);
    walk.nodes = nodes;
    made
}

fn graph(
    walk: &mut Walk<'_>,
    recording: Recording,
    names: &Names<'_>,
) -> Result<HeapSnapshot, MemoryError> {
    let mut texts = Texts::default();
    let nodes = names.nodes;
    // Node 0 is the root that all places hang on.
    let mut by_slot: Vec<(u64, u32)> = Vec::with_capacity(nodes.len());
    let mut made = vec![SnapshotNode {
        kind: NodeKind::Synthetic,
        name: texts.of(String::new()),
        self_bytes: 0,
        edges: 0,
    }];
    for (number, node) in (1_u32..).zip(nodes) {
        if node.kind.is_value()
            && let Some(slot) = walk.slots.find(node.address)
        {
            by_slot.push((slot.start, number));
        }
        let (kind, name) = described(names, &mut texts, node)?;
        made.push(SnapshotNode {
            kind,
            name,
            self_bytes: node.bytes,
            edges: 0,
        });
    }
    for closure in recording.closures {
        if let Some(node) = made.get_mut(closure as usize + 1) {
            node.kind = NodeKind::Closure;
        }
    }
    by_slot.sort_unstable();
    let mut edges = Vec::with_capacity(recording.edges.len());
    for (number, node) in (1_u32..).zip(nodes) {
        if !node.kind.is_value() {
            let name = edge_name(names, &mut texts, node.owner, node.key)?;
            edges.push((of_owner(node.owner), SnapshotEdge { name, to: number }));
        }
    }
    for edge in recording.edges {
        let place = by_slot.partition_point(|(slot, _)| *slot < edge.slot);
        if let Some((slot, to)) = by_slot.get(place).copied()
            && slot == edge.slot
        {
            let name = edge_name(names, &mut texts, edge.owner, edge.key)?;
            edges.push((of_owner(edge.owner), SnapshotEdge { name, to }));
        }
    }
    edges.sort_by_key(|(owner, _)| *owner);
    for (owner, _) in &edges {
        if let Some(node) = made.get_mut(*owner as usize) {
            node.edges += 1;
        }
    }
    Ok(HeapSnapshot {
        nodes: made,
        edges: edges.into_iter().map(|(_, edge)| edge).collect(),
        names: texts.texts,
    })
}

/// The node of the snapshot that stands for an owner.
fn of_owner(owner: Number) -> u32 {
    if owner == NONE { 0 } else { owner + 1 }
}

fn described(
    names: &Names<'_>,
    texts: &mut Texts,
    node: &Node,
) -> Result<(NodeKind, u32), MemoryError> {
    Ok(match node.kind {
        Kind::Array => (NodeKind::Array, texts.of("array".to_owned())),
        // Never its contents.
        Kind::String => (NodeKind::String, texts.of("string".to_owned())),
        Kind::Object => {
            let class = names.class_address(node.address);
            let name = texts.named(class, || names.class_of(node.address))?;
            (NodeKind::Object, name)
        }
        _ => {
            let name = readable(names.place_name(node))?;
            (NodeKind::Synthetic, texts.of(name))
        }
    })
}

fn edge_name(
    names: &Names<'_>,
    texts: &mut Texts,
    owner: Number,
    key: Key,
) -> Result<EdgeName, MemoryError> {
    let owner = names.nodes.get(owner as usize);
    Ok(match key {
        Key::Index(index) => match u32::try_from(index) {
            Ok(index) => EdgeName::Index(index),
            Err(_) => EdgeName::Name(texts.of(index.to_string())),
        },
        Key::Same => EdgeName::Internal(texts.of("value".to_owned())),
        Key::Inside(_) => EdgeName::Internal(texts.of("inside".to_owned())),
        Key::Slot(slot) => {
            let class = owner.and_then(|owner| names.class_address(owner.address));
            // Class entries lie further from each other than any class has properties.
            let address = class.map(|class| class.wrapping_add(u64::from(slot) + 1));
            EdgeName::Name(texts.named(address, || names.edge(owner, key))?)
        }
        key => EdgeName::Name(texts.named(key.name(), || names.edge(owner, key))?),
    })
}

fn readable(name: Result<String, MemoryError>) -> Result<String, MemoryError> {
    match name {
        Err(MemoryError::TimeUp) => Err(MemoryError::TimeUp),
        Err(_) => Ok("?".to_owned()),
        name => name,
    }
}

/// The names, each once.
#[derive(Default)]
struct Texts {
    texts: Vec<String>,
    index: HashMap<String, u32>,
    /// By where they were read.
    read: HashMap<u64, u32>,
}

impl Texts {
    fn of(&mut self, text: String) -> u32 {
        if let Some(place) = self.index.get(&text) {
            return *place;
        }
        let place = self.texts.len() as u32;
        self.texts.push(text.clone());
        self.index.insert(text, place);
        place
    }

    fn named(
        &mut self,
        address: Option<u64>,
        read: impl FnOnce() -> Result<String, MemoryError>,
    ) -> Result<u32, MemoryError> {
        if let Some(place) = address.and_then(|address| self.read.get(&address)) {
            return Ok(*place);
        }
        let place = self.of(readable(read())?);
        if let Some(address) = address {
            self.read.insert(address, place);
        }
        Ok(place)
    }
}
