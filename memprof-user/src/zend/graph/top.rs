//! Which of the nodes are worth naming: those that hold most.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::super::memory::{MemoryError, at};
use super::super::slots::Mark;
use super::super::values::Reader;
use super::Holder;
use super::names::Names;
use super::nodes::{Kind, NONE, Node, Number};
use super::walk::Walk;

/// How many are named.
const MOST: usize = 50;
/// Nodes of a chain whose last one is named; of longer ones it is the first.
const LONGEST_CHAIN: u32 = 16;
/// How many are looked at.
const CANDIDATES: usize = 1000;
/// The smallest share of the heap that is named: one of so many parts.
const SMALLEST_SHARE: u64 = 1000;
/// How many are named below the same one.
const MOST_BELOW_ONE: usize = 5;
/// How far up the one above is looked for.
const MOST_STEPS_UP: u32 = 10_000;
/// Parts of what a node holds, of ten, that make one of its own nodes stand for it.
const NEARLY_ALL: u64 = 9;

/// Adds up what each node holds, and names those that hold most.
pub(super) fn biggest(
    walk: &mut Walk<'_>,
    reader: Reader<'_>,
    left_out: &mut Vec<String>,
) -> Vec<Holder> {
    add_up(&mut walk.nodes);
    let nodes = std::mem::take(&mut walk.nodes);
    let names = Names {
        reader,
        nodes: &nodes,
    };
    let mut top = Vec::new();
    let mut unnamed = 0;
    let least = walk.slots.heap_bytes() / SMALLEST_SHARE;
    for number in chosen(&nodes, least) {
        let node = nodes[number as usize];
        match holder(walk, &names, number, &node) {
            Ok(holder) => top.push(holder),
            Err(_) => unnamed += 1,
        }
    }
    if unnamed > 0 {
        left_out.push(format!(
            "{unnamed} of the biggest holders: there was no time to name them, or they could not be read"
        ));
    }
    walk.nodes = nodes;
    top
}

/// Adds what each node holds to its owner, the last first: nodes come behind their owners.
fn add_up(nodes: &mut [Node]) {
    for number in (0..nodes.len()).rev() {
        let Node { owner, bytes, .. } = nodes[number];
        if let Some(owner) = nodes.get_mut(owner as usize) {
            owner.bytes = owner.bytes.saturating_add(bytes);
        }
    }
}

/// The biggest nodes above `least` bytes. Of nodes that each hold nearly all of the one before the last is
/// taken, for the first ones merely lead to it; but of a long chain of them, a linked list, the first.
fn chosen(nodes: &[Node], least: u64) -> Vec<Number> {
    let is_shown = |node: &Node| {
        let is_group = matches!(node.kind, Kind::Variable | Kind::Unreached | Kind::Engine);
        node.bytes > least && (node.kind.is_value() || is_group || node.kind == Kind::Temporaries)
    };
    // For the first node of a chain its last node, for the others the first.
    let mut chains: Vec<Number> = (0..nodes.len() as Number).collect();
    for (number, node) in (0..).zip(nodes) {
        let Some(owner) = nodes
            .get(node.owner as usize)
            .filter(|owner| is_shown(owner))
        else {
            continue;
        };
        let first = node.owner.min(chains[node.owner as usize]);
        let holds_nearly_all = |above: &Node| node.bytes >= above.bytes / 10 * NEARLY_ALL;
        if holds_nearly_all(owner) && holds_nearly_all(&nodes[first as usize]) {
            chains[number as usize] = first;
            chains[first as usize] = number;
        }
    }
    let mut candidates: Vec<Number> = (0..nodes.len() as Number)
        .filter(|number| chains[*number as usize] >= *number && is_shown(&nodes[*number as usize]))
        .collect();
    let bytes = |number: &Number| Reverse(nodes[*number as usize].bytes);
    if candidates.len() > CANDIDATES {
        candidates.select_nth_unstable_by_key(CANDIDATES, bytes);
        candidates.truncate(CANDIDATES);
    }
    for first in &mut candidates {
        let last = chains[*first as usize];
        let mut steps = 0;
        let mut number = last;
        while number != *first && steps <= LONGEST_CHAIN {
            number = nodes[number as usize].owner;
            steps += 1;
        }
        if number == *first {
            *first = last;
        }
    }
    candidates.sort_by_key(|number| (bytes(number), *number));
    without_crowds(nodes, candidates)
}

