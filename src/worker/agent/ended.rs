//! Which attempts have ended, so that none starts again.

use std::collections::{BTreeMap, VecDeque};

use quorate_model::{Dispatch, FencingToken, TaskId};

/// Tasks remembered: some megabytes, and more than a leader that was deposed could have had
/// started here before it noticed.
const ENDED_MAX: usize = 65_536;

/// The last attempt of each task that ended here, by its token.
///
/// The oldest are forgotten; what is older than one of those is refused altogether.
#[derive(Debug, Default)]
pub(super) struct Ended {
    tokens: BTreeMap<TaskId, FencingToken>,
    order: VecDeque<TaskId>,
    /// The greatest token that was forgotten.
    floor: FencingToken,
}

impl Ended {
    pub(super) fn insert(&mut self, dispatch: &Dispatch) {
        let token = self.tokens.entry(dispatch.task).or_default();
        if *token == FencingToken::default() {
            self.order.push_back(dispatch.task);
        }
        *token = dispatch.token.max(*token);
        if self.order.len() > ENDED_MAX
            && let Some(token) = self.order.pop_front().and_then(|task| self.tokens.remove(&task))
        {
            self.floor = self.floor.max(token);
        }
    }

    /// Whether it is this very attempt that ended last.
    pub(super) fn is(&self, dispatch: &Dispatch) -> bool {
        self.tokens.get(&dispatch.task) == Some(&dispatch.token)
    }

    /// Whether an attempt is newer than all of its task that ended here.
    pub(super) fn admits(&self, dispatch: &Dispatch) -> bool {
        dispatch.token > *self.tokens.get(&dispatch.task).unwrap_or(&self.floor)
    }
}

#[cfg(test)]
mod tests {
    use quorate_model::{Attempt, Epoch, RunId, WorkerId};
    use uuid::Uuid;

    use super::*;

    fn dispatch(task: usize, token: u64) -> Dispatch {
        Dispatch {
            task: TaskId::new(RunId(Uuid::nil()), task),
            attempt: Attempt(1),
            token: FencingToken(token),
            worker: WorkerId(1),
            epoch: Epoch(1),
        }
    }

    #[test]
    fn admits_only_newer_attempts_of_a_task() {
        let mut ended = Ended::default();
        ended.insert(&dispatch(1, 10));
        assert!(ended.is(&dispatch(1, 10)));
        assert!(!ended.admits(&dispatch(1, 10)));
        assert!(!ended.admits(&dispatch(1, 9)));
        assert!(ended.admits(&dispatch(1, 11)));
        assert!(ended.admits(&dispatch(2, 5)), "another task may be older");
    }

    #[test]
    fn what_is_forgotten_is_refused_altogether() {
        let mut ended = Ended::default();
        for task in 0..=ENDED_MAX {
            ended.insert(&dispatch(task, 100 + task as u64));
        }
        assert_eq!(ended.tokens.len(), ENDED_MAX);
        assert!(!ended.admits(&dispatch(0, 100)));
        assert!(!ended.admits(&dispatch(ENDED_MAX + 7, 99)));
        assert!(ended.admits(&dispatch(ENDED_MAX + 7, 101)));
    }
}
