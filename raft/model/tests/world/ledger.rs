//! What really happened, kept apart from the state, and what must never happen.

use std::collections::{BTreeMap, BTreeSet};

use quorate_model::command::{AskPerson, PassTask, SkipTask, TakeBranch};
use quorate_model::workflow::{OnLost, TriggerRule};
use quorate_model::{
    Applied, Command, Dispatch, FencingToken, Outcome, Reply, Request, RunId, State, Task, TaskEnd,
    TaskId, Verdict,
};

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Tasks with a live process, and by whose authority it runs.
    alive: BTreeMap<TaskId, FencingToken>,
    tokens: BTreeMap<TaskId, FencingToken>,
    /// Tasks whose process was cut short with its worker, and nobody decided of it since.
    interrupted: BTreeSet<TaskId>,
    successes: BTreeSet<TaskId>,
    ends: BTreeMap<TaskId, TaskEnd>,
    acknowledged: BTreeSet<RunId>,
    started: BTreeSet<RunId>,
    retired: BTreeSet<RunId>,
    /// Tasks whose turn had come before the entry that is being applied.
    allowed: BTreeSet<TaskId>,
}

impl Ledger {
    /// A process of a task began: there is no other, and its turn has come.
    pub(super) fn began(&mut self, dispatch: Dispatch, state: &State) {
        let task = dispatch.task;
        let other = self.alive.insert(task, dispatch.token);
        assert!(other.is_none(), "two processes of {task} at once");
        let found = state.task(task).expect("what starts is live");
        assert!(found.end().is_none(), "{task} starts although it is {}", found.status);
        let on_lost = state.task_definition(task).map(|found| found.on_lost);
        let again = self.interrupted.remove(&task) && on_lost != Ok(OnLost::Retry);
        assert!(!again, "{task} begins again, though nobody knows what came of it");
    }

    /// The process of a task was killed with its worker: what it did is not known.
    pub(super) fn interrupted(&mut self, task: TaskId) {
        self.stopped(task);
        self.interrupted.insert(task);
    }

    pub(super) fn stopped(&mut self, task: TaskId) {
        self.alive.remove(&task);
    }

    pub(super) fn acknowledged(&mut self, run: RunId) {
        self.acknowledged.insert(run);
    }

    /// Looks at the state that an entry is about to meet.
    pub(super) fn proposed(&mut self, requests: &[Request], state: &State) {
        self.allowed.clear();
        for request in requests {
            if let Command::AssignTask(assign) = &request.command
                && may_start(state, assign.task)
            {
                self.allowed.insert(assign.task);
            }
        }
    }

    pub(super) fn applied(&mut self, requests: &[Request], applied: &Applied, state: &State) {
        let mut touched = BTreeSet::new();
        for (request, answer) in requests.iter().zip(&applied.answers) {
            match (&request.command, &answer.reply) {
                (Command::AssignTask(assign), Ok(Reply::Assigned { token, .. })) => {
                    let before = self.tokens.insert(assign.task, *token);
                    assert!(
                        before.is_none_or(|old| old < *token),
                        "tokens of {} rise",
                        assign.task
                    );
                    // The turn may have come by a request before it in the same entry.
                    let late = touched.contains(&assign.task.run) && may_start(state, assign.task);
                    let in_turn = self.allowed.contains(&assign.task) || late;
                    assert!(in_turn, "{} was assigned before its turn", assign.task);
                }
                (Command::ReportTask(report), Ok(_)) => {
                    touched.insert(report.task.run);
                    if matches!(report.outcome, Outcome::Succeeded { .. }) {
                        let first = self.successes.insert(report.task);
                        assert!(first, "{} succeeded twice", report.task);
                    }
                }
                (Command::DecideTask(decide), Ok(_)) => {
                    touched.insert(decide.task.run);
                    self.interrupted.remove(&decide.task);
                    if decide.verdict == Verdict::Succeeded {
                        let first = self.successes.insert(decide.task);
                        assert!(first, "{} succeeded twice", decide.task);
                    }
                }
                (
                    Command::PassTask(PassTask { task })
                    | Command::SkipTask(SkipTask { task, .. })
                    | Command::TakeBranch(TakeBranch { task, .. })
                    | Command::AskPerson(AskPerson { task, .. }),
                    Ok(_),
                ) => {
                    touched.insert(task.run);
                }
                (Command::FailTask(fail), Ok(_)) => {
                    touched.insert(fail.task.run);
                }
                (Command::StartRun(start), Ok(_)) if !answer.replayed => {
                    touched.insert(start.run);
                    assert!(self.started.insert(start.run), "{} started twice", start.run);
                }
                _ => {}
            }
        }
        self.retired.extend(applied.retired.iter().map(|old| old.id));
    }

