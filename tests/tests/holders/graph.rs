//! The heap graph is a file that tools for V8's format take.

use std::collections::HashMap;
use std::fs;

use memprof_tests::{Fpm, Opcache, PhpBuild};
use serde_json::Value;

use crate::script::settings;
use crate::{check, dump};

/// A graph as its readers understand it: by the fields that its `meta` names.
struct Graph {
    nodes: Vec<HashMap<String, u64>>,
    /// From, name, to.
    edges: Vec<(usize, String, usize)>,
    strings: Vec<String>,
}

fn numbers(value: &Value) -> Vec<u64> {
    let numbers = value.as_array().unwrap().iter();
    numbers.map(|number| number.as_u64().unwrap()).collect()
}

fn names(value: &Value) -> Vec<String> {
    let names = value.as_array().unwrap().iter();
    names
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

impl Graph {
    fn read(file: &Value) -> Self {
        let meta = &file["snapshot"]["meta"];
        let strings = names(&file["strings"]);
        let fields = names(&meta["node_fields"]);
        let node_types = names(&meta["node_types"][0]).len() as u64;
        let numbers_of_nodes = numbers(&file["nodes"]);
        let nodes: Vec<HashMap<String, u64>> = numbers_of_nodes
            .chunks_exact(fields.len())
            .map(|node| fields.iter().cloned().zip(node.iter().copied()).collect())
            .collect();
        assert_eq!(nodes.len() as u64, file["snapshot"]["node_count"]);
        assert_eq!(numbers_of_nodes.len(), nodes.len() * fields.len());
        let edge_types = names(&meta["edge_types"][0]);
        let flat = numbers(&file["edges"]);
        assert_eq!(
            names(&meta["edge_fields"]),
            ["type", "name_or_index", "to_node"]
        );
        assert_eq!(flat.len() as u64 / 3, file["snapshot"]["edge_count"]);
        let mut rest = flat.chunks_exact(3);
        let mut edges = Vec::new();
        for (from, node) in nodes.iter().enumerate() {
            assert!(node["type"] < node_types && node["name"] < strings.len() as u64);
            for _ in 0..node["edge_count"] {
                let [kind, name, to] = rest.next().unwrap() else {
                    panic!("no edge");
                };
                let name = match edge_types[*kind as usize].as_str() {
                    "element" | "hidden" => name.to_string(),
                    _ => strings[*name as usize].clone(),
                };
                let to = *to as usize;
                assert!(to.is_multiple_of(fields.len()) && to / fields.len() < nodes.len());
                edges.push((from, name, to / fields.len()));
            }
        }
        assert!(rest.next().is_none(), "edges of no node");
        Self {
            nodes,
            edges,
            strings,
        }
    }

    /// Where the edge of that name leads.
    fn step(&self, from: usize, name: &str) -> usize {
        let found = self
            .edges
            .iter()
            .find(|edge| edge.0 == from && edge.1 == name);
        let here = &self.strings[self.nodes[from]["name"] as usize];
        found.unwrap_or_else(|| panic!("no {name} from {here}")).2
    }

    fn named(&self, name: &str) -> usize {
        let is_named = |node: &HashMap<String, u64>| self.strings[node["name"] as usize] == name;
        self.nodes.iter().position(is_named).unwrap()
    }
}

#[test]
fn the_heap_graph_is_whole() {
    for build in PhpBuild::ALL {
        println!("{}", build.name);
        let build = PhpBuild::fetched(build.name).unwrap();
        let fpm = Fpm::start(build, settings(Opcache::On)).unwrap();
        let path = fpm.folder().join("heap.heapsnapshot");
        let arguments = [
            "--max-stop",
            "60000",
            "--heap-graph",
            &path.display().to_string(),
        ];
        let (taken, facts) = dump(&fpm, "", &arguments);
        check(&taken, &facts);
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            !text.contains("SSSS") && !text.contains("row number"),
            "a value is in it"
        );
        let graph = Graph::read(&serde_json::from_str(&text).unwrap());
        let globals = graph.named("$GLOBALS");
        // All rows, each with the id's number left out and its two containers.
        let rows = graph.step(globals, "rows");
        assert_eq!(
            graph.edges.iter().filter(|edge| edge.0 == rows).count(),
            5000
        );
        let row = graph.step(rows, "4999");
        graph.step(row, "name");
        graph.step(graph.step(row, "tags"), "1");
        let class = graph.named("Holder\\Registry");
        let company = graph.step(graph.step(graph.step(class, "$resolved"), "17"), "company");
        let call = graph.step(graph.step(company, "calls"), "3");
        let raw = graph.step(graph.step(call, "attributes"), "raw");
        assert_eq!(graph.nodes[raw]["self_size"], 303_104);
        let cycle = graph.step(globals, "cycle");
        assert_eq!(graph.step(graph.step(cycle, "calls"), "self"), cycle);
        let own: u64 = graph.nodes.iter().map(|node| node["self_size"]).sum();
        let kinds = |kind: &str| {
            let bytes = taken.external(&format!("/holders/kinds/{kind}/bytes"));
            bytes.as_u64().unwrap()
        };
        // All that was reached is somebody's, but for what is nobody's.
        let of_no_node = ["vm_stack", "object_store", "free_slots", "chunk_headers"];
        let of_no_node: u64 = of_no_node.into_iter().map(kinds).sum();
        let explained = taken.external("/holders/explained_bytes").as_u64().unwrap();
        assert!(own + of_no_node >= explained && own <= explained);
    }
}
