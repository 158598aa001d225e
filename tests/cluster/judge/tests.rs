//! Histories that each break one rule, and must be found out; and the good one they start from.

use super::*;

/// Two tasks, the second after the first, which needed two attempts; seen by three nodes.
fn good() -> History {
    let mut ledger = Vec::new();
    ledger.extend(attempt_lines("first", 1, 10, 1_000, &[Mark::Began, Mark::Beat]));
    ledger.extend(attempt_lines("first", 2, 20, 5_000, &[Mark::Began, Mark::Beat, Mark::Ended]));
    ledger.extend(attempt_lines("second", 1, 30, 9_000, &[Mark::Began, Mark::Ended]));
    let first = Task {
        state: "succeeded".to_owned(),
        waits_for_all: true,
        ended_index: Some(25),
        attempts: vec![recorded(1, 10, 1, "lost"), recorded(2, 20, 5, "succeeded")],
        ..Task::default()
    };
    let second = Task {
        needs: vec!["first".to_owned()],
        state: "succeeded".to_owned(),
        waits_for_all: true,
        ended_index: Some(35),
        attempts: vec![recorded(1, 30, 9, "succeeded")],
        ..Task::default()
    };
    let tasks = [("first".to_owned(), first), ("second".to_owned(), second)];
    let run = Run {
        id: "r1".to_owned(),
        submit: "s1".to_owned(),
        state: "succeeded".to_owned(),
        tasks: tasks.into(),
    };
    let acknowledged = SubmitOutcome::Acknowledged("r1".to_owned());
    let observations = [
        (5, "second", "waiting", 0),
        (12, "first", "running", 1),
        (15, "first", "queued", 1),
        (22, "first", "running", 2),
        (26, "first", "succeeded", 2),
    ];
    History {
        ledger,
        runs: vec![run],
        submits: vec![
            Submit { name: "s1".to_owned(), outcome: acknowledged },
            Submit { name: "s2".to_owned(), outcome: SubmitOutcome::Unknown },
            Submit { name: "s3".to_owned(), outcome: SubmitOutcome::Refused },
        ],
        observations: observations.map(|(i, t, s, a)| observed(i, t, s, a)).into(),
        digests: (1..=3).map(|node| digest(node, 40, "aa")).collect(),
        nodes: 3,
        processes_left: Vec::new(),
        wrongs: Vec::new(),
        coverage: vec![Coverage { what: "leader changes".to_owned(), seen: 3, needed: 3 }],
    }
}

fn attempt_lines(task: &str, attempt: u32, token: u64, at_us: u64, marks: &[Mark]) -> Vec<Line> {
    let times = (at_us..).step_by(1_000);
    let line = |(mark, at_us): (&Mark, u64)| Line {
        mark: *mark,
        at_us,
        run: "r1".to_owned(),
        task: task.to_owned(),
        attempt,
        token,
        process: 100 + u32::try_from(token).expect("it is small"),
    };
    marks.iter().zip(times).map(line).collect()
}

fn recorded(number: u32, token: u64, assigned_ms: u64, outcome: &str) -> Attempt {
    Attempt {
        number,
        token,
        assigned_ms,
        ended_index: Some(token + 5),
        outcome: outcome.to_owned(),
    }
}

fn observed(index: u64, task: &str, state: &str, attempts: u32) -> Observation {
    Observation {
        index,
        run: "r1".to_owned(),
        task: task.to_owned(),
        state: state.to_owned(),
        attempts,
    }
}

fn digest(node: u64, index: u64, hash: &str) -> Digest {
    Digest { node, index, hash: hash.to_owned() }
}

fn task_mut<'a>(history: &'a mut History, task: &str) -> &'a mut Task {
    history.runs[0].tasks.get_mut(task).expect("the history has it")
}

/// Spoils the good history; the judge must find that, and name the rule.
#[track_caller]
fn broken(rule: &str, spoil: impl FnOnce(&mut History)) {
    let mut history = good();
    spoil(&mut history);
    match judge(&history) {
        Verdict::Fail(reasons) => {
            assert!(reasons.iter().any(|reason| reason.starts_with(rule)), "{rule}: {reasons:?}");
        }
        verdict @ (Verdict::Pass | Verdict::Unknown(_)) => panic!("{rule} went through: {verdict}"),
    }
}

