//! One entry after the other, and what each did to the runs that it touched.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use quorate_model::{
    Answer, Applied, AttemptRecord, Command, Entry, Event, LogIndex, Outcome, Reply, Run, RunId,
    State, Task,
};

use super::{Audit, at, run_faults};
use crate::codec;
use crate::log_store::LogStore;

/// Entries between two checks of all invariants: each costs the size of the state.
const CHECK_EVERY: u64 = 256;

/// Where a replay can begin.
#[derive(Clone, Debug, Default)]
pub(super) struct Base {
    /// The last entry in it.
    pub(super) index: u64,
    pub(super) state: State,
}

/// A replay under way.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) audit: Audit,
    state: State,
    /// Entries up to this one are replayed and not counted.
    from: u64,
    term: u64,
    /// The live runs, as they were after the entry before.
    runs: BTreeMap<RunId, Arc<Run>>,
    pruned: BTreeSet<RunId>,
}

impl Replay {
    pub(super) fn new(base: &Base, from: u64) -> Self {
        let audit = Audit { base: base.index, last: base.index, ..Audit::default() };
        let state = base.state.clone();
        let runs = state.runs().clone();
        Self { audit, state, from, term: 0, runs, pruned: BTreeSet::new() }
    }

    /// Replays what the log has up to `end`, and compares with every snapshot on the way.
    pub(super) fn entries(&mut self, log: &LogStore, end: u64, bases: &[Base]) -> io::Result<()> {
        let mut next = if self.audit.base == 0 { 0 } else { self.audit.base + 1 };
        while next <= end {
            let page = log.page(next, end + 1)?;
            if page.is_empty() {
                self.audit.fault(format!("entry {next} is committed, and is not in the log"));
                break;
            }
            for (position, requests) in page {
                if position.index != next || position.term < self.term {
                    self.audit.fault(format!(
                        "entry {} of term {} follows entry {} of term {}",
                        position.index,
                        position.term,
                        next.saturating_sub(1),
                        self.term
                    ));
                }
                next = position.index + 1;
                self.term = position.term;
                if let Some(requests) = requests {
                    let entry = codec::decode_entry(&requests).map_err(io::Error::other)?;
                    self.entry(LogIndex(position.index), entry);
                }
                self.audit.last = position.index;
                self.audit.entries += u64::from(position.index > self.from);
                let beside = bases.iter().filter(|base| base.index == position.index);
                beside.for_each(|base| self.compare(base));
            }
        }
        Ok(())
    }

    /// A snapshot and what follows it is the same as a whole replay.
    fn compare(&mut self, base: &Base) {
        if base.index == 0 {
            return;
        }
        if base.state == self.state {
            self.audit.snapshots += 1;
        } else {
            self.audit.fault(format!("the snapshot of entry {} says otherwise", base.index));
        }
    }

    fn entry(&mut self, index: LogIndex, entry: Entry) {
        let commands: Vec<Command> =
            entry.requests.iter().map(|request| request.command.clone()).collect();
        let apply = AssertUnwindSafe(|| self.state.apply(index, entry));
        let Ok(applied) = std::panic::catch_unwind(apply) else {
            return self.audit.fault(at(index, "it breaks an invariant"));
        };
        let counted = index.0 > self.from;
        if counted {
            self.requests(index, &commands, &applied.answers);
        }
        self.touched(index, &applied, counted);
        self.pruned.extend(&applied.pruned);
        if index.0.is_multiple_of(CHECK_EVERY) {
            self.check(index);
        }
    }

    fn check(&mut self, index: LogIndex) {
        if let Err(what) = self.state.check() {
            self.audit.fault(at(index, &what));
        }
    }

    /// Each assignment that was accepted is under the index of its entry, for a task that
    /// nobody else has.
    fn requests(&mut self, index: LogIndex, commands: &[Command], answers: &[Answer]) {
        self.audit.requests += commands.len() as u64;
        let mut assigned = BTreeSet::new();
        for (command, answer) in commands.iter().zip(answers) {
            let (false, Ok(reply)) = (answer.replayed, &answer.reply) else {
                self.audit.without_effect += 1;
                continue;
            };
            let (Command::AssignTask(assign), Reply::Assigned { token, .. }) = (command, reply)
            else {
                continue;
            };
            self.audit.assignments += 1;
            if token.0 != index.0 {
                self.audit.fault(at(index, &format!("it assigned under token {token}")));
            }
            if !assigned.insert(assign.task) {
                self.audit.fault(at(index, &format!("it assigned {} twice", assign.task)));
            }
        }
    }

