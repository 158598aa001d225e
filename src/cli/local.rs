//! `run`: a workflow file, here and now. A whole node lives for as long as the run does.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use quorate_api::client::{Client, Start, What, Words};
use quorate_api::view::{ArtifactView, RunView};
use serde_json::Value;

use super::connect::now_ms;
use super::describe::plain;
use super::display::{self, Display};
use super::exit::Exit;
use super::output::{Format, OutputArgs, print_json, print_list};
use super::run::{ParamArgs, exit_of};
use super::scratch::Scratch;
use super::signals::Interrupts;
use super::watch::Follow;
use super::{document, say, stdout};
use crate::config::Overrides;
use crate::server::{Farewell, Server};

/// Lines of the log of a failed task that are shown.
const LOG_LINES_SHOWN: u64 = 10;

/// What `quorate run` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RunArgs {
    /// The workflow file (- for standard input)
    file: String,
    #[command(flatten)]
    params: ParamArgs,
    /// Parameters once more
    #[arg(last = true, value_name = "NAME=VALUE", value_parser = super::key_value)]
    more_params: Vec<(String, String)>,
    /// Keep the artifacts of the run in this folder
    #[arg(long, value_name = "DIR")]
    artifacts: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs a workflow file and exits as the run did.
///
/// # Errors
///
/// If the file is no workflow, or the node does not start.
pub(super) async fn run(args: RunArgs) -> anyhow::Result<Exit> {
    let document = document::read(&args.file)?;
    let parsed = document.parse()?;
    let params = args.params.read(&args.more_params, &parsed.definition)?;
    let (source, name) = (document.source, parsed.name.to_string());
    let logical_time = args.params.logical_time.clone();
    let start = Start { params, logical_time, ..Start::of(What::Inline { source, name }) };

    // Before anything is there that must not be left behind.
    let mut interrupts = Interrupts::new()?;
    crate::telemetry::init("error");
    let scratch = Scratch::new("quorate-run-")?;
    let server = Server::start(config(scratch.path())?).await?;
    let outcome = on_node(&Client::new([server.url()])?, &start, &args, &mut interrupts).await;
    // Also where it failed: nothing that runs is left behind.
    server.shutdown(Farewell::Leave).await;
    outcome
}

fn config(dir: &Path) -> anyhow::Result<crate::config::Config> {
    let settings = Overrides {
        dev: Some(true),
        data: Some(dir.to_owned()),
        listen: Some("127.0.0.1:0".to_owned()),
        name: Some("local".to_owned()),
        ..Overrides::default()
    };
    // Not from the environment: that speaks of servers.
    Ok(settings.complete()?)
}

async fn on_node(
    client: &Client,
    start: &Start,
    args: &RunArgs,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Exit> {
    let started = client.start(start).await?;
    let mut display = Display::new();
    let mut follow = Follow::begin(client, started.id, &mut display).await?;
    let mut cancelled = false;
    while !follow.has_ended() {
        tokio::select! {
            step = follow.step(&mut display) => step?,
            () = interrupts.next() => {
                if cancelled {
                    return Ok(Exit::Interrupted);
                }
                display.note("cancelling; press Ctrl-C again not to wait for it");
                let reason = "interrupted".to_owned();
                client.cancel(started.id, &Words { by: super::user(), reason }).await?;
                cancelled = true;
            }
        }
    }
    display.clear();
    let run = follow.run();
    say(display::summary(run));
    tell_why(client, run).await?;
    let artifacts = client.artifacts(run.id).await?;
    if let Some(dir) = &args.artifacts {
        save(client, run, &artifacts, dir).await?;
    }
    print(args, run, &artifacts)?;
    Ok(exit_of(run))
}

/// The end of the log of each task that failed: with the node it will be gone.
async fn tell_why(client: &Client, run: &RunView) -> anyhow::Result<()> {
    use quorate_api::client::LogQuery;
    for name in &run.failed_tasks {
        let task = client.task(run.id, name.as_str()).await?;
        let Some(latest) = task.attempts.last() else { continue };
        let query = LogQuery { tail: Some(LOG_LINES_SHOWN), ..LogQuery::default() };
        let lines = client.log(run.id, name.as_str(), latest.attempt, query);
        let mut lines = std::pin::pin!(lines);
        while let Some(line) = lines.next().await {
            say(format_args!("  {name} | {}", line?.line));
        }
    }
    Ok(())
}

fn print(args: &RunArgs, run: &RunView, artifacts: &[ArtifactView]) -> std::io::Result<()> {
    let mut out = stdout();
    if args.output.format == Format::Json {
        print_json(&mut out, run)?;
        return out.flush();
    }
    for (name, value) in run.outputs.iter().filter_map(Value::as_object).flatten() {
        writeln!(out, "{name}={}", plain(value))?;
    }
    if !artifacts.is_empty() && !args.output.quiet {
        print_list(&mut out, &args.output, artifacts, &artifacts, now_ms())?;
    }
    out.flush()
}

async fn save(
    client: &Client,
    run: &RunView,
    artifacts: &[ArtifactView],
    dir: &Path,
) -> anyhow::Result<()> {
    for artifact in artifacts {
        // A folder a task, as two may use one name.
        let path = dir.join(artifact.task.as_str()).join(&artifact.path);
        let parent = path.parent().context("an artifact lies in a folder")?;
        std::fs::create_dir_all(parent)?;
        let mut file = std::fs::File::create(&path)?;
        let bytes = client.artifact(run.id, &artifact.path, Some(artifact.task.as_str())).await?;
        let mut bytes = std::pin::pin!(bytes);
        while let Some(chunk) = bytes.next().await {
            file.write_all(&chunk?)?;
        }
    }
    Ok(())
}
