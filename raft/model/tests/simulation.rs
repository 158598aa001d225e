//! Seeded worlds in which everything goes wrong that may, and commands at random, many of them
//! stale, repeated, reordered or nonsense. Every failure names its seed; `QUORATE_SEED` runs one,
//! `QUORATE_SEEDS` many.

mod dice;
mod fuzz;
mod life_cycle;
mod nonsense;
mod notation;
mod replicas;
mod world;

use dice::{Dice, with_seeds};
use nonsense::Nonsense;
use quorate_model::UnixMs;
use replicas::Replicas;
use world::World;

/// Worlds in one test run: what two cores do in a few seconds.
const WORLDS: u64 = 40;

/// Steps of trouble before a world is healed.
const STEPS: u64 = 300;

#[test]
fn every_run_ends_once_the_world_is_healed() {
    #[rustfmt::skip]
    let demanded = [
        "Start", "Stop", "Replayed", "Ready", "Running", "Retrying", "Succeeded",
        "Failed", "TimedOut", "Skipped", "UpstreamFailed", "Cancelled", "Exited", "Signalled",
        "Broken", "Stopped", "Returned", "Lost", "Held", "NotReady", "StaleAttempt", "StaleEpoch",
    ];
    with_seeds(WORLDS, &demanded, |seed| {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.heal();
        world.seen()
    });
}

#[test]
fn commands_at_random_keep_the_invariants_and_replay_to_the_same_state() {
    // Every refusal but those that take a mass of input, which scripts have.
    #[rustfmt::skip]
    let demanded = [
        "NoSuchWorkflow", "NoSuchVersion", "VersionMismatch", "BadDefinition", "RunExists",
        "NoSuchRun", "RunEnded", "NoSuchTask", "NotReady", "StaleAttempt", "NoSuchWorker",
        "StaleEpoch", "NoFreeSlot", "NotHeld", "Ineligible", "Held", "Returned", "LabelsDiffer", "BadSlots", "KeyReused", "BadKey",
        "Replayed", "Succeeded", "Failed", "Skipped", "UpstreamFailed", "Cancelled", "TimedOut",
    ];
    with_seeds(WORLDS, &demanded, |seed| {
        let mut nonsense = Nonsense::new(Dice::new(seed));
        let mut replicas = Replicas::default();
        for step in 0..STEPS {
            if step == STEPS / 2 {
                replicas.take_snapshot();
            }
            let (at, requests) = nonsense.entry(&replicas.state);
            let applied = replicas.propose(UnixMs(at), requests);
            nonsense.remember(applied.effects);
        }
        replicas.agree();
        replicas.seen
    });
}
