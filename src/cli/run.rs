//! `submit`, `wait` and `decide`: the verbs of a run.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use quorate_api::client::{Client, Decided, Start, What, Words};
use quorate_api::spec;
use quorate_api::view::{RunState, RunView, Started};
use quorate_model::workflow::Definition;
use quorate_model::{RunId, Verdict};
use serde_json::{Map, Value};

use super::connect::{self, now_ms};
use super::display::{self, Display};
use super::exit::{Exit, Failure};
use super::output::{Format, OutputArgs, print_id, print_json, print_list, print_one};
use super::signals::Interrupts;
use super::watch::Follow;
use super::{Global, document, say, stdout};

/// After a first Ctrl-C, a second within this time cancels the run.
const CANCEL_WINDOW: Duration = Duration::from_secs(2);

/// What `quorate submit` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SubmitArgs {
    /// Name of a stored workflow, or a file (- for standard input)
    workflow: String,
    #[command(flatten)]
    params: ParamArgs,
    /// Version of a stored workflow [default: the newest]
    #[arg(long, value_name = "N")]
    version: Option<u32>,
    /// Label for the run; repeat for more
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = super::key_value)]
    labels: Vec<(String, String)>,
    /// Wait until the run has ended, show progress, and exit as the run did
    #[arg(short, long)]
    wait: bool,
    /// With --wait: for how long, at most
    #[arg(long, value_name = "SPAN", value_parser = super::span::parse, requires = "wait")]
    timeout: Option<Duration>,
    /// Make a repeat of this very command harmless for a day
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// The parameters of a run.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ParamArgs {
    /// Parameter of the run; @FILE reads the value from a file; repeat for more
    #[arg(
        short = 'p',
        long = "param",
        value_name = "NAME=VALUE",
        value_parser = super::key_value
    )]
    params: Vec<(String, String)>,
    /// What the run takes for now, as 2026-11-20 or 2026-11-20T09:30 [default: now]
    #[arg(long, value_name = "TIME")]
    pub(super) logical_time: Option<String>,
}

impl ParamArgs {
    /// The values, by the types that the workflow declares.
    ///
    /// # Errors
    ///
    /// If a value is of another type, a parameter not declared, or a file not to be read.
    pub(super) fn read(
        &self,
        more: &[(String, String)],
        definition: &Definition,
    ) -> anyhow::Result<Map<String, Value>> {
        let mut values = Map::new();
        for (name, text) in self.params.iter().chain(more) {
            let text = match text.strip_prefix('@') {
                Some(file) => std::fs::read_to_string(file)
                    .with_context(|| format!("could not read {file} for -p {name}"))?,
                None => text.clone(),
            };
            let value = spec::coerce(definition, name, &text).map_err(|found| {
                let failure = Failure::new(Exit::Usage, found.message);
                found.help.into_iter().fold(failure, Failure::hint)
            })?;
            values.insert(name.clone(), value);
        }
        Ok(values)
    }
}

/// Starts a run.
///
/// # Errors
///
/// If it can't be started, or, with `--wait`, followed.
pub(super) async fn submit(global: &Global, args: SubmitArgs) -> anyhow::Result<Exit> {
    let client = connect::client(global).await?;
    let start = start(&client, &args).await?;
    // From here on Ctrl-C is not the end: the run would go on unseen.
    let mut interrupts = args.wait.then(Interrupts::new).transpose()?;
    let started = client.start(&start).await?;
    connect::remember(started.id);
    for warning in &started.warnings {
        say(format_args!("warning: {}", warning.message));
    }
    if !(args.wait && args.output.format == Format::Json) {
        let mut out = stdout();
        print_id(&mut out, &args.output, "run", &started.id, &started)?;
        out.flush()?;
    }
    let Some(interrupts) = &mut interrupts else {
        let Started { id, workflow, version, .. } = started;
        say(format_args!("{workflow} v{version} submitted; to follow it: quorate wait {id}"));
        return Ok(Exit::Done);
    };
    let Some(run) = follow(&client, started.id, args.timeout, interrupts).await? else {
        return Ok(Exit::Interrupted);
    };
    if args.output.format == Format::Json {
        print_json(&mut stdout(), &run)?;
    }
    Ok(exit_of(&run))
}

async fn start(client: &Client, args: &SubmitArgs) -> anyhow::Result<Start> {
    let (what, definition) = if document::is_file(&args.workflow) {
        let document = document::read(&args.workflow)?;
        let parsed = document.parse()?;
        let (source, name) = (document.source, parsed.name.to_string());
        (What::Inline { source, name }, parsed.definition)
    } else {
        let name = args.workflow.clone();
        let stored = match args.version {
            Some(version) => client.version_of(&name, version).await?,
            None => client.workflow(&name).await?,
        };
        let parsed = spec::parse(&stored.source, Some(&name)).map_err(|_| {
            let text =
                format!("this client does not understand {name}; it is older than the server");
            Failure::new(Exit::Error, text)
        })?;
        (What::Stored { name, version: args.version }, parsed.definition)
    };
    Ok(Start {
        what,
        params: args.params.read(&[], &definition)?,
        labels: args.labels.iter().cloned().collect(),
        logical_time: args.params.logical_time.clone(),
        run_id: None,
        key: args.idempotency_key.clone(),
    })
}

