//! The verdict: a pure function of what the cluster recorded and what the tasks wrote down.

use std::collections::{BTreeMap, BTreeSet};

use quorate_model::UnixMs;

use super::ledger::{Key, Line, Mark};

/// All that is known at the end of the demo.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// How the run ended, in the words of the API.
    pub(super) run_state: String,
    /// Its tasks, as a surviving node has them.
    pub(super) tasks: Vec<TaskRecord>,
    /// Whether every surviving node has the same.
    pub(super) nodes_agree: bool,
    /// What the tasks wrote.
    pub(super) ledger: Vec<Line>,
}

/// What the log says of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TaskRecord {
    /// Its id in the workflow.
    pub(super) id: String,
    /// Which tasks it had to wait for.
    pub(super) needs: Vec<String>,
    /// How it ended.
    pub(super) state: String,
    /// The entry by which it ended for good.
    pub(super) ended_index: Option<u64>,
    /// Its tries, oldest first.
    pub(super) attempts: Vec<AttemptRecord>,
}

/// What the log says of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AttemptRecord {
    /// From 1.
    pub(super) attempt: u32,
    /// The name of the worker that had it.
    pub(super) worker: String,
    /// The entry that assigned it.
    pub(super) assigned_index: u64,
    /// When that was, by the leader's clock.
    pub(super) assigned_at: UnixMs,
    /// The entry that recorded its end.
    pub(super) ended_index: Option<u64>,
    /// How it ended, in the words of the API.
    pub(super) outcome: String,
}

impl Evidence {
    /// The attempts that lost their worker, which is named with each.
    pub(super) fn lost(&self) -> impl Iterator<Item = (Key, &str)> {
        self.tasks.iter().flat_map(|task| {
            let lost = task.attempts.iter().filter(|attempt| attempt.outcome == LOST);
            lost.map(|attempt| {
                let key = Key { task: task.id.clone(), attempt: attempt.attempt };
                (key, attempt.worker.as_str())
            })
        })
    }
}

impl Evidence {
    /// When the first attempt that was assigned after `then` began, by the ledger.
    pub(super) fn began_after(&self, then: UnixMs) -> Option<u128> {
        let attempts = self.tasks.iter().flat_map(|task| {
            let later = task.attempts.iter().filter(move |attempt| attempt.assigned_at > then);
            later.map(|attempt| Key { task: task.id.clone(), attempt: attempt.attempt })
        });
        let keys: BTreeSet<Key> = attempts.collect();
        let began = self.ledger.iter().filter(|line| line.mark == Mark::Began);
        began.filter(|line| keys.contains(&line.key)).map(|line| line.at_ns).min()
    }
}

/// What the API calls an attempt whose worker was lost.
const LOST: &str = "lost";

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// In words, with its numbers.
    pub(super) claim: String,
    /// What speaks against it. Empty if it holds.
    pub(super) against: Vec<String>,
}

impl Finding {
    /// Whether nothing speaks against it.
    pub(super) fn holds(&self) -> bool {
        self.against.is_empty()
    }
}

/// Judges the evidence. The demo has succeeded if every finding holds.
pub(super) fn judge(evidence: &Evidence) -> Vec<Finding> {
    let ledger = Ledger::of(&evidence.ledger);
    vec![
        nothing_lost(evidence),
        nodes_agree(evidence),
        attempts_in_order(evidence),
        successors_after_commit(evidence),
        started_once(evidence, &ledger),
        disjoint(evidence, &ledger),
        work_done(evidence, &ledger),
        successors_after_work(evidence, &ledger),
    ]
}

/// The ledger by attempt: when it began and when it ended, each as often as it was written.
struct Ledger<'a> {
    marks: BTreeMap<&'a Key, (Vec<u128>, Vec<u128>)>,
}

impl<'a> Ledger<'a> {
    fn of(lines: &'a [Line]) -> Self {
        let mut marks: BTreeMap<&Key, (Vec<u128>, Vec<u128>)> = BTreeMap::new();
        for line in lines {
            let (began, ended) = marks.entry(&line.key).or_default();
            match line.mark {
                Mark::Began => began.push(line.at_ns),
                Mark::Ended => ended.push(line.at_ns),
            }
        }
        Self { marks }
    }

