//! What a worker does with what it is told, and how it tells what came of it.

use quorate_model::{Epoch, Outcome, WorkerId};

use super::fixture::*;
use crate::protocol::{FromWorker, ToWorker};

fn succeeded() -> Outcome {
    Outcome::Succeeded { outputs: None }
}

#[tokio::test]
async fn runs_a_task_and_reports_it() {
    let (world, mut line) = World::registered(LONG).await;
    line.start(world.noting(dispatch(0, 1, 11), "")).await;
    let (_, report) = line.report().await;
    assert_eq!(report.outcome, succeeded());
    assert_eq!(
        (report.task, report.attempt, report.token, report.worker, report.epoch),
        (
            dispatch(0, 1, 11).task,
            dispatch(0, 1, 11).attempt,
            dispatch(0, 1, 11).token,
            WorkerId(1),
            Epoch(10)
        )
    );
    assert_eq!(world.written(), ["t0:1"]);
}

/// T5: a repeated order starts nothing, neither while the attempt runs nor when it is over.
#[tokio::test]
async fn a_repeated_start_is_ignored_and_a_finished_one_reported_again() {
    let (world, mut line) = World::registered(LONG).await;
    let gate = world.path("gate");
    let wait = format!("until [ -e {gate} ]; do sleep 0.01; done");
    let start = world.noting(dispatch(0, 1, 11), &wait);
    for _ in 0..3 {
        line.start(start.clone()).await;
    }
    until("it runs", || world.written().len() == 1).await;
    line.start(start.clone()).await;
    std::fs::write(gate, "").unwrap();
    let (sequence, report) = line.report().await;
    line.start(start.clone()).await;
    assert_eq!(line.report().await, (sequence, report), "the same report again");
    line.say(ToWorker::Recorded { sequence }).await;
    line.start(start).await;
    line.start(world.noting(dispatch(1, 1, 12), "")).await;
    assert_eq!(line.report().await.1.task, dispatch(1, 1, 12).task, "no more of the first");
    assert_eq!(world.written(), ["t0:1", "t1:1"]);
}

/// T3, T4: the order arrives, the connection is lost, and the next leader orders it again.
#[tokio::test]
async fn a_start_repeated_by_the_next_leader_is_the_same_attempt() {
    let (mut world, line) = World::registered(LONG).await;
    let start = world.noting(dispatch(0, 1, 11), "sleep 0.3");
    line.start(start.clone()).await;
    until("it runs", || world.written().len() == 1).await;
    drop(line);
    let mut line = world.resume(10).await;
    line.start(start).await;
    assert_eq!(line.outcome().await, succeeded());
    assert_eq!(world.written(), ["t0:1"]);
}

/// T10: a report is repeated on every connection until it is recorded, and then no more.
#[tokio::test]
async fn a_report_is_repeated_until_it_is_recorded() {
    let (mut world, mut line) = World::registered(LONG).await;
    line.start(task(dispatch(0, 1, 11), "exit 3")).await;
    let first = line.report().await;
    assert_eq!(first.1.outcome, Outcome::Exited { code: 3 });
    drop(line);
    let mut line = world.resume(10).await;
    assert_eq!(line.report().await, first);
    drop(line);
    let mut line = world.resume(10).await;
    assert_eq!(line.report().await, first);
    line.say(ToWorker::Recorded { sequence: first.0 }).await;
    line.start(task(dispatch(1, 1, 12), "exit 4")).await;
    assert_eq!(line.outcome().await, Outcome::Exited { code: 4 });
    drop(line);
    let mut line = world.resume(10).await;
    line.start(task(dispatch(2, 1, 13), "exit 5")).await;
    let mut outcome = line.outcome().await;
    if outcome == (Outcome::Exited { code: 4 }) {
        // That it is recorded was lost with the line.
        outcome = line.outcome().await;
    }
    assert_eq!(outcome, Outcome::Exited { code: 5 });
}

/// T10: also when it ended while nobody could be told.
#[tokio::test]
async fn a_result_without_a_connection_is_reported_on_the_next() {
    let (mut world, line) = World::registered(LONG).await;
    line.start(world.noting(dispatch(0, 1, 11), "")).await;
    until("it runs", || world.written().len() == 1).await;
    drop(line);
    let pending = |world: &World| world.worker.as_ref().unwrap().probe().read().reports_pending;
    until("it has ended", || pending(&world) == 1).await;
    let mut line = world.resume(10).await;
    assert_eq!(line.outcome().await, succeeded());
    until("it is recorded", || pending(&world) == 0).await;
}

