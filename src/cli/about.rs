//! `version`, `completion` and `help`.

use std::io::Write as _;

use clap::CommandFactory as _;

use super::exit::{EXIT_CODES, Exit, Failure};
use super::{Cli, Global, connect, reference, stdout};

/// What `quorate version` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct VersionArgs {
    /// Ask the server as well
    #[arg(long)]
    server: bool,
}

/// Prints the version.
///
/// # Errors
///
/// If the server does not answer, or stdout cannot be written.
pub(super) async fn version(global: &Global, args: VersionArgs) -> anyhow::Result<Exit> {
    let mut out = stdout();
    writeln!(out, "quorate {}", env!("CARGO_PKG_VERSION"))?;
    if args.server {
        let server = connect::client(global).await?.version().await?;
        writeln!(out, "server {} (api {})", server.version, server.api)?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// What `quorate completion` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct CompletionArgs {
    /// Which shell
    shell: clap_complete::Shell,
}

/// What `quorate help` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct HelpArgs {
    /// A verb, exit-codes, env or file
    topic: Vec<String>,
}

/// The variables that the client and the server read.
const ENV: &str = "\
QUORATE_ADDR       nodes to talk to, separated by commas; as --address
NO_COLOR           no colours
CLICOLOR_FORCE     colours even where there is no terminal
XDG_STATE_HOME     where the run that @last means is remembered

Of a server, in place of the flag of the same name:
QUORATE_DEV  QUORATE_DATA  QUORATE_LISTEN  QUORATE_ADVERTISE  QUORATE_JOIN
QUORATE_NAME  QUORATE_LABELS  QUORATE_SLOTS  QUORATE_WORKER  QUORATE_CONTAINMENT
QUORATE_LEASE  QUORATE_ELECTION_TIMEOUT
QUORATE_LOG        what to log, as in info or quorate=debug,warn

Of a task, set by Quorate:
QUORATE_OUTPUT           file to write outputs to, as NAME=VALUE
QUORATE_RUN_ID  QUORATE_TASK  QUORATE_ATTEMPT
QUORATE_FENCING_TOKEN    grows with every attempt; hand it to systems that can refuse old ones
QUORATE_IDEMPOTENCY_KEY  the same for all attempts of a task
";

/// Prints completions.
///
/// # Errors
///
/// If stdout cannot be written.
pub(super) fn completion(args: &CompletionArgs) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "quorate", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Exit::Done)
}

/// Explains.
///
/// # Errors
///
/// If there is no such verb or topic.
pub(super) fn help(args: &HelpArgs) -> anyhow::Result<Exit> {
    let mut out = stdout();
    match args.topic.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["exit-codes"] => out.write_all(EXIT_CODES.as_bytes())?,
        ["env"] => out.write_all(ENV.as_bytes())?,
        ["file"] => out.write_all(reference::text().as_bytes())?,
        ref verbs => write!(out, "{}", command(verbs)?.render_long_help().ansi())?,
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn command(verbs: &[&str]) -> anyhow::Result<clap::Command> {
    let mut command = Cli::command();
    command.build();
    for verb in verbs {
        let Some(found) = command.find_subcommand(verb) else {
            let failure = Failure::new(Exit::Usage, format!("there is no verb {verb:?}"));
            return Err(failure
                .hint("quorate help lists them; topics: exit-codes, env, file")
                .into());
        };
        command = found.clone();
    }
    Ok(command)
}
