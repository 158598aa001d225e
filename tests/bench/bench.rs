//! `scripts/bench`: how fast it is, each figure beside its yardstick in the same run.
//!
//! Prints a table, and with `--json FILE` writes the same as JSON. `--smoke` does a little of
//! everything, to see that it works. Everything is durable, as it always is.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod etcd;
#[path = "../../src/protocol.rs"]
#[allow(dead_code, unreachable_pub, reason = "the worker of the benchmark says only some of it")]
mod protocol;
mod report;
mod servers;
mod transitions;
mod works;

use std::process::ExitCode;
use std::time::Duration;

use report::Figure;
use servers::Servers;
use works::Scale;

const FULL: Scale = Scale {
    parallel: 1_000,
    chain: 100,
    calls: 20,
    python: 40,
    transitions: 10_000,
    failovers: 9,
    rounds: 5,
    watch: Duration::from_secs(5),
};

const SMOKE: Scale = Scale {
    parallel: 100,
    chain: 20,
    calls: 5,
    python: 5,
    transitions: 2_000,
    failovers: 1,
    rounds: 1,
    watch: Duration::from_secs(1),
};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let scale = if arguments.iter().any(|one| one == "--smoke") { SMOKE } else { FULL };
    let json =
        arguments.iter().position(|one| one == "--json").and_then(|at| arguments.get(at + 1));
    match measure(scale).await {
        Ok(figures) => {
            println!("{}\n\n{}", works::machine(), report::table(&figures));
            json.map_or(ExitCode::SUCCESS, |file| write_json(file, &figures))
        }
        Err(error) => {
            println!("the benchmark failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_json(file: &str, figures: &[Figure]) -> ExitCode {
    let text = serde_json::to_string_pretty(figures).unwrap_or_default();
    match std::fs::write(file, text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("could not write {file}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(scale: Scale) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    for nodes in [1, 3] {
        let servers = Servers::start(nodes, &[]).await?;
        figures.extend(works::idle(&servers, nodes, scale).await?);
        figures.extend(works::first_start(&servers, nodes, scale).await?);
        figures.extend(works::light_tasks(&servers, nodes, scale).await?);
        figures.extend(works::fan_out(&servers, nodes, scale).await?);
        figures.extend(works::chain(&servers, nodes, scale).await?);
        drop(servers);
        figures.extend(works::transitions(nodes, scale).await?);
    }
    figures.extend(works::failover(scale).await?);
    Ok(figures)
}
