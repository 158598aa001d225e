//! `init`: begins a workflow file.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use quorate_api::spec::name_of_file;

use super::exit::{Exit, Failure};
use super::{Global, document, say};

/// What a new file says. The first lines depend on where it is begun.
const SCAFFOLD: &str = include_str!("init/scaffold.yaml");

/// What stands for the name of the workflow in [`SCAFFOLD`].
const NAME: &str = "scaffold";

/// The name where none is given.
const NAME_DEFAULT: &str = "hello";

/// What `quorate init` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct InitArgs {
    /// NAME, or the FILE to write
    #[arg(value_name = "NAME", default_value = NAME_DEFAULT)]
    name: String,
}

/// Writes a file that can be run as it is. One that is there is left alone.
///
/// # Errors
///
/// If the name is none, or the file is there already or cannot be written.
pub(super) fn init(global: &Global, args: &InitArgs) -> anyhow::Result<Exit> {
    let file = if document::is_file(&args.name) {
        args.name.clone()
    } else {
        format!("{}.quorate.yaml", args.name)
    };
    let Some(name) = name_of_file(&file) else {
        let failure = Failure::new(Exit::Usage, format!("{file:?} makes no name of a workflow"));
        return Err(failure.hint("say, for example, quorate init daily-sales").into());
    };
    let text = scaffold(&name, global.address.first().map_or("", String::as_str));
    let mut created = match OpenOptions::new().write(true).create_new(true).open(&file) {
        Ok(created) => created,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let failure = Failure::new(Exit::Conflict, format!("{file} is there already"));
            return Err(failure.hint("name another, or remove it").into());
        }
        Err(error) => return Err(error).with_context(|| format!("could not write {file}")),
    };
    created.write_all(text.as_bytes()).with_context(|| format!("could not write {file}"))?;
    let shown = Path::new(&file).display();
    say(format_args!("wrote {shown}; run it with `quorate run {shown}`"));
    Ok(Exit::Done)
}

/// The new file of a workflow. Editors that know YAML get the schema from `address`.
fn scaffold(name: &str, address: &str) -> String {
    let address = address.trim_end_matches('/');
    let modeline = format!("# yaml-language-server: $schema={address}/v1/schema/workflow.json\n");
    modeline + &SCAFFOLD.replacen(&format!("name: {NAME}\n"), &format!("name: {name}\n"), 1)
}

#[cfg(test)]
mod tests {
    use quorate_api::spec;

    use super::*;

    #[test]
    fn a_new_file_is_a_workflow_of_its_name_without_a_remark() {
        let text = scaffold("daily-sales", "http://127.0.0.1:8780/");
        assert!(text.starts_with(
            "# yaml-language-server: $schema=http://127.0.0.1:8780/v1/schema/workflow.json\n"
        ));
        let parsed = spec::parse(&text, None).unwrap();
        assert_eq!((parsed.name.as_str(), parsed.warnings), ("daily-sales", Vec::new()));
    }
}
