//! What there is at one instant, and what must be so.

use std::collections::BTreeSet;

use super::KILL;

/// A few small numbers as one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Set(u8);

impl Set {
    pub(super) fn of(number: u8) -> Self {
        Self(1 << number)
    }

    pub(super) fn has(self, number: u8) -> bool {
        self.0 & Self::of(number).0 != 0
    }

    pub(super) fn with(self, number: u8) -> Self {
        self.or(Self::of(number))
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, number: u8) -> Self {
        Self(self.0 & !Self::of(number).0)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn count(self) -> u32 {
        self.0.count_ones()
    }

    pub(super) fn numbers(self) -> impl Iterator<Item = u8> {
        (0..8).filter(move |number| self.has(*number))
    }
}

/// Who has the attempt in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// The first worker, under this registration.
    Worker { epoch: u8 },
    /// The rival.
    Rival,
}

/// What is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Facts {
    /// Attempts begun; the last is in flight if there is a holder.
    pub(super) begun: u8,
    pub(super) holder: Option<Holder>,
    /// The last registration of the first worker.
    pub(super) epoch: u8,
    pub(super) is_live: bool,
}

impl Facts {
    pub(super) fn holds(&self, epoch: u8) -> bool {
        self.is_live && self.epoch == epoch
    }

    /// The lease ends: what the first worker has is lost.
    pub(super) fn end_lease(&mut self, epoch: u8) {
        if self.holds(epoch) {
            self.is_live = false;
            self.lose();
        }
    }

    pub(super) fn lose(&mut self) {
        if matches!(self.holder, Some(Holder::Worker { .. })) {
            self.holder = None;
        }
    }

    /// The rival has ended an attempt, if it was the one in flight.
    pub(super) fn lose_rival(&mut self, attempt: u8) {
        if (self.holder, self.begun) == (Some(Holder::Rival), attempt) {
            self.holder = None;
        }
    }

    /// Whether this attempt is in flight with the first worker.
    pub(super) fn is_with_worker(&self, attempt: u8) -> bool {
        self.begun == attempt && matches!(self.holder, Some(Holder::Worker { .. }))
    }
}

/// A leader that has been replaced and does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Deposed {
    pub(super) facts: Facts,
    /// As [`State::wait`]; kept only where somebody acts on it.
    pub(super) wait: u8,
}

/// The first worker: agent and keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Worker {
    /// Its registration.
    pub(super) epoch: u8,
    /// Ticks to its deadline; 0 if it has passed.
    pub(super) left: u8,
    /// Attempts that have a process.
    pub(super) running: Set,
    /// Attempts that the agent remembers to have started.
    pub(super) known: Set,
    /// Attempts whose end is on disk and not known to be recorded.
    pub(super) unrecorded: Set,
    /// Attempts whose end was ever told: the words may come again at any time.
    pub(super) told: Set,
    /// Terms of the leaders that let this process of the agent in.
    pub(super) sessions: Set,
    /// It has said a release.
    pub(super) has_released: bool,
    pub(super) restarts: u8,
}

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Message {
    /// Asks the leader of a term for a longer lease. Sent `age` ticks ago.
    Renew { term: u8, epoch: u8, age: u8 },
    /// The answer to what was sent `age` ticks ago.
    Renewed { epoch: u8, age: u8 },
    /// Start an attempt.
    Start { attempt: u8, epoch: u8 },
    /// Nothing runs any more under this registration.
    Release { epoch: u8 },
}

/// Everything, at one instant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(super) facts: Facts,
    /// The registration whose end is proposed and not committed.
    pub(super) ending: Option<u8>,
    /// The term of the leader in office, from 0.
    pub(super) term: u8,
    /// Ticks until it may propose the end of the first worker's lease.
    pub(super) wait: u8,
    pub(super) deposed: [Option<Deposed>; 2],
    pub(super) worker: Worker,
    /// Attempts that the rival runs.
    pub(super) rival: Set,
    pub(super) messages: BTreeSet<Message>,
    /// Attempts that had a process on the first worker.
    pub(super) started: Set,
    /// One of them had two.
    pub(super) started_twice: bool,
}

impl State {
    pub(super) fn new() -> Self {
        let worker = Worker {
            epoch: 1,
            left: 0,
            running: Set::default(),
            known: Set::default(),
            unrecorded: Set::default(),
            told: Set::default(),
            sessions: Set::of(0),
            has_released: false,
            restarts: 0,
        };
        Self {
            facts: Facts { begun: 0, holder: None, epoch: 1, is_live: true },
            ending: None,
            term: 0,
            wait: 0,
            deposed: [None; 2],
            worker,
            rival: Set::default(),
            messages: BTreeSet::new(),
            started: Set::default(),
            started_twice: false,
        }
    }

    /// What the leader of a term knows, in office or not.
    pub(super) fn facts_of(&self, term: u8) -> Option<Facts> {
        if term == self.term {
            return Some(self.facts);
        }
        self.deposed.get(usize::from(term)).copied().flatten().map(|deposed| deposed.facts)
    }

    /// What the leader of a term would have the first worker start.
    pub(super) fn order(&self, term: u8) -> Option<Message> {
        let facts = self.facts_of(term)?;
        match facts.holder? {
            Holder::Worker { epoch } => Some(Message::Start { attempt: facts.begun, epoch }),
            Holder::Rival => None,
        }
    }

    pub(super) fn assign(&mut self, to_rival: bool) {
        self.facts.begun += 1;
        if to_rival {
            self.facts.holder = Some(Holder::Rival);
            self.rival = self.rival.with(self.facts.begun);
        } else {
            self.facts.holder = Some(Holder::Worker { epoch: self.facts.epoch });
        }
    }

    /// I1: at most one attempt of the task has a process.
    pub(super) fn is_single(&self) -> bool {
        self.worker.running.count() + self.rival.count() <= 1
    }

    /// I2 and I8: a process belongs to the attempt in flight, on the worker that has it.
    pub(super) fn is_authorised(&self) -> bool {
        let Facts { begun, holder, .. } = self.facts;
        let rightful = |attempt| holder == Some(Holder::Rival) && begun == attempt;
        self.worker.running.numbers().all(|attempt| self.facts.is_with_worker(attempt))
            && self.rival.numbers().all(rightful)
    }

    /// I7: no lease outlasts what the leader in office reckons with.
    pub(super) fn is_accounted_for(&self) -> bool {
        let Worker { epoch, left, has_released, .. } = self.worker;
        let is_void = has_released || left == 0;
        is_void || (self.facts.holds(epoch) && left + KILL <= self.wait)
    }
}
