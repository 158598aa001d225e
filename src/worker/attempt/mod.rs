//! One attempt at a task, from the order to the report.

pub(crate) mod artifacts;
mod env;
pub(crate) mod outputs;
mod place;
mod workspace;

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use quorate_model::command::ReportTask;
use quorate_model::{Dispatch, Outcome, Usage};
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::keeper::{self, Cause, Exit, Key, Spawn, Status};
use super::logs::{Capture, Logs};
use super::task::{Context, Kinds};
use crate::protocol::StartTask;

pub(crate) use env::BaseEnv;
pub(crate) use place::{Place, open_plain, run_directory};
pub(crate) use workspace::{Workspace, Workspaces};

/// How long pipes may stay open once nothing of a task is left: only what hid from the
/// keeper can still hold them.
const DRAIN_MAX: Duration = Duration::from_millis(250);

/// What attempts on this machine have in common.
pub(crate) struct Host {
    /// The directory of what is kept of all attempts.
    pub(crate) attempts: PathBuf,
    /// Where they run.
    pub(crate) workspaces: Arc<Workspaces>,
    /// Where every environment begins.
    pub(crate) env: BaseEnv,
    /// What tasks there may be.
    pub(crate) kinds: Kinds,
    /// What is printed.
    pub(crate) logs: Arc<Logs>,
}

/// How it came that an attempt is over.
#[derive(Debug)]
pub(crate) enum Departure {
    /// Its process ended.
    Exited(Exit),
    /// It could not be started.
    Refused(String),
    /// The keeper died, and everything with it.
    KeeperLost,
}

/// An attempt that is about to start.
pub(crate) struct Prepared {
    /// For the keeper.
    pub(crate) spawn: Spawn,
    /// For the keeper: where its stdout and stderr go.
    pub(crate) pipes: [OwnedFd; 2],
    /// For [`Attempt::watch`].
    pub(crate) attempt: Attempt,
}

/// An attempt, as it is watched.
pub(crate) struct Attempt {
    dispatch: Dispatch,
    artifacts: Vec<String>,
    place: Place,
    workspace: Workspace,
    capture: Capture,
}

/// What the keeper holds of an attempt for an agent that comes after this one.
#[derive(Debug, Serialize, Deserialize)]
struct Memo {
    dispatch: Dispatch,
    artifacts: Vec<String>,
    workspace: u32,
}

/// An attempt that is over.
pub(crate) struct Finished {
    /// Which.
    pub(crate) dispatch: Dispatch,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// What it used.
    pub(crate) usage: Usage,
    /// To be given back.
    pub(crate) workspace: Workspace,
}

/// Prepares everything that an attempt needs, without starting it.
///
/// # Errors
///
/// Why it can't be started, in words for people.
pub(crate) fn prepare(start: StartTask, key: Key, host: &Host) -> Result<Prepared, String> {
    let StartTask { dispatch, workflow, id, kind, params, env, artifacts } = start;
    let place = Place::of(&host.attempts, dispatch.task, dispatch.attempt);
    let failed = |error: std::io::Error| format!("the attempt cannot be prepared: {error}");
    let mut env = host.env.complete(&dispatch, &workflow, &id, env)?;
    let workspace = Lent::take(&host.workspaces).map_err(failed)?;
    let context = Context { workspace: workspace.get(), path: env.path() };
    let invocation = host.kinds.prepare(kind.as_str(), &params.value(), &context)?;
    place.prepare().map_err(failed)?;
    if let Some(script) = &invocation.script {
        fs::write(workspace.get().script(), script).map_err(failed)?;
    }
    let (stdout, stdout_writer) = pipe().map_err(failed)?;
    let (stderr, stderr_writer) = pipe().map_err(failed)?;
    let workspace = workspace.keep();
    env.put_output(&workspace.output());
    let program = keeper::Invocation {
        argv: invocation.argv,
        env: env.into_variables(),
        directory: workspace.work().to_string_lossy().into_owned(),
    };
    let memo = Memo { dispatch, artifacts, workspace: workspace.number() };
    let spawn =
        Spawn { key, epoch: dispatch.epoch, program, memo: memo.encode(), forget: Vec::new() };
    let follow = host.logs.begin(dispatch.task, dispatch.attempt);
    let capture = Capture::new(stdout, stderr, place.clone(), follow);
    let attempt = Attempt { dispatch, artifacts: memo.artifacts, place, workspace, capture };
    Ok(Prepared { spawn, pipes: [stdout_writer, stderr_writer], attempt })
}

/// A workspace that goes back unless it is kept.
struct Lent<'a> {
    workspaces: &'a Arc<Workspaces>,
    workspace: Option<Workspace>,
}

impl<'a> Lent<'a> {
    fn take(workspaces: &'a Arc<Workspaces>) -> std::io::Result<Self> {
        Ok(Self { workspaces, workspace: Some(workspaces.take()?) })
    }

    fn get(&self) -> &Workspace {
        self.workspace.as_ref().expect("it is there until it is kept")
    }

    fn keep(mut self) -> Workspace {
        self.workspace.take().expect("it is there until it is kept")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(workspace) = self.workspace.take() {
            self.workspaces.give_back(workspace);
        }
    }
}

