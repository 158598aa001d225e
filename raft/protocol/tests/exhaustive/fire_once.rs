//! How a schedule fires each of its ticks once, small enough for every state of it.
//!
//! The leader in office proposes what is to become of the next tick that is due: a run, or none.
//! Proposals are committed late, twice or not at all, under this leader or a later one. A new
//! leader may come up from a snapshot. The schedule is edited while a tick is due. Runs end and
//! are forgotten. Perhaps everything is set back to an older copy by people. What a run does
//! to the world is told apart by the id of the run.

use std::collections::BTreeSet;

use stateright::{Model, Property};

/// Ticks of the schedule.
const TICKS: u8 = 2;

/// What makes a tick fire once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Applying the entry checks that the tick comes next. The leader knew less.
    CursorInApply,
    /// A run begins once the entry is committed.
    CommitBeforeAct,
    /// One entry advances the cursor and makes the run.
    OneEntry,
    /// The id of a run follows from schedule, version and tick.
    IdFromTick,
    /// A new version of the schedule goes on where the old one was.
    CursorOutlivesVersion,
    /// The cursor is in the snapshot.
    CursorInSnapshot,
}

/// How far the model goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Leaders, one after another.
    pub(crate) terms: u8,
    /// Versions of the schedule.
    pub(crate) versions: u8,
    /// Times that everything is set back to an older copy.
    pub(crate) restores: u8,
    /// Proposals under way at once.
    pub(crate) proposals: usize,
}

/// The id of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RunId {
    tick: u8,
    version: u8,
    /// Another for each proposal, where ids are minted; 0 where they are not.
    minted: u8,
}

/// What is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Proposal {
    /// The tick fires.
    Fire(RunId),
    /// The tick is skipped, because of an overlap for example.
    Skip { tick: u8 },
    /// The first of two entries, where it takes two.
    Advance { tick: u8 },
    /// The second.
    Create(RunId),
}

/// What is committed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Facts {
    version: u8,
    /// The last tick that something was decided of.
    cursor: u8,
    /// Runs that are not forgotten yet.
    live: BTreeSet<RunId>,
    /// How often each tick was decided, and how often fired.
    decided: [u8; TICKS as usize],
    fired: [u8; TICKS as usize],
}

/// Everything, at one instant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    facts: Facts,
    /// Ticks whose time has come.
    due: u8,
    term: u8,
    /// The cursor as the leader before knew it, who may not know of being deposed.
    deposed_cursor: Option<u8>,
    proposals: BTreeSet<Proposal>,
    minted: u8,
    /// Runs that did something to the world.
    begun: BTreeSet<RunId>,
    copy: Option<Facts>,
    restores: u8,
}

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The time of a tick comes.
    Tick,
    /// The leader in office, or the one before, decides what becomes of the next tick.
    Propose { fires: bool, is_deposed: bool },
    /// A proposal is committed, and perhaps once more later.
    Commit { proposal: Proposal, again: bool },
    /// A proposal comes to nothing.
    Lose(Proposal),
    /// What a committed run is for begins.
    Begin(RunId),
    /// A run has ended, and is forgotten.
    Forget(RunId),
    /// Another leader is elected, perhaps one that came up from a snapshot.
    Elect { from_snapshot: bool },
    /// People edit the schedule.
    Edit,
    /// People take a copy of everything.
    Copy,
    /// People set everything back to it. What was under way is gone.
    Restore,
}

/// See the [module](self).
pub(crate) struct FireModel {
    pub(crate) bounds: Bounds,
    pub(crate) without: &'static [Rule],
}

impl FireModel {
    fn has(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }

    fn propose(&self, state: &mut State, fires: bool, is_deposed: bool) -> Option<()> {
        let cursor = if is_deposed { state.deposed_cursor? } else { state.facts.cursor };
        let (tick, version) = (cursor + 1, state.facts.version);
        if !fires {
            state.proposals.insert(Proposal::Skip { tick });
            return Some(());
        }
        if !self.has(Rule::IdFromTick) {
            state.minted += 1;
        }
        let run = RunId { tick, version, minted: state.minted };
        if !self.has(Rule::CommitBeforeAct) {
            state.begun.insert(run);
        }
        if is_deposed {
            // Nothing of it can be committed.
        } else if self.has(Rule::OneEntry) {
            state.proposals.insert(Proposal::Fire(run));
        } else {
            state.proposals.extend([Proposal::Advance { tick }, Proposal::Create(run)]);
        }
        Some(())
    }

    fn apply(&self, facts: &mut Facts, proposal: Proposal) {
        let comes_next =
            |facts: &Facts, tick| !self.has(Rule::CursorInApply) || tick == facts.cursor + 1;
        match proposal {
            Proposal::Fire(run) if comes_next(facts, run.tick) => {
                if facts.create(run) {
                    facts.cursor = run.tick;
                }
            }
            Proposal::Skip { tick } if comes_next(facts, tick) => {
                facts.cursor = tick;
                facts.decided[usize::from(tick) - 1] += 1;
            }
            Proposal::Advance { tick } if comes_next(facts, tick) => facts.cursor = tick,
            Proposal::Create(run) => {
                facts.create(run);
            }
            Proposal::Fire(_) | Proposal::Skip { .. } | Proposal::Advance { .. } => {}
        }
    }
}

impl Facts {
    /// Makes a run, unless there is one of this id.
    fn create(&mut self, run: RunId) -> bool {
        let is_new = self.live.insert(run);
        if is_new {
            self.decided[usize::from(run.tick) - 1] += 1;
            self.fired[usize::from(run.tick) - 1] += 1;
        }
        is_new
    }

    /// The ticks and how often each was decided.
    fn decisions(&self) -> impl Iterator<Item = (u8, u8)> + '_ {
        (1..).zip(self.decided)
    }
}

