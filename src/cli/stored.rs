//! A workflow by what is typed for it: a file, or the name of one that the cluster has.

use quorate_api::view::WorkflowView;

use super::exit::{Exit, Failure};
use super::{Global, connect, document};

/// Reads `FILE`, `NAME` or `NAME@VERSION`.
///
/// # Errors
///
/// If it is no workflow, or the cluster does not have it.
pub(super) async fn workflow(global: &Global, word: &str) -> anyhow::Result<WorkflowView> {
    if document::is_file(word) {
        return Ok(WorkflowView::draft(&document::read(word)?.parse()?));
    }
    let client = connect::client(global).await?;
    let Some((name, version)) = word.split_once('@') else {
        return Ok(client.workflow(word).await?);
    };
    let wrong = || Failure::new(Exit::Usage, format!("{version:?} is no version of a workflow"));
    let hint = "say, for example, etl@3";
    let version = version.trim_start_matches('v').parse().map_err(|_| wrong().hint(hint))?;
    Ok(client.version_of(name, version).await?)
}
