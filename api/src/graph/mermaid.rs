//! The graph as Mermaid, which code hosts draw in Markdown.

use std::fmt::{self, Write};

use super::Graph;

impl Graph {
    /// The graph as a flowchart.
    #[must_use]
    pub fn mermaid(&self) -> String {
        let mut out = String::new();
        // A string takes all that is written to it.
        let _ = write(&mut out, self);
        out
    }
}

/// Nodes go by their positions: an id such as `end` is a word of the language.
fn write(out: &mut String, graph: &Graph) -> fmt::Result {
    writeln!(out, "flowchart TB")?;
    for (at, node) in graph.nodes.iter().enumerate() {
        writeln!(out, "  t{at}[\"{}\"]", escaped(&node.title))?;
    }
    graph.edges.iter().try_for_each(|(from, to)| writeln!(out, "  t{from} --> t{to}"))
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("#amp;"),
            '<' => escaped.push_str("#lt;"),
            '>' => escaped.push_str("#gt;"),
            '"' => escaped.push_str("#quot;"),
            '#' => escaped.push_str("#35;"),
            char if char.is_control() => escaped.push(' '),
            char => escaped.push(char),
        }
    }
    escaped
}