    /// Compares each run that the entry touched with what it was before.
    fn touched(&mut self, index: LogIndex, applied: &Applied, counted: bool) {
        let mut touched: BTreeSet<RunId> = BTreeSet::new();
        for event in &applied.events {
            match event {
                Event::Run(run) => drop(touched.insert(*run)),
                Event::Task(task) => drop(touched.insert(task.run)),
                Event::Workflows | Event::Worker(_) => {}
            }
        }
        touched.extend(applied.retired.iter().map(|retired| retired.id));
        for id in touched {
            let retired = applied.retired.iter().find(|retired| retired.id == id);
            let live = self.state.runs().get(&id);
            let after = live.or_else(|| retired.map(|retired| &retired.run)).cloned();
            let before = self.runs.remove(&id);
            let Some(after) = after else {
                self.audit.fault(at(index, &format!("run {id} is gone")));
                continue;
            };
            if counted {
                let faults = self.run(before.as_deref(), &after);
                let faults = faults.into_iter().chain(run_faults(&after, retired.is_some()));
                for what in faults.collect::<Vec<_>>() {
                    self.audit.fault(at(index, &format!("run {id}: {what}")));
                }
            }
            if retired.is_none() {
                self.runs.insert(id, after);
            }
        }
    }

    /// What is wrong with how a run changed.
    fn run(&mut self, before: Option<&Run>, after: &Run) -> Vec<String> {
        let mut faults = Vec::new();
        let ended = before.and_then(Run::end);
        if ended.is_some() && ended != after.end() {
            faults.push(format!("it had ended, and is {} now", after.status));
        }
        self.audit.runs_ended += u64::from(ended.is_none() && after.end().is_some());
        for (position, task) in after.tasks.iter().enumerate() {
            let Some(was) = before.and_then(|before| before.tasks.get(position)) else { continue };
            if was != task {
                self.audit.changes += 1;
                let begun = task.attempts_begun.0.saturating_sub(was.attempts_begun.0);
                self.audit.ends += ends(was, task, begun);
                let wrong = change(was, task);
                faults.extend(wrong.map(|what| format!("task {position}: {what}")));
            }
        }
        faults
    }

    /// What was found, and which runs were pruned.
    pub(super) fn finish(mut self) -> (Audit, BTreeSet<RunId>) {
        self.check(LogIndex(self.audit.last));
        self.audit.hash = format!("{:016x}", self.state.hash());
        (self.audit, self.pruned)
    }
}

/// How many attempts ended by a change in which `begun` began.
fn ends(was: &Task, is: &Task, begun: u32) -> u64 {
    let flying = |task: &Task| u64::from(task.flight().is_some());
    (flying(was) + u64::from(begun)).saturating_sub(flying(is))
}

/// What is wrong with a change of a task: ends are final, attempts are counted upwards, and
/// what was recorded of one stays as it was.
fn change(was: &Task, is: &Task) -> Option<String> {
    if was.end().is_some() {
        return Some(format!("it was {}, and is {} now", was.status, is.status));
    }
    if is.attempts_begun < was.attempts_begun {
        return Some(format!("{} began, and {} now", was.attempts_begun, is.attempts_begun));
    }
    // The oldest records are dropped once there are too many.
    let kept = is.attempts.first().map(|first| first.attempt);
    let rewritten = was
        .attempts
        .iter()
        .filter(|record| kept.is_some_and(|kept| record.attempt >= kept))
        .find(|record| !is.attempts.iter().any(|now| now == *record || completes(record, now)));
    if let Some(record) = rewritten {
        return Some(format!("what was recorded of {} has changed", record.attempt));
    }
    let flight = was.flight()?;
    let same =
        is.flight().is_some_and(|now| (now.attempt, now.token) == (flight.attempt, flight.token));
    let ended = is.attempts.iter().filter(|record| record.token == flight.token).count();
    (usize::from(same) + ended != 1).then(|| {
        format!("{} was in flight, and has {ended} ends while {} flies", flight.attempt, is.status)
    })
}