/// Which attempt a memo is of.
#[cfg(test)]
pub(crate) fn dispatch_of(memo: &[u8]) -> Dispatch {
    Memo::decode(memo).expect("an agent wrote it").dispatch
}

/// The memo of an attempt that a test starts by itself, in a workspace that nobody else has.
#[cfg(test)]
pub(crate) fn memo_of(dispatch: Dispatch, workspace: u32) -> Vec<u8> {
    Memo { dispatch, artifacts: Vec::new(), workspace }.encode()
}

impl Memo {
    fn encode(&self) -> Vec<u8> {
        let bytes = bincode::serde::encode_to_vec(self, bincode::config::standard());
        bytes.expect("it has an encoding, and memory takes it")
    }

    fn decode(memo: &[u8]) -> Result<Self, String> {
        bincode::serde::decode_from_slice(memo, bincode::config::standard())
            .map(|(memo, _)| memo)
            .map_err(|error| error.to_string())
    }
}

/// Takes over an attempt that an earlier agent had started, by what the keeper held of it.
///
/// # Errors
///
/// If that makes no sense, in words for people.
pub(crate) fn take_over(memo: &[u8], pipes: Vec<OwnedFd>, host: &Host) -> Result<Attempt, String> {
    let Memo { dispatch, artifacts, workspace } = Memo::decode(memo)?;
    let pipes = pipes.into_iter().map(pipe::Receiver::from_owned_fd);
    let pipes = pipes.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let Ok([stdout, stderr]) = <[_; 2]>::try_from(pipes) else {
        return Err("its pipes are missing".to_owned());
    };
    let place = Place::of(&host.attempts, dispatch.task, dispatch.attempt);
    let workspace = host.workspaces.inherit(workspace);
    let follow = host.logs.begin(dispatch.task, dispatch.attempt);
    let capture = Capture::resume(stdout, stderr, place.clone(), follow);
    Ok(Attempt { dispatch, artifacts, place, workspace, capture })
}

fn pipe() -> std::io::Result<(pipe::Receiver, OwnedFd)> {
    let (reader, writer) = std::io::pipe()?;
    Ok((pipe::Receiver::from_owned_fd(reader.into())?, writer.into()))
}

impl Attempt {
    /// Which it is.
    pub(crate) fn dispatch(&self) -> Dispatch {
        self.dispatch
    }

    /// The ends to read of its stdout and its stderr.
    pub(crate) fn pipes(&self) -> [BorrowedFd<'_>; 2] {
        self.capture.pipes()
    }

    /// Captures what it prints until it is over, then judges it.
    pub(crate) async fn watch(mut self, departure: oneshot::Receiver<Departure>) -> Finished {
        let departure = self.capture_until(departure).await;
        let Self { dispatch, artifacts, place, workspace, mut capture } = self;
        let (outcome, usage) = match departure {
            Departure::Exited(Exit { status, cause, usage, .. }) => {
                let outcome = match (cause, status) {
                    (Cause::Stopped, _) => Outcome::Stopped,
                    (Cause::LeaseOver, _) => Outcome::Lost,
                    (Cause::Itself, Status::Code(0)) => {
                        let outputs = std::mem::take(&mut capture.outputs);
                        let outputs = outputs.finish(&workspace.output());
                        outputs
                            .and_then(|outputs| {
                                artifacts::keep(&workspace, &place, &artifacts).map(|()| outputs)
                            })
                            .map_or_else(broken, |outputs| Outcome::Succeeded { outputs })
                    }
                    (Cause::Itself, Status::Code(code)) => Outcome::Exited { code },
                    (Cause::Itself, Status::Signal(signal)) => Outcome::Signalled { signal },
                };
                (outcome, usage)
            }
            Departure::Refused(reason) => {
                (broken(format!("it could not be started: {reason}")), Usage::default())
            }
            Departure::KeeperLost => (Outcome::Lost, Usage::default()),
        };
        Finished { dispatch, outcome, usage, workspace }
    }

    async fn capture_until(&mut self, departure: oneshot::Receiver<Departure>) -> Departure {
        let mut departure = pin!(departure);
        let mut pump = pin!(self.capture.pump());
        let mut is_drained = false;
        let departed = loop {
            tokio::select! {
                departed = &mut departure => break departed,
                () = &mut pump, if !is_drained => is_drained = true,
            }
        };
        if !is_drained {
            // Whatever is left in the pipes is read; late, nobody could have printed it.
            let _ = tokio::time::timeout(DRAIN_MAX, pump).await;
        }
        // The agent drops its end only when it ends itself, and nobody reads this then.
        departed.unwrap_or(Departure::KeeperLost)
    }
}

fn broken(reason: String) -> Outcome {
    Outcome::Broken { reason }
}

/// The report of an attempt.
pub(crate) fn report(dispatch: Dispatch, outcome: Outcome, usage: Usage) -> ReportTask {
    let Dispatch { task, attempt, token, worker, epoch } = dispatch;
    ReportTask { task, attempt, token, worker, epoch, outcome, usage }
}
