//! What is refused, and does no harm.

use std::time::Duration;

use quorate_model::command::ReportTask;
use quorate_model::{Attempt, Command, Epoch, FencingToken, Outcome, Request, TaskId, WorkerId};
use quorate_raft::codec::{self, FrameError, Service};
use quorate_raft::{ClusterId, PROPOSALS_QUEUED_MAX, ProposeError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Cluster, SOON, propose, put, run_id, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn node_of_another_cluster_is_refused() {
    let cluster = Cluster::found().await;
    let address = cluster.address(0).to_string();
    let other = ClusterId::random().unwrap();
    for service in [Service::Raft, Service::Forward, Service::Worker] {
        let refused = codec::connect(&address, other, service, SOON).await;
        let Err(FrameError::Refused(reason)) = refused else { panic!("{refused:?}") };
        assert!(reason.contains("belongs to cluster"), "{reason}");
    }
    let newcomer = codec::connect(&address, ClusterId::NONE, Service::Raft, SOON).await;
    assert!(matches!(newcomer, Err(FrameError::Refused(_))), "votes are for members only");
    propose(cluster.node(0), put("a")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_port_does_no_harm() {
    let cluster = Cluster::found().await;
    let address = cluster.address(0);
    let claims_4_gib = [&codec::MAGIC[..], &u32::MAX.to_le_bytes(), &[0; 4]].concat();
    let wrong_checksum = [&codec::MAGIC[..], &3_u32.to_le_bytes(), &[1, 2, 3, 4, 5, 6, 7]].concat();
    for garbage in [vec![0; 100_000], vec![b'x'; 7], claims_4_gib, wrong_checksum] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The node may have hung up before all is written.
        let _ = stream.write_all(&garbage).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the connection is closed");
    }
    // After a hello, too.
    for service in [Service::Raft, Service::Forward] {
        let cluster_id = cluster.node(0).cluster();
        let connection = codec::connect(&address.to_string(), cluster_id, service, SOON).await;
        let mut connection = connection.unwrap();
        connection.writer.send(&vec![u64::MAX; 100]).await.unwrap();
        let answer = connection.reader.next::<u8>().await;
        assert!(matches!(answer, Ok(None) | Err(_)), "{answer:?}");
    }
    propose(cluster.node(0), put("a")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_pass_when_the_queue_is_full() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    // Without a quorum nothing is answered, so all that comes stays in the queue.
    others.into_iter().for_each(|other| cluster.kill(other));
    let node = cluster.node(leader).clone();
    let deadline = Duration::from_secs(10);
    for number in 0..PROPOSALS_QUEUED_MAX + 3_000 {
        let node = node.clone();
        tokio::spawn(async move { node.propose(put(&format!("w{number}")), deadline).await });
    }
    wait_for("a full queue", || (node.status().proposals.overloaded > 0).then_some(())).await;
    let refused = node.propose(put("one-more"), deadline).await;
    assert_eq!(refused, Err(ProposeError::Overloaded));
    let reported = tokio::spawn({
        let node = node.clone();
        async move { node.propose(report(), SOON).await }
    });
    let queued = node.status().proposals.accepted;
    wait_for("the report", || (node.status().proposals.accepted > queued).then_some(())).await;

    for other in others {
        cluster.restart(other).await;
    }
    let outcome = reported.await.unwrap();
    assert!(matches!(outcome, Ok(_) | Err(ProposeError::Unknown)), "{outcome:?}");
}

fn report() -> Request {
    let report = ReportTask {
        task: TaskId::new(run_id(1), 0),
        attempt: Attempt(1),
        token: FencingToken(1),
        worker: WorkerId(1),
        epoch: Epoch(1),
        outcome: Outcome::Stopped,
        usage: Default::default(),
    };
    Command::ReportTask(report).into()
}
