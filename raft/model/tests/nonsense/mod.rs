//! Commands at random: half of them fit the state they meet, the rest are stale, repeated,
//! or name what never was.

use quorate_model::command::{
    AdvanceClock, AskPerson, AssignTask, CancelRun, DecideTask, DeleteWorkflow, EndLease, FailTask,
    JudgeClock, MintNodeId, PassTask, PauseRun, PauseWorkflow, PruneHistory, PutWorkflow,
    RegisterWorker, ReportTask, ResumeRun, ResumeWorkflow, SetEligibility, SkipTask, StartRun,
    TakeBranch, WithdrawWorker, WorkflowSource,
};
use quorate_model::{
    Attempt, Command, Containment, Dispatch, DurationMs, Effect, Epoch, FencingToken,
    IdempotencyKey, Json, LeaseEnd, Outcome, Registration, Request, RunId, State, Task, TaskId,
    TaskStatus, Trigger, UnixMs, Usage, Verdict, WorkerId,
};
use serde_json::json;
use uuid::Uuid;

use crate::dice::Dice;
use crate::notation;
use crate::world::dag;

/// Lines that break a rule, each another one.
const BROKEN: [&str; 6] = ["", "a a", "a b<-@7", "a b c<-@1,@0", "a<-b b<-a", "a:retry=1001"];

/// Attempts that are remembered, to be reported once more.
const REMEMBERED_MAX: usize = 100;

pub(crate) struct Nonsense {
    dice: Dice,
    now: u64,
    started: Vec<Dispatch>,
}

impl Nonsense {
    pub(crate) fn new(dice: Dice) -> Self {
        Self { dice, now: 1_000, started: Vec::new() }
    }

    /// An entry of up to four requests, and the clock that it was proposed by.
    pub(crate) fn entry(&mut self, state: &State) -> (u64, Vec<Request>) {
        self.now = match self.dice.below(20) {
            0 => self.now.saturating_sub(5_000),
            1 => self.now.saturating_add(self.dice.below(100_000_000)),
            _ => self.now.saturating_add(self.dice.below(200)),
        };
        let count = self.dice.below(5);
        (self.now, (0..count).map(|_| self.request(state)).collect())
    }

