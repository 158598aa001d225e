//! The rules. Each answers what speaks against it, in words.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Attempt, History, Line, Mark, Run, SubmitOutcome, Task};

/// A rule: everything that breaks it.
type Rule = fn(&History) -> Vec<String>;

/// Every rule that can be broken. Coverage is apart: lacking, it breaks nothing.
pub(super) const ALL: &[Rule] = &[
    attempts_are_disjoint,
    starts_are_authorised,
    successors_wait_for_the_record,
    acknowledged_submits_have_one_run,
    runs_end_within_their_attempts,
    transitions_are_legal,
    work_and_record_agree,
    replicas_agree,
    no_process_is_left,
    nodes_behave_under_faults,
];

/// The states of tasks and runs that never change again.
const FINAL: &[&str] =
    &["succeeded", "failed", "timed_out", "skipped", "upstream_failed", "cancelled", "lost"];

/// The lines of each task, by run and id, in order of time.
fn by_task(history: &History) -> BTreeMap<(&str, &str), Vec<&Line>> {
    let mut tasks: BTreeMap<_, Vec<&Line>> = BTreeMap::new();
    for line in &history.ledger {
        tasks.entry((line.run.as_str(), line.task.as_str())).or_default().push(line);
    }
    for lines in tasks.values_mut() {
        lines.sort_by_key(|line| line.at_us);
    }
    tasks
}

fn run<'a>(history: &'a History, id: &str) -> Option<&'a Run> {
    history.runs.iter().find(|run| run.id == id)
}

fn task<'a>(history: &'a History, id: &str, task: &str) -> Option<&'a Task> {
    run(history, id)?.tasks.get(task)
}

/// J1: all that an attempt wrote lies before all that the next one wrote, and one attempt is
/// one process.
fn attempts_are_disjoint(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    for ((run, task), lines) in by_task(history) {
        let mut spans: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        let mut processes: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for line in lines {
            let span = spans.entry(line.attempt).or_insert((line.at_us, line.at_us));
            *span = (span.0.min(line.at_us), span.1.max(line.at_us));
            if line.mark != Mark::Daemon {
                processes.entry(line.attempt).or_default().insert(line.process);
            }
        }
        for (attempt, several) in processes.iter().filter(|(_, several)| several.len() > 1) {
            broken.push(format!("J1: {run} {task} #{attempt} ran as processes {several:?}"));
        }
        for ((earlier, first), (later, second)) in spans.iter().zip(spans.iter().skip(1)) {
            if first.1 >= second.0 {
                let overlap_ms = (first.1 - second.0) / 1_000;
                broken.push(format!(
                    "J1: {run} {task} #{earlier} and #{later} overlap by {overlap_ms} ms"
                ));
            }
        }
    }
    broken
}

/// J2: an attempt begins once, under a token that a committed assignment gave it, after that
/// was proposed; and tokens grow.
fn starts_are_authorised(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    for ((run, task_id), lines) in by_task(history) {
        let starts: Vec<&Line> =
            lines.into_iter().filter(|line| line.mark == Mark::Began).collect();
        for (earlier, later) in starts.iter().zip(starts.iter().skip(1)) {
            if earlier.token >= later.token {
                broken.push(format!(
                    "J2: {run} {task_id} began under token {} after {}",
                    later.token, earlier.token
                ));
            }
        }
        let Some(task) = task(history, run, task_id) else {
            broken.push(format!("J2: {run} {task_id} began, and no such task is recorded"));
            continue;
        };
        for start in starts {
            broken
                .extend(unauthorised(task, start).map(|why| format!("J2: {run} {task_id} {why}")));
        }
    }
    broken
}

fn unauthorised(task: &Task, start: &Line) -> Option<String> {
    let Line { attempt, token, .. } = start;
    let recorded = |one: &&Attempt| one.number == *attempt;
    match task.attempts.iter().find(recorded) {
        None => Some(format!("#{attempt} began, and was never assigned")),
        Some(found) if found.token != *token => {
            Some(format!("#{attempt} began under token {token}; it was given {}", found.token))
        }
        Some(found) if start.at_us / 1_000 < found.assigned_ms => {
            Some(format!("#{attempt} began before it was assigned"))
        }
        Some(_) => None,
    }
}