impl State {
    fn has_begun(&self, tick: u8) -> bool {
        self.begun.iter().any(|run| run.tick == tick)
    }
}

impl Model for FireModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let facts = Facts {
            version: 1,
            cursor: 0,
            live: BTreeSet::new(),
            decided: [0; TICKS as usize],
            fired: [0; TICKS as usize],
        };
        let state = State {
            facts,
            due: 0,
            term: 1,
            deposed_cursor: None,
            proposals: BTreeSet::new(),
            minted: 0,
            begun: BTreeSet::new(),
            copy: None,
            restores: 0,
        };
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let State { facts, due, .. } = state;
        if *due < TICKS {
            actions.push(Action::Tick);
        }
        let has_room = state.proposals.len() < self.bounds.proposals;
        for fires in [true, false] {
            if facts.cursor < *due && has_room {
                actions.push(Action::Propose { fires, is_deposed: false });
            }
            if state.deposed_cursor.is_some_and(|cursor| cursor < *due) && fires {
                actions.push(Action::Propose { fires, is_deposed: true });
            }
        }
        for &proposal in &state.proposals {
            let commit = |again| Action::Commit { proposal, again };
            actions.extend([commit(false), commit(true), Action::Lose(proposal)]);
        }
        for &run in &facts.live {
            actions.extend([Action::Begin(run), Action::Forget(run)]);
        }
        if state.term < self.bounds.terms {
            let elect = |from_snapshot| Action::Elect { from_snapshot };
            actions.extend([elect(false), elect(true)]);
        }
        if facts.version < self.bounds.versions {
            actions.push(Action::Edit);
        }
        if state.restores < self.bounds.restores {
            actions.push(if state.copy.is_none() { Action::Copy } else { Action::Restore });
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => state.due += 1,
            Action::Propose { fires, is_deposed } => self.propose(&mut state, fires, is_deposed)?,
            Action::Commit { proposal, again } => {
                if !again {
                    state.proposals.remove(&proposal);
                }
                self.apply(&mut state.facts, proposal);
            }
            Action::Lose(proposal) => {
                state.proposals.remove(&proposal);
            }
            Action::Begin(run) => {
                state.begun.insert(run);
            }
            Action::Forget(run) => {
                state.facts.live.remove(&run);
            }
            Action::Elect { from_snapshot } => {
                state.deposed_cursor = Some(state.facts.cursor);
                state.term += 1;
                if from_snapshot && !self.has(Rule::CursorInSnapshot) {
                    state.facts.cursor = 0;
                }
            }
            Action::Edit => {
                state.facts.version += 1;
                if !self.has(Rule::CursorOutlivesVersion) {
                    state.facts.cursor = 0;
                }
            }
            Action::Copy => state.copy = Some(state.facts.clone()),
            Action::Restore => {
                state.facts = state.copy.take()?;
                state.proposals.clear();
                state.restores += 1;
            }
        }
        (state != *last).then_some(state)
    }

    /// Nothing is asked of what comes after a tick was decided twice.
    fn within_boundary(&self, state: &State) -> bool {
        state.facts.decided.iter().all(|count| *count <= 2) && state.minted <= 4
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(DECIDED_ONCE, |_, state: &State| {
                state.facts.decisions().all(|(_, count)| count <= 1)
            }),
            Property::always(NONE_PASSED_OVER, |model: &Self, state: &State| {
                let cursor = state.facts.cursor;
                let is_under_way = |tick| {
                    let of = |proposal: &Proposal| matches!(proposal, Proposal::Create(run) if run.tick == tick);
                    !model.has(Rule::OneEntry) && state.proposals.iter().any(of)
                };
                state
                    .facts
                    .decisions()
                    .all(|(tick, count)| (count > 0) == (tick <= cursor) || is_under_way(tick))
            }),
            Property::always(COMMITTED_FIRST, |_, state: &State| {
                let fired = (1..).zip(state.facts.fired);
                state.restores > 0
                    || fired.into_iter().all(|(tick, fired)| fired > 0 || !state.has_begun(tick))
            }),
            Property::always(ONE_EFFECT, |_, state: &State| {
                let of = |tick| state.begun.iter().filter(|run| run.tick == tick).count();
                (1..=TICKS).all(|tick| of(tick) <= 1)
            }),
            Property::sometimes("every tick has fired and begun", |_, state: &State| {
                state.begun.len() == usize::from(TICKS)
            }),
            Property::sometimes("a tick is skipped", |_, state: &State| {
                state.facts.decided[0] > 0 && state.facts.fired[0] == 0
            }),
            Property::sometimes(
                "a later leader commits what an earlier one proposed",
                |_, state: &State| {
                    state.term > 1 && state.facts.cursor > state.deposed_cursor.unwrap_or(TICKS)
                },
            ),
            Property::sometimes("a proposal comes again after its tick", |_, state: &State| {
                let is_over = |proposal: &Proposal| match proposal {
                    Proposal::Fire(run) | Proposal::Create(run) => run.tick <= state.facts.cursor,
                    Proposal::Skip { tick } | Proposal::Advance { tick } => {
                        *tick <= state.facts.cursor
                    }
                };
                state.proposals.iter().any(is_over)
            }),
        ]
    }
}

/// I10.
pub(crate) const DECIDED_ONCE: &str = "a tick is decided once";

/// I10.
pub(crate) const NONE_PASSED_OVER: &str = "exactly the ticks up to the cursor are decided";

/// I2.
pub(crate) const COMMITTED_FIRST: &str = "what begins was fired by a committed entry";

/// What the world can tell apart.
pub(crate) const ONE_EFFECT: &str = "a tick is one run to the world";
