//! Where each task stands: layers from top to bottom, few crossings.
//!
//! The crate that does it is young. It gets graphs of a bounded size, a thread of its own and a
//! time limit; where it panics or takes too long, tasks stand in plain rows.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rust_sugiyama::configure::Config;
use rust_sugiyama::from_vertices_and_edges;

use super::{Graph, Node};

/// Characters of a title that are shown.
pub(super) const TITLE_CHARS_MAX: usize = 28;

/// The largest graph that is laid out with care; what is larger nobody reads as a picture.
const NODES_MAX: usize = 400;

/// Its edges: the time goes by them.
const EDGES_MAX: usize = 1_200;

/// How long laying out may take. A graph of usual size takes milliseconds.
const TIME_MAX: Duration = Duration::from_secs(2);

/// The stack of the thread: the crate recurses along paths of the graph.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Between tasks, and between layers.
const GAP: f64 = 36.0;

/// Around the whole.
const MARGIN: f64 = 12.0;

/// A task's box.
const HEIGHT: f64 = 36.0;
const CHAR_WIDTH: f64 = 7.4;
const PADDING: f64 = 26.0;
const WIDTH_MIN: f64 = 72.0;

/// Tasks in a row where there is no better order than that of the file.
const ROW_MAX: usize = 12;

/// A graph on a plane. Units are those of the screen; y goes down.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// Of the whole.
    pub width: f64,
    /// Of the whole.
    pub height: f64,
    /// The boxes of the tasks, in their order.
    pub nodes: Vec<Rect>,
    /// The lines of the edges, in their order: from the bottom of one box to the top of another.
    pub edges: Vec<[Point; 2]>,
}

/// A box; `x` and `y` are its upper left corner.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rect {
    /// From the left.
    pub x: f64,
    /// From the top.
    pub y: f64,
    /// To the right.
    pub width: f64,
    /// Downwards.
    pub height: f64,
}

/// A place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// From the left.
    pub x: f64,
    /// From the top.
    pub y: f64,
}

/// Lays a graph out. The same graph is always laid out the same way, unless the machine is so
/// busy that it takes too long.
#[must_use]
pub fn layout(graph: &Graph) -> Layout {
    let is_small = graph.nodes.len() <= NODES_MAX && graph.edges.len() <= EDGES_MAX;
    let centres = if is_small { layered(graph) } else { None };
    place(graph, centres.unwrap_or_else(|| rows(graph)))
}

/// The box of a node, without its place.
fn size(node: &Node) -> (f64, f64) {
    let chars = node.title.chars().count().min(TITLE_CHARS_MAX + 1);
    ((chars as f64 * CHAR_WIDTH + PADDING).max(WIDTH_MIN), HEIGHT)
}

/// The middle of each box, by Sugiyama's algorithm; `None` if that broke or took too long.
fn layered(graph: &Graph) -> Option<Vec<Point>> {
    let short = |at: usize| u32::try_from(at).ok();
    let nodes = graph.nodes.iter().enumerate();
    let nodes: Vec<_> =
        nodes.map(|(at, node)| Some((short(at)?, size(node)))).collect::<Option<_>>()?;
    let edges = graph.edges.iter().map(|&(from, to)| Some((short(from)?, short(to)?)));
    let edges: Vec<_> = edges.collect::<Option<_>>()?;
    let (answer, answers) = mpsc::channel();
    let config = Config { vertex_spacing: GAP, ..Config::default() };
    let lay_out = move || {
        let count = nodes.len();
        let components = from_vertices_and_edges(&nodes, &edges, &config);
        // Nobody listens once it took too long.
        let _ = answer.send(side_by_side(count, &nodes, components));
    };
    // A panic ends the thread, and so the channel.
    thread::Builder::new().stack_size(STACK_BYTES).spawn(lay_out).ok()?;
    answers.recv_timeout(TIME_MAX).ok()?
}

/// A part of a graph, as the crate answers: its nodes with their middles, its width and height.
type Component = (Vec<(usize, (f64, f64))>, f64, f64);

/// Parts of a graph that have nothing to do with each other, one beside the other.
fn side_by_side(
    count: usize,
    nodes: &[(u32, (f64, f64))],
    components: Vec<Component>,
) -> Option<Vec<Point>> {
    let mut centres = vec![None; count];
    let mut left = 0.0_f64;
    for (mut component, ..) in components {
        component.sort_by_key(|(at, _)| *at);
        let half = |at: usize| nodes.get(at).map_or(0.0, |(_, (width, _))| width / 2.0);
        let bounds = |side: f64| component.iter().map(move |(at, (x, _))| x + side * half(*at));
        let first = bounds(-1.0).fold(f64::INFINITY, f64::min);
        let last = bounds(1.0).fold(f64::NEG_INFINITY, f64::max);
        for (at, (x, y)) in &component {
            *centres.get_mut(*at)? = Some(Point { x: left + x - first, y: *y });
        }
        left += last - first + GAP;
    }
    let is_finite = |point: &Point| point.x.is_finite() && point.y.is_finite();
    centres.into_iter().map(|centre| centre.filter(is_finite)).collect()
}

