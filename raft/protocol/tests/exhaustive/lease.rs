//! The lease protocol between a worker and the leaders, small enough for every state of it.
//!
//! One task, and two workers to run it. The first follows the protocol step by step. The second
//! is the worst that a rival can be: it begins in the instant that an attempt is given to it,
//! and never loses its lease. Messages are delayed, overtake each other, come twice or not at
//! all. A deposed leader lives on, with what it knew when it was deposed, for as long as it
//! likes. Time passes in ticks without a bound: only what is left of each span is in the state.
//!
//! Three things are taken for granted. Entries are committed in one order, and only by the
//! leader in office (Raft). A registration is proposed and answered in one step. Bytes on their
//! way to a process are gone with the process.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use stateright::{Model, Property};

/// How long a renewal holds, in ticks of the leader's clock.
const LEASE: u8 = 2;

/// By how much the worker's clock may lag behind over one lease.
const DRIFT: u8 = 1;

/// How long after the deadline a process may still execute.
const KILL: u8 = 1;

/// A lease as the worker counts it, in ticks of the leader's clock.
const HELD: u8 = LEASE + DRIFT;

/// What keeps two attempts apart. The tests leave them out, one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// R1: a renewal holds from when it was sent, not from when its answer came.
    CountFromSend,
    /// R1: an answer that comes after the deadline revives nothing.
    NeverRevive,
    /// R2: a leader grants a renewal only once a quorum has confirmed that it leads.
    QuorumBeforeRenewal,
    /// R3: the leader waits for what the worker's clock may lag behind.
    DriftMargin,
    /// R3: the leader waits for the kernel to carry out the kill.
    KillMargin,
    /// R3: once the end of a lease is proposed, no renewal of it is granted.
    MarkEnding,
    /// R4: a new leader takes every worker as heard just now.
    NewLeaderWaits,
    /// R5: what is decided is carried out once it is committed.
    CommitBeforeAct,
    /// R6: nothing starts after the deadline.
    StartInsideLease,
    /// R6: an attempt that is known has been started, and is not again.
    StartOnce,
    /// R7: what names another registration is refused.
    OwnEpoch,
    /// R8: every process is killed at the deadline.
    KillAtDeadline,
    /// R9: a release is said once nothing runs.
    ReleaseWhenQuiet,
    /// R9: whoever said a release never resumes that registration, restarts included.
    ReleaseIsFinal,
    /// R9: a registration is asked for once nothing runs, for it ends the one before.
    RegisterWhenQuiet,
    /// R10: a resumed session begins once a quorum has confirmed that the leader leads.
    QuorumBeforeResume,
    /// I9: a report counts only for the attempt in flight.
    FenceReports,
    /// I9: the end of an attempt is reported once its processes are gone.
    ReportWhenDead,
}

/// What shows that the model gets anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A deposed leader found no quorum, and granted nothing.
    RenewalWithoutQuorum,
    /// A renewal came while the end of the lease was on its way.
    RenewalWhileEnding,
    /// An answer came after the deadline.
    LateAnswer,
    /// The order to start came after the deadline.
    LateStart,
    /// The order to start was of another registration.
    ForeignStart,
    /// The order to start came again.
    RepeatedStart,
    /// A report came when another attempt was in flight, or none.
    StaleReport,
    /// The end of a lease came into the log through the next leader.
    InheritedEnd,
    /// The kernel killed what outlived the lease.
    Killed,
    /// A restarted agent found its task running, and resumed.
    Adopted,
}

impl Event {
    pub(crate) const ALL: [Self; 10] = [
        Self::RenewalWithoutQuorum,
        Self::RenewalWhileEnding,
        Self::LateAnswer,
        Self::LateStart,
        Self::ForeignStart,
        Self::RepeatedStart,
        Self::StaleReport,
        Self::InheritedEnd,
        Self::Killed,
        Self::Adopted,
    ];
}