/// Whether a record says how an attempt did end that was taken for lost.
fn completes(was: &AttemptRecord, now: &AttemptRecord) -> bool {
    let same = (was.attempt, was.token) == (now.attempt, now.token);
    same && was.outcome == Outcome::Lost && now.late
}

#[cfg(test)]
mod tests {
    use quorate_model::{
        Attempt, Epoch, FencingToken, Flight, Mark, TaskEnd, TaskStatus, UnixMs, Usage, WorkerId,
    };

    use super::super::task_faults;
    use super::*;

    /// In flight for the second time, by entry 20; the first attempt was lost.
    fn flying() -> Task {
        let flight = Flight {
            attempt: Attempt(2),
            worker: WorkerId(1),
            epoch: Epoch(5),
            token: FencingToken(20),
            assigned_at: UnixMs(2),
            rendered: None,
            stop: None,
        };
        let (attempts, attempts_begun) = (vec![lost(1, 10)], Attempt(2));
        Task { status: TaskStatus::Running(flight), attempts, attempts_begun, ..Task::waiting() }
    }

    fn lost(attempt: u32, token: u64) -> AttemptRecord {
        AttemptRecord {
            attempt: Attempt(attempt),
            worker: WorkerId(1),
            token: FencingToken(token),
            assigned_at: UnixMs(1),
            ended: Mark { index: LogIndex(token + 5), at: UnixMs(2) },
            outcome: Outcome::Lost,
            late: false,
            usage: Usage::default(),
        }
    }

    fn succeeded() -> Task {
        let mut task = flying();
        let outcome = Outcome::Succeeded { outputs: None };
        task.attempts.push(AttemptRecord { outcome, ..lost(2, 20) });
        task.status = TaskStatus::Ended(TaskEnd::Succeeded);
        task
    }

    #[test]
    fn an_attempt_that_ends_is_in_order() {
        assert_eq!(change(&flying(), &succeeded()), None);
        assert_eq!(ends(&flying(), &succeeded(), 0), 1);
        assert!(task_faults(&flying(), false).is_empty());
        assert!(task_faults(&succeeded(), true).is_empty());
    }

    #[test]
    fn finds_an_end_that_was_not_final() {
        assert!(change(&succeeded(), &flying()).is_some());
    }

    #[test]
    fn finds_an_attempt_that_vanished() {
        let ready = Task { status: TaskStatus::Ready, ..flying() };
        assert!(change(&flying(), &ready).is_some());
        let mut begun_again = flying();
        begun_again.attempts_begun = Attempt(1);
        assert!(change(&flying(), &begun_again).is_some());
    }

    #[test]
    fn finds_two_outcomes_of_one_attempt() {
        let mut twice = succeeded();
        twice.attempts.push(twice.attempts[1].clone());
        assert!(change(&flying(), &twice).is_some());
        assert!(!task_faults(&twice, true).is_empty());
    }

    #[test]
    fn finds_a_record_that_was_rewritten_and_lets_a_late_word_pass() {
        let mut rewritten = flying();
        rewritten.attempts[0].outcome = Outcome::Exited { code: 1 };
        assert!(change(&flying(), &rewritten).is_some());
        rewritten.attempts[0].late = true;
        assert_eq!(change(&flying(), &rewritten), None);
    }

    #[test]
    fn finds_attempts_that_overlap() {
        let mut overlapping = succeeded();
        overlapping.attempts[0].ended.index = LogIndex(21);
        assert!(!task_faults(&overlapping, true).is_empty());
        let mut early = flying();
        early.attempts[0].ended.index = LogIndex(22);
        assert!(!task_faults(&early, false).is_empty());
    }

    #[test]
    fn finds_an_end_before_its_beginning_and_a_task_left_open() {
        let mut backwards = succeeded();
        backwards.attempts[1].ended.index = LogIndex(19);
        assert!(!task_faults(&backwards, true).is_empty());
        assert!(!task_faults(&flying(), true).is_empty());
    }
}
