//! A state machine that is checked at every step.

use std::collections::BTreeSet;

use quorate_model::{Applied, Entry, Event, LogIndex, Request, State, UnixMs};

/// A state, its log, and what is demanded of both after each entry:
/// the invariants hold; a twin that got the entry over the wire is in the same state; and
/// the state survives being written to a snapshot and read back.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    pub(crate) state: State,
    twin: State,
    log: Vec<(LogIndex, Entry)>,
    /// A snapshot, and how many entries are in it.
    snapshot: Option<(State, usize)>,
    /// Refusals, effects and statuses that came about: what a test has reached at all.
    pub(crate) seen: BTreeSet<String>,
}

impl Replicas {
    /// Applies requests as one entry at a time.
    pub(crate) fn propose(&mut self, proposed_at: UnixMs, requests: Vec<Request>) -> Applied {
        let index = LogIndex(self.state.applied().0 + 1);
        self.apply(index, Entry { proposed_at, requests })
    }

    /// Applies an entry and checks what it left.
    pub(crate) fn apply(&mut self, index: LogIndex, entry: Entry) -> Applied {
        let carried = carry(&entry);
        assert_eq!(carried, entry, "an entry means the same after the wire");
        let applied = self.state.apply(index, carried.clone());
        let of_twin = self.twin.apply(index, entry);
        assert_eq!(applied.answers, of_twin.answers, "replicas answer alike");
        assert_eq!(applied.effects, of_twin.effects, "replicas want the same done");
        assert_eq!(self.state, self.twin, "replicas agree");
        let reread = carry(&self.state);
        assert_eq!(reread, self.state, "a snapshot is the state");
        self.twin = reread;
        if let Err(broken) = self.state.check() {
            panic!("invariant broken by entry {index} {carried:?}: {broken}");
        }
        self.log.push((index, carried));
        self.notice(&applied);
        applied
    }

    fn notice(&mut self, applied: &Applied) {
        let replies = applied.answers.iter().map(|answer| match &answer.reply {
            Ok(reply) => variant(reply),
            Err(rejection) => variant(rejection),
        });
        let effects = applied.effects.iter().map(variant);
        self.seen.extend(replies.chain(effects));
        let replayed = applied.answers.iter().any(|answer| answer.replayed);
        self.seen.extend(replayed.then(|| "Replayed".to_owned()));
        for event in &applied.events {
            if let &Event::Task(id) = event
                && let Ok(task) = self.state.task(id)
            {
                self.seen.insert(task.end().map_or_else(|| variant(&task.status), |e| variant(&e)));
                self.seen.extend(task.attempts.last().map(|past| variant(&past.outcome)));
            }
        }
    }

    /// Keeps a snapshot of the present state, to be the base of [`agree`](Self::agree).
    #[allow(dead_code, reason = "scripts have no use for it, the simulation has")]
    pub(crate) fn take_snapshot(&mut self) {
        self.snapshot = Some((carry(&self.state), self.log.len()));
    }

    /// Demands that a full replay, and a snapshot with the log behind it, come to the same.
    pub(crate) fn agree(&self) {
        let mut replayed = State::default();
        for (index, entry) in &self.log {
            replayed.apply(*index, entry.clone());
        }
        assert_eq!(replayed.hash(), self.state.hash(), "a replay comes to the same state");
        let Some((mut resumed, from)) = self.snapshot.clone() else { return };
        for (index, entry) in &self.log[from..] {
            resumed.apply(*index, entry.clone());
        }
        assert_eq!(resumed, self.state, "a snapshot and its tail come to the same state");
    }
}

/// The name of a variant.
fn variant(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
    text[..end].to_owned()
}

/// What arrives at the other end of a wire or a file.
fn carry<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let config = bincode::config::standard();
    let bytes = bincode::serde::encode_to_vec(value, config).expect("it encodes");
    let (read, length) = bincode::serde::decode_from_slice(&bytes, config).expect("it decodes");
    assert_eq!(length, bytes.len(), "nothing is left over");
    read
}