/// How far the model goes. Everything else is without a bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Leaders, one after another.
    pub(crate) terms: u8,
    /// Attempts of the task.
    pub(crate) attempts: u8,
    /// Registrations of the first worker.
    pub(crate) registrations: u8,
    /// Restarts of its agent.
    pub(crate) restarts: u8,
    /// Messages under way at once.
    pub(crate) messages: usize,
}

/// A few small numbers as one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Set(u8);

impl Set {
    fn of(number: u8) -> Self {
        Self(1 << number)
    }

    fn has(self, number: u8) -> bool {
        self.0 & Self::of(number).0 != 0
    }

    fn with(self, number: u8) -> Self {
        self.or(Self::of(number))
    }

    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn without(self, number: u8) -> Self {
        Self(self.0 & !Self::of(number).0)
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn count(self) -> u32 {
        self.0.count_ones()
    }

    fn numbers(self) -> impl Iterator<Item = u8> {
        (0..8).filter(move |number| self.has(*number))
    }
}

/// Who has the attempt in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Holder {
    /// The first worker, under this registration.
    Worker { epoch: u8 },
    /// The rival.
    Rival,
}

/// What is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Facts {
    /// Attempts begun; the last is in flight if there is a holder.
    begun: u8,
    holder: Option<Holder>,
    /// The last registration of the first worker.
    epoch: u8,
    is_live: bool,
}

impl Facts {
    fn holds(&self, epoch: u8) -> bool {
        self.is_live && self.epoch == epoch
    }

    /// The lease ends: what the first worker has is lost.
    fn end_lease(&mut self, epoch: u8) {
        if self.holds(epoch) {
            self.is_live = false;
            self.lose();
        }
    }

    fn lose(&mut self) {
        if matches!(self.holder, Some(Holder::Worker { .. })) {
            self.holder = None;
        }
    }

    /// Whether this attempt is in flight with the first worker.
    fn is_with_worker(&self, attempt: u8) -> bool {
        self.begun == attempt && matches!(self.holder, Some(Holder::Worker { .. }))
    }
}

/// A leader that has been replaced and does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Deposed {
    facts: Facts,
    /// As [`State::wait`]; kept only where somebody acts on it.
    wait: u8,
}

/// The first worker: agent and keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Worker {
    /// Its registration.
    epoch: u8,
    /// Ticks to its deadline; 0 if it has passed.
    left: u8,
    /// Attempts that have a process.
    running: Set,
    /// Attempts that the agent remembers to have started.
    known: Set,
    /// Attempts whose end is on disk and not known to be recorded.
    unrecorded: Set,
    /// Attempts whose end was ever told: the words may come again at any time.
    told: Set,
    /// Terms of the leaders that let this process of the agent in.
    sessions: Set,
    /// It has said a release.
    has_released: bool,
    restarts: u8,
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
    facts: Facts,
    /// The registration whose end is proposed and not committed.
    ending: Option<u8>,
    /// The term of the leader in office, from 0.
    term: u8,
    /// Ticks until it may propose the end of the first worker's lease.
    wait: u8,
    deposed: [Option<Deposed>; 2],
    worker: Worker,
    /// Attempts that the rival runs.
    rival: Set,
    messages: BTreeSet<Message>,
    /// Attempts that had a process on the first worker.
    started: Set,
    /// One of them had two.
    started_twice: bool,
}

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Time passes.
    Tick,
    /// Another leader is elected. Does what the old one had proposed survive?
    Elect { ending_survives: bool },
    /// The leader in office gives the task to the first worker, or to the rival.
    Assign { to_rival: bool },
    /// A leader, in office or not, tells the first worker to start what it holds for in flight.
    Order { term: u8 },
    /// The leader in office proposes the end of the first worker's lease.
    ProposeEnd,
    /// That is committed.
    CommitEnd,
    /// A deposed leader decides the same by itself.
    ActUncommitted { term: u8 },
    /// The first worker asks for a longer lease.
    Renew { term: u8 },
    /// A process of the first worker ends.
    Exit { attempt: u8 },
    /// The end of an attempt is committed. Does the worker hear of it?
    Record { attempt: u8, is_heard: bool },
    /// The process of the rival ends, and that is committed.
    RivalExit { attempt: u8 },
    /// The first worker says that it stops.
    Release,
    /// It registers anew.
    Register,
    /// Its agent restarts; the keeper and the tasks stay.
    Restart,
    /// The agent goes on under its registration, with this leader.
    Resume { term: u8 },
    /// A message arrives.
    Deliver(Message),
    /// A message arrives, and will arrive again.
    DeliverTwice(Message),
    /// A message is lost.
    Lose(Message),
}

