//! The command line: a file a noun, a function a verb.
//!
//! Data go to stdout, words to stderr. Everything here is a client of the API like any other,
//! but for the verbs of [`node`], which are the server.

mod about;
mod approval;
mod cluster;
mod connect;
mod control;
mod demo;
mod describe;
mod diff;
mod display;
mod document;
mod exit;
mod format;
mod graph;
mod init;
mod list;
mod local;
mod logs;
mod node;
mod output;
mod progress;
mod reference;
mod rows;
mod run;
mod sarif;
mod schema;
mod scratch;
mod signals;
mod span;
mod stored;
mod validate;
mod verify;
mod watch;
mod worker;
mod workflow;

use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{ColorChoice, Parser, Subcommand};

use exit::Exit;

/// A workflow scheduler that needs nothing but itself.
#[derive(Debug, Parser)]
#[command(
    name = "quorate",
    version,
    disable_help_subcommand = true,
    infer_long_args = false,
    after_help = "Begin with `quorate demo`, or with `quorate run FILE`, which needs no server.\n\
                  More: `quorate help exit-codes`, `quorate help env`, `quorate help file`,\n\
                  `quorate help VERB`."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// The flags of every verb.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Everywhere")]
struct Global {
    /// Nodes of the cluster; they are tried in order until one answers
    #[arg(
        long,
        global = true,
        env = "QUORATE_ADDR",
        hide_env_values = true,
        value_name = "URL",
        value_delimiter = ',',
        default_value = connect::ADDRESS_DEFAULT
    )]
    address: Vec<String>,
    /// When to colour
    #[arg(long, global = true, value_name = "WHEN", default_value_t)]
    color: ColorChoice,
    /// Do without asking what cannot be undone
    #[arg(short, long, global = true)]
    yes: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the whole of it: three nodes, a DAG, the leader killed in the middle
    Demo(demo::DemoArgs),
    /// Run a workflow file here and now, without a server
    Run(local::RunArgs),
    /// Start a node
    Server(node::ServerArgs),
    /// Start a worker without a vote, or say whether one is given work
    Worker(node::WorkerArgs),
    /// Hold the dead-man's switch of a worker
    #[command(hide = true)]
    Keeper(node::KeeperArgs),
    /// Carry out a task that is no program of somebody else
    #[command(hide = true)]
    Task(node::TaskArgs),
    /// Start a run of a workflow, by name or from a file
    #[command(visible_alias = "trigger")]
    Submit(run::SubmitArgs),
    /// Store workflows, as new versions where they changed
    Apply(workflow::ApplyArgs),
    /// Check workflow files
    Validate(validate::ValidateArgs),
    /// Begin a workflow file
    Init(init::InitArgs),
    /// Write workflow files in their canonical form
    Fmt(format::FmtArgs),
    /// Tell what differs between two workflows, or a file and what the cluster has
    Diff(diff::DiffArgs),
    /// Draw the tasks of a workflow
    Graph(graph::GraphArgs),
    /// Print the JSON Schema of workflow files, for editors
    Schema,
    /// List runs, workflows, workers, or the tasks of a run
    #[command(visible_aliases = ["list", "ps"])]
    Ls(list::LsArgs),
    /// Print one thing: run/ID, workflow/NAME, worker/ID or task/RUN/ID
    Get(list::GetArgs),
    /// Tell all about a run, a workflow/NAME or a worker/ID
    #[command(visible_alias = "status")]
    Describe(describe::DescribeArgs),
    /// Print what tasks wrote
    Logs(logs::LogsArgs),
    /// Stop runs
    #[command(visible_alias = "stop")]
    Cancel(control::CancelArgs),
    /// Have nothing more of runs start, or of a workflow: workflow/NAME; what runs goes on
    Pause(control::PauseArgs),
    /// Have paused runs go on, or a workflow: workflow/NAME
    Resume(control::PauseArgs),
    /// Say what becomes of a task that is held: nobody knows how it ended
    Decide(run::DecideArgs),
    /// Say yes to a task that asks
    Approve(approval::ApproveArgs),
    /// Say no to a task that asks: it has failed then
    Reject(approval::RejectArgs),
    /// Wait until runs have ended
    Wait(run::WaitArgs),
    /// Look at the cluster, change its members
    #[command(subcommand)]
    Cluster(cluster::ClusterVerb),
    /// Prove or refute that nothing ran twice, on a node's own data
    Verify(verify::VerifyArgs),
    /// Print the version, and the server's
    Version(about::VersionArgs),
    /// Print the completions of a shell
    Completion(about::CompletionArgs),
    /// Explain a verb, or: exit-codes, env, file
    Help(about::HelpArgs),
}

