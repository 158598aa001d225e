//! A whole worker, its keeper a process of its own, against a leader that the test plays.
//!
//! The keeper is this very test program, started over to run one test that is none:
//! [`keeper_process`]. The same way a worker becomes a process that can be killed.

mod attempts;
mod cost;
mod fixture;
mod lease;
mod orders;
mod processes;

/// Not a test: what the others start as a keeper.
#[test]
fn keeper_process() {
    if let Some(dir) = fixture::argument_after("--dir") {
        crate::telemetry::init("warn");
        let containment = fixture::argument_after("--containment").unwrap();
        super::keeper::run(dir.as_ref(), containment.parse().unwrap());
    }
}

/// Not a test: what the others start as a worker that can be killed.
#[test]
fn worker_process() {
    if let Some(dir) = fixture::argument_after("--worker") {
        let containment = fixture::argument_after("--contain").unwrap();
        processes::be_a_worker(dir.as_ref(), containment.parse().unwrap());
    }
}

/// Not a test: what is measured in a process of its own.
#[test]
fn cost_process() {
    if fixture::argument_after("--measure").is_some() {
        cost::measure();
    }
}