/// See the [module](self).
pub(crate) struct LeaseModel {
    pub(crate) bounds: Bounds,
    pub(crate) without: &'static [Rule],
    /// A bit for each [`Event`].
    seen: AtomicU32,
}

impl LeaseModel {
    pub(crate) fn new(bounds: Bounds, without: &'static [Rule]) -> Self {
        Self { bounds, without, seen: AtomicU32::new(0) }
    }

    /// What of `events` never happened.
    pub(crate) fn missed(&self) -> Vec<Event> {
        let seen = self.seen.load(Ordering::Relaxed);
        Event::ALL.into_iter().filter(|event| seen & (1 << *event as u32) == 0).collect()
    }

    fn see(&self, event: Event) {
        self.seen.fetch_or(1 << event as u32, Ordering::Relaxed);
    }

    fn has(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }

    /// How long the leader lets a worker go unheard.
    fn patience(&self) -> u8 {
        let drift = if self.has(Rule::DriftMargin) { DRIFT } else { 0 };
        let kill = if self.has(Rule::KillMargin) { KILL } else { 0 };
        LEASE + drift + kill
    }

    fn tick(&self, state: &mut State) {
        let worker = &mut state.worker;
        if worker.left == 0 && self.has(Rule::KillAtDeadline) && !worker.running.is_empty() {
            worker.running = Set::default();
            self.see(Event::Killed);
        }
        worker.left = worker.left.saturating_sub(1);
        state.wait = state.wait.saturating_sub(1);
        for deposed in state.deposed.iter_mut().flatten() {
            deposed.wait = deposed.wait.saturating_sub(1);
        }
        let aged = state.messages.iter().map(|message| match *message {
            Message::Renew { term, epoch, age } => {
                Message::Renew { term, epoch, age: HELD.min(age + 1) }
            }
            Message::Renewed { epoch, age } => Message::Renewed { epoch, age: HELD.min(age + 1) },
            Message::Start { .. } | Message::Release { .. } => *message,
        });
        state.messages = aged.collect();
    }

    fn elect(&self, state: &mut State, ending_survives: bool) {
        let wait = if self.has(Rule::CommitBeforeAct) { 0 } else { state.wait };
        let deposed = Deposed { facts: state.facts, wait };
        state.deposed[usize::from(state.term)] = Some(deposed);
        state.term += 1;
        state.wait = if self.has(Rule::NewLeaderWaits) { self.patience() } else { 0 };
        if let (Some(epoch), true) = (state.ending.take(), ending_survives) {
            self.see(Event::InheritedEnd);
            state.facts.end_lease(epoch);
        }
    }

    fn record(&self, state: &mut State, attempt: u8, is_heard: bool) {
        let is_current = state.facts.is_with_worker(attempt);
        if !is_current {
            self.see(Event::StaleReport);
        }
        if is_current || !self.has(Rule::FenceReports) {
            state.facts.holder = None;
        }
        if is_heard {
            state.worker.unrecorded = state.worker.unrecorded.without(attempt);
        }
    }

    /// A new registration, which ends the one before.
    fn register(&self, state: &mut State) {
        state.facts.lose();
        state.facts.epoch += 1;
        state.facts.is_live = true;
        state.wait = self.patience();
        let worker = &mut state.worker;
        worker.epoch = state.facts.epoch;
        worker.left = HELD;
        worker.sessions = Set::of(state.term);
        worker.has_released = false;
    }