    pub(crate) fn remember(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let (Effect::Start(dispatch) | Effect::Stop(dispatch, _)) = effect;
            self.started.push(dispatch);
        }
        let surplus = self.started.len().saturating_sub(REMEMBERED_MAX);
        self.started.drain(..surplus);
    }

    fn request(&mut self, state: &State) -> Request {
        let key = self.dice.percent(20).then(|| IdempotencyKey {
            key: "k".repeat(self.dice.index(8)),
            request_hash: self.dice.below(2),
        });
        Request { key, command: self.command(state) }
    }

    fn command(&mut self, state: &State) -> Command {
        match self.dice.below(33) {
            0 => Command::PutWorkflow(PutWorkflow {
                name: self.workflow(),
                definition: self.definition(),
                expected_version: self.dice.percent(30).then(|| self.small()),
            }),
            1 => Command::DeleteWorkflow(DeleteWorkflow { name: self.workflow() }),
            2..=5 => Command::StartRun(Box::new(self.start())),
            6 => Command::CancelRun(self.cancel()),
            7..=11 => Command::AssignTask(self.assign(state)),
            12 => Command::FailTask(FailTask { task: self.task(state), reason: String::new() }),
            13..=17 => Command::ReportTask(self.report()),
            18 | 19 => Command::RegisterWorker(self.register(state)),
            20 => Command::EndLease(self.end_lease(state)),
            21 => Command::PruneHistory(PruneHistory { runs: vec![self.run()] }),
            22 => Command::MintNodeId(MintNodeId {}),
            23 | 24 => Command::DecideTask(self.decide(state)),
            25 => self.bar(state),
            26 => self.decide_start(state),
            27..=30 => self.intervene(),
            _ => Command::AdvanceClock(AdvanceClock {}),
        }
    }

    fn small(&mut self) -> u32 {
        u32::try_from(self.dice.below(4)).expect("a handful")
    }

    fn workflow(&mut self) -> quorate_model::Name {
        notation::name(["v", "w"][self.dice.index(2)])
    }

    fn definition(&mut self) -> quorate_model::workflow::Definition {
        if self.dice.percent(20) {
            let line = self.dice.pick(&BROKEN);
            return notation::workflow(line).expect("a line can be read, though it means nothing");
        }
        dag::any(&mut self.dice)
    }

    fn run(&mut self) -> RunId {
        RunId(Uuid::from_u128(u128::from(self.dice.below(12))))
    }

    fn start(&mut self) -> StartRun {
        let name = self.workflow();
        let source = if self.dice.percent(50) {
            WorkflowSource::Inline { name, definition: self.definition() }
        } else {
            WorkflowSource::Stored { name, version: self.small() }
        };
        let params = Json::new(&json!({}));
        StartRun {
            run: self.run(),
            source,
            params,
            labels: [].into(),
            trigger: Trigger::Manual,
            logical_time: UnixMs(0),
        }
    }

    /// One that is ready, or any at all.
    fn task(&mut self, state: &State) -> TaskId {
        let ready: Vec<TaskId> = state.ready().chain(state.deciding()).take(8).collect();
        if ready.is_empty() || self.dice.percent(30) {
            let index = *self.dice.pick(&[0, 1, 2, 5, u32::MAX]);
            return TaskId { run: self.run(), index };
        }
        *self.dice.pick(&ready)
    }

    /// Of one that waits for that, or of any at all.
    fn decide_start(&mut self, state: &State) -> Command {
        let deciding: Vec<TaskId> = state.deciding().take(8).collect();
        let any = deciding.is_empty() || self.dice.percent(10);
        let task = if any { self.task(state) } else { *self.dice.pick(&deciding) };
        match self.dice.below(4) {
            3 => Command::AskPerson(AskPerson { task, question: "well?".to_owned() }),
            0 => Command::PassTask(PassTask { task }),
            1 => Command::SkipTask(SkipTask { task, because: String::new() }),
            _ => Command::TakeBranch(TakeBranch { task, arm: self.small() }),
        }
    }

    /// Of one that is held, or of any at all.
    fn decide(&mut self, state: &State) -> DecideTask {
        let held = state.runs().iter().flat_map(|(&run, found)| {
            let held = found.tasks.iter().enumerate().filter(|(_, task)| is_held(task));
            held.map(move |(position, _)| TaskId::new(run, position))
        });
        let held: Vec<TaskId> = held.take(8).collect();
        let any = held.is_empty() || self.dice.percent(10);
        let task = if any { self.task(state) } else { *self.dice.pick(&held) };
        let verdict = *self.dice.pick(&[Verdict::Retry, Verdict::Succeeded, Verdict::Failed]);
        let outputs = self.dice.percent(50).then(|| Json::new(&json!({"n": 2})));
        DecideTask { task, verdict, outputs, by: "ann".to_owned(), comment: String::new() }
    }

    fn worker(&mut self, state: &State) -> (WorkerId, Epoch) {
        let known: Vec<(WorkerId, Epoch)> =
            state.workers().iter().map(|(&id, worker)| (id, worker.epoch)).collect();
        if known.is_empty() || self.dice.percent(10) {
            return (WorkerId(self.dice.below(9)), Epoch(self.dice.below(9)));
        }
        *self.dice.pick(&known)
    }

    fn assign(&mut self, state: &State) -> AssignTask {
        let (worker, epoch) = self.worker(state);
        AssignTask { task: self.task(state), worker, epoch, rendered: None }
    }

    /// Of an attempt that was started, now or long ago, perhaps with a detail that is wrong.
    fn report(&mut self) -> ReportTask {
        let nothing = Dispatch {
            task: TaskId { run: self.run(), index: 0 },
            attempt: Attempt(1),
            token: FencingToken(1),
            worker: WorkerId(2),
            epoch: Epoch(2),
        };
        let mut of = if self.started.is_empty() { nothing } else { *self.dice.pick(&self.started) };
        match self.dice.below(20) {
            0 => of.attempt = Attempt(of.attempt.0 + 1),
            1 => of.token = FencingToken(of.token.0 + 1),
            2 => of.epoch = Epoch(0),
            3 => of.task.index += 1,
            _ => {}
        }
        let Dispatch { task, attempt, token, worker, epoch } = of;
        let outcome = match self.dice.below(9) {
            0 => Outcome::Exited { code: -1 },
            1 => Outcome::Signalled { signal: 9 },
            2 => Outcome::Broken { reason: "no shell".to_owned() },
            3 => Outcome::Stopped,
            4 => Outcome::Lost,
            5 => Outcome::Returned,
            _ => Outcome::Succeeded { outputs: Some(Json::new(&json!({"n": 1}))) },
        };
        ReportTask { task, attempt, token, worker, epoch, outcome, usage: Usage::default() }
    }

    fn register(&mut self, state: &State) -> RegisterWorker {
        let (worker, epoch) = (WorkerId(self.dice.below(60)), Epoch(self.dice.below(60)));
        let known = state.workers().get(&worker).map(|found| found.epoch);
        let epoch = if self.dice.percent(50) { known.unwrap_or(epoch) } else { epoch };
        let last = self.dice.percent(50).then_some(Registration { worker, epoch });
        let (name, slots) = (notation::name("node"), self.small());
        let (labels, lease) = ([].into(), DurationMs(1));
        let containment = *self.dice.pick(&Containment::ALL);
        RegisterWorker { last, name, labels, slots, containment, lease }
    }

    fn cancel(&mut self) -> CancelRun {
        CancelRun { run: self.run(), reason: String::new(), by: String::new() }
    }

    /// Pauses a run or a workflow, or has it go on.
    fn intervene(&mut self) -> Command {
        let (run, workflow) = (self.run(), self.workflow());
        let (by, reason) = ("ann".to_owned(), String::new());
        match self.dice.below(5) {
            0 => Command::PauseRun(PauseRun { run, by, reason }),
            1 | 2 => Command::ResumeRun(ResumeRun { run, by, reason }),
            3 => Command::PauseWorkflow(PauseWorkflow { workflow, by, reason }),
            _ => Command::ResumeWorkflow(ResumeWorkflow { workflow }),
        }
    }

    /// Bars a worker from work, or takes that back.
    fn bar(&mut self, state: &State) -> Command {
        let ((worker, epoch), yes) = (self.worker(state), self.dice.percent(30));
        match self.dice.below(5) {
            0 | 1 => {
                let (reason, by) = (String::new(), "ann".to_owned());
                Command::SetEligibility(SetEligibility { worker, is_eligible: !yes, reason, by })
            }
            2 => Command::WithdrawWorker(WithdrawWorker { worker, epoch }),
            _ => {
                let drift_ppm = 7_000;
                Command::JudgeClock(JudgeClock { worker, epoch, drift_ppm, is_sound: !yes })
            }
        }
    }

    fn end_lease(&mut self, state: &State) -> EndLease {
        let (worker, epoch) = self.worker(state);
        let cause = *self.dice.pick(&[LeaseEnd::Expired, LeaseEnd::Released]);
        EndLease { worker, epoch, cause }
    }
}

fn is_held(task: &Task) -> bool {
    matches!(task.status, TaskStatus::Held | TaskStatus::Asking { .. })
}
