//! Following a run to its end, whatever happens to the node that was asked first.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use quorate_api::client::{Client, Error, Watch};
use quorate_api::view::{ChangeView, RunView, TaskView};
use quorate_model::{RunId, WorkerId};

use super::connect::now_ms;
use super::display::Display;
use super::progress::{Progress, TaskNow};

/// How long one poll waits for a change, where streams do not get through.
const POLL_WAIT: Duration = Duration::from_secs(10);

/// After so long without a change, it is asked whether there was none: the stream may come from
/// a node that is cut off from the others.
const QUIET_MAX: Duration = Duration::from_secs(10);

type Changes = Pin<Box<dyn Stream<Item = Result<ChangeView, Error>> + Send>>;

/// A run that is being followed.
pub(crate) struct Follow {
    client: Client,
    workers: BTreeMap<WorkerId, String>,
    /// `None` once streams are given up; then it is polled.
    changes: Option<Changes>,
    run: RunView,
    progress: Progress,
    /// What is known may not be what is: look afresh before anything else.
    stale: bool,
}

impl Follow {
    /// Begins to follow a run, and shows where it stands.
    ///
    /// # Errors
    ///
    /// If there is no such run, or nobody to ask.
    pub(crate) async fn begin(
        client: &Client,
        id: RunId,
        display: &mut Display,
    ) -> Result<Self, Error> {
        let run = client.run(id).await?;
        let watch = Watch { runs: vec![id], index: Some(run.index), ..Watch::default() };
        let changes: Changes = Box::pin(client.changes(watch));
        let mut follow = Self {
            client: client.clone(),
            workers: BTreeMap::new(),
            changes: Some(changes),
            run,
            progress: Progress::default(),
            stale: true,
        };
        follow.look_afresh(display).await?;
        Ok(follow)
    }

    /// The run as of the last look. Complete, with its outputs, once it has ended.
    pub(crate) fn run(&self) -> &RunView {
        &self.run
    }

    /// What has been shown.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Whether nothing changes any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.run.state.is_final()
    }

    /// Waits for the next change and shows it. May be dropped at any time and called again.
    ///
    /// # Errors
    ///
    /// If nobody has answered for longer than the client's patience.
    pub(crate) async fn step(&mut self, display: &mut Display) -> Result<(), Error> {
        if self.stale {
            return self.look_afresh(display).await;
        }
        let Some(changes) = &mut self.changes else {
            self.client.run_after(self.run.id, self.run.index, POLL_WAIT).await?;
            self.stale = true;
            return Ok(());
        };
        match tokio::time::timeout(QUIET_MAX, changes.next()).await {
            Ok(Some(Ok(change))) => self.take(change, display),
            Ok(Some(Err(_)) | None) => {
                self.changes = None;
                self.stale = true;
            }
            Err(_) => self.stale = true,
        }
        Ok(())
    }

    fn take(&mut self, change: ChangeView, display: &mut Display) {
        match change {
            ChangeView::Task { run, task, .. } if run == self.run.id => {
                if self.knows_worker(&task) {
                    if let Some(now) = self.see(&task) {
                        display.tell(&now, &self.progress);
                    }
                    display.show(&self.progress);
                } else {
                    self.stale = true;
                }
            }
            ChangeView::Run { run, .. } if run.id == self.run.id => {
                // The last word is read, since a stream carries less.
                self.stale |= run.state.is_final();
                self.run = RunView { state: self.run.state, ..*run };
            }
            ChangeView::Reset { .. } => self.stale = true,
            ChangeView::Task { .. }
            | ChangeView::Run { .. }
            | ChangeView::Workflow { .. }
            | ChangeView::Worker { .. }
            | ChangeView::Leader { .. } => {}
        }
    }

    async fn look_afresh(&mut self, display: &mut Display) -> Result<(), Error> {
        // The run first: its tasks are then at least as new, and all ended if it has.
        let run = self.client.run(self.run.id).await?;
        let tasks = self.client.tasks(run.id).await?;
        if !tasks.iter().all(|task| self.knows_worker(task)) {
            self.learn_workers(&tasks).await;
        }
        let news: Vec<_> = tasks.iter().filter_map(|task| self.see(task)).collect();
        for task in &news {
            display.tell(task, &self.progress);
        }
        self.run = run;
        self.stale = false;
        display.show(&self.progress);
        Ok(())
    }

    /// Takes in how a task stands; answers it if that is worth telling.
    fn see(&mut self, task: &TaskView) -> Option<TaskNow> {
        let now = TaskNow::new(task, &self.workers, now_ms());
        self.progress.see(task.position, now.clone()).then_some(now)
    }

    fn knows_worker(&self, task: &TaskView) -> bool {
        task.attempts.last().is_none_or(|latest| self.workers.contains_key(&latest.worker))
    }

    /// Workers have names for people. Where there is no answer, the ids have to do.
    async fn learn_workers(&mut self, tasks: &[TaskView]) {
        for worker in self.client.workers().await.unwrap_or_default() {
            self.workers.insert(worker.id, worker.name.to_string());
        }
        for attempt in tasks.iter().flat_map(|task| &task.attempts) {
            self.workers.entry(attempt.worker).or_insert_with(|| attempt.worker.to_string());
        }
    }
}