    /// What has ended stays as it ended; what runs is in flight; what was acknowledged is there.
    pub(super) fn watch(&mut self, state: &State) {
        for (&run, found) in state.runs() {
            for (position, task) in found.tasks.iter().enumerate() {
                let id = TaskId::new(run, position);
                match (self.ends.get(&id), task.end()) {
                    (Some(before), now) => assert_eq!(Some(*before), now, "{id} has ended"),
                    (None, Some(now)) => {
                        self.ends.insert(id, now);
                    }
                    (None, None) => {}
                }
            }
        }
        for (&task, &token) in &self.alive {
            let flight = state.task(task).ok().and_then(Task::flight);
            let known = flight.is_some_and(|flight| flight.token == token);
            assert!(known, "a process of {task} under {token} that the state knows nothing of");
        }
        for run in &self.acknowledged {
            let known = state.runs().contains_key(run) || self.retired.contains(run);
            assert!(known, "run {run} was acknowledged and is gone");
        }
    }

    /// Once all is at rest, nothing runs and every success counted.
    pub(super) fn close(&self, state: &State) {
        assert!(self.alive.is_empty(), "{:?} outlive their runs", self.alive);
        assert!(state.outstanding().is_empty(), "nothing is left to do");
        for task in &self.successes {
            assert_eq!(self.ends.get(task), Some(&TaskEnd::Succeeded), "{task} did succeed");
        }
    }
}

/// What a predecessor has come to, for one task.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Success,
    Failure,
    Skip,
    LeftOut,
}

/// Whether the rule of a task allows it to start, reckoned anew from its predecessors.
fn may_start(state: &State, id: TaskId) -> bool {
    let Ok(task) = state.task_definition(id) else { return false };
    let needs: Vec<Option<Seen>> = task.needs.iter().map(|&need| see(state, id, need)).collect();
    let has = |seen: Seen| needs.contains(&Some(seen));
    let are = |seen: Seen| needs.iter().all(|need| *need == Some(seen));
    let is_left_out = has(Seen::LeftOut) && !has(Seen::Success) && !has(Seen::Failure);
    let have_ended = needs.iter().all(Option::is_some);
    let none_failed = have_ended && !has(Seen::Failure);
    !task.disabled
        && (needs.is_empty()
            || match task.trigger_rule {
                TriggerRule::AllSuccess => are(Seen::Success),
                TriggerRule::AllDone => have_ended && !is_left_out,
                TriggerRule::OneSuccess => has(Seen::Success),
                TriggerRule::OneFailed => has(Seen::Failure),
                TriggerRule::AllFailed => are(Seen::Failure),
                TriggerRule::NoneFailed => none_failed && !is_left_out,
                TriggerRule::NoneFailedMinOneSuccess => none_failed && has(Seen::Success),
                TriggerRule::Always => true,
            })
}

fn see(state: &State, id: TaskId, need: u32) -> Option<Seen> {
    let before = TaskId { run: id.run, index: need };
    let (task, said) = (state.task(before).ok()?, state.task_definition(before).ok()?);
    let end = task.end()?;
    if let (Some(switch), Some(arm)) = (said.action.switch(), task.branch)
        && switch.all_targets().any(|targets| targets.contains(&id.index))
        && !switch.targets(arm).contains(&id.index)
    {
        return Some(Seen::LeftOut);
    }
    let goes_on = said.continue_on_failure;
    Some(match end {
        TaskEnd::Succeeded | TaskEnd::Disabled => Seen::Success,
        TaskEnd::Failed | TaskEnd::TimedOut | TaskEnd::Lost if goes_on => Seen::Success,
        TaskEnd::Failed | TaskEnd::TimedOut | TaskEnd::Lost | TaskEnd::UpstreamFailed => {
            Seen::Failure
        }
        TaskEnd::Skipped | TaskEnd::Cancelled => Seen::Skip,
    })
}
