//! What happened in a run, in the order of the log.

use quorate_model::{
    Act, AttemptRecord, Flight, Intervention, Mark, Name, Retired, Task, UnixMs, WorkerId,
};
use serde::{Deserialize, Serialize};

use super::{AttemptState, AttemptView, RunState, TaskState};
use crate::time::Time;

/// What happened. In this order where one entry did several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Transition {
    /// The run was submitted.
    #[serde(rename = "run.created")]
    RunCreated,
    /// An attempt was assigned to a worker.
    #[serde(rename = "attempt.assigned")]
    AttemptAssigned,
    /// The end of an attempt was recorded.
    #[serde(rename = "attempt.ended")]
    AttemptEnded,
    /// An attempt was not through by the deadline of its task; it goes on.
    #[serde(rename = "task.late")]
    TaskLate,
    /// A task is held: its worker was lost, and a person is to decide.
    #[serde(rename = "task.held")]
    TaskHeld,
    /// A person decided what becomes of a task that was held.
    #[serde(rename = "task.decided")]
    TaskDecided,
    /// Somebody had nothing more of the run start.
    #[serde(rename = "run.paused")]
    RunPaused,
    /// Somebody had it go on.
    #[serde(rename = "run.resumed")]
    RunResumed,
    /// Somebody had it stop.
    #[serde(rename = "run.cancelled")]
    RunCancelled,
    /// A task ended for good.
    #[serde(rename = "task.ended")]
    TaskEnded,
    /// A task could start. Of several times, the last alone is remembered.
    #[serde(rename = "task.ready")]
    TaskReady,
    /// The run had not ended by its deadline; it goes on.
    #[serde(rename = "run.late")]
    RunLate,
    /// The run ended.
    #[serde(rename = "run.ended")]
    RunEnded,
}

/// A transition of a run or of a task of it. Derived from what the state remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransitionView {
    /// The entry.
    pub index: u64,
    /// When it was proposed, by the leader's clock.
    pub at: Time,
    /// What happened.
    pub event: Transition,
    /// To which task; absent if to the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Name>,
    /// Its position in the workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// Which try it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Who had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// Its fencing token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// What the attempt, the task or the run came to, where it ended, and what was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Who decided, as they called themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What they said to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Where a transition stands among those of its run. Unlike a count of those before, it stays
/// when more come.
pub(crate) type Place = (u64, Transition, u32, u32);

impl TransitionView {
    /// Every transition of a run that is remembered, in order.
    pub(crate) fn all(found: &Retired) -> Vec<Self> {
        let Retired { run, definition, .. } = found;
        let mut all = vec![Self::new(run.created, Transition::RunCreated)];
        for ((task, said), position) in run.tasks.iter().zip(&definition.tasks).zip(0..) {
            let of_task = Self::of_task(task);
            let named = of_task.map(|transition| Self {
                task: Some(said.id.clone()),
                position: Some(position),
                ..transition
            });
            all.extend(named);
        }
        all.extend(run.interventions.iter().map(Self::of_intervention));
        all.extend(run.late.map(|mark| Self::new(mark, Transition::RunLate)));
        if let quorate_model::RunStatus::Ended { mark, .. } = run.status {
            let state = Some(RunState::from(&**run).to_string());
            all.push(Self { state, ..Self::new(mark, Transition::RunEnded) });
        }
        all.sort_by_key(Self::place);
        all
    }

    fn of_intervention(made: &Intervention) -> Self {
        let event = match made.act {
            Act::Pause => Transition::RunPaused,
            Act::Resume => Transition::RunResumed,
            Act::Cancel => Transition::RunCancelled,
        };
        let (by, comment) = (Some(made.by.clone()), Some(made.reason.clone()));
        Self { by, comment, ..Self::new(made.mark, event) }
    }

    fn of_task(task: &Task) -> impl Iterator<Item = Self> {
        let ready = task.ready.map(|mark| Self::new(mark, Transition::TaskReady));
        let records = task.attempts.iter().flat_map(Self::of_record);
        let in_flight = task.flight().map(|flight| {
            let Flight { attempt, worker, token, assigned_at, .. } = *flight;
            Self::assigned(attempt.0, worker, token.0, assigned_at)
        });
        let ended = task.ended.map(|mark| {
            let state = Some(TaskState::from(&task.status).to_string());
            Self { state, ..Self::new(mark, Transition::TaskEnded) }
        });
        let late = task.late.map(|mark| Self::new(mark, Transition::TaskLate));
        let held = task.held.map(|mark| Self::new(mark, Transition::TaskHeld));
        let decided = task.decision.as_ref().map(|made| Self {
            state: Some(made.verdict.to_string()),
            by: Some(made.by.clone()),
            comment: Some(made.comment.clone()),
            ..Self::new(made.mark, Transition::TaskDecided)
        });
        let all = ready.into_iter().chain(records).chain(in_flight);
        all.chain(late).chain(held).chain(decided).chain(ended)
    }

    fn of_record(record: &AttemptRecord) -> [Self; 2] {
        let AttemptRecord { attempt, worker, token, assigned_at, ended, .. } = *record;
        let assigned = Self::assigned(attempt.0, worker, token.0, assigned_at);
        let state = AttemptView::ended(record).state;
        let ended = Self {
            index: ended.index.0,
            at: Time(ended.at),
            event: Transition::AttemptEnded,
            state: Some(AttemptState::text(state).to_owned()),
            ..assigned.clone()
        };
        [assigned, ended]
    }

    fn assigned(attempt: u32, worker: WorkerId, token: u64, at: UnixMs) -> Self {
        // The token is the index of the entry that assigned it.
        let mark = Mark { index: quorate_model::LogIndex(token), at };
        Self {
            attempt: Some(attempt),
            worker: Some(worker),
            token: Some(token),
            ..Self::new(mark, Transition::AttemptAssigned)
        }
    }

    fn new(mark: Mark, event: Transition) -> Self {
        Self {
            index: mark.index.0,
            at: Time(mark.at),
            event,
            task: None,
            position: None,
            attempt: None,
            worker: None,
            token: None,
            state: None,
            by: None,
            comment: None,
        }
    }

    /// Where it stands among the others.
    pub(crate) fn place(&self) -> Place {
        (self.index, self.event, self.position.unwrap_or(0), self.attempt.unwrap_or(0))
    }
}
