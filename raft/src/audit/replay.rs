//! One entry after the other, and what each did to the runs that it touched.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use quorate_model::{
    Answer, Applied, Command, Entry, Event, LogIndex, Reply, Run, RunId, State, Task,
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
            let after = self.state.runs().get(&id).or(retired.map(|retired| &retired.run)).cloned();
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
        .find(|record| !is.attempts.contains(record));
    if let Some(record) = rewritten {
        return Some(format!("what was recorded of {} has changed", record.attempt));
    }
    let flight = was.flight()?;
    let same = is.flight().is_some_and(|now| (now.attempt, now.token) == (flight.attempt, flight.token));
    let ended = is.attempts.iter().filter(|record| record.token == flight.token).count();
    (usize::from(same) + ended != 1).then(|| {
        format!("{} was in flight, and has {ended} ends while {} flies", flight.attempt, is.status)
    })
}
