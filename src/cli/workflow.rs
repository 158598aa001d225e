//! `apply`: stores workflow files.

use std::io::Write as _;

use quorate_api::page::Page;

use super::connect::{self, now_ms};
use super::exit::Exit;
use super::output::{OutputArgs, print_list};
use super::{Global, document, stdout};

/// What `quorate apply` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ApplyArgs {
    /// File, folder of files, or - for standard input; repeat for more
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Stores workflows. All files are checked before the first is stored.
///
/// # Errors
///
/// If a file is no workflow, or the cluster does not take it.
pub(super) async fn apply(global: &Global, args: ApplyArgs) -> anyhow::Result<Exit> {
    let mut documents = Vec::new();
    for document in document::read_all(&args.files)? {
        let parsed = document.parse()?;
        documents.push((parsed.name, document));
    }
    let client = connect::client(global).await?;
    let mut put = Vec::new();
    for (name, document) in documents {
        put.push(client.put_workflow(name.as_str(), &document.source, None).await?);
    }
    let (mut out, page) = (stdout(), Page::whole(put));
    print_list(&mut out, &args.output, &page.items, &page, now_ms())?;
    out.flush()?;
    Ok(Exit::Done)
}
