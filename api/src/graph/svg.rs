//! The graph as an SVG document of its own: no script, no font, nothing from elsewhere.

use std::fmt::{self, Write};

use super::layout::{Layout, TITLE_CHARS_MAX};
use super::{Graph, Node, Rect};

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1c2733;text-anchor:middle;dominant-baseline:central}\
.kind{font-size:10px;fill:#667788}rect{fill:#f5f8fb;stroke:#8aa0b4;stroke-width:1}\
.edge{fill:none;stroke:#8aa0b4;stroke-width:1.3;marker-end:url(#end)}marker path{fill:#8aa0b4}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.kind{fill:#9fb0c0}rect{fill:#1f2933}}";

impl Graph {
    /// The graph where `layout` puts it, under a title.
    #[must_use]
    pub fn svg(&self, title: &str, layout: &Layout) -> String {
        let mut out = String::new();
        // A string takes all that is written to it.
        let _ = write(&mut out, self, title, layout);
        out
    }
}

fn write(out: &mut String, graph: &Graph, title: &str, layout: &Layout) -> fmt::Result {
    let Layout { width, height, nodes, edges } = layout;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\">"
    )?;
    writeln!(out, "<title>{}</title>\n<style>{STYLE}</style>", escaped(title))?;
    writeln!(
        out,
        "<defs><marker id=\"end\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" \
         markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker></defs>"
    )?;
    for line in edges {
        let [from, to] = line;
        // Leaves downwards and arrives from above, however far aside.
        let bend = (to.y - from.y) / 2.0;
        let (leave, arrive) = (from.y + bend, to.y - bend);
        writeln!(
            out,
            "<path class=\"edge\" d=\"M{:.1} {:.1}C{:.1} {leave:.1} {:.1} {arrive:.1} {:.1} {:.1}\"/>",
            from.x, from.y, from.x, to.x, to.x, to.y
        )?;
    }
    for (node, rect) in graph.nodes.iter().zip(nodes) {
        write_node(out, node, *rect)?;
    }
    writeln!(out, "</svg>")
}

fn write_node(out: &mut String, node: &Node, rect: Rect) -> fmt::Result {
    let Rect { x, y, width, height } = rect;
    let (middle, line) = (x + width / 2.0, y + height / 2.0);
    let (title, is_cut) = match node.title.char_indices().nth(TITLE_CHARS_MAX) {
        Some((end, _)) => (&node.title[..end], "…"),
        None => (node.title.as_str(), ""),
    };
    writeln!(
        out,
        "<g id=\"{}\"><title>{}</title>\
         <rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"6\"/>",
        escaped(&node.id),
        escaped(&node.title)
    )?;
    // What runs a script is the rule and needs no word.
    if node.kind == "run" {
        write!(out, "<text x=\"{middle:.1}\" y=\"{line:.1}\">{}{is_cut}</text>", escaped(title))?;
    } else {
        let (upper, lower) = (line - 6.0, line + 8.0);
        write!(out, "<text x=\"{middle:.1}\" y=\"{upper:.1}\">{}{is_cut}</text>", escaped(title))?;
        let kind = escaped(&node.kind);
        write!(out, "<text class=\"kind\" x=\"{middle:.1}\" y=\"{lower:.1}\">{kind}</text>")?;
    }
    writeln!(out, "</g>")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            char if char.is_control() => escaped.push(' '),
            char => escaped.push(char),
        }
    }
    escaped
}
