//! What people do to runs and workflows.

use quorate_model::RunId;
use reqwest::Method;
use serde_json::json;

use super::ask::Ask;
use super::run::path;
use super::{Client, Error, workflow};
use crate::view::{Accepted, WorkflowAccepted};

/// Who asks for something, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// As they call themselves; may be empty.
    pub by: String,
    /// In their words; may be empty.
    pub reason: String,
}

impl Client {
    /// Has a run stop. It is cancelled once all of it is gone.
    ///
    /// # Errors
    ///
    /// See [`Error`]; `run-ended` if it has.
    pub async fn cancel(&self, id: RunId, words: &Words) -> Result<Accepted, Error> {
        self.tell(id, "cancel", words).await
    }

    /// Has nothing more of a run start. What runs goes on.
    ///
    /// # Errors
    ///
    /// See [`Error`]; `run-ended` if it has.
    pub async fn pause(&self, id: RunId, words: &Words) -> Result<Accepted, Error> {
        self.tell(id, "pause", words).await
    }

    /// Has a paused run go on.
    ///
    /// # Errors
    ///
    /// See [`Error`]; `run-ended` if it has.
    pub async fn resume(&self, id: RunId, words: &Words) -> Result<Accepted, Error> {
        self.tell(id, "resume", words).await
    }

    /// Has the runs of a workflow start nothing more, those to come included.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn pause_workflow(
        &self,
        name: &str,
        words: &Words,
    ) -> Result<WorkflowAccepted, Error> {
        let ask = Ask::write(Method::POST, format!("{}/pause", workflow::path(name)));
        self.view(ask.json(&body(words))).await
    }

    /// Takes a pause of a workflow back.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn resume_workflow(&self, name: &str) -> Result<WorkflowAccepted, Error> {
        let ask = Ask::write(Method::POST, format!("{}/resume", workflow::path(name)));
        self.view(ask.json(&json!({}))).await
    }

    async fn tell(&self, id: RunId, verb: &str, words: &Words) -> Result<Accepted, Error> {
        let ask = Ask::write(Method::POST, format!("{}/{verb}", path(id)));
        self.view(ask.json(&body(words))).await
    }
}

fn body(Words { by, reason }: &Words) -> serde_json::Value {
    json!({ "by": by, "reason": reason })
}
