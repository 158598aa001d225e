//! The graph in the language of Graphviz.

use std::fmt::{self, Write};

use super::Graph;

impl Graph {
    /// The graph for `dot`, under a name.
    #[must_use]
    pub fn dot(&self, name: &str) -> String {
        let mut out = String::new();
        // A string takes all that is written to it.
        let _ = write(&mut out, self, name);
        out
    }
}

fn write(out: &mut String, graph: &Graph, name: &str) -> fmt::Result {
    writeln!(out, "digraph {} {{\n  rankdir=TB;", quoted(name))?;
    writeln!(out, "  node [shape=box, style=rounded];")?;
    for node in &graph.nodes {
        write!(out, "  {}", quoted(&node.id))?;
        if node.title != node.id {
            write!(out, " [label={}]", quoted(&node.title))?;
        }
        writeln!(out, ";")?;
    }
    for &(from, to) in &graph.edges {
        let (from, to) = (&graph.nodes[from].id, &graph.nodes[to].id);
        writeln!(out, "  {} -> {};", quoted(from), quoted(to))?;
    }
    writeln!(out, "}}")
}

fn quoted(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
