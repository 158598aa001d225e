//! `cluster`: its members, its leader, and how it is.

use std::io::{self, BufRead as _, IsTerminal as _, Write};

use quorate_api::backend::{Agreement, Storage};
use quorate_api::client::Client;
use quorate_api::page::Page;
use quorate_api::view::{ClusterView, MemberView};

use super::connect::{self, now_ms};
use super::exit::{Exit, Failure};
use super::output::{
    BOLD, Format, GREEN, OutputArgs, PLAIN, RED, print_id, print_json, print_list,
};
use super::{Global, say, stdout};

/// What `quorate cluster` can do.
#[derive(Clone, Debug, clap::Subcommand)]
pub(super) enum ClusterVerb {
    /// Tell how the cluster is, as the node that answers sees it
    Status(OutputArgs),
    /// List the nodes
    #[command(visible_alias = "peers")]
    Members(OutputArgs),
    /// Mint an id for a node, which then starts with --join
    Add(AddArgs),
    /// Remove a node for good; its id is never used again
    Remove(RemoveArgs),
    /// Print the leader, or hand leadership over
    Leader(LeaderArgs),
}

/// What `quorate cluster add` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct AddArgs {
    /// Where the node can be reached
    #[arg(value_name = "HOST:PORT")]
    node: String,
    /// Give it no vote
    #[arg(long)]
    learner: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// What `quorate cluster remove` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RemoveArgs {
    /// Its id
    node: u64,
}

/// What `quorate cluster leader` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct LeaderArgs {
    #[command(subcommand)]
    verb: Option<LeaderVerb>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum LeaderVerb {
    /// Hand leadership to another voter
    Transfer {
        /// Id of the next leader; any voter unless said
        #[arg(long, value_name = "NODE")]
        to: Option<u64>,
    },
}

