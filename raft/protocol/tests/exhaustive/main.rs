//! The protocols that the guarantees rest on, as models of which every state is visited: with
//! all rules nothing goes wrong, and without any one of them something does.

#![allow(clippy::print_stdout, reason = "how far a model went is for people")]

mod fire_once;
mod fire_once_rules;
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

/// How to break a property in the fewest steps; `None` if that takes more than `steps_max`.
fn counterexample<M>(
    model: impl Fn() -> M,
    property: &'static str,
    steps_max: usize,
) -> Option<Vec<M::Action>>
where
    M: Model + Send + Sync + 'static,
    M::State: std::fmt::Debug + std::hash::Hash + Send + Sync + Clone + PartialEq,
    M::Action: std::fmt::Debug + PartialEq + Clone,
{
    // Deeper and deeper, for of those found in one go the checker keeps the last.
    (1..=steps_max).find_map(|steps| {
        let wanted = HasDiscoveries::AnyOf([property].into());
        let checker = model().checker().target_max_depth(steps + 2).threads(threads());
        let checker = checker.finish_when(wanted).spawn_bfs().join();
        checker.discovery(property).map(stateright::Path::into_actions)
    })
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
