//! A worker: it starts an attempt once, keeps a result until it is answered, and kills what it
//! runs before its lease ends.

use std::collections::BTreeMap;

use quorate_model::command::{RegisterWorker, ReportTask};
use quorate_model::{
    Containment, Dispatch, DurationMs, Effect, Epoch, FencingToken, Outcome, Registration, TaskId,
    Usage, WorkerId,
};

use crate::dice::Dice;
use crate::notation;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) up: bool,
    /// Results that were not answered. Durable.
    pub(super) outbox: Vec<ReportTask>,
    /// What the last message made it stop.
    pub(super) just_stopped: Option<TaskId>,
    /// Only the first node can do everything.
    has_gpu: bool,
    slots: u64,
    /// The registration it was given last. Durable.
    last: Option<Registration>,
    /// Whether it takes work under it.
    holds: bool,
    /// It finishes what it has, and hands back what it is still given.
    pub(super) leaving: bool,
    /// How often it asked to be registered: only the answer to the last time counts, for it
    /// comes on the last connection.
    asked: u64,
    /// What it runs, and for how long still.
    running: BTreeMap<TaskId, (Dispatch, u64)>,
    /// The last token it saw for a task, so that it starts an attempt once.
    seen: BTreeMap<TaskId, FencingToken>,
}

impl Node {
    pub(super) fn new(position: usize, slots: u64) -> Self {
        Self {
            up: true,
            outbox: Vec::new(),
            just_stopped: None,
            has_gpu: position == 0,
            slots,
            last: None,
            holds: false,
            leaving: false,
            asked: 0,
            running: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Under which id and epoch it takes work, if it is up and registered.
    pub(super) fn registration(&self) -> Option<(WorkerId, Epoch)> {
        let last = self.last.filter(|_| self.up && self.holds);
        last.map(|last| (last.worker, last.epoch))
    }

    /// Asks to be registered: nothing runs here.
    pub(super) fn register(&mut self) -> (u64, RegisterWorker) {
        self.asked += 1;
        let gpu = [(notation::name("gpu"), "yes".to_owned())];
        let register = RegisterWorker {
            last: self.last,
            name: notation::name("node"),
            labels: if self.has_gpu { gpu.into() } else { [].into() },
            slots: u32::try_from(self.slots).expect("a handful"),
            containment: Containment::Pidns,
            lease: DurationMs(10_000),
        };
        (self.asked, register)
    }

    /// It is answered; `None` if what it held last is not what it was given last.
    pub(super) fn registered(&mut self, asked: u64, given: Option<(WorkerId, Epoch)>) {
        if self.up && asked == self.asked {
            self.last = given.map(|(worker, epoch)| Registration { worker, epoch });
            self.holds = given.is_some();
        }
    }

    /// Everything that ran is dead; what was reported is on disk.
    pub(super) fn crash(&mut self) -> Vec<TaskId> {
        self.up = false;
        self.fence()
    }

    /// Kills what runs and takes no more under this registration.
    pub(super) fn fence(&mut self) -> Vec<TaskId> {
        self.holds = false;
        self.leaving = false;
        self.asked += 1;
        std::mem::take(&mut self.running).into_keys().collect()
    }

    /// Does as told, if it may; returns the attempt that it starts.
    pub(super) fn receive(&mut self, effect: &Effect) -> Option<Dispatch> {
        let &(Effect::Start(dispatch) | Effect::Stop(dispatch, _)) = effect;
        let task = dispatch.task;
        if self.registration() != Some((dispatch.worker, dispatch.epoch)) {
            return None;
        }
        let is_new = self.seen.get(&task).is_none_or(|&seen| seen < dispatch.token);
        self.seen
            .entry(task)
            .and_modify(|seen| *seen = dispatch.token.max(*seen))
            .or_insert(dispatch.token);
        let runs = self.running.get(&task).is_some_and(|(of, _)| of.token == dispatch.token);
        match effect {
            Effect::Start(_) if is_new && self.leaving => {
                self.report(dispatch, Outcome::Returned);
                None
            }
            Effect::Start(_) if is_new => {
                self.running.insert(task, (dispatch, 1 + dispatch.token.0 % 7));
                Some(dispatch)
            }
            Effect::Stop(..) if is_new || runs => {
                self.just_stopped = self.running.remove(&task).map(|_| task);
                self.report(dispatch, Outcome::Stopped);
                None
            }
            Effect::Start(_) | Effect::Stop(..) => None,
        }
    }

    /// Works on what it runs; returns the tasks whose process has ended.
    pub(super) fn work(&mut self, dice: &mut Dice) -> Vec<TaskId> {
        let mut ended = Vec::new();
        for (dispatch, left) in self.running.values_mut() {
            *left = left.saturating_sub(1 + dice.below(3));
            if *left == 0 {
                ended.push(*dispatch);
            }
        }
        for dispatch in &ended {
            self.running.remove(&dispatch.task);
            self.report(*dispatch, outcome(dice));
        }
        ended.into_iter().map(|dispatch| dispatch.task).collect()
    }

    fn report(&mut self, dispatch: Dispatch, outcome: Outcome) {
        let Dispatch { task, attempt, token, worker, epoch } = dispatch;
        let usage = Usage::default();
        self.outbox.push(ReportTask { task, attempt, token, worker, epoch, outcome, usage });
    }
}

fn outcome(dice: &mut Dice) -> Outcome {
    match dice.below(10) {
        0 | 1 => Outcome::Exited { code: 1 },
        2 => Outcome::Signalled { signal: 9 },
        3 => Outcome::Broken { reason: "no shell".to_owned() },
        _ => Outcome::Succeeded { outputs: None },
    }
}