    fn restart(&self, state: &mut State) {
        let worker = &mut state.worker;
        worker.restarts += 1;
        worker.sessions = Set::default();
        worker.known = worker.running.or(worker.unrecorded);
        worker.has_released &= self.has(Rule::ReleaseIsFinal);
        state.messages.retain(|message| match message {
            Message::Renew { .. } | Message::Release { .. } => true,
            Message::Renewed { .. } | Message::Start { .. } => false,
        });
    }

    fn deliver(&self, state: &mut State, message: Message) {
        match message {
            Message::Renew { term, epoch, age } => self.hear_renewal(state, term, epoch, age),
            Message::Renewed { epoch, age } => self.extend(state, epoch, age),
            Message::Start { attempt, epoch } => self.start(state, attempt, epoch),
            Message::Release { epoch } => state.facts.end_lease(epoch),
        }
    }

    fn hear_renewal(&self, state: &mut State, term: u8, epoch: u8, age: u8) {
        let granted = if term == state.term {
            let is_ending = state.ending == Some(epoch);
            if is_ending {
                self.see(Event::RenewalWhileEnding);
            }
            state.facts.holds(epoch) && !(is_ending && self.has(Rule::MarkEnding))
        } else if self.has(Rule::QuorumBeforeRenewal) {
            self.see(Event::RenewalWithoutQuorum);
            false
        } else {
            state.facts_of(term).is_some_and(|facts| facts.holds(epoch))
        };
        if granted {
            if term == state.term {
                state.wait = self.patience();
            } else if let Some(Some(deposed)) = state.deposed.get_mut(usize::from(term)) {
                deposed.wait = if self.has(Rule::CommitBeforeAct) { 0 } else { self.patience() };
            }
            state.messages.insert(Message::Renewed { epoch, age });
        }
    }

    fn extend(&self, state: &mut State, epoch: u8, age: u8) {
        let worker = &mut state.worker;
        if worker.left == 0 {
            self.see(Event::LateAnswer);
        }
        let is_mine = worker.epoch == epoch && !worker.has_released;
        if is_mine && (worker.left > 0 || !self.has(Rule::NeverRevive)) {
            let age = if self.has(Rule::CountFromSend) { age } else { 0 };
            worker.left = worker.left.max(HELD - age);
        }
    }

    fn start(&self, state: &mut State, attempt: u8, epoch: u8) {
        let worker = &mut state.worker;
        let is_foreign = worker.epoch != epoch;
        let is_late = worker.left == 0;
        let is_known = worker.known.has(attempt);
        for (refused, event) in [
            (is_foreign, Event::ForeignStart),
            (is_late, Event::LateStart),
            (is_known, Event::RepeatedStart),
        ] {
            if refused {
                self.see(event);
            }
        }
        let refused = (is_foreign && self.has(Rule::OwnEpoch))
            || (is_late && self.has(Rule::StartInsideLease))
            || (is_known && self.has(Rule::StartOnce))
            || worker.has_released
            || !worker.running.is_empty();
        if !refused {
            worker.running = worker.running.with(attempt);
            worker.known = worker.known.with(attempt);
            state.started_twice |= state.started.has(attempt);
            state.started = state.started.with(attempt);
        }
    }