/// Takes the biggest ones, and of those below the same one only a few: the others are mostly alike.
fn without_crowds(nodes: &[Node], candidates: Vec<Number>) -> Vec<Number> {
    let mut counts: HashMap<Number, usize> = HashMap::new();
    let mut top = Vec::new();
    for number in candidates {
        let mut above = nodes[number as usize].owner;
        for _ in 0..MOST_STEPS_UP {
            match nodes.get(above as usize) {
                Some(node) if !counts.contains_key(&above) => above = node.owner,
                _ => break,
            }
        }
        let count = counts.entry(above).or_default();
        *count += 1;
        if above == NONE || *count <= MOST_BELOW_ONE {
            top.push(number);
            counts.entry(number).or_default();
        }
        if top.len() == MOST {
            break;
        }
    }
    top
}

fn holder(
    walk: &mut Walk<'_>,
    names: &Names<'_>,
    number: Number,
    node: &Node,
) -> Result<Holder, MemoryError> {
    let slot = match node.kind.is_value() {
        true => walk.slots.find(node.address),
        false => None,
    };
    let mut own_bytes = slot.map_or(0, |slot| slot.bytes);
    let table = match node.kind {
        Kind::Array => node.address,
        Kind::Object => {
            let properties = walk.layout.object.properties;
            let table = walk.memory.u64(at(node.address, properties))?;
            own_bytes += walk.slots.find(table).map_or(0, |slot| slot.bytes);
            table
        }
        _ => 0,
    };
    if table != 0
        && let Some(table) = walk.header(table)?
    {
        own_bytes += walk.slots.find(table.block).map_or(0, |slot| slot.bytes);
    }
    let count = at(node.address, walk.layout.array.count);
    Ok(Holder {
        path: names.path(number)?,
        kind: match node.kind {
            Kind::Array => "array",
            Kind::Object => "object",
            Kind::String => "string",
            Kind::Unreached => "objects",
            Kind::Engine => "engine",
            _ => "variable",
        },
        class: match node.kind {
            Kind::Object => Some(names.class_of(node.address)?),
            _ => None,
        },
        elements: match node.kind {
            Kind::Array => Some(u64::from(walk.memory.u32(count)?)),
            _ => None,
        },
        own_bytes,
        retained_bytes: node.bytes,
        is_shared: slot.is_some_and(|slot| walk.slots.is_marked(slot, Mark::Shared)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::nodes::Key;
    use super::*;

    /// Nodes by their owner and their own bytes, added up.
    fn nodes(own: &[(Number, u64)]) -> Vec<Node> {
        let mut nodes: Vec<Node> = own
            .iter()
            .map(|(owner, bytes)| Node {
                address: 0,
                key: Key::Same,
                bytes: *bytes,
                owner: *owner,
                kind: Kind::Array,
            })
            .collect();
        add_up(&mut nodes);
        nodes
    }

    #[test]
    fn what_merely_leads_to_a_holder_is_not_named() {
        let nodes = nodes(&[
            (NONE, 10),
            (0, 10),
            (1, 1000),
            (NONE, 5),
            (3, 400),
            (3, 500),
        ]);
        assert_eq!(nodes[0].bytes, 1020);
        assert_eq!(chosen(&nodes, 0), [2, 3, 5, 4]);
        assert_eq!(chosen(&nodes, 500), [2, 3]);
    }

    #[test]
    fn a_linked_list_is_named_by_its_first_link() {
        let mut own = vec![(NONE, 1)];
        own.extend((0..5000).map(|owner| (owner, 1)));
        own.push((NONE, 100));
        let chosen = chosen(&nodes(&own), 50);
        assert_eq!(chosen[0], 0);
        assert_eq!(chosen.iter().filter(|number| **number == 5001).count(), 1);
    }

    #[test]
    fn of_many_alike_a_few_are_named() {
        let mut own = vec![(NONE, 1), (0, 900)];
        own.extend((0..100).map(|_| (0, 10)));
        own.push((NONE, 5));
        let chosen = chosen(&nodes(&own), 0);
        assert_eq!(chosen.len(), 1 + MOST_BELOW_ONE + 1);
        assert!(chosen.contains(&102));
    }
}
