//! F10: whatever agent and keeper hear from each other, neither panics, and a message that can
//! be read says the same when it is sent on.

use std::path::Path;

use quorate_fuzz::Fuzz;
use quorate_model::{Containment, DurationMs, Epoch, WorkerId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::lease::BootNs;
use super::wire::{Key, Note, Order, Term, VERSION, decode, encode};

/// The first byte says which of the two speaks; the message follows.
fn read_message(input: &[u8]) -> String {
    let Some((&speaker, message)) = input.split_first() else { return "nothing".to_owned() };
    let (who, is_understood) = if speaker.is_multiple_of(2) {
        ("the agent", is_stable::<Order>(message))
    } else {
        ("the keeper", is_stable::<Note>(message))
    };
    let what = if is_understood { "understood" } else { "not understood" };
    format!("{who}, {what}")
}

fn is_stable<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> bool {
    let Ok(value) = decode::<T>(bytes) else { return false };
    // What cannot be sent on is too large, which only numbers written the long way can hide.
    let Ok(written) = encode(&value) else { return true };
    assert_eq!(decode::<T>(&written).expect("what was written can be read"), value);
    true
}

fn seeds() -> Vec<Vec<u8>> {
    let (warning, deadline) = (BootNs(7_000_000_000), BootNs(10_000_000_000));
    let (worker, epoch, span) = (WorkerId(2), Epoch(300), DurationMs(10_000));
    let term = Term { worker, epoch, span, warning, deadline };
    let orders = [
        Order::Lease(term),
        Order::Stop { key: Key(3), grace: DurationMs(5_000) },
        Order::KillAll,
        Order::Forget(vec![Key(1), Key(70_000)]),
        Order::End,
    ];
    let containment = Containment::Pidns;
    let notes = [
        Note::Welcome { version: VERSION, containment, term: Some(term) },
        Note::Ready,
        Note::Refused { key: Key(3), reason: "the lease is over".to_owned() },
    ];
    let said = |speaker, written: std::io::Result<Vec<u8>>| {
        [&[speaker], written.expect("it is small").as_slice()].concat()
    };
    let of_agent = orders.iter().map(|order| said(0, encode(order)));
    of_agent.chain(notes.iter().map(|note| said(1, encode(note)))).collect()
}

#[test]
fn no_message_makes_agent_or_keeper_panic() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/fuzz/keeper");
    let demanded = &[
        "the agent, understood",
        "the agent, not understood",
        "the keeper, understood",
        "the keeper, not understood",
    ];
    Fuzz { corpus, seeds: seeds(), demanded }.run(read_message);
}