    /// What the first worker may do.
    fn worker_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let worker = &state.worker;
        let is_quiet = worker.running.is_empty();
        let holds = worker.left > 0 && !worker.has_released;
        for term in 0..=state.term {
            if holds && worker.sessions.has(term) && self.has_room(state) {
                actions.push(Action::Renew { term });
            }
            if holds && !worker.sessions.has(term) && self.admits(state, term) {
                actions.push(Action::Resume { term });
            }
        }
        actions.extend(worker.running.numbers().map(|attempt| Action::Exit { attempt }));
        for attempt in worker.told.numbers() {
            let mut record = |is_heard| actions.push(Action::Record { attempt, is_heard });
            record(false);
            if worker.unrecorded.has(attempt) {
                record(true);
            }
        }
        let may_leave = is_quiet || !self.has(Rule::ReleaseWhenQuiet);
        if holds && may_leave && self.has_room(state) {
            actions.push(Action::Release);
        }
        let may_register = is_quiet || !self.has(Rule::RegisterWhenQuiet);
        if !holds && may_register && worker.epoch < self.bounds.registrations {
            actions.push(Action::Register);
        }
        if worker.restarts < self.bounds.restarts {
            actions.push(Action::Restart);
        }
    }

    /// Whether the leader of a term lets the worker resume.
    fn admits(&self, state: &State, term: u8) -> bool {
        let confirmed = term == state.term || !self.has(Rule::QuorumBeforeResume);
        let facts = state.facts_of(term);
        confirmed && facts.is_some_and(|facts| facts.holds(state.worker.epoch))
    }

    fn leader_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let State { facts, ending, .. } = state;
        if state.term + 1 < self.bounds.terms {
            actions.push(Action::Elect { ending_survives: false });
            if ending.is_some() {
                actions.push(Action::Elect { ending_survives: true });
            }
        }
        if facts.holder.is_none() && facts.begun < self.bounds.attempts {
            actions.push(Action::Assign { to_rival: true });
            if facts.is_live {
                actions.push(Action::Assign { to_rival: false });
            }
        }
        for term in 0..=state.term {
            let lets = state.worker.sessions.has(term) && self.has_room(state);
            if lets && state.order(term).is_some_and(|order| !state.messages.contains(&order)) {
                actions.push(Action::Order { term });
            }
        }
        match ending {
            Some(_) => actions.push(Action::CommitEnd),
            None if facts.is_live && state.wait == 0 => actions.push(Action::ProposeEnd),
            None => {}
        }
        for (term, deposed) in (0..).zip(&state.deposed) {
            let acts = deposed.is_some_and(|deposed| {
                let Deposed { facts, wait } = deposed;
                wait == 0 && facts.is_live && facts.is_with_worker(facts.begun)
            });
            if acts && !self.has(Rule::CommitBeforeAct) {
                actions.push(Action::ActUncommitted { term });
            }
        }
    }

    fn has_room(&self, state: &State) -> bool {
        state.messages.len() < self.bounds.messages
    }

    fn exit(&self, state: &mut State, attempt: u8) {
        let worker = &mut state.worker;
        if self.has(Rule::ReportWhenDead) {
            worker.running = worker.running.without(attempt);
        }
        worker.unrecorded = worker.unrecorded.with(attempt);
        worker.told = worker.told.with(attempt);
    }
}

