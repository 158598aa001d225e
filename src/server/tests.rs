//! What a node that leads says to a worker, and what one that leads no more does not say.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_api::client::{Client, Start, What};
use quorate_model::command::ReportTask;
use quorate_model::{Containment, Dispatch, Epoch, Outcome, Usage, WorkerId};
use quorate_raft::codec::{self, Service};
use quorate_raft::{ClusterId, Member, Status};

use super::{Farewell, Server};
use crate::config::Overrides;
use crate::link::{self, Link};
use crate::protocol::{FromWorker, ToWorker};

type Line = Link<ToWorker, FromWorker>;

/// What anything in these tests may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node without a worker of its own, that founds a cluster or joins one.
async fn node(dir: &tempfile::TempDir, join: Option<&str>) -> Server {
    let settings = Overrides {
        data: Some(dir.path().join("data")),
        listen: Some("127.0.0.1:0".to_owned()),
        join: join.map(|seed| vec![seed.to_owned()]),
        worker: Some(false),
        ..Overrides::default()
    };
    Server::start(settings.complete().unwrap()).await.unwrap()
}

fn address(server: &Server) -> String {
    server.url().trim_start_matches("http://").to_owned()
}

/// Connects as a worker does, and says the first word.
async fn greet(address: &str, word: FromWorker) -> Line {
    let connection =
        codec::connect(address, ClusterId::NONE, Service::Worker, PATIENCE).await.unwrap();
    let line: Line = link::over(connection);
    line.outgoing.send(word).await.unwrap();
    line
}

/// What is said next; `None` if the other side hangs up.
async fn next(line: &mut Line) -> Option<ToWorker> {
    tokio::time::timeout(PATIENCE, line.incoming.recv()).await.expect("nothing is said")
}

/// Registers with whoever leads at this address, which may take an election.
async fn register(address: &str) -> (Line, WorkerId, Epoch) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (name, labels) = ("w".parse().unwrap(), BTreeMap::new());
        let containment = Containment::Pidns;
        let word = FromWorker::Register { last: None, name, labels, slots: 4, containment };
        let mut line = greet(address, word).await;
        match next(&mut line).await {
            Some(ToWorker::Registered { worker, epoch, .. }) => return (line, worker, epoch),
            other => {
                let is_early = matches!(other, Some(ToWorker::NotLeader { .. }) | None);
                assert!(is_early && tokio::time::Instant::now() < deadline, "{other:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// A run of one task, and the order to start it.
async fn started(server: &Server, line: &mut Line) -> Dispatch {
    let client = Client::new([server.url()]).unwrap();
    let (source, name) = ("run: echo".to_owned(), "w".to_owned());
    client.start(&Start::of(What::Inline { source, name })).await.unwrap();
    loop {
        match next(line).await {
            Some(ToWorker::Start(start)) => return start.dispatch,
            other => assert!(other.is_some(), "the leader hung up"),
        }
    }
}

fn succeeded(dispatch: Dispatch) -> ReportTask {
    let Dispatch { task, attempt, token, worker, epoch } = dispatch;
    let (outcome, usage) = (Outcome::Succeeded { outputs: None }, Usage::default());
    ReportTask { task, attempt, token, worker, epoch, outcome, usage }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_what_has_ended_is_not_started_again_for_one_that_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let server = node(&dir, None).await;
    let at = address(&server);
    let (mut line, worker, epoch) = register(&at).await;
    for sequence in 1..=20 {
        let ended = started(&server, &mut line).await;
        let report = FromWorker::Report { sequence, report: succeeded(ended) };
        line.outgoing.send(report).await.unwrap();
        assert_eq!(next(&mut line).await, Some(ToWorker::Recorded { sequence }));
        // A worker that remembers nothing but its registration.
        drop(line);
        line = greet(&at, FromWorker::Resume { worker, epoch }).await;
        let answer = next(&mut line).await;
        assert!(matches!(answer, Some(ToWorker::Registered { .. })), "{answer:?}");
        line.outgoing.send(FromWorker::Renew { sent_at: 1, heard: None }).await.unwrap();
        // The first word after the answer, so no order was given in between.
        assert_eq!(next(&mut line).await, Some(ToWorker::Renewed { sent_at: 1 }));
    }
    drop(line);
    server.shutdown(Farewell::Return).await;
}

/// Waits until the node sees itself and its cluster so.
async fn wait_until(server: &Server, holds: impl Fn(&Status) -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds(&server.node.status()) {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", server.node.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Gives the cluster a second voter, which goes at once: one is no quorum then.
async fn lose_quorum(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let other = node(&dir, Some(&address(server))).await;
    let is_voter = |member: &&Member| member.voter;
    wait_until(server, |status| status.members.iter().filter(is_voter).count() == 2).await;
    other.shutdown(Farewell::Return).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_r5_a_leader_without_a_quorum_renews_nothing_and_orders_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = node(&dir, None).await;
    let (mut line, ..) = register(&address(&server)).await;
    // A task that is ready waits for room on the worker alone.
    line.outgoing.send(FromWorker::DiskFull(true)).await.unwrap();
    line.outgoing.send(FromWorker::Renew { sent_at: 1, heard: None }).await.unwrap();
    assert_eq!(next(&mut line).await, Some(ToWorker::Renewed { sent_at: 1 }));
    let client = Client::new([server.url()]).unwrap();
    let (source, name) = ("run: echo".to_owned(), "w".to_owned());
    client.start(&Start::of(What::Inline { source, name })).await.unwrap();
    lose_quorum(&server).await;
    line.outgoing.send(FromWorker::DiskFull(false)).await.unwrap();
    line.outgoing.send(FromWorker::Renew { sent_at: 2, heard: None }).await.unwrap();
    wait_until(&server, |status| !status.quorate).await;
    while let Ok(said) = line.incoming.try_recv() {
        assert!(matches!(said, ToWorker::NotLeader { .. }), "without a quorum it says {said:?}");
    }
    server.shutdown(Farewell::Return).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_a_leader_without_a_quorum_answers_no_resume() {
    let dir = tempfile::tempdir().unwrap();
    let server = node(&dir, None).await;
    let at = address(&server);
    let (mut line, worker, epoch) = register(&at).await;
    let running = started(&server, &mut line).await;
    lose_quorum(&server).await;
    // Whether it knows yet that it leads nobody or does not: it must not say that it does.
    let mut line = greet(&at, FromWorker::Resume { worker, epoch }).await;
    match next(&mut line).await {
        Some(ToWorker::NotLeader { .. }) | None => {}
        said => panic!("{running} may be over, and the leader says {said:?}"),
    }
    server.shutdown(Farewell::Return).await;
}
