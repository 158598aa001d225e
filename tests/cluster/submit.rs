//! A submit is one run, however often it is said.

use std::thread;

use crate::harness::{Cluster, Options};
use crate::judge::SubmitOutcome;
use crate::tasks::{SHORT, failing, task};
use crate::verdict::assert_right;

/// T18: the same request, under one key, to three nodes at once.
#[test]
fn one_key_sent_to_three_nodes_at_once_starts_one_run() {
    let cluster = Cluster::start(3, &Options::default());
    for _ in 0..10 {
        let workflow = cluster.client.workflow(SHORT);
        let request = workflow.request();
        let ids: Vec<String> = thread::scope(|scope| {
            let asked: Vec<_> =
                cluster.nodes.iter().map(|node| scope.spawn(|| node.send(&request))).collect();
            let answers = asked.into_iter().map(|asked| asked.join().expect("it does not panic"));
            answers
                .map(|answer| {
                    let response = answer.expect("a node answers");
                    assert!(response.is_ok(), "{} {}", response.status, response.text());
                    response.json()["id"].as_str().expect("a run has an id").to_owned()
                })
                .collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        cluster.client.remember(workflow.name, SubmitOutcome::Acknowledged(ids[0].clone()));
    }
    for run in cluster.client.acknowledged() {
        assert_eq!(cluster.client.await_end(&run), "succeeded");
    }
    assert_right(&cluster, vec![]);
}

/// T24: one branch of a diamond fails, in any order; with a task blocked in between.
#[test]
fn a_diamond_with_a_branch_that_fails_ends_failed_without_its_join() {
    let cluster = Cluster::start(1, &Options::default());
    for (left, right) in [(0, 30), (30, 0)] {
        let fails = "
  - id: fails
    needs: [top]
    run: |
      . \"$PROOF/ledger.sh\"
      began; work LEFT; exit 3
"
        .replace("LEFT", &left.to_string());
        let tasks = [
            task("top", &[], 0),
            fails,
            task("blocked", &["fails"], 0),
            task("works", &["top"], right),
            task("join", &["blocked", "works"], 0),
        ];
        let run = cluster.client.submit(&tasks.concat());
        assert_eq!(cluster.client.await_end(&run), "failed");
        let found = cluster.client.run(&run);
        assert!(found["ended_at"].is_string(), "{found:#}");
        let state = |task: &str| cluster.client.task(&run, task)["state"].clone();
        assert_eq!(state("fails"), "failed");
        assert_eq!(state("works"), "succeeded", "a branch that works is not given up");
        assert_eq!(state("blocked"), "upstream_failed");
        assert_eq!(state("join"), "upstream_failed");
        assert_eq!(cluster.ledger.starts(&run, "join"), 0);
    }
    assert_right(&cluster, vec![]);
}

#[test]
fn a_task_that_fails_is_retried_as_often_as_it_may() {
    let cluster = Cluster::start(1, &Options::default());
    let enough = cluster.client.submit(&failing("flaky", &[], 2, 2));
    let too_few = cluster.client.submit(&failing("flaky", &[], 2, 1));
    assert_eq!(cluster.client.await_end(&enough), "succeeded");
    assert_eq!(cluster.client.await_end(&too_few), "failed");
    assert_eq!(cluster.ledger.starts(&enough, "flaky"), 3);
    assert_eq!(cluster.ledger.starts(&too_few, "flaky"), 2);
    assert_right(&cluster, vec![]);
}
