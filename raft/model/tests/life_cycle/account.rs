//! What a run comes to, worked out from the description of the rules and nothing else.

use quorate_model::TaskEnd;

/// When a task starts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    AllSuccess,
    AllDone,
    OneSuccess,
    OneFailed,
    AllFailed,
    NoneFailed,
    NoneFailedMinOneSuccess,
    Always,
}

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// What its tries say.
    Work,
    Nothing,
    /// Takes its first targets, or its last.
    Choose {
        takes_first: bool,
    },
}

/// What there is to say of a task besides its rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traits {
    pub(super) deed: Deed,
    /// What its condition comes to, if it has one.
    pub(super) condition: Option<bool>,
    pub(super) is_disabled: bool,
    pub(super) goes_on: bool,
    /// Whether its condition looks at the state of what it needs.
    pub(super) judges: bool,
    /// How long it waits when its turn has come: it changes when, and not what.
    pub(super) delay_ms: u64,
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
    pub(super) traits: Traits,
}

/// What becomes of all.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) ends: Vec<TaskEnd>,
    /// How often each is started.
    pub(super) starts: Vec<usize>,
    pub(super) succeeds: bool,
}

/// What a task has come to, as one that needs it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Success,
    Failure,
    Skip,
    /// It chose others.
    Passed,
}

fn is_failure(end: TaskEnd) -> bool {
    matches!(end, TaskEnd::Failed | TaskEnd::TimedOut | TaskEnd::UpstreamFailed | TaskEnd::Lost)
}

impl Rule {
    pub(super) const ALL: [Self; 8] = [
        Self::AllSuccess,
        Self::AllDone,
        Self::OneSuccess,
        Self::OneFailed,
        Self::AllFailed,
        Self::NoneFailed,
        Self::NoneFailedMinOneSuccess,
        Self::Always,
    ];

    /// Whether a task may start whose predecessors have come to this so far.
    pub(super) fn is_met(self, needs: &[Option<Seen>]) -> bool {
        let are = |seen: Seen| needs.iter().all(|need| *need == Some(seen));
        let has = |seen: Seen| needs.contains(&Some(seen));
        let have_ended = needs.iter().all(Option::is_some);
        let is_left_out = has(Seen::Passed) && !has(Seen::Success) && !has(Seen::Failure);
        needs.is_empty()
            || match self {
                Self::AllSuccess => are(Seen::Success),
                Self::AllDone => have_ended && !is_left_out,
                Self::OneSuccess => has(Seen::Success),
                Self::OneFailed => has(Seen::Failure),
                Self::AllFailed => are(Seen::Failure),
                Self::NoneFailed => have_ended && !has(Seen::Failure) && !is_left_out,
                Self::NoneFailedMinOneSuccess => {
                    have_ended && !has(Seen::Failure) && has(Seen::Success)
                }
                Self::Always => true,
            }
    }

    /// What becomes of a task that never starts, its predecessors having all ended.
    fn otherwise(self, a_need_failed: bool) -> TaskEnd {
        match self {
            Self::AllSuccess
            | Self::OneSuccess
            | Self::NoneFailed
            | Self::NoneFailedMinOneSuccess
                if a_need_failed =>
            {
                TaskEnd::UpstreamFailed
            }
            Self::Always => unreachable!("it starts"),
            Self::AllSuccess
            | Self::AllDone
            | Self::OneSuccess
            | Self::OneFailed
            | Self::AllFailed
            | Self::NoneFailed
            | Self::NoneFailedMinOneSuccess => TaskEnd::Skipped,
        }
    }

    fn asks_for_failures(self, judges: bool) -> bool {
        match self {
            Self::OneFailed | Self::AllFailed => true,
            Self::AllDone | Self::Always => judges,
            Self::AllSuccess
            | Self::OneSuccess
            | Self::NoneFailed
            | Self::NoneFailedMinOneSuccess => false,
        }
    }
}

/// Whether the task at `after` is one that the switch at `before` may leave out, and is left
/// out by it. Of the tasks that need it and do not begin at once, every second is of the
/// first arm.
fn is_passed_over(plans: &[Plan], before: usize, after: usize, takes_first: bool) -> bool {
    targets(plans, before).iter().position(|&target| target == after).is_some_and(|at| {
        let is_of_first = at % 2 == 0;
        is_of_first != takes_first
    })
}

/// The tasks among which a switch chooses.
pub(super) fn targets(plans: &[Plan], switch: usize) -> Vec<usize> {
    let waits = |plan: &Plan| plan.needs.contains(&switch) && !matches!(plan.rule, Rule::Always);
    (0..plans.len()).filter(|&at| waits(&plans[at])).collect()
}

/// How a task looks to one that needs it.
pub(super) fn seen(plans: &[Plan], before: usize, after: usize, end: TaskEnd) -> Seen {
    let traits = plans[before].traits;
    match (end, traits.deed) {
        (TaskEnd::Succeeded, Deed::Choose { takes_first })
            if is_passed_over(plans, before, after, takes_first) =>
        {
            Seen::Passed
        }
        (TaskEnd::Failed, _) if traits.goes_on => Seen::Success,
        (TaskEnd::Succeeded | TaskEnd::Disabled, _) => Seen::Success,
        (end, _) if is_failure(end) => Seen::Failure,
        _ => Seen::Skip,
    }
}

impl Account {
    /// Tasks come after what they need.
    pub(super) fn of(plans: &[Plan]) -> Self {
        let (mut ends, mut starts) = (Vec::new(), Vec::new());
        for (at, plan) in plans.iter().enumerate() {
            let needs: Vec<Option<Seen>> =
                plan.needs.iter().map(|&need| Some(seen(plans, need, at, ends[need]))).collect();
            let (end, started) = if plan.rule.is_met(&needs) {
                plan.once_it_is_its_turn()
            } else {
                (plan.rule.otherwise(needs.contains(&Some(Seen::Failure))), 0)
            };
            ends.push(end);
            starts.push(started);
        }
        let fails = |at: usize| is_failure(ends[at]) && !is_provided_for(plans, at, ends[at]);
        let succeeds = !(0..plans.len()).any(fails);
        Self { ends, starts, succeeds }
    }
}

/// Whether a failure does not fail the run.
fn is_provided_for(plans: &[Plan], at: usize, end: TaskEnd) -> bool {
    let mut after = plans.iter().filter(|plan| plan.needs.contains(&at)).peekable();
    let goes_on = end == TaskEnd::Failed && plans[at].traits.goes_on;
    let is_asked_for = after.peek().is_some()
        && after.all(|plan| {
            !plan.traits.is_disabled && plan.rule.asks_for_failures(plan.traits.judges)
        });
    goes_on || is_asked_for
}

impl Plan {
    /// What becomes of it, and how often it is started.
    fn once_it_is_its_turn(&self) -> (TaskEnd, usize) {
        if self.traits.is_disabled {
            return (TaskEnd::Disabled, 0);
        }
        if self.traits.condition == Some(false) {
            return (TaskEnd::Skipped, 0);
        }
        if self.traits.deed != Deed::Work {
            return (TaskEnd::Succeeded, 0);
        }
        let allowed = usize::try_from(self.retries).unwrap_or(usize::MAX) + 1;
        let success = self.tries.iter().take(allowed).position(|succeeds| *succeeds);
        let end = if success.is_some() { TaskEnd::Succeeded } else { TaskEnd::Failed };
        (end, success.map_or(allowed, |at| at + 1))
    }
}
