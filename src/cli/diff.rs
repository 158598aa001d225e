//! `diff`: what differs between two workflows.

use std::io::{self, Write};

use quorate_api::client;
use quorate_api::diff::{self, Change};
use quorate_api::page::Page;
use quorate_api::view::WorkflowView;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::exit::{self, Exit};
use super::output::{DIM, GREEN, PLAIN, RED, YELLOW, print_json};
use super::{Global, connect, document, stdout, stored};

/// Lines of a script shown around those that differ.
const CONTEXT_LINES: usize = 2;

/// What `quorate diff` is told.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Exits with 0 if they do the same, with 1 if not, and with 2 or more if \
                        that cannot be told.")]
pub(super) struct DiffArgs {
    /// FILE, NAME or NAME@VERSION; a FILE alone is compared with what the cluster has
    #[arg(value_name = "OLD")]
    old: String,
    /// The same, to compare it with
    #[arg(value_name = "NEW")]
    new: Option<String>,
    /// How to print it
    #[arg(short = 'o', long = "output", value_name = "FORMAT", value_enum, default_value_t)]
    format: DiffFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum DiffFormat {
    /// A line a change
    #[default]
    Text,
    /// One JSON document
    Json,
}

/// Prints what differs, by what it means. Answers [`Exit::Error`] if anything does.
///
/// # Errors
///
/// If stdout cannot be written.
pub(super) async fn diff(global: &Global, args: DiffArgs) -> anyhow::Result<Exit> {
    let sides = match &args.new {
        Some(new) => both(global, &args.old, new).await,
        None => with_stored(global, &args.old).await,
    };
    let (before, after) = match sides {
        Ok(sides) => sides,
        // 1 says that they differ.
        Err(error) => {
            let exit = exit::report(&error);
            return Ok(if exit == Exit::Error { Exit::Usage } else { exit });
        }
    };
    let mut out = stdout();
    let is_same = match before {
        Some(before) => {
            let changes = diff::diff(&before, &after);
            match args.format {
                DiffFormat::Text => changes.iter().try_for_each(|change| tell(&mut out, change))?,
                DiffFormat::Json => print_json(&mut out, &Page::whole(changes.clone()))?,
            }
            changes.is_empty()
        }
        None => {
            let (name, tasks) = (&after.name, after.tasks.len());
            writeln!(out, "{GREEN}+{PLAIN} {name}: new, {tasks} tasks")?;
            false
        }
    };
    out.flush()?;
    Ok(if is_same { Exit::Done } else { Exit::Error })
}

/// The old side, unless there is none, and the new one.
type Sides = (Option<WorkflowView>, WorkflowView);

async fn both(global: &Global, old: &str, new: &str) -> anyhow::Result<Sides> {
    Ok((Some(stored::workflow(global, old).await?), stored::workflow(global, new).await?))
}

/// A file, and what the cluster has under the same name.
async fn with_stored(global: &Global, file: &str) -> anyhow::Result<Sides> {
    let after = WorkflowView::draft(&document::read(file)?.parse()?);
    let client = connect::client(global).await?;
    match client.workflow(after.name.as_str()).await {
        Ok(before) => Ok((Some(before), after)),
        Err(client::Error::Problem(problem)) if problem.code == "no-such-workflow" => {
            Ok((None, after))
        }
        Err(error) => Err(error.into()),
    }
}

fn tell(out: &mut dyn Write, change: &Change) -> io::Result<()> {
    let Change { path, before, after } = change;
    match (before, after) {
        (Some(Value::String(before)), Some(Value::String(after)))
            if before.contains('\n') || after.contains('\n') =>
        {
            writeln!(out, "{YELLOW}~{PLAIN} {path}:")?;
            tell_lines(out, before, after)
        }
        (Some(before), Some(after)) => {
            writeln!(out, "{YELLOW}~{PLAIN} {path}: {} -> {}", shown(before), shown(after))
        }
        (None, Some(after)) => writeln!(out, "{GREEN}+{PLAIN} {path}: {}", shown(after)),
        (Some(before), None) => writeln!(out, "{RED}-{PLAIN} {path}: {}", shown(before)),
        (None, None) => Ok(()),
    }
}

fn tell_lines(out: &mut dyn Write, before: &str, after: &str) -> io::Result<()> {
    let lines = TextDiff::from_lines(before, after);
    for group in lines.grouped_ops(CONTEXT_LINES) {
        for line in group.iter().flat_map(|op| lines.iter_changes(op)) {
            let text = line.value().trim_end_matches('\n');
            match line.tag() {
                ChangeTag::Delete => writeln!(out, "    {RED}- {text}{PLAIN}")?,
                ChangeTag::Insert => writeln!(out, "    {GREEN}+ {text}{PLAIN}")?,
                ChangeTag::Equal => writeln!(out, "    {DIM}  {text}{PLAIN}")?,
            }
        }
    }
    Ok(())
}

/// A value on one line; texts that cannot be taken for anything else without quotes.
fn shown(value: &Value) -> String {
    let is_plain = |text: &&str| text.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
    value.as_str().filter(is_plain).map_or_else(|| value.to_string(), str::to_owned)
}
