//! What the ends of its predecessors mean for a task, and a failure for its run.
//!
//! Asked again by the invariants, so all of it is a function of the definition and of the
//! tasks as they are.

use crate::workflow::{Definition, Graph, TaskDefinition, TriggerRule};
use crate::{Run, Tally, Task, TaskEnd};

/// What the end of a task counts as, for one that needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edge {
    /// It did its work.
    Succeeded,
    /// It did not.
    Failed,
    /// Nobody asked it to.
    Skipped,
    /// It was a switch, and chose others.
    Untaken,
}

/// What a task counts as for one that needs it; `None` while it has not ended.
pub(crate) fn edge(definition: &Definition, run: &Run, before: u32, after: u32) -> Option<Edge> {
    let task = run.tasks.get(before as usize)?;
    let said = definition.tasks.get(before as usize)?;
    Some(match task.end()? {
        TaskEnd::Succeeded if leaves_out(said, task, after) => Edge::Untaken,
        TaskEnd::Succeeded | TaskEnd::Disabled => Edge::Succeeded,
        TaskEnd::Failed | TaskEnd::TimedOut | TaskEnd::Lost if said.continue_on_failure => {
            Edge::Succeeded
        }
        TaskEnd::Failed | TaskEnd::TimedOut | TaskEnd::Lost | TaskEnd::UpstreamFailed => {
            Edge::Failed
        }
        // Only a run that is ending cancels tasks, and in it nothing becomes ready.
        TaskEnd::Skipped | TaskEnd::Cancelled => Edge::Skipped,
    })
}

fn leaves_out(said: &TaskDefinition, task: &Task, after: u32) -> bool {
    let choice = said.action.switch().zip(task.branch);
    choice.is_some_and(|(switch, arm)| switch.leaves_out(arm, after))
}

/// Whether the failure of a task is provided for, so that it does not fail the run: the task
/// says so itself, or it has successors and each of them asks for failures.
pub(crate) fn is_handled(definition: &Definition, graph: &Graph, task: u32, end: TaskEnd) -> bool {
    let Some(said) = definition.tasks.get(task as usize) else { return false };
    if said.hook.is_some() {
        return true;
    }
    let by_itself = matches!(end, TaskEnd::Failed | TaskEnd::TimedOut | TaskEnd::Lost);
    if by_itself && said.continue_on_failure {
        return true;
    }
    let after = graph.successors(task as usize);
    let asks = |&after: &u32| {
        definition.tasks.get(after as usize).is_some_and(|after| asks_for_failure(after, task))
    };
    !after.is_empty() && after.iter().all(asks)
}

/// Whether a task is there for the failure of one that it needs. A rule that merely lets it
/// begin after a failure is not enough: that is how one cleans up.
fn asks_for_failure(after: &TaskDefinition, before: u32) -> bool {
    match after.trigger_rule {
        _ if after.disabled => false,
        TriggerRule::OneFailed | TriggerRule::AllFailed => true,
        TriggerRule::AllDone | TriggerRule::Always => after.judges.binary_search(&before).is_ok(),
        TriggerRule::AllSuccess
        | TriggerRule::OneSuccess
        | TriggerRule::NoneFailed
        | TriggerRule::NoneFailedMinOneSuccess => false,
    }
}

/// What a trigger rule says of the predecessors so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Wait,
    Ready,
    Never(TaskEnd),
}

/// Judges a task by its rule.
pub(crate) fn judge(task: &TaskDefinition, tally: Tally) -> Judgement {
    let needs = u32::try_from(task.needs.len()).unwrap_or(u32::MAX);
    judge_rule(task.trigger_rule, tally, needs)
}

/// The result does not depend on the order in which the predecessors ended: what is decided
/// early holds however the rest ends.
fn judge_rule(rule: TriggerRule, tally: Tally, needs: u32) -> Judgement {
    let any_failed = tally.failed > 0;
    let early = match rule {
        TriggerRule::Always => Some(Judgement::Ready),
        TriggerRule::AllSuccess
        | TriggerRule::NoneFailed
        | TriggerRule::NoneFailedMinOneSuccess
            if any_failed =>
        {
            Some(Judgement::Never(TaskEnd::UpstreamFailed))
        }
        TriggerRule::OneSuccess if tally.succeeded > 0 => Some(Judgement::Ready),
        TriggerRule::OneFailed if any_failed => Some(Judgement::Ready),
        TriggerRule::AllFailed if tally.ended() > tally.failed => {
            Some(Judgement::Never(TaskEnd::Skipped))
        }
        TriggerRule::AllSuccess
        | TriggerRule::AllDone
        | TriggerRule::OneSuccess
        | TriggerRule::OneFailed
        | TriggerRule::AllFailed
        | TriggerRule::NoneFailed
        | TriggerRule::NoneFailedMinOneSuccess => None,
    };
    let late = || if tally.ended() < needs { Judgement::Wait } else { judge_late(rule, tally) };
    early.unwrap_or_else(late)
}

