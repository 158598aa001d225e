//! `cancel`, `pause` and `resume`: what people do to runs and workflows.

use std::io::Write as _;

use quorate_api::client::Words;

use super::exit::Exit;
use super::output::{OutputArgs, print_id};
use super::{Global, connect, stdout};

/// What `quorate cancel` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct CancelArgs {
    /// Ids of runs, unique parts of them, or @last
    #[arg(required = true)]
    runs: Vec<String>,
    #[command(flatten)]
    why: WhyArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What `quorate pause` and `quorate resume` are told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PauseArgs {
    /// Ids of runs, unique parts of them, or @last; or workflow/NAME for all its runs
    #[arg(required = true)]
    what: Vec<String>,
    #[command(flatten)]
    why: WhyArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Why somebody does something.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct WhyArgs {
    /// Why, for those who look at the run later
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

impl WhyArgs {
    /// Who types this, and why.
    pub(super) fn words(self) -> Words {
        Words { by: super::user(), reason: self.reason }
    }
}

/// Asks the cluster to stop runs. What they run is then killed; `quorate wait` tells when.
///
/// # Errors
///
/// If there is no such run, or it has ended.
pub(super) async fn cancel(global: &Global, args: CancelArgs) -> anyhow::Result<Exit> {
    let client = connect::client(global).await?;
    let (mut out, words) = (stdout(), args.why.words());
    for run in &args.runs {
        let id = connect::find_run(&client, run).await?;
        let accepted = client.cancel(id, &words).await?;
        print_id(&mut out, &args.output, "run", &id, &accepted)?;
        out.flush()?;
    }
    Ok(Exit::Done)
}

/// Has nothing more of runs start, or of all runs of a workflow.
///
/// # Errors
///
/// If there is no such run or workflow, or the run has ended.
pub(super) async fn pause(global: &Global, args: PauseArgs) -> anyhow::Result<Exit> {
    let client = connect::client(global).await?;
    let (mut out, words) = (stdout(), args.why.words());
    for what in &args.what {
        if let Some(name) = what.strip_prefix("workflow/") {
            let accepted = client.pause_workflow(name, &words).await?;
            print_id(&mut out, &args.output, "workflow", &name, &accepted)?;
        } else {
            let id = connect::find_run(&client, what).await?;
            let accepted = client.pause(id, &words).await?;
            print_id(&mut out, &args.output, "run", &id, &accepted)?;
        }
        out.flush()?;
    }
    Ok(Exit::Done)
}

/// Has paused runs go on, or those that were paused with their workflow.
///
/// # Errors
///
/// If there is no such run or workflow, or the run has ended.
pub(super) async fn resume(global: &Global, args: PauseArgs) -> anyhow::Result<Exit> {
    let client = connect::client(global).await?;
    let (mut out, words) = (stdout(), args.why.words());
    for what in &args.what {
        if let Some(name) = what.strip_prefix("workflow/") {
            let accepted = client.resume_workflow(name).await?;
            print_id(&mut out, &args.output, "workflow", &name, &accepted)?;
        } else {
            let id = connect::find_run(&client, what).await?;
            let accepted = client.resume(id, &words).await?;
            print_id(&mut out, &args.output, "run", &id, &accepted)?;
        }
        out.flush()?;
    }
    Ok(Exit::Done)
}
