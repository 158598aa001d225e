//! Quorate: attended by a quorum, and so able to act.

mod backend;
mod cli;
mod config;
#[cfg(test)]
mod fuzz;
mod leader;
mod link;
mod protocol;
mod seeds;
mod server;
#[cfg(test)]
mod simulation;
mod telemetry;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