/// Reads the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let Cli { global, verb } = Cli::parse();
    stream_colours(global.color).write_global();
    if let Verb::Task(args) = &verb {
        // Its codes are those of a task, and not of this command line.
        return node::task(args);
    }
    let exit = dispatch(&global, verb).unwrap_or_else(|error| exit::report(&error));
    exit.into()
}

fn dispatch(global: &Global, verb: Verb) -> anyhow::Result<Exit> {
    match verb {
        // Not under tokio: it is to have one thread and little memory.
        Verb::Keeper(args) => Ok(node::keeper(&args)),
        Verb::Task(_) => unreachable!("it was carried out"),
        Verb::Completion(args) => about::completion(&args),
        Verb::Help(args) => about::help(&args),
        Verb::Init(args) => init::init(global, &args),
        Verb::Fmt(args) => format::fmt(&args),
        Verb::Diff(args) => block_on(diff::diff(global, args)),
        Verb::Graph(args) => block_on(graph::graph(global, args)),
        Verb::Schema => schema::schema(),
        Verb::Validate(args) => validate::validate(&args),
        Verb::Server(args) => block_on(node::server(args)),
        Verb::Worker(mut args) => match args.verb.take() {
            Some(verb) => block_on(worker::worker(global, verb)),
            None => block_on(node::worker(args)),
        },
        Verb::Demo(args) => block_on(demo::demo(args)),
        Verb::Run(args) => block_on(local::run(args)),
        Verb::Submit(args) => block_on(run::submit(global, args)),
        Verb::Apply(args) => block_on(workflow::apply(global, args)),
        Verb::Ls(args) => block_on(list::ls(global, args)),
        Verb::Get(args) => block_on(list::get(global, args)),
        Verb::Describe(args) => block_on(describe::describe(global, args)),
        Verb::Logs(args) => block_on(logs::logs(global, args)),
        Verb::Cancel(args) => block_on(control::cancel(global, args)),
        Verb::Pause(args) => block_on(control::pause(global, args)),
        Verb::Resume(args) => block_on(control::resume(global, args)),
        Verb::Decide(args) => block_on(run::decide(global, args)),
        Verb::Approve(args) => block_on(approval::approve(global, args)),
        Verb::Reject(args) => block_on(approval::reject(global, args)),
        Verb::Wait(args) => block_on(run::wait(global, args)),
        Verb::Cluster(verb) => block_on(cluster::cluster(global, verb)),
        Verb::Verify(args) => block_on(verify::verify(args)),
        Verb::Version(args) => block_on(about::version(global, args)),
    }
}

fn block_on(verb: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(verb)
}

fn stream_colours(choice: ColorChoice) -> anstream::ColorChoice {
    match choice {
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    }
}

/// Says a line on stderr. A stderr that is gone is not worth failing for.
fn say(line: impl fmt::Display) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// What whoever types goes by, for those who look later.
fn user() -> String {
    std::env::var("USER").unwrap_or_default()
}

/// Where data go. Buffered: flush at the end.
fn stdout() -> impl std::io::Write {
    std::io::BufWriter::new(anstream::stdout())
}

/// Reads `KEY=VALUE`.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn aliases_lead_to_their_verbs() {
        for (alias, verb) in [
            ("ps", "Ls"),
            ("list", "Ls"),
            ("stop @last", "Cancel"),
            ("trigger hello", "Submit"),
            ("status @last", "Describe"),
        ] {
            let words = format!("quorate {alias}");
            let cli = Cli::try_parse_from(words.split(' ')).unwrap();
            assert!(format!("{:?}", cli.verb).starts_with(verb), "{alias}");
        }
    }

    #[test]
    fn several_addresses_are_taken_anywhere_on_the_line() {
        let line = "quorate ls --address http://a:1,http://b:2 --address http://c:3";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(cli.global.address, ["http://a:1", "http://b:2", "http://c:3"]);
    }
}
