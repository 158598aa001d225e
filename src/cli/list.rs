//! `ls` and `get`: looking things up.

use std::io::Write as _;
use std::str::FromStr;
use std::time::Duration;

use quorate_api::client::RunQuery;
use quorate_api::page::{PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX, Page};
use quorate_api::time::Time;
use quorate_api::view::RunState;
use quorate_model::UnixMs;

use super::connect::{self, now_ms};
use super::exit::Exit;
use super::output::{OutputArgs, print_list, print_one};
use super::{Global, say, stdout, worker};

/// What `quorate ls` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct LsArgs {
    /// What to list
    #[arg(value_enum, default_value_t)]
    kind: Kind,
    /// With tasks: of which run
    #[arg(required_if_eq("kind", "tasks"))]
    run: Option<String>,
    /// Runs of this workflow only; repeat for more
    #[arg(short = 'W', long = "workflow", value_name = "NAME")]
    workflows: Vec<String>,
    /// Runs in this state only; repeat for more
    #[arg(short, long = "state", value_name = "STATE")]
    states: Vec<RunState>,
    /// Runs with this label only; repeat for more
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = super::key_value)]
    labels: Vec<(String, String)>,
    /// Runs that are no older than this only
    #[arg(long, value_name = "SPAN", value_parser = super::span::parse)]
    since: Option<Duration>,
    /// At most so many
    #[arg(
        short = 'n',
        long,
        default_value_t = PAGE_LIMIT_DEFAULT,
        value_parser = limit
    )]
    limit: usize,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Runs, newest first
    #[default]
    #[value(alias = "run")]
    Runs,
    /// Stored workflows
    #[value(alias = "workflow")]
    Workflows,
    /// Workers
    #[value(alias = "worker")]
    Workers,
    /// Tasks of a run
    #[value(alias = "task")]
    Tasks,
}

fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit @ 1..=PAGE_LIMIT_MAX) => Ok(limit),
        Ok(_) | Err(_) => Err(format!("say 1 to {PAGE_LIMIT_MAX}")),
    }
}

/// Lists.
///
/// # Errors
///
/// If the cluster does not answer, or stdout cannot be written.
pub(super) async fn ls(global: &Global, args: LsArgs) -> anyhow::Result<Exit> {
    let client = connect::client(global).await?;
    let (mut out, now) = (stdout(), now_ms());
    let more = match (args.kind, &args.run) {
        (Kind::Runs, _) => {
            let page = client.runs(&query(&args, now)).await?;
            print_list(&mut out, &args.output, &page.items, &page, now)?;
            page.next_page_token.is_some()
        }
        (Kind::Workflows, _) => {
            let page = client.workflows(None, args.limit).await?;
            print_list(&mut out, &args.output, &page.items, &page, now)?;
            page.next_page_token.is_some()
        }
        (Kind::Workers, _) => {
            let page = Page::whole(client.workers().await?);
            print_list(&mut out, &args.output, &page.items, &page, now)?;
            false
        }
        (Kind::Tasks, run) => {
            let run = run.as_deref().expect("clap asks for the run of tasks");
            let id = connect::find_run(&client, run).await?;
            let page = Page::whole(client.tasks(id).await?);
            print_list(&mut out, &args.output, &page.items, &page, now)?;
            false
        }
    };
    out.flush()?;
    if more {
        say(format_args!("there are more; for up to {PAGE_LIMIT_MAX} say --limit"));
    }
    Ok(Exit::Done)
}

fn query(args: &LsArgs, now_ms: u64) -> RunQuery {
    let since = |span: Duration| {
        let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Time(UnixMs(now_ms.saturating_sub(span_ms)))
    };
    RunQuery {
        workflows: args.workflows.clone(),
        states: args.states.clone(),
        labels: args.labels.clone(),
        created_after: args.since.map(since),
        limit: args.limit,
        ..RunQuery::default()
    }
}

/// What `quorate get` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct GetArgs {
    /// run/ID, workflow/NAME, worker/ID or task/RUN/ID
    #[arg(value_name = "KIND/NAME")]
    what: Thing,
    #[command(flatten)]
    output: OutputArgs,
}

/// What can be got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Thing {
    Run(String),
    Workflow(String),
    Worker(String),
    Task { run: String, id: String },
}

impl FromStr for Thing {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split('/').collect();
        match words[..] {
            ["run", id] => Ok(Self::Run(id.to_owned())),
            ["workflow", name] => Ok(Self::Workflow(name.to_owned())),
            ["worker", id] => Ok(Self::Worker(id.to_owned())),
            ["task", run, id] => Ok(Self::Task { run: run.to_owned(), id: id.to_owned() }),
            _ => Err("say run/ID, workflow/NAME, worker/ID or task/RUN/ID"),
        }
    }
}

/// Prints one thing.
///
/// # Errors
///
/// If there is no such thing, the cluster does not answer, or stdout cannot be written.
pub(super) async fn get(global: &Global, args: GetArgs) -> anyhow::Result<Exit> {
    let client = connect::client(global).await?;
    let mut out = stdout();
    match args.what {
        Thing::Run(id) => {
            let run = client.run(connect::find_run(&client, &id).await?).await?;
            print_one(&mut out, &args.output, &run, now_ms())?;
        }
        Thing::Workflow(name) => {
            let workflow = client.workflow(&name).await?;
            print_one(&mut out, &args.output, &workflow, now_ms())?;
        }
        Thing::Worker(id) => {
            let worker = client.worker(worker::find(&client, &id).await?).await?;
            print_one(&mut out, &args.output, &worker, now_ms())?;
        }
        Thing::Task { run, id } => {
            let task = client.task(connect::find_run(&client, &run).await?, &id).await?;
            print_one(&mut out, &args.output, &task, now_ms())?;
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}
