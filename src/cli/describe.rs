//! `describe`: all about a run, a workflow or a worker, for people.

use std::io::{self, Write};

use quorate_api::client::Client;
use quorate_api::time::Time;
use quorate_api::view::{
    ArtifactView, InterventionView, ParamView, RunView, TaskView, WorkerView, WorkflowView,
};
use serde_json::Value;

use super::connect::{self, now_ms};
use super::exit::Exit;
use super::output::{BOLD, Cell, Format, OutputArgs, PLAIN, Table, paint, print_list, print_one};
use super::progress::why;
use super::rows::state_of;
use super::{Global, run, span, stdout, worker};

/// What `quorate describe` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DescribeArgs {
    /// Id of a run, a unique part of it, or @last; or workflow/NAME or worker/ID
    #[arg(default_value = "@last")]
    what: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Tells all about a run, a workflow or a worker.
///
/// # Errors
///
/// If there is no such run, the cluster does not answer, or stdout cannot be written.
pub(super) async fn describe(global: &Global, args: DescribeArgs) -> anyhow::Result<Exit> {
    let client = connect::client(global).await?;
    if args.what.starts_with("worker/") {
        return describe_worker(&client, &args).await;
    }
    if let Some(name) = args.what.strip_prefix("workflow/") {
        return describe_workflow(&client, name, &args).await;
    }
    let id = connect::find_run(&client, &args.what).await?;
    let run = client.run(id).await?;
    let mut out = stdout();
    if args.output.quiet || !matches!(args.output.format, Format::Table | Format::Wide) {
        print_one(&mut out, &args.output, &run, now_ms())?;
        out.flush()?;
        return Ok(Exit::Done);
    }
    let tasks = client.tasks(id).await?;
    // A worker that is away takes its artifacts along; the rest is worth telling.
    let artifacts = client.artifacts(id).await.unwrap_or_default();
    print(&mut out, &args.output, &run, &tasks, &artifacts, now_ms())?;
    out.flush()?;
    run::hint_at_logs(&run);
    Ok(Exit::Done)
}

