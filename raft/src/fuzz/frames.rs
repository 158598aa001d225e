//! F4: a connection of another node, from its first frame on.

use futures_util::FutureExt as _;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use openraft::vote::RaftLeaderId as _;
use quorate_fuzz::Fuzz;
use quorate_model::command::CancelRun;
use quorate_model::{Command, IdempotencyKey, LogIndex, Request, RunId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{corpus, seal_frames};
use crate::ClusterId;
use crate::codec::{self, FrameReader, Greeting, Hello, PROTOCOL, Service, append_frame};
use crate::forward::What;
use crate::network::PeerAsk;
use crate::snapshot::Section;
use crate::types::{LeaderId, LogEntry, LogId, Payload, RaftEntry, Vote};

/// The first byte says whether checksums are put right; frames follow.
fn read_connection(input: &[u8]) -> String {
    let Some((&mode, bytes)) = input.split_first() else { return "nothing".to_owned() };
    let mut bytes = bytes.to_vec();
    if mode % 2 == 1 {
        seal_frames(&mut bytes);
    }
    let mut reader = FrameReader::new(bytes.as_slice());
    let mut understood = 0;
    loop {
        let read = reader.next_payload().now_or_never().expect("bytes in memory are there");
        match read {
            Ok(Some(payload)) => understood += messages(&payload),
            Ok(None) => return format!("an end after {} messages", understood.min(2)),
            Err(error) => return error.to_string().replace(|c: char| c.is_ascii_digit(), ""),
        }
    }
}

/// As how many of the things that nodes say to each other these bytes can be read.
fn messages(payload: &[u8]) -> usize {
    usize::from(is_stable::<Hello>(payload))
        + usize::from(is_stable::<Greeting>(payload))
        + usize::from(is_stable::<(u64, PeerAsk)>(payload))
        + usize::from(is_stable::<(u64, (u64, What))>(payload))
}

/// Whether the bytes are a `T`; one that says the same when it is written and read again.
fn is_stable<T: Serialize + DeserializeOwned>(payload: &[u8]) -> bool {
    let Ok(value) = codec::decode::<T>(payload) else { return false };
    let written = codec::encode(&value);
    let again: T = codec::decode(&written).expect("what was written can be read");
    assert_eq!(codec::encode(&again), written, "it says something else");
    true
}

fn log_id(index: u64) -> LogId {
    LogId { leader_id: LeaderId::new(3, 1), index }
}

fn asks() -> Vec<PeerAsk> {
    let vote = Vote::new_committed(3, 1);
    let entry = |index| RaftEntry {
        log_id: log_id(index),
        payload: Payload::Normal(LogEntry(vec![1, 250, 0].into())),
    };
    let append = AppendEntriesRequest {
        vote,
        prev_log_id: Some(log_id(300)),
        entries: vec![entry(301), entry(302)],
        leader_commit: Some(log_id(300)),
    };
    vec![
        PeerAsk::Stream(append.clone()),
        PeerAsk::Append(append),
        PeerAsk::Vote(VoteRequest::new(Vote::new(4, 2), Some(log_id(302)))),
        PeerAsk::PreVote(VoteRequest::new(Vote::new(4, 2), None)),
        PeerAsk::Snapshot(vote, Section::State(vec![7; 40])),
        PeerAsk::Snapshot(vote, Section::End(2)),
        PeerAsk::Forgot(70_000),
    ]
}

fn whats() -> Vec<What> {
    let run = RunId(uuid::Uuid::from_u128(7));
    let cancel = Command::CancelRun(CancelRun { run, reason: "no".to_owned(), by: String::new() });
    let key = Some(IdempotencyKey { key: "k".to_owned(), request_hash: 300 });
    vec![
        What::Propose(Box::new(Request { key, command: cancel })),
        What::ReadIndex,
        What::Join { address: "127.0.0.1:1".to_owned(), voter: true },
        What::Remove { node: 3 },
        What::Transfer { to: Some(2) },
        What::History { after: None, applied: LogIndex(9) },
    ]
}

fn seeds() -> Vec<Vec<u8>> {
    let hello = Hello { protocol: PROTOCOL, cluster: ClusterId(0xc1), service: Service::Raft };
    let begun = |mode| {
        let mut bytes = vec![mode];
        append_frame(&mut bytes, &hello).expect("a hello is small");
        bytes
    };
    let with = |mut bytes: Vec<u8>, message: &dyn Fn(&mut Vec<u8>)| {
        message(&mut bytes);
        bytes
    };
    let mut seeds = vec![begun(0)];
    for mode in 0..2 {
        for ask in asks() {
            seeds.push(with(begun(mode), &|bytes| {
                append_frame(bytes, &(5_u64, &ask)).expect("a question is small");
            }));
        }
        for what in whats() {
            seeds.push(with(begun(mode), &|bytes| {
                append_frame(bytes, &(5_u64, (1_000_u64, &what))).expect("a question is small");
            }));
        }
    }
    seeds
}

#[test]
fn no_connection_makes_a_node_panic() {
    let demanded = &["an end after 2", "the connection ended in the middle", "a frame is damaged"];
    Fuzz { corpus: corpus("frames"), seeds: seeds(), demanded }.run(read_connection);
}