#[track_caller]
fn unknown(spoil: impl FnOnce(&mut History)) {
    let mut history = good();
    spoil(&mut history);
    let verdict = judge(&history);
    assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict}");
}

#[track_caller]
fn allowed(change: impl FnOnce(&mut History)) {
    let mut history = good();
    change(&mut history);
    assert_eq!(judge(&history), Verdict::Pass);
}

#[test]
fn passes_a_history_in_which_nothing_is_wrong() {
    allowed(|_| {});
}

#[test]
fn finds_an_attempt_that_outlives_its_lease() {
    broken("J1", |h| h.ledger[1].at_us = 6_500);
}

#[test]
fn finds_an_overlap_of_a_single_instant() {
    broken("J1", |h| h.ledger[1].at_us = 5_000);
}

#[test]
fn finds_a_beat_that_was_written_late() {
    broken("J1", |h| {
        let mut late = h.ledger[1].clone();
        late.at_us = 8_999;
        h.ledger.push(late);
    });
}

#[test]
fn finds_one_attempt_run_by_two_processes() {
    broken("J1", |h| h.ledger[3].process += 1);
}

#[test]
fn finds_a_second_start_of_one_attempt() {
    broken("J2", |h| {
        let again = h.ledger[2].clone();
        h.ledger.push(Line { at_us: again.at_us + 100, ..again });
    });
}

#[test]
fn finds_a_token_that_does_not_grow() {
    broken("J2", |h| {
        h.ledger.iter_mut().filter(|line| line.attempt == 2).for_each(|line| line.token = 9);
        task_mut(h, "first").attempts[1].token = 9;
    });
}

#[test]
fn finds_a_start_that_was_never_committed() {
    broken("J2", |h| {
        task_mut(h, "first").attempts.pop();
    });
}

#[test]
fn finds_a_start_under_a_token_of_its_own() {
    broken("J2", |h| h.ledger[5].token = 31);
}

#[test]
fn finds_a_start_before_the_assignment() {
    broken("J2", |h| task_mut(h, "second").attempts[0].assigned_ms = 10);
}

#[test]
fn finds_a_start_in_a_run_that_is_not_recorded() {
    broken("J2", |h| h.ledger[0].run = "r9".to_owned());
}

#[test]
fn finds_a_start_of_a_task_that_the_run_does_not_have() {
    broken("J2", |h| h.ledger[0].task = "third".to_owned());
}

#[test]
fn finds_a_successor_assigned_before_its_predecessor_ended() {
    broken("J3", |h| task_mut(h, "first").ended_index = Some(31));
}

#[test]
fn finds_a_successor_assigned_by_the_very_entry_that_ended_its_predecessor() {
    broken("J3", |h| task_mut(h, "first").ended_index = Some(30));
}

#[test]
fn finds_a_successor_of_a_task_that_never_ended() {
    broken("J3", |h| task_mut(h, "first").ended_index = None);
}

#[test]
fn finds_a_successor_that_began_while_its_predecessor_still_wrote() {
    broken("J3", |h| h.ledger[4].at_us = 9_500);
}

#[test]
fn lets_a_rule_that_does_not_wait_begin_early() {
    allowed(|h| {
        task_mut(h, "second").waits_for_all = false;
        task_mut(h, "first").ended_index = Some(31);
    });
}

#[test]
fn finds_an_acknowledged_run_that_is_gone() {
    broken("J4", |h| {
        h.runs.clear();
        h.ledger.clear();
        h.observations.clear();
    });
}

#[test]
fn finds_two_runs_of_one_submit() {
    broken("J4", |h| {
        h.runs.push(Run { id: "r2".to_owned(), tasks: [].into(), ..h.runs[0].clone() })
    });
}

#[test]
fn finds_two_runs_of_an_unknown_submit() {
    broken("J4", |h| {
        for id in ["r2", "r3"] {
            let (id, submit) = (id.to_owned(), "s2".to_owned());
            h.runs.push(Run { id, submit, state: "succeeded".to_owned(), tasks: [].into() });
        }
    });
}