/// J3: a task is assigned by an entry behind those by which its predecessors ended, and begins
/// after they wrote their last line.
fn successors_wait_for_the_record(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    let lines = by_task(history);
    for run in &history.runs {
        for (id, task) in run.tasks.iter().filter(|(_, task)| task.waits_for_all) {
            let Some(first) = task.attempts.first() else { continue };
            let began = lines.get(&(run.id.as_str(), id.as_str())).and_then(|lines| lines.first());
            for need in &task.needs {
                let ended = run.tasks.get(need).and_then(|task| task.ended_index);
                if ended.is_none_or(|ended| ended >= first.token) {
                    broken.push(format!(
                        "J3: {} {id} was assigned by entry {} and its predecessor {need} ended by \
                         {ended:?}",
                        run.id, first.token
                    ));
                }
                let wrote = lines.get(&(run.id.as_str(), need.as_str())).and_then(|l| l.last());
                if let (Some(began), Some(wrote)) = (began, wrote)
                    && began.at_us <= wrote.at_us
                {
                    broken.push(format!("J3: {} {id} began while {need} still ran", run.id));
                }
            }
        }
    }
    broken
}

/// J4: an acknowledged submit has exactly the run it was told, an unknown one at most one, a
/// refused one none; and no run comes from nowhere.
fn acknowledged_submits_have_one_run(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    let mut of_submit: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for run in &history.runs {
        of_submit.entry(&run.submit).or_default().push(&run.id);
    }
    for submit in &history.submits {
        let runs = of_submit.remove(submit.name.as_str()).unwrap_or_default();
        let name = &submit.name;
        match &submit.outcome {
            SubmitOutcome::Acknowledged(run) if runs != [run.as_str()] => broken.push(format!(
                "J4: submit {name} was acknowledged as run {run}; the cluster has {runs:?}"
            )),
            SubmitOutcome::Unknown if runs.len() > 1 => {
                broken.push(format!("J4: submit {name} came to {} runs: {runs:?}", runs.len()));
            }
            SubmitOutcome::Refused if !runs.is_empty() => {
                broken.push(format!("J4: submit {name} was refused, and came to {runs:?}"));
            }
            SubmitOutcome::Acknowledged(_) | SubmitOutcome::Unknown | SubmitOutcome::Refused => {}
        }
    }
    let strays = of_submit.iter().map(|(name, runs)| {
        format!("J4: runs {runs:?} come from {name:?}, which nobody submitted")
    });
    broken.extend(strays);
    broken
}

/// J5: every run and every task of it has ended, and no task began more often than its retries
/// and the losses of its workers allow.
fn runs_end_within_their_attempts(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    let lines = by_task(history);
    for run in &history.runs {
        if !FINAL.contains(&run.state.as_str()) {
            broken.push(format!("J5: run {} is still {}", run.id, run.state));
        }
        for (id, task) in &run.tasks {
            if !FINAL.contains(&task.state.as_str()) {
                broken.push(format!("J5: {} {id} is still {}", run.id, task.state));
            }
            // One that was stopped without having been told to was handed back.
            let lost = |attempt: &&Attempt| matches!(attempt.outcome.as_str(), "lost" | "stopped");
            let lost = task.attempts.iter().filter(lost).count();
            let allowed = 1 + task.retries as usize + lost;
            let of_task = lines.get(&(run.id.as_str(), id.as_str())).into_iter().flatten();
            let starts = of_task.filter(|line| line.mark == Mark::Began).count();
            if starts > allowed || task.attempts.len() > allowed {
                broken.push(format!(
                    "J5: {} {id} began {starts} times in {} attempts; {allowed} are allowed",
                    run.id,
                    task.attempts.len()
                ));
            }
        }
    }
    broken
}

/// J6: whoever looks later in the log sees a task as far or further, and attempts are
/// numbered without a gap.
fn transitions_are_legal(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    let mut seen: BTreeMap<(&str, &str), Vec<(u64, Progress<'_>)>> = BTreeMap::new();
    for look in &history.observations {
        match progress(&look.state, look.attempts) {
            Some(progress) => {
                seen.entry((&look.run, &look.task)).or_default().push((look.index, progress));
            }
            None => broken.push(format!(
                "J6: {} {} is {:?} after {} attempts, which cannot be",
                look.run, look.task, look.state, look.attempts
            )),
        }
    }
    for ((run, task), mut looks) in seen {
        looks.sort_unstable();
        for (earlier, later) in looks.iter().zip(looks.iter().skip(1)) {
            let (first, second) = (earlier.1, later.1);
            let went_back = (second.attempts, second.phase) < (first.attempts, first.phase);
            let changed_end = first.phase == ENDED && first != second;
            let same_entry = earlier.0 == later.0 && first != second;
            if went_back || changed_end || same_entry {
                broken.push(format!(
                    "J6: {run} {task} was {} (#{}) at entry {} and {} (#{}) at {}",
                    first.state, first.attempts, earlier.0, second.state, second.attempts, later.0
                ));
            }
        }
    }
    for run in &history.runs {
        for (id, task) in &run.tasks {
            let numbers: Vec<u32> = task.attempts.iter().map(|attempt| attempt.number).collect();
            if !numbers.iter().zip(1..).all(|(number, expected)| *number == expected) {
                broken.push(format!("J6: {} {id} has attempts {numbers:?}", run.id));
            }
        }
    }
    broken
}

/// The last phase of a task; see [`progress`].
const ENDED: u8 = 4;

/// How far a task has come: attempts begun, then how far since the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Progress<'a> {
    attempts: u32,
    phase: u8,
    state: &'a str,
}

