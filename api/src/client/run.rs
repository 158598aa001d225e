//! Runs and their tasks.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use quorate_model::{RunId, Verdict};
use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::ask::{Ask, innermost, segment};
use super::workflow::path as path_of_workflow;
use super::{Client, Error};
use crate::edge::WAIT_DEFAULT;
use crate::page::{PAGE_LIMIT_DEFAULT, Page};
use crate::time::{Span, Time};
use crate::view::{
    Accepted, ArtifactView, AttemptView, RunState, RunView, Started, TaskView, TransitionView,
};

/// Digits of the id of a run, without dashes.
const ID_DIGITS: usize = 32;

/// Runs named where a piece of an id fits several.
const AMBIGUOUS_MAX: usize = 10;

/// A run to be started.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// What it executes.
    pub what: What,
    /// Its parameters.
    pub params: Map<String, Value>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The point in time that it is about, as a date, a date-time in the zone of the workflow,
    /// or one with its offset; that of its submission if `None`.
    pub logical_time: Option<String>,
    /// Its id, if it is to be this one and no other.
    pub run_id: Option<RunId>,
    /// Names the request for repeats of it; one of its own if `None`.
    pub key: Option<String>,
}

impl Start {
    /// A run without parameters.
    #[must_use]
    pub fn of(what: What) -> Self {
        let (params, labels) = (Map::new(), BTreeMap::new());
        Self { what, params, labels, logical_time: None, run_id: None, key: None }
    }
}

/// What a run executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A workflow that was put before.
    Stored {
        /// What it is called.
        name: String,
        /// Which version; the newest if `None`.
        version: Option<u32>,
    },
    /// One that comes along, and is put first.
    Inline {
        /// The document.
        source: String,
        /// What it is called if it does not say so itself.
        name: String,
    },
}

/// What is to become of a task that is held.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// What.
    pub verdict: Verdict,
    /// Who decides.
    pub by: String,
    /// In their words; may be empty.
    pub comment: String,
    /// What the task would have put out; with [`Verdict::Succeeded`] only.
    pub outputs: Option<Map<String, Value>>,
}

/// The answer to a task that asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// What is filled in, if it is approved; `None` rejects.
    pub inputs: Option<Map<String, Value>>,
    /// Who answers.
    pub by: String,
    /// In their words; may be empty.
    pub comment: String,
}

/// Which runs to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunQuery {
    /// Of one of these workflows; empty for any.
    pub workflows: Vec<String>,
    /// In one of these states; empty for any.
    pub states: Vec<RunState>,
    /// With these labels; of several values for one name, any.
    pub labels: Vec<(String, String)>,
    /// Created then or later.
    pub created_after: Option<Time>,
    /// Created earlier.
    pub created_before: Option<Time>,
    /// Whose id begins or ends so: 4 hexadecimal digits at least.
    pub id: Option<String>,
    /// The most on the page.
    pub limit: usize,
    /// The page that follows another.
    pub page_token: Option<String>,
}

impl Default for RunQuery {
    fn default() -> Self {
        Self {
            workflows: Vec::new(),
            states: Vec::new(),
            labels: Vec::new(),
            created_after: None,
            created_before: None,
            id: None,
            limit: PAGE_LIMIT_DEFAULT,
            page_token: None,
        }
    }
}