    /// The attempts of `task` that wrote anything: their first and last word.
    fn attempts(&self, task: &str) -> impl Iterator<Item = (&Key, u128, u128)> {
        let of_task = move |(key, (began, ended)): (&&'a Key, &(Vec<u128>, Vec<u128>))| {
            let all = || began.iter().chain(ended).copied();
            Some((*key, all().min()?, all().max()?)).filter(|_| key.task == task)
        };
        self.marks.iter().filter_map(of_task)
    }

    fn began(&self, task: &str) -> Option<u128> {
        self.attempts(task).map(|(_, first, _)| first).min()
    }

    /// When the work of `task` was through: of its successful attempt, the last.
    fn ended(&self, task: &str) -> Option<u128> {
        let of_task = self.marks.iter().filter(|(key, _)| key.task == task);
        of_task.filter_map(|(_, (_, ended))| ended.iter().copied().max()).max()
    }
}

fn nothing_lost(evidence: &Evidence) -> Finding {
    let mut against = Vec::new();
    if evidence.run_state != "succeeded" {
        against.push(format!("the run is {}", evidence.run_state));
    }
    let open = evidence.tasks.iter().filter(|task| task.state != "succeeded");
    against.extend(open.map(|task| format!("{} is {}", task.id, task.state)));
    if evidence.tasks.is_empty() {
        against.push("the run has no tasks".to_owned());
    }
    let claim = format!("nothing lost: all {} tasks succeeded", evidence.tasks.len());
    Finding { claim, against }
}

fn nodes_agree(evidence: &Evidence) -> Finding {
    let differ = || "they do not".to_owned();
    Finding {
        claim: "the surviving nodes tell the same history, entry by entry".to_owned(),
        against: if evidence.nodes_agree { Vec::new() } else { vec![differ()] },
    }
}

fn attempts_in_order(evidence: &Evidence) -> Finding {
    let mut against = Vec::new();
    for task in &evidence.tasks {
        for (place, attempt) in (1..).zip(&task.attempts) {
            let key = format!("{} #{}", task.id, attempt.attempt);
            if attempt.attempt != place {
                against.push(format!("{key} stands in place {place}"));
            }
            if attempt.ended_index.is_none_or(|ended| ended <= attempt.assigned_index) {
                against.push(format!("{key} has no end after its assignment"));
            }
        }
        for pair in task.attempts.windows(2) {
            if pair[0].ended_index.is_none_or(|ended| ended > pair[1].assigned_index) {
                against.push(format!("{} #{} was assigned too early", task.id, pair[1].attempt));
            }
            if pair[0].outcome == "succeeded" {
                against.push(format!("{} was tried again after a success", task.id));
            }
        }
    }
    let attempts: usize = evidence.tasks.iter().map(|task| task.attempts.len()).sum();
    let claim = format!("{attempts} attempts in the log, each assigned once and ended once");
    Finding { claim, against }
}

fn successors_after_commit(evidence: &Evidence) -> Finding {
    let ended: BTreeMap<&str, Option<u64>> =
        evidence.tasks.iter().map(|task| (task.id.as_str(), task.ended_index)).collect();
    let mut against = Vec::new();
    let mut edges = 0;
    for task in &evidence.tasks {
        let Some(first) = task.attempts.first() else { continue };
        for need in &task.needs {
            edges += 1;
            let before = ended.get(need.as_str()).copied().flatten();
            if before.is_none_or(|before| before >= first.assigned_index) {
                against.push(format!("{} was assigned before {need} had ended", task.id));
            }
        }
    }
    let claim = format!("{edges} edges: no task assigned before its predecessors had ended");
    Finding { claim, against }
}

