//! Workflows as pictures: where each task stands, and SVG, DOT and Mermaid of it.
//!
//! Knows ids, titles and who comes after whom; not how a run fares.

mod dot;
mod layout;
mod mermaid;
mod svg;

use std::collections::HashMap;

pub use layout::{Layout, Point, Rect, layout};

use crate::view::TaskDefinitionView;

/// The tasks of a workflow, and what leads from one to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// In the order of the file.
    pub nodes: Vec<Node>,
    /// Pairs of positions: the first is needed by the second. Ascending by the second.
    pub edges: Vec<(usize, usize)>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique.
    pub id: String,
    /// For people.
    pub title: String,
    /// What it is, as `run`.
    pub kind: String,
}

impl Graph {
    /// The graph of a workflow's tasks. Hooks are no part of it, and needs that do not exist are
    /// passed over.
    #[must_use]
    pub fn of(tasks: &[TaskDefinitionView]) -> Self {
        let tasks: Vec<_> = tasks.iter().filter(|task| task.hook.is_none()).collect();
        let positions: HashMap<&str, usize> =
            tasks.iter().enumerate().map(|(at, task)| (task.id.as_str(), at)).collect();
        let mut edges = Vec::new();
        for (at, task) in tasks.iter().enumerate() {
            let needs = task.needs.iter().filter_map(|need| positions.get(need.as_str()));
            edges.extend(needs.map(|&need| (need, at)));
        }
        let node = |task: &&TaskDefinitionView| Node {
            id: task.id.to_string(),
            title: task.title.clone(),
            kind: task.kind.to_string(),
        };
        Self { nodes: tasks.iter().map(node).collect(), edges }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn graph(ids: &[&str], edges: &[(usize, usize)]) -> Graph {
        let node = |id: &&str| Node {
            id: (*id).to_owned(),
            title: (*id).to_owned(),
            kind: "run".to_owned(),
        };
        Graph { nodes: ids.iter().map(node).collect(), edges: edges.to_vec() }
    }

    fn diamond() -> Graph {
        let mut graph = graph(&["a", "b-1", "b-2", "c"], &[(0, 1), (0, 2), (1, 3), (2, 3)]);
        graph.nodes[3].title = "Say <\"hi\" & bye>".to_owned();
        graph
    }

    #[test]
    fn dot_quotes_what_it_must() {
        let expected = r#"digraph "two \"words\"" {
  rankdir=TB;
  node [shape=box, style=rounded];
  "a";
  "b-1";
  "b-2";
  "c" [label="Say <\"hi\" & bye>"];
  "a" -> "b-1";
  "a" -> "b-2";
  "b-1" -> "c";
  "b-2" -> "c";
}
"#;
        assert_eq!(diamond().dot("two \"words\""), expected);
    }

    #[test]
    fn mermaid_goes_by_positions_and_escapes_titles() {
        let expected = "flowchart TB\n  t0[\"a\"]\n  t1[\"b-1\"]\n  t2[\"b-2\"]\n  \
                        t3[\"Say #lt;#quot;hi#quot; #amp; bye#gt;\"]\n  t0 --> t1\n  t0 --> t2\n  \
                        t1 --> t3\n  t2 --> t3\n";
        assert_eq!(diamond().mermaid(), expected);
    }

    #[test]
    fn svg_has_a_box_for_each_task_and_a_line_for_each_need() {
        let graph = diamond();
        let svg = graph.svg("two <words>", &layout(&graph));
        assert_eq!(svg.matches("<rect ").count(), 4);
        assert_eq!(svg.matches("<path class=\"edge\"").count(), 4);
        assert!(svg.contains("Say &lt;&quot;hi&quot; &amp; bye&gt;"), "{svg}");
        assert!(svg.contains("<title>two &lt;words&gt;</title>"), "{svg}");
    }
}
