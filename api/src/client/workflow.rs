//! Workflows.

use reqwest::Method;
use reqwest::header::{IF_MATCH, IF_NONE_MATCH};

use super::ask::{Ask, segment};
use super::{Client, Error};
use crate::page::Page;
use crate::view::{Put, Validity, VersionSummary, WorkflowSummary, WorkflowView};

const YAML: &str = "application/yaml";

impl Client {
    /// A page of the workflows, by name.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn workflows(
        &self,
        token: Option<&str>,
        limit: usize,
    ) -> Result<Page<WorkflowSummary>, Error> {
        let ask = self.read("/v1/workflows").query("limit", &limit);
        self.view(ask.query_if("page_token", token)).await
    }

    /// The newest version of a workflow.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn workflow(&self, name: &str) -> Result<WorkflowView, Error> {
        self.view(self.read(path(name))).await
    }

    /// Puts a workflow: as a new version, unless the newest says the same. With `expected`
    /// only if that is the newest; 0 if there must be none yet.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn put_workflow(
        &self,
        name: &str,
        source: &str,
        expected: Option<u32>,
    ) -> Result<Put, Error> {
        let ask = Ask::write(Method::PUT, path(name)).body(YAML, source.to_owned());
        self.view(expecting(ask, expected)).await
    }

    /// Deletes a workflow and all its versions. Its runs go on, and stay.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn delete_workflow(&self, name: &str, expected: Option<u32>) -> Result<(), Error> {
        let ask = expecting(Ask::write(Method::DELETE, path(name)), expected);
        self.line.bytes(ask, self.deadline).await.map(drop)
    }

    /// A page of the versions of a workflow, the newest first.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn versions(
        &self,
        name: &str,
        token: Option<&str>,
        limit: usize,
    ) -> Result<Page<VersionSummary>, Error> {
        let ask = self.read(format!("{}/versions", path(name))).query("limit", &limit);
        self.view(ask.query_if("page_token", token)).await
    }

    /// One version of a workflow.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn version_of(&self, name: &str, number: u32) -> Result<WorkflowView, Error> {
        self.view(self.read(format!("{}/versions/{number}", path(name)))).await
    }

    /// What is wrong with a document. One that is bad is no error here.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn validate(&self, source: &str) -> Result<Validity, Error> {
        let ask = Ask::write(Method::POST, "/v1/workflows/validate").body(YAML, source.to_owned());
        self.view(ask).await
    }
}

pub(super) fn path(name: &str) -> String {
    format!("/v1/workflows/{}", segment(name))
}

fn expecting(ask: Ask, expected: Option<u32>) -> Ask {
    match expected {
        None => ask,
        Some(0) => ask.header(IF_NONE_MATCH, "*"),
        Some(version) => ask.header(IF_MATCH, format!("\"v{version}\"")),
    }
}