impl Client {
    /// Starts a run.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn start(&self, start: &Start) -> Result<Started, Error> {
        let Start { what, params, labels, logical_time, run_id, key } = start;
        let mut body = json!({ "params": params, "labels": labels });
        if let Some(logical_time) = logical_time {
            body["logical_time"] = json!(logical_time);
        }
        if let Some(run_id) = run_id {
            body["run_id"] = json!(run_id);
        }
        let path = match what {
            What::Stored { name, version } => {
                if let Some(version) = version {
                    body["version"] = json!(version);
                }
                format!("{}/runs", path_of_workflow(name))
            }
            What::Inline { source, name } => {
                (body["workflow"], body["name"]) = (json!(source), json!(name));
                "/v1/runs".to_owned()
            }
        };
        let ask = Ask::write(Method::POST, path).json(&body);
        let ask = match key {
            Some(key) => ask.key(key.clone()),
            None => ask,
        };
        self.view(ask).await
    }

    /// A page of runs, the newest first.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn runs(&self, query: &RunQuery) -> Result<Page<RunView>, Error> {
        let mut ask = self.read("/v1/runs").query("limit", &query.limit);
        for workflow in &query.workflows {
            ask = ask.query("workflow", workflow);
        }
        for state in &query.states {
            ask = ask.query("state", &state.text());
        }
        for (name, value) in &query.labels {
            ask = ask.query("label", &format!("{name}={value}"));
        }
        let ask = ask
            .query_if("created_after", query.created_after)
            .query_if("created_before", query.created_before)
            .query_if("id", query.id.as_ref())
            .query_if("page_token", query.page_token.as_ref());
        self.view(ask).await
    }

    /// The run whose id this is, or whose id alone begins or ends so.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchRun`] and [`Error::Ambiguous`] besides what a list may fail with. That a
    /// run exists is not checked where the whole id is given.
    pub async fn find_run(&self, text: &str) -> Result<RunId, Error> {
        let digits = text.replace('-', "");
        if digits.len() == ID_DIGITS
            && let Ok(id) = digits.parse()
        {
            return Ok(id);
        }
        let id = Some(text.to_owned());
        let mut query = RunQuery { id, limit: AMBIGUOUS_MAX, ..RunQuery::default() };
        let mut found: Vec<RunId> = Vec::new();
        loop {
            let page = self.runs(&query).await?;
            found.extend(page.items.iter().map(|run| run.id));
            if found.len() > 1 {
                return Err(Error::Ambiguous { text: text.to_owned(), found });
            }
            match page.next_page_token {
                Some(token) => query.page_token = Some(token),
                None => break,
            }
        }
        found.pop().ok_or_else(|| Error::NoSuchRun(text.to_owned()))
    }

    /// A run.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn run(&self, id: RunId) -> Result<RunView, Error> {
        self.view(self.read(path(id))).await
    }

    /// A run once its index is greater, or as it is after `wait`.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn run_after(&self, id: RunId, index: u64, wait: Duration) -> Result<RunView, Error> {
        let ask = self.read(path(id)).query("index", &index).query("wait", &Span::from(wait));
        self.view(ask.patience(wait)).await
    }

    /// A run once it has ended, or as it is after `timeout`.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn wait(&self, id: RunId, timeout: Duration) -> Result<RunView, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            let wait = deadline.saturating_duration_since(Instant::now()).min(WAIT_DEFAULT);
            let ask = self.read(format!("{}/wait", path(id))).query("timeout", &Span::from(wait));
            let run: RunView = self.view(ask.patience(wait)).await?;
            if run.state.is_final() || Instant::now() >= deadline {
                return Ok(run);
            }
        }
    }

    /// The tasks of a run, in the order of the workflow.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn tasks(&self, id: RunId) -> Result<Vec<TaskView>, Error> {
        self.all(self.read(format!("{}/tasks", path(id)))).await
    }

    /// A task of a run.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn task(&self, id: RunId, task: &str) -> Result<TaskView, Error> {
        self.view(self.read(path_of_task(id, task))).await
    }

    /// Decides what becomes of a task that is held.
    ///
    /// # Errors
    ///
    /// See [`Error`]; `conflict` if it is not held.
    pub async fn decide(
        &self,
        id: RunId,
        task: &str,
        decided: &Decided,
    ) -> Result<Accepted, Error> {
        let Decided { verdict, by, comment, outputs } = decided;
        let verb = match verdict {
            Verdict::Retry => "retry",
            Verdict::Succeeded => "mark-success",
            Verdict::Failed => "mark-failed",
        };
        let mut body = json!({ "by": by, "comment": comment });
        if let Some(outputs) = outputs {
            body["outputs"] = Value::Object(outputs.clone());
        }
        let path = format!("{}/{verb}", path_of_task(id, task));
        self.view(Ask::write(Method::POST, path).json(&body)).await
    }

    /// Answers a task that asks: yes, with what is to be filled in, or no.
    ///
    /// # Errors
    ///
    /// See [`Error`]; `conflict` if it does not ask, or no longer.
    pub async fn answer(
        &self,
        id: RunId,
        task: &str,
        answered: &Answered,
    ) -> Result<Accepted, Error> {
        let Answered { inputs, by, comment } = answered;
        let mut body = json!({ "by": by, "comment": comment });
        let verb = if inputs.is_some() { "approve" } else { "reject" };
        if let Some(inputs) = inputs {
            body["inputs"] = Value::Object(inputs.clone());
        }
        let path = format!("{}/{verb}", path_of_task(id, task));
        self.view(Ask::write(Method::POST, path).json(&body)).await
    }

    /// An attempt at a task.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn attempt(&self, id: RunId, task: &str, attempt: u32) -> Result<AttemptView, Error> {
        self.view(self.read(format!("{}/attempts/{attempt}", path_of_task(id, task)))).await
    }

    /// What happened in a run, in the order of the log.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn transitions(&self, id: RunId) -> Result<Vec<TransitionView>, Error> {
        self.all(self.read(format!("{}/events", path(id)))).await
    }

    /// The files that the tasks of a run have left.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn artifacts(&self, id: RunId) -> Result<Vec<ArtifactView>, Error> {
        self.all(self.read(format!("{}/artifacts", path(id)))).await
    }

    /// The bytes of a file; `task` says whose, where several left one of the name. Breaks off
    /// with an error if its worker is lost.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn artifact(
        &self,
        id: RunId,
        name: &str,
        task: Option<&str>,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + use<>, Error> {
        let name: Vec<String> = name.split('/').map(segment).collect();
        let ask = self.read(format!("{}/artifacts/{}", path(id), name.join("/")));
        let response = self.line.open(ask.query_if("task", task), self.deadline).await?;
        let broken = |error: reqwest::Error| Error::Unexpected { reason: innermost(&error) };
        Ok(response.bytes_stream().map_err(broken))
    }
}

pub(super) fn path(id: RunId) -> String {
    format!("/v1/runs/{id}")
}

pub(super) fn path_of_task(id: RunId, task: &str) -> String {
    format!("{}/tasks/{}", path(id), segment(task))
}
