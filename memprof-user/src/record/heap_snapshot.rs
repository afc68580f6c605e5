//! A heap graph in V8's .heapsnapshot format, which Chrome's DevTools open in their Memory panel.
//!
//! The format is a JSON object of flat arrays of numbers, described by its own `meta`; it has no specification beside
//! V8's `HeapSnapshotJSONSerializer` and its reader in DevTools.

use std::io::{self, Write};

use serde_json::json;

/// Numbers that a node takes, and so the distance of one from the next in an edge's target.
const NODE_FIELDS: usize = 7;

/// A heap graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeapSnapshot {
    /// The nodes; the first is where everything begins.
    pub nodes: Vec<SnapshotNode>,
    /// The edges, those of the first node first, then those of the second, and so on.
    pub edges: Vec<SnapshotEdge>,
    /// The names.
    pub names: Vec<String>,
}

/// A thing in the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotNode {
    /// What it is.
    pub kind: NodeKind,
    /// Its name's place in [`HeapSnapshot::names`].
    pub name: u32,
    /// Its own bytes.
    pub self_bytes: u64,
    /// How many of the edges are its own.
    pub edges: u32,
}

/// What leads from one thing to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotEdge {
    /// How it leads there.
    pub name: EdgeName,
    /// The node that it leads to.
    pub to: u32,
}

/// How an edge is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeName {
    /// An array's index.
    Index(u32),
    /// A property, a key or a variable, by its name's place in [`HeapSnapshot::names`].
    Name(u32),
    /// Something that no code can name.
    Internal(u32),
}

/// The types of V8's nodes that PHP has something alike of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A place where the graph begins.
    Synthetic,
    /// An array.
    Array,
    /// A string.
    String,
    /// An object.
    Object,
    /// A closure.
    Closure,
}

impl NodeKind {
    /// Its place among the `node_types` of [`HeapSnapshot::write`].
    fn number(self) -> u32 {
        match self {
            NodeKind::Array => 1,
            NodeKind::String => 2,
            NodeKind::Object => 3,
            NodeKind::Closure => 5,
            NodeKind::Synthetic => 9,
        }
    }
}

impl HeapSnapshot {
    /// Writes the file.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let meta = json!({
            "node_fields": ["type", "name", "id", "self_size", "edge_count", "trace_node_id", "detachedness"],
            "node_types": [
                ["hidden", "array", "string", "object", "code", "closure", "regexp", "number", "native", "synthetic",
                    "concatenated string", "sliced string", "symbol", "bigint", "object shape"],
                "string", "number", "number", "number", "number", "number",
            ],
            "edge_fields": ["type", "name_or_index", "to_node"],
            "edge_types": [
                ["context", "element", "property", "internal", "hidden", "shortcut", "weak"],
                "string_or_number", "node",
            ],
            "trace_function_info_fields": ["function_id", "name", "script_name", "script_id", "line", "column"],
            "trace_node_fields": ["id", "function_info_index", "count", "size", "children"],
            "sample_fields": ["timestamp_us", "last_assigned_id"],
            "location_fields": ["object_index", "script_id", "line", "column"],
        });
        write!(
            out,
            "{{\"snapshot\":{{\"meta\":{meta},\"node_count\":{},\"edge_count\":{},\"trace_function_count\":0}}",
            self.nodes.len(),
            self.edges.len()
        )?;
        write!(out, ",\n\"nodes\":[")?;
        for (number, node) in self.nodes.iter().enumerate() {
            let comma = if number == 0 { "" } else { ",\n" };
            let kind = node.kind.number();
            // V8's own objects have odd ids.
            let id = number * 2 + 1;
            let SnapshotNode {
                name,
                self_bytes,
                edges,
                ..
            } = node;
            write!(out, "{comma}{kind},{name},{id},{self_bytes},{edges},0,0")?;
        }
        write!(out, "],\n\"edges\":[")?;
        for (number, edge) in self.edges.iter().enumerate() {
            let comma = if number == 0 { "" } else { ",\n" };
            let (kind, name) = match edge.name {
                EdgeName::Index(index) => (1, index),
                EdgeName::Name(name) => (2, name),
                EdgeName::Internal(name) => (3, name),
            };
            write!(
                out,
                "{comma}{kind},{name},{}",
                edge.to as usize * NODE_FIELDS
            )?;
        }
        write!(
            out,
            "],\n\"trace_function_infos\":[],\"trace_tree\":[],\"samples\":[],\"locations\":[],\n\"strings\":"
        )?;
        serde_json::to_writer(&mut *out, &self.names)?;
        writeln!(out, "}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_is_written_as_flat_arrays() {
        let node = |kind, name, self_bytes, edges| SnapshotNode {
            kind,
            name,
            self_bytes,
            edges,
        };
        let graph = HeapSnapshot {
            nodes: vec![
                node(NodeKind::Synthetic, 0, 0, 1),
                node(NodeKind::Object, 1, 56, 2),
                node(NodeKind::String, 2, 32, 0),
            ],
            edges: vec![
                SnapshotEdge {
                    name: EdgeName::Index(1),
                    to: 1,
                },
                SnapshotEdge {
                    name: EdgeName::Name(3),
                    to: 2,
                },
                SnapshotEdge {
                    name: EdgeName::Internal(3),
                    to: 1,
                },
            ],
            names: ["", "App\\Foo", "string", "it's \"x\""]
                .map(str::to_owned)
                .to_vec(),
        };
        let mut bytes = Vec::new();
        graph.write(&mut bytes).expect("memory takes all");
        let written: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(written["snapshot"]["node_count"], 3);
        assert_eq!(written["snapshot"]["edge_count"], 3);
        assert_eq!(
            written["nodes"],
            json!([
                9, 0, 1, 0, 1, 0, 0, 3, 1, 3, 56, 2, 0, 0, 2, 2, 5, 32, 0, 0, 0
            ])
        );
        assert_eq!(written["edges"], json!([1, 1, 7, 2, 3, 14, 3, 3, 7]));
        assert_eq!(written["strings"][3], "it's \"x\"");
        let fields = written["snapshot"]["meta"]["node_fields"].as_array();
        assert_eq!(fields.map(Vec::len), Some(NODE_FIELDS));
    }
}
