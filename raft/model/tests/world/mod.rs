//! A cluster seen from far away: one log, leaders that come and go, workers that crash, and
//! messages that are lost, late and doubled. What it must never do stands in [`ledger`].

pub(crate) mod dag;
mod ledger;
mod node;

use std::collections::BTreeSet;

use quorate_model::command::{
    AdvanceClock, CancelRun, DecideTask, EndLease, PauseRun, PauseWorkflow, RegisterWorker,
    ResumeRun, ResumeWorkflow, StartRun, WithdrawWorker, WorkflowSource,
};
use quorate_model::{
    Command, Effect, Epoch, IdempotencyKey, Json, LeaseEnd, Reply, Request, RunId, Task, TaskId,
    TaskStatus, Trigger, UnixMs, Verdict, WorkerId, plan,
};
use serde_json::json;
use uuid::Uuid;

use crate::dice::Dice;
use crate::notation;
use crate::replicas::Replicas;
use ledger::Ledger;
use node::Node;

/// Messages under way at most; past it the oldest are lost.
const UNDER_WAY_MAX: usize = 200;

/// Steps in which a healed world must come to rest.
const HEALING_STEPS_MAX: usize = 5_000;

/// Something that waits to be proposed, and who wants to know.
#[derive(Clone, Debug)]
enum Proposal {
    Start { client: usize },
    Cancel { run: RunId },
    Register { node: usize, asked: u64, register: Box<RegisterWorker> },
    Report { node: usize, report: Box<quorate_model::command::ReportTask> },
    Command(Box<Command>),
}

/// Somebody who wants one run, and asks with one key until there is an answer.
#[derive(Clone, Debug)]
struct Client {
    run: RunId,
    request: Request,
    answered: bool,
}

