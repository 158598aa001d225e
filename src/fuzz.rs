//! F4: whatever workers and leaders hear from each other, neither panics, and a message that can
//! be read says the same when it is sent on.

use std::path::Path;

use futures_util::FutureExt as _;
use quorate_fuzz::Fuzz;
use quorate_model::command::ReportTask;
use quorate_model::{
    Attempt, Containment, Dispatch, DurationMs, Epoch, FencingToken, Json, Outcome, Registration,
    StopReason, TaskId, Usage, WorkerId,
};
use quorate_raft::codec::{FrameReader, FrameWriter};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::{FromWorker, Heard, ToWorker};

/// The first byte says which of the two speaks; what stands in a frame follows.
fn read_message(input: &[u8]) -> String {
    let Some((&speaker, payload)) = input.split_first() else { return "nothing".to_owned() };
    let (who, is_understood) = if speaker.is_multiple_of(2) {
        ("a worker", is_stable::<FromWorker>(payload))
    } else {
        ("a leader", is_stable::<ToWorker>(payload))
    };
    let what = if is_understood { "understood" } else { "not understood" };
    format!("{who}, {what}")
}

fn is_stable<T>(payload: &[u8]) -> bool
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let length = u32::try_from(payload.len()).expect("an input is small");
    let checksum = crc32c::crc32c(payload).to_le_bytes();
    let frame = [&length.to_le_bytes(), &checksum, payload].concat();
    let Some(message) = receive::<T>(&frame) else { return false };
    assert_eq!(receive::<T>(&send(&message)).expect("what was sent arrives"), message);
    true
}

fn receive<T: DeserializeOwned>(frame: &[u8]) -> Option<T> {
    let read = FrameReader::new(frame).next::<T>().now_or_never();
    read.expect("bytes in memory are there").ok().flatten()
}

fn send<T: Serialize>(message: &T) -> Vec<u8> {
    let mut frame = Vec::new();
    let sent = FrameWriter::new(&mut frame).send(message).now_or_never();
    sent.expect("memory takes it").expect("it is small");
    frame
}

fn from_worker() -> Vec<FromWorker> {
    let (worker, epoch) = (WorkerId(2), Epoch(300));
    let report = ReportTask {
        task: TaskId::default(),
        attempt: Attempt(1),
        token: FencingToken(70_000),
        worker,
        epoch,
        outcome: Outcome::Succeeded { outputs: Some(Json::new(&serde_json::json!({"n": 1}))) },
        usage: Usage::default(),
    };
    vec![
        FromWorker::Register {
            last: Some(Registration { worker, epoch }),
            name: "node".parse().expect("a name"),
            labels: [("disk".parse().expect("a name"), "ssd".to_owned())].into(),
            slots: 4,
            containment: Containment::Pidns,
        },
        FromWorker::Resume { worker, epoch },
        FromWorker::Renew { sent_at: u64::MAX, heard: Some(Heard { sent_at: 1, at: u64::MAX }) },
        FromWorker::Leaving,
        FromWorker::Report { sequence: 9, report },
        FromWorker::Release,
    ]
}

fn to_worker() -> Vec<ToWorker> {
    let (worker, epoch) = (WorkerId(2), Epoch(300));
    let (task, attempt, token) = (TaskId::default(), Attempt(1), FencingToken(70_000));
    let dispatch = Dispatch { task, attempt, token, worker, epoch };
    vec![
        ToWorker::NotLeader { leader: Some("127.0.0.1:1".to_owned()) },
        ToWorker::Registered { worker, epoch, lease: DurationMs(10_000) },
        ToWorker::Refused { reason: "gone".to_owned(), forget_id: true },
        ToWorker::Renewed { sent_at: 1 },
        ToWorker::Stop { dispatch, reason: StopReason::Cancelled },
        ToWorker::Recorded { sequence: 9 },
    ]
}

fn seeds() -> Vec<Vec<u8>> {
    /// Bytes of a frame before its payload.
    const HEADER_BYTES: usize = 8;
    let said = |speaker: u8, frame: Vec<u8>| [&[speaker], &frame[HEADER_BYTES..]].concat();
    let workers = from_worker().into_iter().map(|message| said(0, send(&message)));
    workers.chain(to_worker().into_iter().map(|message| said(1, send(&message)))).collect()
}

#[test]
fn no_message_makes_worker_or_leader_panic() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/fuzz/session");
    let demanded = &[
        "a worker, understood",
        "a worker, not understood",
        "a leader, understood",
        "a leader, not understood",
    ];
    Fuzz { corpus, seeds: seeds(), demanded }.run(read_message);
}
