//! `schema`: the JSON Schema of the workflow file.

use std::io::Write as _;

use quorate_api::spec::JSON_SCHEMA;

use super::exit::Exit;
use super::stdout;

/// Prints the schema, as a server has it under `/v1/schema/workflow.json`.
///
/// # Errors
///
/// If stdout cannot be written.
pub(super) fn schema() -> anyhow::Result<Exit> {
    let mut out = stdout();
    out.write_all(JSON_SCHEMA.as_bytes())?;
    out.flush()?;
    Ok(Exit::Done)
}