fn started_once(evidence: &Evidence, ledger: &Ledger<'_>) -> Finding {
    let mut against = Vec::new();
    for (key, (began, ended)) in &ledger.marks {
        let recorded = evidence.tasks.iter().any(|task| {
            task.id == key.task && task.attempts.iter().any(|a| a.attempt == key.attempt)
        });
        if !recorded {
            against.push(format!("{key} ran and is not in the log"));
        }
        if began.len() != 1 {
            against.push(format!("{key} began {} times", began.len()));
        }
        if ended.len() > 1 {
            against.push(format!("{key} ended {} times", ended.len()));
        }
    }
    let claim = format!("{} attempts in the ledger, each started exactly once", ledger.marks.len());
    Finding { claim, against }
}

fn disjoint(evidence: &Evidence, ledger: &Ledger<'_>) -> Finding {
    let mut against = Vec::new();
    for task in &evidence.tasks {
        let spans: Vec<_> = ledger.attempts(&task.id).collect();
        for pair in spans.windows(2) {
            let ((earlier, _, last), (later, first, _)) = (pair[0], pair[1]);
            if first < last {
                against.push(format!("{later} began before {earlier} had ended"));
            }
        }
    }
    let claim = "attempts of one task never overlap".to_owned();
    Finding { claim, against }
}

fn work_done(evidence: &Evidence, ledger: &Ledger<'_>) -> Finding {
    let mut against = Vec::new();
    for task in &evidence.tasks {
        for attempt in &task.attempts {
            let key = Key { task: task.id.clone(), attempt: attempt.attempt };
            let ended = ledger.marks.get(&key).is_some_and(|(_, ended)| !ended.is_empty());
            if attempt.outcome == "succeeded" && !ended {
                against.push(format!("{key} succeeded by the log, not by the ledger"));
            }
        }
    }
    let claim = "every success in the log is work done in the ledger".to_owned();
    Finding { claim, against }
}

fn successors_after_work(evidence: &Evidence, ledger: &Ledger<'_>) -> Finding {
    let mut against = Vec::new();
    for task in &evidence.tasks {
        let Some(began) = ledger.began(&task.id) else { continue };
        for need in &task.needs {
            if ledger.ended(need).is_none_or(|ended| ended > began) {
                against.push(format!("{} began before {need} was through", task.id));
            }
        }
    }
    let claim = "no task began before the work of its predecessors was through".to_owned();
    Finding { claim, against }
}

#[cfg(test)]
mod tests {
    use super::super::ledger;
    use super::*;

    /// `read`, then `count` that needs it: once on a node that was killed, once more after.
    fn good() -> Evidence {
        let attempt = |attempt, assigned_index, ended_index, outcome: &str| AttemptRecord {
            attempt,
            worker: "node-1".to_owned(),
            assigned_index,
            assigned_at: UnixMs(0),
            ended_index: Some(ended_index),
            outcome: outcome.to_owned(),
        };
        let text = "\
            100 read 1 began\n\
            200 read 1 ended\n\
            300 count 1 began\n\
            900 count 2 began\n\
            950 count 2 ended\n";
        Evidence {
            run_state: "succeeded".to_owned(),
            tasks: vec![
                TaskRecord {
                    id: "read".to_owned(),
                    needs: vec![],
                    state: "succeeded".to_owned(),
                    ended_index: Some(12),
                    attempts: vec![attempt(1, 11, 12, "succeeded")],
                },
                TaskRecord {
                    id: "count".to_owned(),
                    needs: vec!["read".to_owned()],
                    state: "succeeded".to_owned(),
                    ended_index: Some(25),
                    attempts: vec![attempt(1, 13, 20, "lost"), attempt(2, 21, 25, "succeeded")],
                },
            ],
            nodes_agree: true,
            ledger: ledger::parse(text).unwrap(),
        }
    }

    /// What speaks against the good history once it is spoiled.
    fn spoiled(spoil: impl FnOnce(&mut Evidence)) -> Vec<String> {
        let mut evidence = good();
        spoil(&mut evidence);
        judge(&evidence).into_iter().flat_map(|finding| finding.against).collect()
    }

    fn spoiled_ledger(text: &str) -> Vec<String> {
        spoiled(|evidence| evidence.ledger = ledger::parse(text).unwrap())
    }

