//! The protocols that the guarantees rest on, as models of which every state is visited: with
//! all rules nothing goes wrong, and without any one of them something does.

#![allow(clippy::print_stdout, reason = "how far a model went is for people")]

mod lease;
mod lease_rules;

use stateright::{Checker, HasDiscoveries, Model};

/// Visits every state. Fails if a property does not hold, or is never put to the test.
fn exhaust<M>(model: M) -> impl Checker<M>
where
    M: Model + Send + Sync + 'static,
    M::State: std::fmt::Debug + std::hash::Hash + Send + Sync + Clone + PartialEq,
    M::Action: std::fmt::Debug + PartialEq + Clone,
{
    let checker = model.checker().threads(threads()).spawn_bfs().join();
    checker.assert_properties();
    let (states, steps) = (checker.unique_state_count(), checker.state_count());
    println!("{states} states by {steps} steps, {} deep", checker.max_depth());
    checker
}

/// How to break a property in a few steps; `None` if it cannot be broken.
fn counterexample<M>(model: M, property: &'static str) -> Option<Vec<M::Action>>
where
    M: Model + Send + Sync + 'static,
    M::State: std::fmt::Debug + std::hash::Hash + Send + Sync + Clone + PartialEq,
    M::Action: std::fmt::Debug + PartialEq + Clone,
{
    let wanted = HasDiscoveries::AnyOf([property].into());
    // In one thread, so that it is the same at each run.
    let checker = model.checker().finish_when(wanted).spawn_bfs().join();
    checker.discovery(property).map(stateright::Path::into_actions)
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
