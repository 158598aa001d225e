//! The lease: renewed from when a renewal was sent, and the end of everything when it ends.

use std::time::{Duration, Instant};

use quorate_model::{DurationMs, Epoch, Outcome, WorkerId};

use super::fixture::*;
use crate::protocol::{FromWorker, ToWorker};

const SHORT: DurationMs = DurationMs(1_500);

#[tokio::test]
async fn tasks_outlive_many_leases_that_are_renewed() {
    let (world, mut line) = World::registered(DurationMs(1_000)).await;
    line.start(world.noting(dispatch(0, 1, 11), "sleep 3")).await;
    assert_eq!(line.outcome().await, Outcome::Succeeded { outputs: None });
}

#[tokio::test]
async fn without_renewals_tasks_are_asked_then_killed_before_a_new_registration() {
    let (mut world, mut line) = World::registered(SHORT).await;
    line.answers_renewals = false;
    let begun = Instant::now();
    let ledger = world.ledger();
    let script = format!(
        "trap 'echo asked >> {0}' TERM; while :; do sleep 0.02 || :; date +%s%N > {0}.beat; done",
        ledger.display()
    );
    line.start(world.noting(dispatch(0, 1, 11), &script)).await;
    until("it runs", || world.written().len() == 1).await;
    // The worker looks for another server while the lease lasts; none answers.
    loop {
        drop(line);
        line = world.line().await;
        let said = line.next().await.unwrap();
        if let FromWorker::Register { last, .. } = said {
            assert_eq!(last.map(|last| last.worker), Some(WorkerId(1)));
            break;
        }
        let (worker, epoch) = (WorkerId(1), Epoch(10));
        assert_eq!(said, FromWorker::Resume { worker, epoch });
    }
    let margin = Duration::from_millis(100);
    assert!(begun.elapsed() > Duration::from_millis(SHORT.0) - margin, "{:?}", begun.elapsed());
    assert_eq!(world.written(), ["t0:1", "asked"]);
    let beat = std::fs::read_to_string(ledger.with_extension("beat")).unwrap();
    tokio::time::sleep(margin).await;
    assert_eq!(std::fs::read_to_string(ledger.with_extension("beat")).unwrap(), beat);
}

#[tokio::test]
async fn a_leader_that_falls_silent_is_left_while_the_lease_holds() {
    let (mut world, mut line) = World::registered(SHORT).await;
    line.start(world.noting(dispatch(0, 1, 11), "sleep 1")).await;
    line.answers_renewals = false;
    assert_eq!(line.next().await, None, "it hangs up");
    let mut line = world.resume(10).await;
    assert_eq!(line.outcome().await, Outcome::Succeeded { outputs: None });
}

#[tokio::test]
async fn answers_that_come_late_or_out_of_order_extend_nothing() {
    let (mut world, mut line) = World::registered(SHORT).await;
    let lease_left =
        |world: &World| world.worker.as_ref().unwrap().probe().read().lease_left.unwrap();
    let first = line.renewal().await;
    line.say(ToWorker::Renewed { sent_at: first }).await;
    let second = line.renewal().await;
    line.say(ToWorker::Renewed { sent_at: second }).await;
    line.say(ToWorker::Renewed { sent_at: u64::MAX }).await;
    line.say(ToWorker::Renewed { sent_at: first }).await;
    // A renewal comes every quarter of the lease; the second leaves more than the first would.
    until("the answer has come", || lease_left(&world).as_millis() > 1_150).await;
    assert!(lease_left(&world).as_millis() <= 1_500);
    line.answers_renewals = false;
    while line.next().await.is_some() {}
    let mut line = loop {
        let mut line = world.line().await;
        if let Some(FromWorker::Register { .. }) = line.next().await {
            break line;
        }
    };
    // The answer to a renewal of the old registration revives nothing.
    line.say(ToWorker::Renewed { sent_at: second }).await;
    assert_eq!(line.next().await, None);
    assert_eq!(world.worker.as_ref().unwrap().probe().read().lease_left, None);
}