/// T11: an order to stop that comes before the order to start, and one that comes too late.
#[tokio::test]
async fn an_attempt_stopped_before_it_began_never_begins() {
    let (world, mut line) = World::registered(LONG).await;
    line.stop(dispatch(0, 1, 11)).await;
    assert_eq!(line.report().await.1.outcome, Outcome::Stopped);
    line.start(world.noting(dispatch(0, 1, 11), "")).await;
    assert_eq!(line.outcome().await, Outcome::Stopped, "told again, and not started");
    line.start(world.noting(dispatch(0, 1, 11), "")).await;
    line.stop(dispatch(0, 1, 11)).await;
    line.start(world.noting(dispatch(0, 2, 14), "")).await;
    assert_eq!(line.outcome().await, succeeded(), "the next attempt does run");
    assert_eq!(world.written(), ["t0:2"]);
}

/// T11: what is older than what ran here comes late, and is refused.
#[tokio::test]
async fn an_older_attempt_that_comes_late_is_refused() {
    let (world, mut line) = World::registered(LONG).await;
    line.start(world.noting(dispatch(0, 2, 20), "")).await;
    assert_eq!(line.outcome().await, succeeded());
    line.start(world.noting(dispatch(0, 1, 11), "")).await;
    assert_eq!(line.outcome().await, Outcome::Lost, "the log refuses this report in turn");
    assert_eq!(world.written(), ["t0:2"]);
}

#[tokio::test]
async fn starts_nothing_under_another_registration() {
    let (world, mut line) = World::registered(LONG).await;
    let mut other = dispatch(0, 1, 11);
    other.epoch = Epoch(9);
    line.start(world.noting(other, "")).await;
    other = dispatch(0, 1, 11);
    other.worker = WorkerId(2);
    line.start(world.noting(other, "")).await;
    line.stop(other).await;
    line.start(world.noting(dispatch(1, 1, 12), "")).await;
    assert_eq!(line.report().await.1.task, dispatch(1, 1, 12).task);
    assert_eq!(world.written(), ["t1:1"]);
}

#[tokio::test]
async fn takes_no_more_than_its_slots() {
    let (world, mut line) = World::registered(LONG).await;
    for index in 0..4 {
        line.start(world.noting(dispatch(index, 1, 11), "sleep 60")).await;
    }
    line.start(world.noting(dispatch(4, 1, 12), "")).await;
    let (_, report) = line.report().await;
    assert_eq!((report.task, report.outcome), (dispatch(4, 1, 12).task, Outcome::Lost));
}

#[tokio::test]
async fn a_task_that_ignores_sigterm_is_killed_after_a_while() {
    let (world, mut line) = World::registered(LONG).await;
    let ledger = world.ledger();
    let note = format!("trap '' TERM; echo deaf >> {}", ledger.display());
    let script = format!("{note}; while :; do sleep 0.05; done");
    line.start(task(dispatch(0, 1, 11), &script)).await;
    until("it runs", || world.written().len() == 1).await;
    let begun = std::time::Instant::now();
    line.stop(dispatch(0, 1, 11)).await;
    line.stop(dispatch(0, 1, 11)).await;
    assert_eq!(line.outcome().await, Outcome::Stopped);
    assert!(begun.elapsed().as_millis() >= 300, "it was given time: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_task_asked_to_stop_may_tidy_up_and_its_children_too() {
    let (world, mut line) = World::registered(LONG).await;
    let ledger = world.ledger();
    let script = format!(
        "( trap 'sleep 0.1; echo child >> {0}; exit 0' TERM
           echo ready >> {0}; while :; do sleep 0.01 || :; done ) & wait",
        ledger.display()
    );
    line.start(world.noting(dispatch(0, 1, 11), &script)).await;
    until("the child is ready", || world.written().len() == 2).await;
    line.stop(dispatch(0, 1, 11)).await;
    assert_eq!(line.outcome().await, Outcome::Stopped);
    assert_eq!(world.written(), ["t0:1", "ready", "child"]);
}

#[tokio::test]
async fn goes_where_the_leader_is_said_to_be() {
    let mut world = World::new(LONG);
    let mut line = world.line().await;
    assert_eq!(line.address, "a");
    line.next().await;
    line.say(ToWorker::NotLeader { leader: Some("c".to_owned()) }).await;
    let mut line = world.line().await;
    assert_eq!(line.address, "c");
    line.next().await;
    line.say(ToWorker::NotLeader { leader: None }).await;
    assert_eq!(world.line().await.address, "b");
}

