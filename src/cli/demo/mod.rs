//! `demo`: the main claim, shown. Three real servers, a real workflow, the leader killed with
//! SIGKILL in the middle, and a verdict that is computed and not asserted.

mod ledger;
mod nodes;
mod story;
mod verdict;

use super::exit::{Exit, Failure};
use super::say;
use super::signals::Interrupts;
use nodes::Nodes;

/// What `quorate demo` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Leave the surviving servers up, and say where they are
    #[arg(long)]
    keep: bool,
}

/// Shows it. Answers [`Exit::Done`] only if the verdict holds.
///
/// # Errors
///
/// If a server does not start, or the run cannot be followed to its end.
pub(super) async fn demo(args: DemoArgs) -> anyhow::Result<Exit> {
    let mut interrupts = Interrupts::new()?;
    let mut nodes = Nodes::new()?;
    let outcome = tokio::select! {
        outcome = story::tell(&mut nodes) => outcome,
        () = interrupts.next() => {
            Err(Failure::new(Exit::Interrupted, "interrupted; stopping the servers").into())
        }
    };
    if args.keep && outcome.is_ok() {
        say_how_to_stop(nodes);
    } else {
        nodes.stop().await;
    }
    outcome
}

fn say_how_to_stop(mut nodes: Nodes) {
    let urls: Vec<_> = nodes.alive().map(|node| node.url.clone()).collect();
    let dir = nodes.path().to_owned();
    let pids: Vec<_> = nodes.keep().iter().map(u32::to_string).collect();
    say(format_args!("\nThe survivors stay up. To use them:"));
    say(format_args!("  export QUORATE_ADDR={}", urls.join(",")));
    say("To stop them:");
    say(format_args!("  kill {} && rm -r {}", pids.join(" "), dir.display()));
}