#[test]
fn lets_an_unknown_submit_come_to_one_run() {
    allowed(|h| {
        let (id, submit) = ("r2".to_owned(), "s2".to_owned());
        h.runs.push(Run { id, submit, state: "succeeded".to_owned(), tasks: [].into() });
    });
}

#[test]
fn finds_a_run_of_a_refused_submit() {
    broken("J4", |h| {
        h.runs.push(Run {
            id: "r2".to_owned(),
            submit: "s3".to_owned(),
            state: "succeeded".to_owned(),
            tasks: [].into(),
        });
    });
}

#[test]
fn finds_a_run_that_nobody_submitted() {
    broken("J4", |h| {
        h.runs.push(Run {
            id: "r2".to_owned(),
            submit: "s4".to_owned(),
            state: "succeeded".to_owned(),
            tasks: [].into(),
        });
    });
}

#[test]
fn finds_a_run_that_never_ends() {
    broken("J5", |h| h.runs[0].state = "running".to_owned());
}

#[test]
fn finds_a_task_that_is_stuck_in_a_run_that_ended() {
    broken("J5", |h| task_mut(h, "second").state = "queued".to_owned());
}

#[test]
fn finds_a_task_that_began_more_often_than_its_retries_allow() {
    broken("J5", |h| task_mut(h, "first").attempts[0].outcome = "failed".to_owned());
}

#[test]
fn lets_a_failed_attempt_be_retried_within_the_limit() {
    allowed(|h| {
        let first = task_mut(h, "first");
        first.attempts[0].outcome = "failed".to_owned();
        first.retries = 1;
    });
}

#[test]
fn finds_a_task_that_came_back_from_its_end() {
    broken("J6", |h| h.observations.push(observed(50, "first", "running", 3)));
}

#[test]
fn finds_an_end_that_changed() {
    broken("J6", |h| h.observations.push(observed(50, "first", "failed", 2)));
}

#[test]
fn finds_a_transition_that_went_back() {
    broken("J6", |h| h.observations.push(observed(23, "first", "queued", 1)));
}

#[test]
fn finds_nodes_that_differ_on_one_entry() {
    broken("J6", |h| h.observations.push(observed(22, "first", "retrying", 2)));
}

#[test]
fn finds_a_state_that_cannot_be() {
    broken("J6", |h| h.observations.push(observed(30, "second", "running", 0)));
}

#[test]
fn finds_attempts_with_a_gap() {
    broken("J6", |h| {
        task_mut(h, "first").attempts.remove(0);
        h.ledger.drain(..2);
    });
}

#[test]
fn finds_work_recorded_as_failed() {
    broken("J8", |h| task_mut(h, "second").attempts[0].outcome = "failed".to_owned());
}

#[test]
fn finds_a_success_that_never_did_its_work() {
    broken("J8", |h| {
        h.ledger.pop();
    });
}

#[test]
fn finds_a_task_that_succeeded_twice() {
    broken("J8", |h| {
        task_mut(h, "first").attempts[0].outcome = "succeeded".to_owned();
        h.ledger[1].mark = Mark::Ended;
    });
}

#[test]
fn lets_a_worker_be_lost_between_the_work_and_its_report() {
    allowed(|h| h.ledger[1].mark = Mark::Ended);
}

#[test]
fn finds_replicas_that_differ() {
    broken("J9", |h| h.digests[1].hash = "bb".to_owned());
}

#[test]
fn finds_a_process_that_is_left() {
    broken("J12", |h| h.processes_left.push(4_711));
}

#[test]
fn finds_a_node_that_lives_on_after_its_disk_has_failed() {
    broken("I16", |h| h.wrongs.push("I16: node1 lived on after a sync had failed".to_owned()));
}

#[test]
fn does_not_know_without_coverage() {
    unknown(|h| h.coverage[0].seen = 2);
}

#[test]
fn does_not_know_where_a_node_gave_no_hash() {
    unknown(|h| {
        h.digests.pop();
    });
}

#[test]
fn does_not_know_where_hashes_are_of_different_entries() {
    unknown(|h| h.digests[2].index = 41);
}

#[test]
fn a_broken_rule_outweighs_a_lack_of_coverage() {
    broken("J12", |h| {
        h.coverage[0].seen = 0;
        h.processes_left.push(4_711);
    });
}
