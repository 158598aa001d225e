//! `approve` and `reject`: the answer to a task that asks.

use std::io::Write as _;

use quorate_api::client::Answered;
use serde_json::{Map, Value};

use super::exit::Exit;
use super::output::{OutputArgs, print_id};
use super::{Global, connect, stdout};

/// What `quorate approve` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ApproveArgs {
    #[command(flatten)]
    question: QuestionArgs,
    /// What is to be filled in; repeat for more
    #[arg(short = 'i', long = "input", value_name = "NAME=VALUE", value_parser = super::key_value)]
    inputs: Vec<(String, String)>,
    #[command(flatten)]
    output: OutputArgs,
}

/// What `quorate reject` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RejectArgs {
    #[command(flatten)]
    question: QuestionArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Clone, Debug, clap::Args)]
struct QuestionArgs {
    /// Id of a run, a unique part of it, or @last
    run: String,
    /// A task of it that asks
    task: String,
    /// Why, for those who look at the run later
    #[arg(short = 'm', long, default_value = "", hide_default_value = true)]
    comment: String,
}

/// Says yes: the run goes on.
///
/// # Errors
///
/// If there is no such task, or it does not ask.
pub(super) async fn approve(global: &Global, args: ApproveArgs) -> anyhow::Result<Exit> {
    let values = args.inputs.into_iter().map(|(name, value)| (name, Value::String(value)));
    answer(global, args.question, Some(values.collect()), &args.output).await
}

/// Says no: the task has failed.
///
/// # Errors
///
/// As [`approve`].
pub(super) async fn reject(global: &Global, args: RejectArgs) -> anyhow::Result<Exit> {
    answer(global, args.question, None, &args.output).await
}

async fn answer(
    global: &Global,
    question: QuestionArgs,
    inputs: Option<Map<String, Value>>,
    output: &OutputArgs,
) -> anyhow::Result<Exit> {
    let QuestionArgs { run, task, comment } = question;
    let client = connect::client(global).await?;
    let id = connect::find_run(&client, &run).await?;
    let answered = Answered { inputs, by: super::user(), comment };
    let accepted = client.answer(id, &task, &answered).await?;
    let mut out = stdout();
    print_id(&mut out, output, "run", &id, &accepted)?;
    out.flush()?;
    Ok(Exit::Done)
}
