//! F1: whatever a log says, applying it does not panic, keeps the invariants and comes to the
//! same state again.

mod template;

use std::path::Path;

use quorate_fuzz::Fuzz;
use quorate_model::{Entry, LogIndex, State, UnixMs};

use crate::dice::Dice;
use crate::nonsense::Nonsense;

/// Entries of a seed: enough for a run to begin, go wrong and end.
const SEED_ENTRIES: u64 = 40;

/// What decoding may allocate, so that the input decides how large a log is.
const DECODED_BYTES_MAX: usize = 1 << 20;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DECODED_BYTES_MAX>()
}

/// The input is entries, one behind another, until one cannot be read.
fn apply_entries(input: &[u8]) -> String {
    let (mut state, mut again) = (State::default(), State::default());
    let (mut rest, mut index, mut answers, mut refusals) = (input, 0, 0, 0);
    while let Ok((entry, read)) = bincode::serde::decode_from_slice::<Entry, _>(rest, config()) {
        rest = &rest[read..];
        index += 1;
        let applied = state.apply(LogIndex(index), entry.clone());
        assert_eq!(state.check(), Ok(()), "after entry {index}");
        again.apply(LogIndex(index), entry);
        answers += applied.answers.len();
        refusals += applied.answers.iter().filter(|answer| answer.reply.is_err()).count();
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(state.hash(), again.hash(), "a replay comes to something else");
    let written = bincode::serde::encode_to_vec(&state, bincode::config::standard());
    let written = written.expect("a state can be written");
    let (read, _) = bincode::serde::decode_from_slice(&written, bincode::config::standard())
        .expect("what was written can be read");
    assert_eq!(state, read, "the state does not survive a snapshot");
    let some = |count| if count == 0 { "no" } else { "some" };
    let end = if rest.is_empty() { "whole" } else { "broken off" };
    format!("{} entries, {} refused, {end}", some(answers), some(refusals))
}

fn seeds() -> Vec<Vec<u8>> {
    let seed = |seed| {
        let (mut nonsense, mut state) = (Nonsense::new(Dice::new(seed)), State::default());
        let entries = (1..=SEED_ENTRIES).flat_map(|index| {
            let (at, requests) = nonsense.entry(&state);
            let entry = Entry { proposed_at: UnixMs(at), requests };
            nonsense.remember(state.apply(LogIndex(index), entry.clone()).effects);
            bincode::serde::encode_to_vec(&entry, config()).expect("an entry can be written")
        });
        entries.collect()
    };
    (0..16).map(seed).collect()
}

#[test]
fn no_log_makes_apply_panic() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz/apply");
    let demanded = &["some entries, some refused, whole", "some entries, some refused, broken off"];
    Fuzz { corpus, seeds: seeds(), demanded }.run(apply_entries);
}
