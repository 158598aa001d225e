//! `worker drain` and `worker eligible`: whether a worker is given work.

use std::io::Write as _;

use anyhow::bail;
use quorate_api::client::Client;
use quorate_api::view::WorkerState;
use quorate_model::WorkerId;

use super::exit::{Exit, Failure};
use super::output::{OutputArgs, print_id};
use super::{Global, connect, say, stdout};

/// What `quorate worker` can do besides being one.
#[derive(Clone, Debug, clap::Subcommand)]
pub(super) enum WorkerVerb {
    /// Give a worker nothing more; what it runs goes on
    Drain(DrainArgs),
    /// Give a worker work again
    Eligible(EligibleArgs),
}

/// What `quorate worker drain` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DrainArgs {
    /// Name or id of the worker
    worker: String,
    /// Why, for those who wonder
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// What `quorate worker eligible` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct EligibleArgs {
    /// Name or id of the worker
    worker: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Does what a verb says.
///
/// # Errors
///
/// If there is no such worker, or the cluster does not answer.
pub(super) async fn worker(global: &Global, verb: WorkerVerb) -> anyhow::Result<Exit> {
    let client = connect::client(global).await?;
    let by = super::user();
    let mut out = stdout();
    match verb {
        WorkerVerb::Drain(DrainArgs { worker, reason, output }) => {
            let id = find(&client, &worker).await?;
            let accepted = client.drain(id, &by, &reason).await?;
            print_id(&mut out, &output, "worker", &id, &accepted)?;
            let running = client.worker(id).await?.running;
            say(format_args!("{id} is given nothing more; {running} of its tasks go on"));
        }
        WorkerVerb::Eligible(EligibleArgs { worker, output }) => {
            let id = find(&client, &worker).await?;
            let accepted = client.make_eligible(id, &by).await?;
            print_id(&mut out, &output, "worker", &id, &accepted)?;
            let view = client.worker(id).await?;
            if let Some(why) = view.ineligible {
                say(format_args!("{id} still is given nothing: {why}"));
            }
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// The worker that is meant: by its id, or by its name if only one has it. Of several, those
/// that are gone do not count if one is live.
///
/// # Errors
///
/// If there is none, or more than one.
pub(super) async fn find(client: &Client, text: &str) -> anyhow::Result<WorkerId> {
    // As `-o name` prints it.
    let text = text.strip_prefix("worker/").unwrap_or(text);
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let mut named = client.workers().await?;
    named.retain(|worker| worker.name.as_str() == text);
    if named.iter().any(|worker| worker.state == WorkerState::Live) {
        named.retain(|worker| worker.state == WorkerState::Live);
    }
    match &named[..] {
        [worker] => Ok(worker.id),
        _ => {
            let message = format!("{} workers are called {text:?}", named.len());
            bail!(Failure::new(Exit::NotFound, message).hint("quorate ls workers lists them"))
        }
    }
}
