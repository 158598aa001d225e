//! What a watched run has come to, and what changed since the last look. No terminal, no
//! network: fed with what the API says, asked for what to show.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use quorate_api::view::{AttemptState, AttemptView, TaskState, TaskView};
use quorate_model::WorkerId;

use super::span;

/// A task as of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskNow {
    /// Its id in the workflow.
    pub(crate) id: String,
    /// Where it stands.
    pub(crate) state: TaskState,
    /// It waits for a person.
    pub(crate) held: bool,
    /// The latest try, from 1; 0 before the first.
    pub(crate) attempt: u32,
    /// Who has, or had, that try.
    pub(crate) worker: Option<String>,
    /// How long it has run: the task if it has ended, else the latest try.
    pub(crate) took_ms: Option<u64>,
    /// Why it did not go well, for people.
    pub(crate) note: Option<String>,
}

impl TaskNow {
    /// As the API has it, and as `workers` names them.
    pub(crate) fn new(task: &TaskView, workers: &BTreeMap<WorkerId, String>, now_ms: u64) -> Self {
        let latest = task.attempts.last();
        let name = |id: WorkerId| workers.get(&id).cloned().unwrap_or_else(|| id.to_string());
        let running_ms = latest.map(|attempt| now_ms.saturating_sub(attempt.assigned_at.0.0));
        Self {
            id: task.id.to_string(),
            state: task.state,
            held: task.held,
            attempt: task.attempts_begun,
            worker: latest.map(|attempt| name(attempt.worker)),
            took_ms: if task.ended_at.is_some() { task.duration_ms } else { running_ms },
            note: task
                .note
                .clone()
                .or_else(|| asks(task))
                .or_else(|| held(task))
                .or_else(|| latest.and_then(why)),
        }
    }

    /// Whether nothing follows.
    pub(crate) fn is_over(&self) -> bool {
        self.state.is_final() && !self.held
    }

    /// A mark that tells the state without its colour.
    pub(crate) fn mark(&self) -> char {
        match self.state {
            _ if self.held => '?',
            TaskState::Succeeded => '✓',
            TaskState::Failed
            | TaskState::TimedOut
            | TaskState::Lost
            | TaskState::UpstreamFailed => '✗',
            TaskState::Skipped | TaskState::Cancelled => '-',
            TaskState::Retrying | TaskState::Queued => '↻',
            TaskState::Running => '▶',
            TaskState::Asking => '?',
            TaskState::Waiting => '·',
        }
    }

    /// The state with what belongs to it: `running #2 on w7`, `succeeded 1.2s`.
    pub(crate) fn sentence(&self) -> String {
        let mut sentence = self.state.text().replace('_', " ");
        let fails =
            matches!(self.state, TaskState::Retrying | TaskState::Queued | TaskState::Failed);
        if self.attempt > 1 || (fails && self.attempt > 0) {
            write_to(&mut sentence, format_args!(" #{}", self.attempt));
        }
        match (&self.worker, self.took_ms) {
            (Some(worker), _) if self.state == TaskState::Running => {
                write_to(&mut sentence, format_args!(" on {worker}"));
            }
            (_, Some(took_ms)) if self.is_over() => {
                write_to(&mut sentence, format_args!(" {}", span::show(took_ms)));
            }
            _ => {}
        }
        // What succeeded without an attempt has something else to tell, as a switch.
        let tells = self.state != TaskState::Succeeded || self.attempt == 0;
        if let Some(note) = self.note.as_ref().filter(|_| tells) {
            write_to(&mut sentence, format_args!(": {note}"));
        }
        sentence
    }
}

fn write_to(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("a string takes all that is written");
}

/// What a task asks a person, while it does.
pub(crate) fn asks(task: &TaskView) -> Option<String> {
    task.question.clone().filter(|_| task.state == TaskState::Asking)
}

/// What a task that is held waits for.
pub(crate) fn held(task: &TaskView) -> Option<String> {
    let what = task.waits_for.as_ref().filter(|_| task.held)?;
    Some(format!("its outcome is unknown; waits for {what}"))
}

/// Why an attempt did not end well, for people.
pub(crate) fn why(attempt: &AttemptView) -> Option<String> {
    let AttemptView { state, exit_code, signal, reason, .. } = attempt;
    match (state, exit_code, signal, reason) {
        (AttemptState::Lost, ..) => Some("its worker was lost".to_owned()),
        (AttemptState::Returned, ..) => Some("its worker handed it back".to_owned()),
        (AttemptState::Failed, _, _, Some(reason)) => Some(reason.clone()),
        (AttemptState::Failed, Some(code), ..) => Some(format!("exit code {code}")),
        (AttemptState::Failed, _, Some(signal), _) => Some(format!("signal {signal}")),
        (AttemptState::Running | AttemptState::Succeeded | AttemptState::Stopped, ..)
        | (AttemptState::Failed, None, None, None) => None,
    }
}

/// How many tasks are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// All of them.
    pub(crate) all: usize,
    /// Those for which nothing changes any more.
    pub(crate) ended: usize,
    /// Those that some worker has.
    pub(crate) running: usize,
    /// Those that ended other than well.
    pub(crate) failed: usize,
}