pub(crate) struct World {
    dice: Dice,
    replicas: Replicas,
    ledger: Ledger,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    to_leader: Vec<Proposal>,
    to_workers: Vec<Effect>,
    /// True time. The clock of a leader differs from it by its skew.
    now: u64,
    skew: u64,
    /// Whether anything may go wrong.
    healed: bool,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let count = 1 + dice.index(4);
        let nodes = (0..count).map(|at| Node::new(at, 1 + dice.below(3))).collect();
        Self {
            dice,
            replicas: Replicas::default(),
            ledger: Ledger::default(),
            nodes,
            clients: Vec::new(),
            to_leader: Vec::new(),
            to_workers: Vec::new(),
            now: 1_000_000,
            skew: 0,
            healed: false,
        }
    }

    /// Lets something happen.
    pub(crate) fn step(&mut self) {
        self.now += self.dice.below(60);
        match self.dice.below(20) {
            0 if self.clients.len() < 12 => self.new_client(),
            1 => self.ask_again(),
            2 => self.crash_or_restart(),
            3 => self.lose_lease(),
            4 if self.dice.percent(30) => self.begin_to_leave(),
            4 => self.change_leader(),
            5 if self.dice.percent(50) => self.decide(),
            5 if self.dice.percent(50) => self.cancel(),
            5 => self.pause_or_resume(),
            6 => self.replicas.take_snapshot(),
            7 | 8 => self.lead(),
            9..=12 => self.work(),
            13..=15 => self.deliver(),
            _ => self.commit(),
        }
        self.ledger.watch(&self.replicas.state);
    }

    /// What came about in it.
    pub(crate) fn seen(self) -> BTreeSet<String> {
        self.replicas.seen
    }

    /// Ends all trouble and demands that every run ends.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.now = self.now.max(self.replicas.state.now().0);
        self.skew = 0;
        for at in 0..self.nodes.len() {
            self.nodes[at].up = true;
            // What was leaving has left, and comes back.
            if self.nodes[at].leaving {
                for task in self.nodes[at].fence() {
                    self.ledger.interrupted(task);
                }
            }
        }
        self.change_leader();
        for _ in 0..HEALING_STEPS_MAX {
            self.now += 50;
            self.ask_again();
            self.decide();
            self.resume_all();
            self.lead();
            self.work();
            self.deliver();
            self.commit();
            self.ledger.watch(&self.replicas.state);
            let asked = self.clients.iter().all(|client| client.answered);
            if asked && self.replicas.state.runs().values().all(|run| run.has_ended()) {
                self.replicas.agree();
                return self.ledger.close(&self.replicas.state);
            }
        }
        let state = &self.replicas.state;
        panic!("no rest: {:?} {:#?} {:#?}", self.nodes, state.workers(), state.runs());
    }

    fn new_client(&mut self) {
        let number = self.clients.len() as u128 + 1;
        let run = RunId(Uuid::from_u128(number));
        let definition = dag::any(&mut self.dice);
        let source = WorkflowSource::Inline { name: notation::name("w"), definition };
        let (params, labels, trigger) = (Json::new(&json!({})), [].into(), Trigger::Manual);
        let command = Command::StartRun(Box::new(StartRun {
            run,
            source,
            params,
            labels,
            trigger,
            logical_time: UnixMs(0),
        }));
        let key = Some(IdempotencyKey { key: format!("k{number}"), request_hash: 1 });
        self.clients.push(Client { run, request: Request { key, command }, answered: false });
        self.send(&Proposal::Start { client: self.clients.len() - 1 });
    }

    fn ask_again(&mut self) {
        let unanswered = (0..self.clients.len()).filter(|&at| !self.clients[at].answered);
        for client in unanswered.collect::<Vec<_>>() {
            self.send(&Proposal::Start { client });
        }
    }

    fn cancel(&mut self) {
        if !self.clients.is_empty() && self.dice.percent(20) {
            let run = self.clients[self.dice.index(self.clients.len())].run;
            self.send(&Proposal::Cancel { run });
        }
    }

    /// Somebody has a run or all of them start nothing more, or go on.
    fn pause_or_resume(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let run = self.clients[self.dice.index(self.clients.len())].run;
        let (workflow, by, reason) = (notation::name("w"), "ann".to_owned(), String::new());
        let command = match self.dice.below(8) {
            0..=2 => Command::PauseRun(PauseRun { run, by, reason }),
            3..=5 => Command::ResumeRun(ResumeRun { run, by, reason }),
            6 => Command::PauseWorkflow(PauseWorkflow { workflow, by, reason }),
            _ => Command::ResumeWorkflow(ResumeWorkflow { workflow }),
        };
        self.send(&Proposal::Command(Box::new(command)));
    }

    /// Has all go on that is paused.
    fn resume_all(&mut self) {
        let state = &self.replicas.state;
        let paused = state.workflows().iter().filter(|(_, found)| found.pause.is_some());
        let mut commands: Vec<Command> = paused
            .map(|(name, _)| Command::ResumeWorkflow(ResumeWorkflow { workflow: name.clone() }))
            .collect();
        let paused = state.runs().iter().filter(|(_, found)| found.pause.is_some());
        commands.extend(paused.map(|(&run, _)| {
            let (by, reason) = ("ann".to_owned(), String::new());
            Command::ResumeRun(ResumeRun { run, by, reason })
        }));
        for command in commands {
            self.send(&Proposal::Command(Box::new(command)));
        }
    }

    /// A person looks at what is held, and says what is to become of it.
    fn decide(&mut self) {
        let held: Vec<TaskId> = self.held().collect();
        if held.is_empty() {
            return;
        }
        let task = *self.dice.pick(&held);
        let verdict = *self.dice.pick(&[Verdict::Retry, Verdict::Succeeded, Verdict::Failed]);
        let (by, comment, outputs) = ("ann".to_owned(), String::new(), None);
        let decide = DecideTask { task, verdict, outputs, by, comment };
        self.send(&Proposal::Command(Box::new(Command::DecideTask(decide))));
    }

    fn held(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.replicas.state.runs().iter().flat_map(|(&run, found)| {
            let held = |(_, task): &(usize, &Task)| {
                matches!(task.status, TaskStatus::Held | TaskStatus::Asking { .. })
            };
            let held = found.tasks.iter().enumerate().filter(held);
            held.map(move |(position, _)| TaskId::new(run, position))
        })
    }

    fn crash_or_restart(&mut self) {
        let at = self.dice.index(self.nodes.len());
        let node = &mut self.nodes[at];
        if node.up {
            for task in node.crash() {
                self.ledger.interrupted(task);
            }
        } else {
            node.up = true;
        }
    }

    /// A worker takes nothing more, and says so; what crosses its word it hands back.
    fn begin_to_leave(&mut self) {
        let at = self.dice.index(self.nodes.len());
        let Some((worker, epoch)) = self.nodes[at].registration() else { return };
        self.nodes[at].leaving = true;
        let withdraw = Command::WithdrawWorker(WithdrawWorker { worker, epoch });
        self.send(&Proposal::Command(Box::new(withdraw)));
    }

    /// A worker that was not heard has killed its tasks by the time its lease ends.
    fn lose_lease(&mut self) {
        let at = self.dice.index(self.nodes.len());
        let Some((worker, epoch)) = self.nodes[at].registration() else { return };
        for task in self.nodes[at].fence() {
            self.ledger.interrupted(task);
        }
        self.send(&Proposal::Command(Box::new(end_lease(worker, epoch))));
    }

    /// The new leader knows nothing but the state. What the old one proposed is in the log
    /// already, or gone with its term; what others have sent is lost, or is not.
    fn change_leader(&mut self) {
        let keep = |dice: &mut Dice| dice.percent(50);
        self.to_leader.retain(|_| keep(&mut self.dice));
        let is_of_leader =
            |one: &mut Proposal| matches!(one, Proposal::Command(_) | Proposal::Register { .. });
        let inherited: Vec<Proposal> = self.to_leader.extract_if(.., is_of_leader).collect();
        if !inherited.is_empty() {
            self.commit_entry(&inherited);
        }
        self.to_workers.retain(|_| keep(&mut self.dice));
        self.skew = if self.healed { 0 } else { self.dice.below(10_000) };
        self.to_workers.extend(self.replicas.state.outstanding());
    }

    /// The leader's clock, its planner, and its eye on workers that nobody is any more.
    fn lead(&mut self) {
        let state = &self.replicas.state;
        let mut commands = plan::decisions(state, &self.connected());
        if state.next_deadline().is_some_and(|at| at <= self.clock().max(state.now())) {
            commands.push(Command::AdvanceClock(AdvanceClock {}));
        }
        for (worker, epoch) in self.orphans() {
            if self.healed || self.dice.percent(10) {
                commands.push(end_lease(worker, epoch));
            }
        }
        for command in commands {
            self.send(&Proposal::Command(Box::new(command)));
        }
        if self.healed {
            self.to_workers = self.replicas.state.outstanding();
        }
    }

    /// Live registrations that no worker is under: its answer was lost, or it crashed.
    fn orphans(&self) -> Vec<(WorkerId, Epoch)> {
        let workers = self.replicas.state.workers().iter();
        let live = workers.filter(|(_, found)| found.is_live());
        let registrations = live.map(|(&worker, found)| (worker, found.epoch));
        let claimed = |of: &(WorkerId, Epoch)| {
            self.nodes.iter().any(|node| node.registration().as_ref() == Some(of))
        };
        registrations.filter(|of| !claimed(of)).collect()
    }

    fn connected(&self) -> BTreeSet<WorkerId> {
        self.nodes.iter().filter_map(|node| Some(node.registration()?.0)).collect()
    }

    fn clock(&self) -> UnixMs {
        UnixMs(self.now - self.skew)
    }

    /// Every worker does a bit of work, and sends what it has to say.
    fn work(&mut self) {
        for at in 0..self.nodes.len() {
            if !self.nodes[at].up {
                continue;
            }
            for task in self.nodes[at].work(&mut self.dice) {
                self.ledger.stopped(task);
            }
            self.renew(at);
            // Before it registers or after: a report may well be the last of an old epoch.
            if self.nodes[at].registration().is_none() && (self.healed || self.dice.percent(50)) {
                let (asked, register) = self.nodes[at].register();
                let register = Box::new(register);
                self.send(&Proposal::Register { node: at, asked, register });
            }
            for report in self.nodes[at].outbox.clone() {
                if !self.healed && self.dice.percent(60) {
                    continue;
                }
                self.send(&Proposal::Report { node: at, report: Box::new(report) });
            }
        }
    }

    /// A worker that asks to renew a lease which is over learns so, and begins anew.
    fn renew(&mut self, at: usize) {
        let Some((worker, epoch)) = self.nodes[at].registration() else { return };
        let found = self.replicas.state.workers().get(&worker);
        let holds = found.is_some_and(|found| found.is_live() && found.epoch == epoch);
        if !holds && (self.healed || self.dice.percent(30)) {
            for task in self.nodes[at].fence() {
                self.ledger.interrupted(task);
            }
        }
    }

    fn send(&mut self, proposal: &Proposal) {
        let copies = match self.dice.below(10) {
            _ if self.healed => 1,
            0 => 0,
            1 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let at = self.dice.index(self.to_leader.len() + 1);
            self.to_leader.insert(at, proposal.clone());
        }
        if self.to_leader.len() > UNDER_WAY_MAX && !self.healed {
            self.to_leader.remove(0);
        }
    }

    /// Some messages reach their workers.
    fn deliver(&mut self) {
        let count = if self.healed { self.to_workers.len() } else { 1 + self.dice.index(4) };
        for _ in 0..count {
            if self.to_workers.is_empty() {
                return;
            }
            let at = self.dice.index(self.to_workers.len());
            let again = !self.healed && self.dice.percent(20);
            let effect = self.to_workers[at].clone();
            if !again {
                self.to_workers.swap_remove(at);
            }
            for node in &mut self.nodes {
                if let Some(dispatch) = node.receive(&effect) {
                    self.ledger.began(dispatch, &self.replicas.state);
                }
                if let Some(task) = node.just_stopped.take() {
                    self.ledger.stopped(task);
                }
            }
        }
    }

    /// One entry with what has arrived; some of its answers are lost on their way.
    fn commit(&mut self) {
        if self.to_leader.is_empty() {
            return;
        }
        let count = if self.healed { self.to_leader.len() } else { 1 + self.dice.index(8) };
        let count = count.min(self.to_leader.len());
        let proposals: Vec<Proposal> = self.to_leader.drain(..count).collect();
        self.commit_entry(&proposals);
    }

    fn commit_entry(&mut self, proposals: &[Proposal]) {
        let requests: Vec<Request> = proposals.iter().map(|one| self.request(one)).collect();
        self.ledger.proposed(&requests, &self.replicas.state);
        let applied = self.replicas.propose(self.clock(), requests.clone());
        self.ledger.applied(&requests, &applied, &self.replicas.state);
        for (proposal, answer) in proposals.iter().zip(&applied.answers) {
            if self.healed || self.dice.percent(80) {
                self.answer(proposal, answer.reply.as_ref().ok());
            }
        }
        self.to_workers.extend(applied.effects);
        while self.to_workers.len() > UNDER_WAY_MAX {
            self.to_workers.remove(0);
        }
    }

    fn request(&self, proposal: &Proposal) -> Request {
        match proposal {
            Proposal::Start { client } => self.clients[*client].request.clone(),
            Proposal::Cancel { run } => Command::CancelRun(CancelRun {
                run: *run,
                reason: String::new(),
                by: String::new(),
            })
            .into(),
            Proposal::Register { register, .. } => {
                Command::RegisterWorker(RegisterWorker::clone(register)).into()
            }
            Proposal::Report { report, .. } => {
                Command::ReportTask(quorate_model::command::ReportTask::clone(report)).into()
            }
            Proposal::Command(command) => Command::clone(command).into(),
        }
    }

    /// An answer reaches who asked; `None` is a refusal.
    fn answer(&mut self, proposal: &Proposal, reply: Option<&Reply>) {
        match (proposal, reply) {
            (Proposal::Start { client }, reply) => {
                let client = &mut self.clients[*client];
                assert!(reply.is_some(), "a run with a key of its own is not refused");
                client.answered = true;
                self.ledger.acknowledged(client.run);
            }
            (Proposal::Register { node, asked, .. }, reply) => {
                let given = match reply {
                    Some(&Reply::Registered { worker, epoch }) => Some((worker, epoch)),
                    _ => None,
                };
                self.nodes[*node].registered(*asked, given);
            }
            (Proposal::Report { node, report }, _) => {
                self.nodes[*node]
                    .outbox
                    .retain(|kept| kept.token != report.token || kept.task != report.task);
            }
            (Proposal::Cancel { .. } | Proposal::Command(_), _) => {}
        }
    }
}

fn end_lease(worker: WorkerId, epoch: Epoch) -> Command {
    Command::EndLease(EndLease { worker, epoch, cause: LeaseEnd::Expired })
}