async fn describe_workflow(
    client: &Client,
    name: &str,
    args: &DescribeArgs,
) -> anyhow::Result<Exit> {
    let view = client.workflow(name).await?;
    let mut out = stdout();
    if args.output.quiet || !matches!(args.output.format, Format::Table | Format::Wide) {
        print_one(&mut out, &args.output, &view, now_ms())?;
    } else {
        print_workflow(&mut out, &view)?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn print_workflow(out: &mut dyn Write, view: &WorkflowView) -> io::Result<()> {
    let mut field = |name: &str, value: String| writeln!(out, "{BOLD}{name:<13}{PLAIN}{value}");
    field("Workflow", format!("{} v{}", view.name, view.version))?;
    if !view.description.is_empty() {
        field("Description", view.description.clone())?;
    }
    for (name, value) in &view.labels {
        field("Label", format!("{name}={value}"))?;
    }
    field("Time zone", view.timezone.clone())?;
    for (name, param) in &view.params {
        field("Param", format!("{name}: {}", takes(param)))?;
    }
    for task in &view.tasks {
        let needs: Vec<String> = task.needs.iter().map(ToString::to_string).collect();
        let after =
            if needs.is_empty() { String::new() } else { format!(", after {}", needs.join(", ")) };
        field("Task", format!("{}: {}{after}", task.id, task.kind))?;
    }
    for (name, text) in &view.outputs {
        field("Output", format!("{name}={text}"))?;
    }
    Ok(())
}

/// What values a parameter takes, in words.
fn takes(param: &ParamView) -> String {
    let ParamView {
        kind,
        default,
        choices,
        pattern,
        min,
        max,
        min_length,
        max_length,
        description,
    } = param;
    let kind = serde_json::to_value(kind).unwrap_or_default();
    let choices: Vec<String> = choices.iter().map(plain).collect();
    let words = [
        Some(plain(&kind)),
        (!choices.is_empty()).then(|| format!("one of {}", choices.join(", "))),
        pattern.as_ref().map(|pattern| format!("matches {pattern}")),
        min.as_ref().map(|min| format!("from {}", plain(min))),
        max.as_ref().map(|max| format!("to {}", plain(max))),
        min_length.map(|min| format!("length from {min}")),
        max_length.map(|max| format!("length to {max}")),
        Some(match default {
            Some(default) => format!("default {}", plain(default)),
            None => "required".to_owned(),
        }),
        Some(description.clone()).filter(|text| !text.is_empty()),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

async fn describe_worker(client: &Client, args: &DescribeArgs) -> anyhow::Result<Exit> {
    let view = client.worker(worker::find(client, &args.what).await?).await?;
    let (mut out, now_ms) = (stdout(), now_ms());
    if args.output.quiet || !matches!(args.output.format, Format::Table | Format::Wide) {
        print_one(&mut out, &args.output, &view, now_ms)?;
    } else {
        print_worker(&mut out, &view, now_ms)?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn print_worker(out: &mut dyn Write, view: &WorkerView, now_ms: u64) -> io::Result<()> {
    let ago = |at: Time| format!("{at} ({} ago)", span::show(now_ms.saturating_sub(at.0.0)));
    let mut field = |name: &str, value: String| writeln!(out, "{BOLD}{name:<13}{PLAIN}{value}");
    field("Worker", format!("{} {}", view.id, view.name))?;
    let state = state_of(view);
    field("State", format!("{}{state}{PLAIN}", paint(state)))?;
    if let Some(why) = &view.ineligible {
        field("Ineligible", why.clone())?;
    }
    if let Some(drain) = view.drain.as_ref().filter(|drain| !drain.by.is_empty()) {
        field("Drained by", format!("{}, {}", drain.by, ago(drain.at)))?;
    }
    if let Some(found) = view.quarantine {
        field("Quarantined", ago(found.at))?;
    }
    field("Containment", view.containment.text().to_owned())?;
    field("Running", format!("{} of {} slots", view.running, view.slots))?;
    for run in &view.runs {
        field("Run", run.to_string())?;
    }
    for (name, value) in &view.labels {
        field("Label", format!("{name}={value}"))?;
    }
    field("Lease", view.lease.clone())?;
    field("Registered", format!("{}, epoch {}", ago(view.registered_at), view.epoch))?;
    view.gone_at.map_or(Ok(()), |at| field("Gone", ago(at)))
}

/// Writes it all.
fn print(
    out: &mut dyn Write,
    args: &OutputArgs,
    run: &RunView,
    tasks: &[TaskView],
    artifacts: &[ArtifactView],
    now_ms: u64,
) -> io::Result<()> {
    print_run(out, run, now_ms)?;
    writeln!(out)?;
    print_list(out, args, tasks, &tasks, now_ms)?;
    print_attempts(out, tasks)?;
    if !artifacts.is_empty() {
        writeln!(out)?;
        print_list(out, args, artifacts, &artifacts, now_ms)?;
    }
    Ok(())
}

fn print_run(out: &mut dyn Write, run: &RunView, now_ms: u64) -> io::Result<()> {
    let mut field = |name: &str, value: String| writeln!(out, "{BOLD}{name:<10}{PLAIN}{value}");
    field("Run", run.id.to_string())?;
    field("Workflow", format!("{} v{}", run.workflow, run.version))?;
    let state = run.state.text();
    field("State", format!("{}{state}{PLAIN}", paint(state)))?;
    if let Some(reason) = &run.reason {
        field("Reason", reason.clone())?;
    }
    for InterventionView { act, by, reason, at, .. } in &run.interventions {
        field("By hand", format!("{act} by {by} at {at} {reason}").trim_end().to_owned())?;
    }
    let age = span::show(now_ms.saturating_sub(run.created_at.0.0));
    let (created, index) = (run.created_at, run.created_index);
    field("Created", format!("{created} ({age} ago), entry @{index}"))?;
    field("About", run.logical_time.to_string())?;
    if let Some(took_ms) = run.duration_ms {
        field("Took", span::show(took_ms))?;
    }
    for (name, value) in &run.labels {
        field("Label", format!("{name}={value}"))?;
    }
    for (heading, values) in [("Param", &run.params), ("Output", &run.outputs)] {
        for (name, value) in values.iter().filter_map(Value::as_object).flatten() {
            field(heading, format!("{name}={}", plain(value)))?;
        }
    }
    Ok(())
}

/// A value without quotation marks where it is text.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Every try of the tasks that needed more than one.
fn print_attempts(out: &mut dyn Write, tasks: &[TaskView]) -> io::Result<()> {
    let mut table = Table::new(&["TRY", "STATE", "WORKER", "ASSIGNED", "ENDED", "WHY"], true);
    let tried_again: Vec<_> = tasks.iter().filter(|task| task.attempts_begun > 1).collect();
    if tried_again.is_empty() {
        return Ok(());
    }
    for task in tried_again {
        for attempt in &task.attempts {
            table.push(vec![
                format!("{} #{}", task.id, attempt.attempt).into(),
                Cell::state(attempt.state.text()),
                attempt.worker.to_string().into(),
                format!("@{}", attempt.token).into(),
                Cell::maybe(attempt.ended_index.map(|index| format!("@{index}"))),
                why(attempt).unwrap_or_default().into(),
            ]);
        }
    }
    writeln!(out)?;
    table.print(out)
}
