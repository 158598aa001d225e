//! What a run comes to, worked out from the description of the rules and nothing else.

use quorate_model::TaskEnd;

/// When a task starts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    AllSuccess,
    AllDone,
    OneSuccess,
    OneFailed,
    NoneFailed,
    Always,
}

/// A task: what it waits for, and how each try ends.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Tasks before it.
    pub(super) needs: Vec<usize>,
    pub(super) rule: Rule,
    pub(super) retries: u32,
    /// Whether each try succeeds.
    pub(super) tries: Vec<bool>,
}

/// What becomes of all.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) ends: Vec<TaskEnd>,
    /// How often each is started.
    pub(super) starts: Vec<usize>,
    pub(super) succeeds: bool,
}

fn is_failure(end: TaskEnd) -> bool {
    matches!(end, TaskEnd::Failed | TaskEnd::TimedOut | TaskEnd::UpstreamFailed | TaskEnd::Lost)
}

impl Rule {
    pub(super) const ALL: [Self; 6] = [
        Self::AllSuccess,
        Self::AllDone,
        Self::OneSuccess,
        Self::OneFailed,
        Self::NoneFailed,
        Self::Always,
    ];

    /// Whether a task may start whose predecessors have come to this so far.
    pub(super) fn is_met(self, needs: impl Iterator<Item = Option<TaskEnd>>) -> bool {
        let needs: Vec<Option<TaskEnd>> = needs.collect();
        let succeeded = |need: &Option<TaskEnd>| *need == Some(TaskEnd::Succeeded);
        let failed = |need: &Option<TaskEnd>| need.is_some_and(is_failure);
        let have_ended = needs.iter().all(Option::is_some);
        needs.is_empty()
            || match self {
                Self::AllSuccess => needs.iter().all(succeeded),
                Self::AllDone => have_ended,
                Self::OneSuccess => needs.iter().any(succeeded),
                Self::OneFailed => needs.iter().any(failed),
                Self::NoneFailed => have_ended && !needs.iter().any(failed),
                Self::Always => true,
            }
    }

    /// What becomes of a task that never starts, its predecessors having all ended.
    fn otherwise(self, a_need_failed: bool) -> TaskEnd {
        match self {
            Self::AllSuccess | Self::OneSuccess | Self::NoneFailed if a_need_failed => {
                TaskEnd::UpstreamFailed
            }
            Self::AllSuccess | Self::OneSuccess | Self::OneFailed => TaskEnd::Skipped,
            Self::NoneFailed | Self::AllDone | Self::Always => unreachable!("it starts"),
        }
    }
}

impl Account {
    /// Tasks come after what they need.
    pub(super) fn of(plans: &[Plan]) -> Self {
        let (mut ends, mut starts) = (Vec::new(), Vec::new());
        for plan in plans {
            let needs: Vec<TaskEnd> = plan.needs.iter().map(|&need| ends[need]).collect();
            if !plan.rule.is_met(needs.iter().copied().map(Some)) {
                ends.push(plan.rule.otherwise(needs.into_iter().any(is_failure)));
                starts.push(0);
                continue;
            }
            let allowed = usize::try_from(plan.retries).unwrap_or(usize::MAX) + 1;
            let success = plan.tries.iter().take(allowed).position(|succeeds| *succeeds);
            ends.push(if success.is_some() { TaskEnd::Succeeded } else { TaskEnd::Failed });
            starts.push(success.map_or(allowed, |at| at + 1));
        }
        let succeeds = !ends.iter().copied().any(is_failure);
        Self { ends, starts, succeeds }
    }
}
