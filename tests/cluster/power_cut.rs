//! The power fails: what was acknowledged is on the disk, and nothing older than it comes back.
//!
//! `kill -9` shows none of this, for the kernel still writes what the process left behind. See
//! `harness::disk` for how a cut is made.

use std::sync::atomic::AtomicBool;
use std::thread;

use crate::harness::cluster::folder;
use crate::harness::disk::Disk;
use crate::harness::seed::Seed;
use crate::harness::{Cluster, Gate, Options, Request, SOON, compulsory, skip, until};
use crate::load::{StopOnDrop, submit_on};
use crate::tasks::task;
use crate::verdict::{assert_right, seen};

/// Clients that submit one run after the other.
const CLIENTS: usize = 4;

/// Acknowledged submits between two cuts, at least: without work in flight a cut shows nothing.
const SUBMITS_BETWEEN_CUTS: usize = 20;

fn cuts() -> usize {
    if compulsory() { 10 } else { 3 }
}

/// Three disks in the folder of a test, or why not.
fn disks(folder: &std::path::Path) -> Result<Vec<Disk>, String> {
    (0..3).map(|number| Disk::create(folder, &format!("disk{number}"))).collect()
}

/// Cuts the power of some nodes again and again while others submit.
fn lose_power(victims_of: impl Fn(&mut Seed) -> Vec<usize>) {
    let place = folder();
    // Declared before the cluster: what is mounted goes after what uses it.
    let disks = match disks(place.path()) {
        Ok(disks) => disks,
        Err(reason) => return skip(&reason),
    };
    let mut seed = Seed::choose();
    let homes = disks.iter().map(|disk| disk.folder().join("data")).collect();
    let options = Options { homes, ..Options::default() };
    let mut cluster = Cluster::start_in(Gate::alone(), folder(), 3, &options);
    let client = cluster.client.clone();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| submit_on(&client, || task("short", &[], 5), &stop));
        }
        let _stopping = StopOnDrop(&stop);
        let mut checked = 0;
        for _ in 0..cuts() {
            let before = client.acknowledged().len();
            until(SOON, "some submits are acknowledged", || {
                (client.acknowledged().len() >= before + SUBMITS_BETWEEN_CUTS).then_some(())
            });
            let victims = victims_of(&mut seed);
            checked += cut(&mut cluster, &disks, &victims, checked);
        }
    });
    cluster.await_quiet();
    let needed = cuts() * SUBMITS_BETWEEN_CUTS;
    let submits = seen("submits acknowledged", client.acknowledged().len(), needed);
    assert_right(&cluster, vec![submits]);
}

/// Cuts the power of some nodes, starts them again, and looks at whether they remember what was
/// acknowledged, but for the first `checked`; answers how many that were.
#[track_caller]
fn cut(cluster: &mut Cluster, disks: &[Disk], victims: &[usize], checked: usize) -> usize {
    let terms: Vec<u64> = victims.iter().map(|&node| term(cluster, node)).collect();
    victims.iter().for_each(|&node| cluster.nodes[node].freeze());
    // Whatever was acknowledged by now must be on the disks as they are from here on.
    let acknowledged = cluster.client.acknowledged().split_off(checked);
    let frames: Vec<_> = victims
        .iter()
        .map(|&node| disks[node].freeze_frame().expect("a frozen node does not write"))
        .collect();
    for (&node, frame) in victims.iter().zip(&frames) {
        cluster.nodes[node].power_off();
        until(SOON, "the disk can be taken out", || disks[node].restore(frame).ok());
    }
    victims.iter().for_each(|&node| cluster.nodes[node].restart());
    cluster.await_voters(3);
    for (&node, before) in victims.iter().zip(terms) {
        let now = term(cluster, node);
        assert!(now >= before, "node{node} was in term {before} and came back in {now}");
        for run in &acknowledged {
            // Asked of this very node, which catches up first.
            until(SOON, &format!("node{node} has run {run}"), || {
                let found =
                    cluster.nodes[node].send(&Request::get(format!("/v1/runs/{run}"))).ok()?;
                assert_ne!(
                    found.status, 404,
                    "run {run} was acknowledged, and node{node} has lost it"
                );
                found.is_ok().then_some(())
            });
        }
    }
    acknowledged.len()
}

fn term(cluster: &Cluster, node: usize) -> u64 {
    let view = until(SOON, "the node answers", || cluster.view(node));
    view["term"].as_u64().expect("a term is a number")
}

#[test]
fn a_node_that_loses_power_forgets_nothing() {
    lose_power(|seed| vec![seed.below(3)]);
}

#[test]
fn a_cluster_that_loses_power_forgets_nothing() {
    lose_power(|_| vec![0, 1, 2]);
}
