//! Orders: what entries ask of a worker, on its way down the session.

use std::sync::Arc;

use quorate_model::workflow::Action;
use quorate_model::{Dispatch, Effect, State};
use quorate_raft::Effects;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Sessions;
use crate::protocol::{StartTask, ToWorker};

impl Sessions {
    /// Passes on what entries ask for, until the term ends.
    pub(in crate::leader) async fn carry_out(
        self: Arc<Self>,
        mut effects: broadcast::Receiver<Arc<Effects>>,
        stop: CancellationToken,
    ) {
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return,
                next = effects.recv() => next,
            };
            match next {
                Ok(next) => next.effects.iter().for_each(|effect| self.order(effect)),
                // What the missed ones asked for is still outstanding.
                Err(RecvError::Lagged(_)) => {
                    let all = self.node.with_state(State::outstanding);
                    all.iter().for_each(|effect| self.order(effect));
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Tells a worker to start or stop, if it is connected. If it is not, it will be told
    /// when it comes, or lose its lease.
    pub(super) fn order(&self, effect: &Effect) {
        self.order_by(effect, |dispatch| self.node.with_state(|state| start_task(state, dispatch)));
    }

    /// The same, with what `about` says of a task that is to start.
    fn order_by(&self, effect: &Effect, about: impl FnOnce(Dispatch) -> Option<StartTask>) {
        let (Effect::Start(dispatch) | Effect::Stop(dispatch, _)) = *effect;
        let session = self.open().sessions.get(&dispatch.worker).cloned();
        let Some(session) = session.filter(|session| session.epoch == dispatch.epoch) else {
            return;
        };
        let order = match *effect {
            Effect::Stop(dispatch, reason) => Some(ToWorker::Stop { dispatch, reason }),
            Effect::Start(dispatch) => about(dispatch).map(|task| ToWorker::Start(Box::new(task))),
        };
        let Some(order) = order else { return };
        if session.outgoing.try_send(order).is_err() {
            warn!(worker = %dispatch.worker, "worker is too far behind; cut off to begin anew");
            session.end.cancel();
        }
    }

    /// The fault: gives the orders that a plan would come to, before it is in the log.
    #[cfg(mutant)]
    pub(in crate::leader) fn anticipate(&self, requests: &[quorate_model::Request]) {
        let mut guess = self.node.with_state(State::clone);
        let (proposed_at, requests) = (guess.now(), requests.to_vec());
        let index = quorate_model::LogIndex(guess.applied().0 + 1);
        let applied = guess.apply(index, quorate_model::Entry { proposed_at, requests });
        for effect in &applied.effects {
            self.order_by(effect, |dispatch| start_task(&guess, dispatch));
        }
    }
}

/// All that the worker needs to know, if the attempt is still the one in flight.
fn start_task(state: &State, dispatch: Dispatch) -> Option<StartTask> {
    let run = state.runs().get(&dispatch.task.run)?;
    let flight = state.task(dispatch.task).ok()?.flight()?;
    if flight.token != dispatch.token || flight.stop.is_some() {
        return None;
    }
    let workflow = state.definition(run.definition);
    let task = workflow.tasks.get(dispatch.task.position())?;
    let Action::Work { kind, params } = &task.action else { return None };
    let (params, env) = match &flight.rendered {
        Some(rendered) => (rendered.params.clone(), rendered.env.clone()),
        None => {
            let mut env = workflow.env.clone();
            env.extend(task.env.clone());
            (params.clone(), env)
        }
    };
    Some(StartTask {
        dispatch,
        workflow: run.workflow.clone(),
        id: task.id.clone(),
        kind: kind.clone(),
        params,
        env,
        artifacts: task.artifacts.clone(),
    })
}