/// The tasks of a run, by their position in the workflow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    tasks: BTreeMap<u32, TaskNow>,
}

impl Progress {
    /// Takes a look at one task. Answers whether someone who watches wants to hear of it.
    ///
    /// A look that is older than the last one, as another node may give it, changes nothing.
    pub(crate) fn see(&mut self, position: u32, task: TaskNow) -> bool {
        let before = self.tasks.get(&position);
        if before.is_some_and(|before| is_older(&task, before)) {
            return false;
        }
        let news = is_news(before, &task);
        self.tasks.insert(position, task);
        news
    }

    /// The tasks that some worker has.
    pub(crate) fn running(&self) -> impl Iterator<Item = &TaskNow> {
        self.tasks.values().filter(|task| task.state == TaskState::Running)
    }

    /// Where they all are.
    pub(crate) fn counts(&self) -> Counts {
        let count =
            |wanted: fn(&TaskNow) -> bool| self.tasks.values().filter(|task| wanted(task)).count();
        Counts {
            all: self.tasks.len(),
            ended: count(TaskNow::is_over),
            running: self.running().count(),
            failed: count(|task| task.mark() == '✗'),
        }
    }

    /// The length of the longest task id, in characters.
    pub(crate) fn id_width(&self) -> usize {
        self.tasks.values().map(|task| task.id.chars().count()).max().unwrap_or(0)
    }
}

fn is_older(now: &TaskNow, before: &TaskNow) -> bool {
    now.attempt < before.attempt || (before.is_over() && !now.is_over())
}

fn is_news(before: Option<&TaskNow>, now: &TaskNow) -> bool {
    let moved =
        before.is_none_or(|before| before.state != now.state || before.attempt != now.attempt);
    // That a task waits is news only where it had a worker and lost it.
    let waits = matches!(now.state, TaskState::Waiting | TaskState::Queued);
    moved && (!waits || before.is_some_and(|before| before.state == TaskState::Running))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(state: TaskState, attempt: u32) -> TaskNow {
        let (id, held) = ("a".to_owned(), false);
        TaskNow { id, state, held, attempt, worker: None, took_ms: None, note: None }
    }

    #[test]
    fn tells_each_change_once() {
        let mut progress = Progress::default();
        assert!(!progress.see(0, task(TaskState::Waiting, 0)));
        assert!(!progress.see(0, task(TaskState::Queued, 0)));
        assert!(progress.see(0, task(TaskState::Running, 1)));
        assert!(!progress.see(0, task(TaskState::Running, 1)));
        assert!(progress.see(1, task(TaskState::Running, 1)));
        assert!(progress.see(0, task(TaskState::Succeeded, 1)));
        assert_eq!(progress.counts(), Counts { all: 2, ended: 1, running: 1, failed: 0 });
    }

    #[test]
    fn a_second_attempt_is_news() {
        let mut progress = Progress::default();
        progress.see(0, task(TaskState::Running, 1));
        assert!(progress.see(0, task(TaskState::Running, 2)));
    }

    #[test]
    fn a_lost_worker_is_news() {
        let mut progress = Progress::default();
        progress.see(0, task(TaskState::Running, 1));
        let note = Some("its worker was lost".to_owned());
        let lost = TaskNow { note, ..task(TaskState::Queued, 1) };
        assert_eq!(lost.sentence(), "queued #1: its worker was lost");
        assert!(progress.see(0, lost.clone()));
        assert!(!progress.see(0, lost));
    }

    #[test]
    fn an_older_look_takes_nothing_back() {
        let mut progress = Progress::default();
        progress.see(0, task(TaskState::Succeeded, 2));
        assert!(!progress.see(0, task(TaskState::Running, 1)));
        assert!(!progress.see(0, task(TaskState::Running, 2)));
        assert_eq!(progress.counts().ended, 1);
    }

    #[test]
    fn what_is_held_is_not_over() {
        let mut progress = Progress::default();
        progress.see(0, task(TaskState::Running, 1));
        let note = Some("waits for a person".to_owned());
        let held = TaskNow { held: true, note, ..task(TaskState::Lost, 1) };
        assert_eq!(held.sentence(), "lost: waits for a person");
        assert!(progress.see(0, held));
        assert_eq!(progress.counts(), Counts { all: 1, ended: 0, running: 0, failed: 0 });
        assert!(progress.see(0, task(TaskState::Running, 2)));
    }

    #[test]
    fn a_sentence_says_what_matters() {
        let ended = TaskNow { took_ms: Some(1_250), ..task(TaskState::Succeeded, 1) };
        assert_eq!(ended.sentence(), "succeeded 1.2s");
        let worker = Some("node-2".to_owned());
        let running = TaskNow { worker, took_ms: Some(5), ..task(TaskState::Running, 2) };
        assert_eq!(running.sentence(), "running #2 on node-2");
        let note = Some("exit code 3".to_owned());
        let failed = TaskNow { note, took_ms: Some(90), ..task(TaskState::Failed, 1) };
        assert_eq!(failed.sentence(), "failed #1 90ms: exit code 3");
        assert_eq!(task(TaskState::UpstreamFailed, 0).sentence(), "upstream failed");
    }
}