    #[test]
    fn a_good_history_holds() {
        let findings = judge(&good());
        assert!(findings.iter().all(Finding::holds), "{findings:#?}");
        assert_eq!(findings[2].claim, "3 attempts in the log, each assigned once and ended once");
    }

    #[test]
    fn a_lost_task_is_found() {
        assert_eq!(
            spoiled(|evidence| {
                evidence.run_state = "failed".to_owned();
                evidence.tasks[1].state = "lost".to_owned();
            }),
            ["the run is failed", "count is lost"]
        );
    }

    #[test]
    fn a_run_without_tasks_proves_nothing() {
        let against = spoiled(|evidence| evidence.tasks.clear());
        assert!(against.contains(&"the run has no tasks".to_owned()));
    }

    #[test]
    fn nodes_that_differ_are_found() {
        assert_eq!(spoiled(|evidence| evidence.nodes_agree = false), ["they do not"]);
    }

    #[test]
    fn an_attempt_that_started_twice_is_found() {
        let against = spoiled_ledger(
            "100 read 1 began\n110 read 1 began\n200 read 1 ended\n300 count 2 began\n400 count 2 ended",
        );
        assert_eq!(against, ["read #1 began 2 times"]);
    }

    #[test]
    fn an_attempt_unknown_to_the_log_is_found() {
        let against = spoiled(|evidence| {
            let stray = ledger::parse("960 count 3 began").unwrap();
            evidence.ledger.extend(stray);
        });
        assert_eq!(against, ["count #3 ran and is not in the log"]);
    }

    #[test]
    fn attempts_that_overlap_are_found() {
        let against = spoiled_ledger(
            "100 read 1 began\n200 read 1 ended\n\
             300 count 1 began\n900 count 2 began\n910 count 1 ended\n950 count 2 ended",
        );
        assert_eq!(against, ["count #2 began before count #1 had ended"]);
    }

    #[test]
    fn a_success_without_work_is_found() {
        let against = spoiled_ledger("100 read 1 began\n200 read 1 ended\n300 count 1 began");
        assert_eq!(against, ["count #2 succeeded by the log, not by the ledger"]);
    }

    #[test]
    fn a_successor_that_began_too_early_is_found_in_the_ledger() {
        let against = spoiled_ledger(
            "100 read 1 began\n400 read 1 ended\n300 count 1 began\n900 count 2 began\n950 count 2 ended",
        );
        assert_eq!(against, ["count began before read was through"]);
    }

    #[test]
    fn a_successor_that_was_assigned_too_early_is_found_in_the_log() {
        let against = spoiled(|evidence| evidence.tasks[1].attempts[0].assigned_index = 12);
        assert_eq!(against, ["count was assigned before read had ended"]);
    }

    #[test]
    fn attempts_out_of_order_are_found() {
        assert_eq!(
            spoiled(|evidence| evidence.tasks[1].attempts[1].assigned_index = 19),
            ["count #2 was assigned too early"]
        );
        assert_eq!(
            spoiled(|evidence| evidence.tasks[1].attempts[1].ended_index = None),
            ["count #2 has no end after its assignment"]
        );
        let twice =
            spoiled(|evidence| evidence.tasks[1].attempts[0].outcome = "succeeded".to_owned());
        assert!(twice.contains(&"count was tried again after a success".to_owned()));
    }

    #[test]
    fn a_missing_attempt_is_found() {
        let against = spoiled(|evidence| {
            evidence.tasks[1].attempts.remove(0);
        });
        assert_eq!(against, ["count #2 stands in place 1", "count #1 ran and is not in the log"]);
    }

    #[test]
    fn an_unreadable_line_is_refused() {
        for line in
            ["x read 1 began", "1 read 1", "1 read 1 slept", "1 read one began", "1 a 1 began x"]
        {
            let error = ledger::parse(&format!("1 a 1 began\n{line}")).unwrap_err();
            assert!(error.starts_with("line 2 of the ledger is unreadable"), "{error}");
        }
    }
}