/// Judges a task whose predecessors have all ended, and did not decide it before.
fn judge_late(rule: TriggerRule, tally: Tally) -> Judgement {
    // Without predecessors there is nothing to ask for: such a task just starts.
    if tally.ended() == 0 {
        return Judgement::Ready;
    }
    // A switch chose others, and nothing else came to it: no rule brings it back.
    if tally.untaken > 0 && tally.succeeded + tally.failed == 0 {
        return Judgement::Never(TaskEnd::Skipped);
    }
    match rule {
        TriggerRule::OneSuccess if tally.failed > 0 => Judgement::Never(TaskEnd::UpstreamFailed),
        TriggerRule::OneSuccess | TriggerRule::OneFailed => Judgement::Never(TaskEnd::Skipped),
        TriggerRule::AllSuccess if tally.skipped > 0 => Judgement::Never(TaskEnd::Skipped),
        TriggerRule::NoneFailedMinOneSuccess if tally.succeeded == 0 => {
            Judgement::Never(TaskEnd::Skipped)
        }
        TriggerRule::AllSuccess
        | TriggerRule::AllDone
        | TriggerRule::AllFailed
        | TriggerRule::NoneFailed
        | TriggerRule::NoneFailedMinOneSuccess
        | TriggerRule::Always => Judgement::Ready,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [TriggerRule; 8] = [
        TriggerRule::AllSuccess,
        TriggerRule::AllDone,
        TriggerRule::OneSuccess,
        TriggerRule::OneFailed,
        TriggerRule::AllFailed,
        TriggerRule::NoneFailed,
        TriggerRule::NoneFailedMinOneSuccess,
        TriggerRule::Always,
    ];

    const ENDS: [Edge; 4] = [Edge::Succeeded, Edge::Failed, Edge::Skipped, Edge::Untaken];

    /// What a rule makes of four predecessors that end one after another; it is asked after
    /// each, and its first answer counts.
    fn decided(rule: TriggerRule, ends: &[Edge]) -> Judgement {
        let mut tally = Tally::default();
        for &end in ends {
            tally.count(end);
            let verdict = judge_rule(rule, tally, 4);
            if verdict != Judgement::Wait {
                return verdict;
            }
        }
        Judgement::Wait
    }

    #[test]
    fn no_rule_depends_on_the_order_of_ends() {
        for rule in RULES {
            for code in 0..256_usize {
                let ends = [code % 4, code / 4 % 4, code / 16 % 4, code / 64].map(|at| ENDS[at]);
                let mut sorted = ends;
                sorted.sort_unstable();
                let verdict = decided(rule, &ends);
                assert_eq!(verdict, decided(rule, &sorted), "{rule:?} of {ends:?}");
                assert_ne!(verdict, Judgement::Wait, "{rule:?} of {ends:?} is never decided");
            }
        }
    }

    #[test]
    fn every_rule_starts_a_task_that_needs_nothing() {
        for rule in RULES {
            assert_eq!(judge_rule(rule, Tally::default(), 0), Judgement::Ready, "{rule:?}");
        }
    }

    #[test]
    fn what_a_switch_left_out_is_skipped_unless_something_else_came() {
        let untaken = Tally { skipped: 1, untaken: 1, ..Tally::default() };
        for rule in RULES.into_iter().filter(|&rule| rule != TriggerRule::Always) {
            let skipped = Judgement::Never(TaskEnd::Skipped);
            assert_eq!(judge_rule(rule, untaken, 1), skipped, "{rule:?}");
        }
        let joined = Tally { succeeded: 1, ..untaken };
        assert_eq!(judge_rule(TriggerRule::NoneFailed, joined, 2), Judgement::Ready);
        assert_eq!(
            judge_rule(TriggerRule::AllSuccess, joined, 2),
            Judgement::Never(TaskEnd::Skipped)
        );
    }
}
