//! `graph`: draws the tasks of a workflow.

use std::io::Write as _;

use quorate_api::graph::{Graph, layout};

use super::exit::Exit;
use super::{Global, stdout, stored};

/// What `quorate graph` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct GraphArgs {
    /// FILE, NAME or NAME@VERSION; - is standard input
    #[arg(value_name = "WORKFLOW")]
    workflow: String,
    /// How to draw it
    #[arg(short = 'o', long = "output", value_name = "FORMAT", value_enum, default_value_t)]
    format: Picture,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Picture {
    /// A picture for browsers
    #[default]
    Svg,
    /// For Graphviz
    Dot,
    /// For Markdown
    Mermaid,
}

/// Prints the graph of a workflow.
///
/// # Errors
///
/// If it is no workflow, the cluster does not have it, or stdout cannot be written.
pub(super) async fn graph(global: &Global, args: GraphArgs) -> anyhow::Result<Exit> {
    let workflow = stored::workflow(global, &args.workflow).await?;
    let graph = Graph::of(&workflow.tasks);
    let text = match args.format {
        Picture::Svg => graph.svg(workflow.name.as_str(), &layout(&graph)),
        Picture::Dot => graph.dot(workflow.name.as_str()),
        Picture::Mermaid => graph.mermaid(),
    };
    let mut out = stdout();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(Exit::Done)
}
