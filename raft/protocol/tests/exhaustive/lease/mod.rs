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

mod state;

use std::sync::atomic::{AtomicU32, Ordering};

use stateright::{Model, Property};

use state::{Deposed, Set, Worker};
pub(crate) use state::{Message, State};

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
                state.facts.lose_rival(attempt);
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