/// The middle of each box, in plain rows: each task below all that it needs, and no row too
/// long.
fn rows(graph: &Graph) -> Vec<Point> {
    let mut depths = vec![0_usize; graph.nodes.len()];
    let mut needs: Vec<usize> = vec![0; graph.nodes.len()];
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes.len()];
    for &(from, to) in &graph.edges {
        after[from].push(to);
        needs[to] += 1;
    }
    let mut free: Vec<usize> = (0..needs.len()).filter(|&at| needs[at] == 0).collect();
    while let Some(at) = free.pop() {
        for &next in &after[at] {
            depths[next] = depths[next].max(depths[at] + 1);
            needs[next] -= 1;
            if needs[next] == 0 {
                free.push(next);
            }
        }
    }
    let mut layers: Vec<Vec<usize>> =
        vec![Vec::new(); depths.iter().max().map_or(0, |max| max + 1)];
    for (at, &depth) in depths.iter().enumerate() {
        layers[depth].push(at);
    }
    let mut centres = vec![Point::default(); graph.nodes.len()];
    let mut y = 0.0;
    for row in layers.iter().flat_map(|layer| layer.chunks(ROW_MAX)) {
        let mut x = 0.0;
        for &at in row {
            let (width, _) = size(&graph.nodes[at]);
            centres[at] = Point { x: x + width / 2.0, y };
            x += width + GAP;
        }
        y += HEIGHT + GAP;
    }
    centres
}

/// Boxes around their middles, moved so that the first begins at the margin, and the edges
/// between them.
fn place(graph: &Graph, centres: Vec<Point>) -> Layout {
    let boxed = |(centre, node): (Point, &Node)| {
        let (width, height) = size(node);
        Rect { x: centre.x - width / 2.0, y: centre.y - height / 2.0, width, height }
    };
    let mut nodes: Vec<Rect> = centres.into_iter().zip(&graph.nodes).map(boxed).collect();
    let least = |side: fn(&Rect) -> f64| nodes.iter().map(side).reduce(f64::min).unwrap_or(0.0);
    let (left, top) = (least(|rect| rect.x), least(|rect| rect.y));
    for rect in &mut nodes {
        rect.x += MARGIN - left;
        rect.y += MARGIN - top;
    }
    let most = |side: fn(&Rect) -> f64| nodes.iter().map(side).fold(0.0, f64::max) + MARGIN;
    let (width, height) = (most(|rect| rect.x + rect.width), most(|rect| rect.y + rect.height));
    let line = |&(from, to): &(usize, usize)| {
        let (from, to): (Rect, Rect) = (nodes[from], nodes[to]);
        let leaves = Point { x: from.x + from.width / 2.0, y: from.y + from.height };
        [leaves, Point { x: to.x + to.width / 2.0, y: to.y }]
    };
    let edges = graph.edges.iter().map(line).collect();
    Layout { width, height, nodes, edges }
}

#[cfg(test)]
mod tests {
    use super::super::tests::graph;
    use super::*;

    #[track_caller]
    fn assert_sound(graph: &Graph, layout: &Layout) {
        let Layout { width, height, nodes, edges } = layout;
        assert_eq!((nodes.len(), edges.len()), (graph.nodes.len(), graph.edges.len()));
        for (at, a) in nodes.iter().enumerate() {
            assert!(a.x >= 0.0 && a.y >= 0.0, "{a:?}");
            assert!(a.x + a.width <= *width && a.y + a.height <= *height, "{a:?}");
            for b in &nodes[..at] {
                let apart = a.x + a.width <= b.x
                    || b.x + b.width <= a.x
                    || a.y + a.height <= b.y
                    || b.y + b.height <= a.y;
                assert!(apart, "{a:?} lies on {b:?}");
            }
        }
        for (&(from, to), [leaves, arrives]) in graph.edges.iter().zip(edges) {
            assert!(leaves.y < arrives.y, "{from} -> {to} goes up");
        }
    }

    /// A chain that forks after every third task, `size` tasks in all.
    fn fork(size: usize) -> Graph {
        let ids: Vec<String> = (0..size).map(|at| format!("task-{at}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let edges: Vec<_> = (1..size).map(|at| (at.saturating_sub(1 + at % 3), at)).collect();
        graph(&ids, &edges)
    }

    #[test]
    fn a_diamond_has_three_layers_around_one_axis() {
        let graph = graph(&["a", "b", "c", "d"], &[(0, 1), (0, 2), (1, 3), (2, 3)]);
        let found = layout(&graph);
        assert_sound(&graph, &found);
        let place = |at: usize| (found.nodes[at].x, found.nodes[at].y);
        assert_eq!(place(0), (66.0, 12.0));
        assert_eq!(place(1).1, 84.0);
        assert_eq!(place(2).1, 84.0);
        assert_eq!(place(3), (66.0, 156.0));
        assert_eq!((found.width, found.height), (204.0, 204.0));
    }

    #[test]
    fn nothing_and_one_and_parts_are_laid_out() {
        let cases = [
            graph(&[], &[]),
            graph(&["a"], &[]),
            graph(&["a", "b", "c"], &[]),
            graph(&["a", "b", "c", "d"], &[(0, 1), (2, 3)]),
        ];
        for graph in cases {
            assert_sound(&graph, &layout(&graph));
        }
    }

    #[test]
    fn what_is_laid_out_twice_stands_where_it_stood() {
        let graph = fork(60);
        let found = layout(&graph);
        assert_sound(&graph, &found);
        assert_eq!(layout(&graph), found);
    }

    #[test]
    fn a_graph_too_large_to_read_stands_in_rows() {
        let graph = fork(NODES_MAX + 1);
        assert!(layered(&fork(NODES_MAX)).is_some(), "the largest is laid out in time");
        let found = layout(&graph);
        assert_sound(&graph, &found);
        assert_eq!(found, place(&graph, rows(&graph)));
    }
}