/// Does what a verb says.
///
/// # Errors
///
/// If the cluster does not answer, or does not do it.
pub(super) async fn cluster(global: &Global, verb: ClusterVerb) -> anyhow::Result<Exit> {
    let client = connect::client(global).await?;
    let mut out = stdout();
    match verb {
        ClusterVerb::Status(args) => {
            let view = client.cluster().await?;
            print_status(&mut out, &args, &view)?;
        }
        ClusterVerb::Members(args) => {
            let page = Page::whole(client.members().await?);
            print_list(&mut out, &args, &page.items, &page, now_ms())?;
        }
        ClusterVerb::Add(args) => {
            let joined = client.add_member(&args.node, !args.learner).await?;
            print_id(&mut out, &args.output, MEMBER, &joined.node, &joined)?;
        }
        ClusterVerb::Remove(args) => {
            confirm(global, &client, args.node).await?;
            client.remove_member(args.node).await?;
            say(format_args!("node {} is removed; stop it, and empty its data folder", args.node));
        }
        ClusterVerb::Leader(LeaderArgs { verb: None }) => {
            let view = client.cluster().await?;
            writeln!(out, "{}", leader(&view)?.id)?;
        }
        ClusterVerb::Leader(LeaderArgs { verb: Some(LeaderVerb::Transfer { to }) }) => {
            client.transfer_leadership(to).await?;
            let view = client.cluster().await?;
            writeln!(out, "{}", leader(&view)?.id)?;
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

const MEMBER: &str = "member";

fn leader(view: &ClusterView) -> Result<&MemberView, Failure> {
    view.members.iter().find(|member| member.leader).ok_or_else(|| {
        let failure = Failure::new(Exit::Unreachable, "no leader is known just now");
        failure.hint("try again in a moment; quorate cluster status tells who answers")
    })
}

fn print_status(out: &mut dyn Write, args: &OutputArgs, view: &ClusterView) -> io::Result<()> {
    match (args.quiet, args.format) {
        (false, Format::Table | Format::Wide) => {}
        (false, Format::Json) => return print_json(out, view),
        (false, Format::Jsonl | Format::Name) | (true, _) => {
            return print_id(out, args, "cluster", &view.id, view);
        }
    }
    let mut field = |name: &str, value: String| writeln!(out, "{BOLD}{name:<10}{PLAIN}{value}");
    field("Cluster", view.id.clone())?;
    field(
        "Quorate",
        if view.quorate { format!("{GREEN}yes{PLAIN}") } else { format!("{RED}no{PLAIN}") },
    )?;
    let leader = view.leader.map_or_else(|| "none known".to_owned(), |id| id.to_string());
    field("Leader", format!("{leader}, term {}", view.term))?;
    field("Answers", format!("node {}", view.node))?;
    field(
        "Log",
        format!(
            "last @{}, committed @{}, applied @{}, snapshot @{}",
            view.last_index, view.committed_index, view.applied_index, view.snapshot_index
        ),
    )?;
    field("States", states(&view.agreement))?;
    field("Disk", disk(&view.storage))?;
    field(
        "Work",
        format!(
            "{} runs live, {} tasks queued, {} workers",
            view.runs_live, view.tasks_queued, view.workers_live
        ),
    )?;
    writeln!(out)?;
    print_list(out, args, &view.members, &view.members, now_ms())
}

/// Whether the voters have the state of the node that answers.
fn states(agreement: &Agreement) -> String {
    let Agreement { index, different, different_at } = agreement;
    if let Some(at) = different_at {
        let nodes: Vec<String> = different.iter().map(u64::to_string).collect();
        return format!("{RED}different{PLAIN} on node {} after @{at}", nodes.join(", "));
    }
    match index {
        0 => "not compared yet".to_owned(),
        index => format!("{GREEN}equal{PLAIN} on a quorum after @{index}"),
    }
}

/// The disk of the node that answers.
fn disk(storage: &Storage) -> String {
    let Storage { state, bytes_total, bytes_free, sync_max_ms } = storage;
    let colour = if state == "ok" { GREEN } else { RED };
    format!(
        "{colour}{state}{PLAIN}, {} of {} left, longest sync {sync_max_ms} ms",
        size(*bytes_free),
        size(*bytes_total)
    )
}

/// Bytes for people: to a tenth of a unit that is neither large nor small for them.
fn size(bytes: u64) -> String {
    let (unit, name) = if bytes >= 1 << 30 { (1 << 30, "GiB") } else { (1 << 20, "MiB") };
    format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit)
}

/// Asks before a node is removed, unless told not to. Without a terminal there is nobody to
/// ask.
async fn confirm(global: &Global, client: &Client, node: u64) -> anyhow::Result<()> {
    if global.yes {
        return Ok(());
    }
    let refusal =
        |message: &str| Failure::new(Exit::Usage, message).hint("add --yes to do it unasked");
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(
            refusal("removing a node is for good, and there is no terminal to ask at").into()
        );
    }
    let members = client.members().await?;
    let address = members.iter().find(|member| member.id == node).map(|member| &member.address);
    let address = address.map_or("at an address not known", String::as_str);
    say(format_args!("remove node {node} ({address}) for good? its id is never used again [y/N]"));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(refusal("nothing was removed").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voter_with_another_state_is_named() {
        let mut agreement = Agreement::default();
        assert_eq!(states(&agreement), "not compared yet");
        agreement.index = 4_096;
        assert!(states(&agreement).ends_with(" on a quorum after @4096"));
        agreement.different = vec![2, 3];
        agreement.different_at = Some(8_192);
        assert!(states(&agreement).ends_with(" on node 2, 3 after @8192"));
    }

    #[test]
    fn sizes_are_in_units_that_people_compare() {
        assert_eq!(size(0), "0.0 MiB");
        assert_eq!(size(57 << 20), "57.0 MiB");
        assert_eq!(size((3 << 30) + (1 << 29)), "3.5 GiB");
    }
}