fn progress(state: &str, attempts: u32) -> Option<Progress<'_>> {
    let phase = match (state, attempts) {
        ("waiting", 0) => 0,
        ("running", 1..) => 1,
        ("retrying", 1..) => 2,
        ("queued", _) => 3,
        ("succeeded" | "failed" | "timed_out" | "lost" | "cancelled", _)
        | ("skipped" | "upstream_failed", 0) => ENDED,
        _ => return None,
    };
    Some(Progress { attempts, phase, state })
}

/// J8: work that was done is recorded as done, unless its worker was lost before it could say
/// so; and nothing is recorded as done that was not.
fn work_and_record_agree(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    let done: BTreeSet<(&str, &str, u32)> = history
        .ledger
        .iter()
        .filter(|line| line.mark == Mark::Ended)
        .map(|line| (line.run.as_str(), line.task.as_str(), line.attempt))
        .collect();
    for run in &history.runs {
        for (id, task) in &run.tasks {
            for attempt in &task.attempts {
                let did = done.contains(&(run.id.as_str(), id.as_str(), attempt.number));
                let said = attempt.outcome == "succeeded";
                let excused = matches!(attempt.outcome.as_str(), "lost" | "stopped");
                if said && !did || did && !said && !excused {
                    broken.push(format!(
                        "J8: {} {id} #{} is recorded as {:?}; by the ledger it {}",
                        run.id,
                        attempt.number,
                        attempt.outcome,
                        if did { "did its work" } else { "never came to its end" }
                    ));
                }
            }
            let said = task.attempts.iter().filter(|a| a.outcome == "succeeded").count();
            if said > 1 || (said == 1) != (task.state == "succeeded") {
                broken.push(format!(
                    "J8: {} {id} is {} with {said} attempts that succeeded",
                    run.id, task.state
                ));
            }
        }
    }
    broken
}

/// J9: after the same entry, every node has the same state.
fn replicas_agree(history: &History) -> Vec<String> {
    let mut hashes: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for digest in &history.digests {
        hashes.entry(digest.index).or_default().insert(&digest.hash);
    }
    let differing = hashes.iter().filter(|(_, hashes)| hashes.len() > 1);
    differing
        .map(|(index, hashes)| format!("J9: after entry {index} states differ: {hashes:?}"))
        .collect()
}

/// J12: when every run has ended, so has every process.
fn no_process_is_left(history: &History) -> Vec<String> {
    match history.processes_left.as_slice() {
        [] => Vec::new(),
        left => vec![format!("J12: processes {left:?} are still there")],
    }
}

/// Whatever was done to them, nodes stop when their disk fails, and else come back.
fn nodes_behave_under_faults(history: &History) -> Vec<String> {
    history.wrongs.clone()
}

/// J13: what is missing for the test to mean anything.
pub(super) fn coverage(history: &History) -> Vec<String> {
    let lacking = history.coverage.iter().filter(|coverage| coverage.seen < coverage.needed);
    let mut missing: Vec<String> = lacking
        .map(|coverage| {
            format!("J13: {}: {} of {} needed", coverage.what, coverage.seen, coverage.needed)
        })
        .collect();
    let mut nodes: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for digest in &history.digests {
        nodes.entry(digest.index).or_default().insert(digest.node);
    }
    let compared = nodes.values().map(BTreeSet::len).max().unwrap_or(0);
    if compared < history.nodes {
        missing.push(format!(
            "J13: no entry after which all {} nodes gave their hash; {compared} did",
            history.nodes
        ));
    }
    missing
}