impl State {
    fn new() -> Self {
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
    fn facts_of(&self, term: u8) -> Option<Facts> {
        if term == self.term {
            return Some(self.facts);
        }
        self.deposed.get(usize::from(term)).copied().flatten().map(|deposed| deposed.facts)
    }

    /// What the leader of a term would have the first worker start.
    fn order(&self, term: u8) -> Option<Message> {
        let facts = self.facts_of(term)?;
        match facts.holder? {
            Holder::Worker { epoch } => Some(Message::Start { attempt: facts.begun, epoch }),
            Holder::Rival => None,
        }
    }

    fn assign(&mut self, to_rival: bool) {
        self.facts.begun += 1;
        if to_rival {
            self.facts.holder = Some(Holder::Rival);
            self.rival = self.rival.with(self.facts.begun);
        } else {
            self.facts.holder = Some(Holder::Worker { epoch: self.facts.epoch });
        }
    }

    /// I1: at most one attempt of the task has a process.
    fn is_single(&self) -> bool {
        self.worker.running.count() + self.rival.count() <= 1
    }

    /// I2 and I8: a process belongs to the attempt in flight, on the worker that has it.
    fn is_authorised(&self) -> bool {
        let Facts { begun, holder, .. } = self.facts;
        let rightful = |attempt| holder == Some(Holder::Rival) && begun == attempt;
        self.worker.running.numbers().all(|attempt| self.facts.is_with_worker(attempt))
            && self.rival.numbers().all(rightful)
    }

    /// I7: no lease outlasts what the leader in office reckons with.
    fn is_accounted_for(&self) -> bool {
        let Worker { epoch, left, has_released, .. } = self.worker;
        let is_void = has_released || left == 0;
        is_void || (self.facts.holds(epoch) && left + KILL <= self.wait)
    }
}

impl Model for LeaseModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State::new();
        state.worker.left = HELD;
        state.wait = self.patience();
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        self.leader_actions(state, actions);
        self.worker_actions(state, actions);
        actions.extend(state.rival.numbers().map(|attempt| Action::RivalExit { attempt }));
        for &message in &state.messages {
            actions.extend([Action::Deliver(message), Action::Lose(message)]);
            if self.has_room(state) {
                actions.push(Action::DeliverTwice(message));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => self.tick(&mut state),
            Action::Elect { ending_survives } => self.elect(&mut state, ending_survives),
            Action::Assign { to_rival } => state.assign(to_rival),
            Action::Order { term } => state.messages.extend(last.order(term)),
            Action::ProposeEnd => state.ending = Some(state.facts.epoch),
            Action::CommitEnd => {
                let epoch = state.ending.take()?;
                state.facts.end_lease(epoch);
            }
            Action::ActUncommitted { term } => {
                let attempt = last.facts_of(term)?.begun + 1;
                state.rival = state.rival.with(attempt);
            }
            Action::Renew { term } => {
                let epoch = state.worker.epoch;
                state.messages.insert(Message::Renew { term, epoch, age: 0 });
            }
            Action::Exit { attempt } => self.exit(&mut state, attempt),
            Action::Record { attempt, is_heard } => self.record(&mut state, attempt, is_heard),
            Action::RivalExit { attempt } => {
                state.rival = state.rival.without(attempt);
                if (state.facts.holder, state.facts.begun) == (Some(Holder::Rival), attempt) {
                    state.facts.holder = None;
                }
            }
            Action::Release => {
                state.worker.has_released = true;
                state.messages.insert(Message::Release { epoch: state.worker.epoch });
            }
            Action::Register => self.register(&mut state),
            Action::Restart => self.restart(&mut state),
            Action::Resume { term } => {
                if !state.worker.running.is_empty() && state.worker.sessions.is_empty() {
                    self.see(Event::Adopted);
                }
                state.worker.sessions = state.worker.sessions.with(term);
            }
            Action::Deliver(message) => {
                state.messages.remove(&message);
                self.deliver(&mut state, message);
            }
            Action::DeliverTwice(message) => self.deliver(&mut state, message),
            Action::Lose(message) => {
                state.messages.remove(&message);
            }
        }
        if !state.facts.is_live {
            state.wait = 0;
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SINGLE_EXECUTION, |_, state: &State| state.is_single()),
            Property::always(STARTS_ONCE, |_, state: &State| !state.started_twice),
            Property::always(AUTHORISED, |_, state: &State| state.is_authorised()),
            Property::always(ACCOUNTED_FOR, |_, state: &State| state.is_accounted_for()),
            Property::sometimes("the worker runs the task", |_, state: &State| {
                !state.worker.running.is_empty()
            }),
            Property::sometimes("a lost task is given to the rival", |_, state: &State| {
                let Worker { told, .. } = state.worker;
                state.rival.has(2) && state.started.has(1) && !told.has(1)
            }),
            Property::sometimes("the rival's task comes back", |_, state: &State| {
                state.worker.running.has(2) && state.worker.epoch == 2
            }),
            Property::sometimes("the task runs while a leader is deposed", |_, state: &State| {
                state.deposed[0].is_some() && !state.worker.running.is_empty()
            }),
        ]
    }
}

/// I1.
pub(crate) const SINGLE_EXECUTION: &str = "at most one attempt has a process";

/// I2.
pub(crate) const STARTS_ONCE: &str = "an attempt starts at most once";

/// I2, I8.
pub(crate) const AUTHORISED: &str = "a process belongs to the attempt in flight";

/// I7.
pub(crate) const ACCOUNTED_FOR: &str = "no lease outlasts what the leader reckons with";