/// A deposed leader says so in the middle of a session.
#[tokio::test]
async fn resumes_with_the_next_leader() {
    let (mut world, mut line) = World::registered(LONG).await;
    line.start(world.noting(dispatch(0, 1, 11), "sleep 0.2")).await;
    until("it runs", || world.written().len() == 1).await;
    line.say(ToWorker::NotLeader { leader: Some("b".to_owned()) }).await;
    assert_eq!(line.next().await, None);
    let mut line = world.resume(10).await;
    assert_eq!(line.outcome().await, succeeded());
}

#[tokio::test]
async fn a_refusal_kills_everything_and_registers_anew() {
    let (mut world, mut line) = World::registered(LONG).await;
    line.start(world.noting(dispatch(0, 1, 11), "trap '' TERM; sleep 60 & echo $!; wait")).await;
    until("it runs", || world.written().len() == 1).await;
    line.say(ToWorker::Refused { reason: "gone".to_owned(), forget_id: false }).await;
    assert_eq!(line.next().await, None);
    let mut line = world.register(Some(WorkerId(1)), 20).await;
    assert_eq!(world.worker.as_ref().unwrap().probe().read().running, 0);
    line.say(ToWorker::Refused { reason: "unknown".to_owned(), forget_id: true }).await;
    assert_eq!(line.next().await, None, "nothing is said of the attempt");
    world.register(None, 30).await;
}

/// T15: back within the old lease, under the same id. What ran before is gone, and what was
/// reported before is told again, for the log to refuse.
#[tokio::test]
async fn a_restarted_worker_keeps_its_id_and_its_reports_and_nothing_else() {
    let (mut world, mut line) = World::registered(LONG).await;
    line.start(world.noting(dispatch(0, 1, 11), "")).await;
    let reported = line.report().await;
    line.start(world.noting(dispatch(1, 1, 12), "sleep 60")).await;
    until("it runs", || world.written().len() == 2).await;
    drop(world.worker.take());
    // The directory is free when the agent's thread has ended.
    until("it is gone", || {
        let restarted = crate::worker::Worker::start(world.options());
        world.worker = restarted.ok();
        world.worker.is_some()
    })
    .await;
    let mut line = world.register(Some(WorkerId(1)), 20).await;
    assert_eq!(line.report().await.1, reported.1);
    line.start(world.noting(dispatch(1, 1, 12), "")).await;
    let mut newer = dispatch(1, 2, 22);
    newer.epoch = Epoch(20);
    line.start(world.noting(newer, "")).await;
    assert_eq!(line.report().await.1.attempt, newer.attempt);
    assert_eq!(world.written(), ["t0:1", "t1:1", "t1:2"]);
}

#[tokio::test]
async fn leaves_when_its_tasks_are_done_and_gives_the_lease_back() {
    let (mut world, mut line) = World::registered(LONG).await;
    line.start(world.noting(dispatch(0, 1, 11), "sleep 0.2")).await;
    line.start(world.noting(dispatch(1, 1, 12), "sleep 60")).await;
    until("both run", || world.written().len() == 2).await;
    let worker = world.worker.take().unwrap();
    let stopping = tokio::spawn(worker.stop(std::time::Duration::from_secs(1)));
    assert_eq!(line.next().await, Some(FromWorker::Leaving));
    assert_eq!(line.outcome().await, succeeded());
    // This one crossed the word: it is handed back, once for each time that it is asked for.
    line.start(world.noting(dispatch(2, 1, 13), "")).await;
    assert_eq!(line.outcome().await, Outcome::Returned);
    assert_eq!(line.outcome().await, Outcome::Stopped);
    assert_eq!(line.next().await, Some(FromWorker::Release));
    drop(line);
    stopping.await.unwrap();
    assert_eq!(world.written().len(), 2);
}

/// A leader that was elected since does not know yet.
#[tokio::test]
async fn a_worker_that_stops_says_so_in_every_session() {
    let (mut world, mut line) = World::registered(LONG).await;
    line.start(world.noting(dispatch(0, 1, 11), "sleep 60")).await;
    until("it runs", || world.written().len() == 1).await;
    let worker = world.worker.take().unwrap();
    let stopping = tokio::spawn(worker.stop(std::time::Duration::from_secs(1)));
    assert_eq!(line.next().await, Some(FromWorker::Leaving));
    drop(line);
    let mut line = world.resume(10).await;
    assert_eq!(line.next().await, Some(FromWorker::Leaving));
    assert_eq!(line.outcome().await, Outcome::Stopped);
    assert_eq!(line.next().await, Some(FromWorker::Release));
    drop(line);
    stopping.await.unwrap();
}

#[tokio::test]
async fn two_workers_do_not_share_a_directory() {
    let (world, _line) = World::registered(LONG).await;
    let refused = crate::worker::Worker::start(world.options()).err().unwrap();
    assert!(refused.to_string().starts_with("another worker runs in"), "{refused}");
}
