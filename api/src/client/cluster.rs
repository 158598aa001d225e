//! The cluster, its members and its workers.

use std::time::Duration;

use quorate_model::WorkerId;
use reqwest::Method;
use serde_json::json;

use super::ask::Ask;
use super::{Client, Error};
use crate::page::Page;
use crate::view::{ClusterView, JoinedView, MemberView, VersionView, WorkerAccepted, WorkerView};

/// How much longer than other requests a change of the membership may take: a node that joins
/// has to catch up first.
const MEMBERSHIP_PATIENCE: Duration = Duration::from_secs(20);

impl Client {
    /// The workers, by id.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn workers(&self) -> Result<Vec<WorkerView>, Error> {
        self.all(self.read("/v1/workers")).await
    }

    /// A worker.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn worker(&self, id: WorkerId) -> Result<WorkerView, Error> {
        self.view(self.read(format!("/v1/workers/{}", id.0))).await
    }

    /// Has a worker be given nothing more. What it runs goes on.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn drain(
        &self,
        id: WorkerId,
        by: &str,
        reason: &str,
    ) -> Result<WorkerAccepted, Error> {
        let ask = Ask::write(Method::POST, format!("/v1/workers/{}/drain", id.0));
        self.view(ask.json(&json!({ "by": by, "reason": reason }))).await
    }

    /// Takes a drain back.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn make_eligible(&self, id: WorkerId, by: &str) -> Result<WorkerAccepted, Error> {
        let ask = Ask::write(Method::POST, format!("/v1/workers/{}/eligible", id.0));
        self.view(ask.json(&json!({ "by": by }))).await
    }

    /// The cluster as the first node sees it that answers; waits for no leader.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn cluster(&self) -> Result<ClusterView, Error> {
        self.view(Ask::get("/v1/cluster")).await
    }

    /// The same with the digest of the state, which holds up that node for a moment.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn cluster_hash(&self) -> Result<ClusterView, Error> {
        self.view(Ask::get("/v1/cluster").query("hash", &true)).await
    }

    /// The nodes, by id.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn members(&self) -> Result<Vec<MemberView>, Error> {
        let page: Page<MemberView> = self.view(Ask::get("/v1/cluster/members")).await?;
        Ok(page.items)
    }

    /// Lets a node join that can be reached at `address`.
    ///
    /// # Errors
    ///
    /// See [`Error`]. After [`Error::Unknown`] look at the members before asking again.
    pub async fn add_member(&self, address: &str, voter: bool) -> Result<JoinedView, Error> {
        let ask =
            Ask::write(Method::POST, "/v1/cluster/members").once().patience(MEMBERSHIP_PATIENCE);
        self.view(ask.json(&json!({ "address": address, "voter": voter }))).await
    }

    /// Removes a node for good.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn remove_member(&self, id: u64) -> Result<(), Error> {
        let ask = Ask::write(Method::DELETE, format!("/v1/cluster/members/{id}"))
            .once()
            .patience(MEMBERSHIP_PATIENCE);
        self.line.bytes(ask, self.deadline).await.map(drop)
    }

    /// Hands leadership to another voter; to any if `None`.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn transfer_leadership(&self, to: Option<u64>) -> Result<(), Error> {
        let ask =
            Ask::write(Method::POST, "/v1/cluster/leader").once().patience(MEMBERSHIP_PATIENCE);
        self.line.bytes(ask.json(&json!({ "to": to })), self.deadline).await.map(drop)
    }

    /// What answers.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn version(&self) -> Result<VersionView, Error> {
        self.view(Ask::get("/v1/version")).await
    }

    /// Waits until a node is ready for requests.
    ///
    /// # Errors
    ///
    /// `not-ready` if none is within the deadline; see [`Error`].
    pub async fn ready(&self) -> Result<(), Error> {
        self.line.bytes(Ask::get("/readyz"), self.deadline).await.map(drop)
    }

    /// The metrics of the first node that answers, in the OpenMetrics text format.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn metrics(&self) -> Result<String, Error> {
        let bytes = self.line.bytes(Ask::get("/metrics"), self.deadline).await?;
        let odd =
            |error: std::string::FromUtf8Error| Error::Unexpected { reason: error.to_string() };
        String::from_utf8(bytes.into()).map_err(odd)
    }
}
