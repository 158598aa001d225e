//! `fmt`: writes workflow files in their canonical form.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use quorate_api::spec;

use super::document::{self, Document};
use super::exit::Exit;
use super::{say, stdout};

/// What `quorate fmt` is told.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Our words for other programs', keys in their usual order, two spaces a level, lists indented \
below their key, no more than one blank line in a row. Comments are kept. What stands in {} or \
[], quotes, long lines and the insides of scripts stay as they are; where a file has anchors, \
keys stay where they are, too. A file that would mean anything else, or lose a comment, is left \
alone, and so is one that is no valid workflow.")]
pub(super) struct FmtArgs {
    /// Files, folders of files, or - for standard input, which is written to standard output
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Write nothing; name the files that are not in form, and exit with 1 if there are any
    #[arg(long)]
    check: bool,
}

/// Formats files, and names those that changed.
///
/// # Errors
///
/// If a file cannot be read or written, or stdout cannot be.
pub(super) fn fmt(args: &FmtArgs) -> anyhow::Result<Exit> {
    let mut out = stdout();
    let mut exit = Exit::Done;
    for document in document::read_all(&args.files)? {
        let Ok(formatted) = document.format() else {
            exit = Exit::Error;
            continue;
        };
        let is_in_form = formatted == document.source;
        if args.check {
            if !is_in_form {
                writeln!(out, "{}", document.file)?;
                exit = Exit::Error;
            }
        } else if document.is_stdin {
            out.write_all(formatted.as_bytes())?;
        } else if !is_in_form {
            replace(&document.file, &formatted)?;
            writeln!(out, "{}", document.file)?;
        }
    }
    out.flush()?;
    Ok(exit)
}

impl Document {
    /// Its canonical form. What is wrong with it is told on stderr.
    fn format(&self) -> Result<String, ()> {
        let name = spec::name_of_file(&self.file);
        spec::format(&self.source, name.as_deref()).map_err(|found| {
            self.tell(&found);
            say(format_args!("{}: left as it is", self.file));
        })
    }
}

/// Puts a file in place of another at once: nobody reads half of it, and it is not lost when
/// the disk is full.
fn replace(file: &str, text: &str) -> anyhow::Result<()> {
    let context = || format!("could not write {file}");
    // What a link leads to is written, not the link.
    let path = std::fs::canonicalize(file).with_context(context)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut written = tempfile::NamedTempFile::new_in(folder).with_context(context)?;
    written.write_all(text.as_bytes()).with_context(context)?;
    let permissions = std::fs::metadata(&path).with_context(context)?.permissions();
    written.as_file().set_permissions(permissions).with_context(context)?;
    written.persist(&path).map_err(|error| error.error).with_context(context)?;
    Ok(())
}