/// Follows a run to its end with live progress. `None` if the user let go of it.
///
/// # Errors
///
/// If the cluster cannot be reached for long, or the time is up.
async fn follow(
    client: &Client,
    id: RunId,
    timeout: Option<Duration>,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Option<RunView>> {
    let (client, mut display) = (&connect::patient(client), Display::new());
    let mut follow = Follow::begin(client, id, &mut display).await?;
    let time_is_up = tokio::time::sleep(timeout.unwrap_or(Duration::MAX));
    tokio::pin!(time_is_up);
    while !follow.has_ended() {
        tokio::select! {
            step = follow.step(&mut display) => step?,
            () = &mut time_is_up => return Err(still_runs(id).into()),
            () = interrupts.next() => {
                if !let_go(client, id, &display, interrupts).await? {
                    return Ok(None);
                }
            }
        }
    }
    display.clear();
    say(display::summary(follow.run()));
    hint_at_logs(follow.run());
    Ok(Some(follow.run().clone()))
}

/// After a first Ctrl-C. Answers whether a second one had the run cancelled.
async fn let_go(
    client: &Client,
    id: RunId,
    display: &Display,
    interrupts: &mut Interrupts,
) -> anyhow::Result<bool> {
    display.note(&format!("the run goes on without you; to come back: quorate wait {id}"));
    display.note("press Ctrl-C again now to cancel it");
    if tokio::time::timeout(CANCEL_WINDOW, interrupts.next()).await.is_err() {
        return Ok(false);
    }
    let reason = "interrupted by the one who waited for it".to_owned();
    client.cancel(id, &Words { by: super::user(), reason }).await?;
    display.note("asked the cluster to cancel it");
    Ok(true)
}

fn still_runs(id: RunId) -> Failure {
    let failure = Failure::new(Exit::TimedOut, format!("run {id} still runs"));
    failure.hint(format!("wait on: quorate wait {id}; stop it: quorate cancel {id}"))
}

/// After a failure, the command that tells more.
pub(super) fn hint_at_logs(run: &RunView) {
    for task in &run.failed_tasks {
        say(format_args!("  see why {task} failed: quorate logs {} {task}", run.id));
    }
}

/// The code to exit with for those who waited for a run.
pub(super) fn exit_of(run: &RunView) -> Exit {
    match run.state {
        RunState::Succeeded => Exit::Done,
        RunState::Failed => Exit::RunFailed,
        RunState::Cancelled => Exit::RunCancelled,
        RunState::TimedOut => Exit::TimedOut,
        // Who waited has given up before the end.
        RunState::Running | RunState::Paused => Exit::Interrupted,
    }
}

/// What `quorate wait` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct WaitArgs {
    /// Ids of runs, unique parts of them, or @last
    #[arg(required = true)]
    runs: Vec<String>,
    /// For how long, at most
    #[arg(long, value_name = "SPAN", value_parser = super::span::parse)]
    timeout: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Waits until runs have ended, and exits as the first of them did that did not succeed.
///
/// # Errors
///
/// If there is no such run, the time is up, or nobody answers.
pub(super) async fn wait(global: &Global, args: WaitArgs) -> anyhow::Result<Exit> {
    let client = connect::client(global).await?;
    let mut interrupts = Interrupts::new()?;
    let mut ids = Vec::new();
    for run in &args.runs {
        ids.push(connect::find_run(&client, run).await?);
    }
    let mut ended = Vec::new();
    let deadline = args.timeout.map(|timeout| tokio::time::Instant::now() + timeout);
    for id in ids {
        let left = deadline
            .map(|deadline| deadline.saturating_duration_since(tokio::time::Instant::now()));
        match follow(&client, id, left, &mut interrupts).await? {
            Some(run) => ended.push(run),
            None => return Ok(Exit::Interrupted),
        }
    }
    let mut out = stdout();
    match &ended[..] {
        [run] => print_one(&mut out, &args.output, run, now_ms())?,
        runs => print_list(&mut out, &args.output, runs, &runs, now_ms())?,
    }
    out.flush()?;
    let exits = ended.iter().map(exit_of);
    Ok(exits.into_iter().find(|&exit| exit != Exit::Done).unwrap_or(Exit::Done))
}

/// What `quorate decide` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DecideArgs {
    /// Id of a run, a unique part of it, or @last
    run: String,
    /// A task of it that is held
    task: String,
    /// What becomes of it
    #[arg(value_enum)]
    verdict: VerdictArg,
    /// What you found, for those who look at the run later
    #[arg(short = 'm', long, default_value = "", hide_default_value = true)]
    comment: String,
    /// With succeeded: an output that it would have given; repeat for more
    #[arg(long = "output-value", value_name = "NAME=VALUE", value_parser = super::key_value)]
    outputs: Vec<(String, String)>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum VerdictArg {
    /// Try it again
    Retry,
    /// It did its work
    Succeeded,
    /// It did not do its work
    Failed,
}

/// Says what becomes of a task whose worker was lost, so that nobody knows how it ended.
///
/// # Errors
///
/// If there is no such task, or it is not held.
pub(super) async fn decide(global: &Global, args: DecideArgs) -> anyhow::Result<Exit> {
    let verdict = match args.verdict {
        VerdictArg::Retry => Verdict::Retry,
        VerdictArg::Succeeded => Verdict::Succeeded,
        VerdictArg::Failed => Verdict::Failed,
    };
    if verdict != Verdict::Succeeded && !args.outputs.is_empty() {
        let failure = Failure::new(Exit::Usage, "only what succeeded has outputs");
        return Err(failure.hint("leave --output-value out, or decide: succeeded").into());
    }
    let client = connect::client(global).await?;
    let id = connect::find_run(&client, &args.run).await?;
    let values = args.outputs.into_iter().map(|(name, value)| (name, Value::String(value)));
    let outputs: Map<String, Value> = values.collect();
    let outputs = (!outputs.is_empty()).then_some(outputs);
    let decided = Decided { verdict, by: super::user(), comment: args.comment, outputs };
    let accepted = client.decide(id, &args.task, &decided).await?;
    let mut out = stdout();
    print_id(&mut out, &args.output, "run", &id, &accepted)?;
    out.flush()?;
    Ok(Exit::Done)
}
