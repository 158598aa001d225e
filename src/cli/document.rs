//! Workflow files on this machine.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use quorate_api::spec::{self, Diagnostic, Parsed};

use super::exit::{Exit, Failure};
use super::say;

/// Stands for standard input.
const STDIN: &str = "-";

/// The endings of workflow files.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// A workflow file as it was read.
#[derive(Clone, Debug)]
pub(super) struct Document {
    /// Where it is from, for people.
    pub(super) file: String,
    /// What it says.
    pub(super) source: String,
    /// Whether it came from standard input.
    pub(super) is_stdin: bool,
}

/// Whether a word on the command line means a file rather than the name of a workflow.
pub(super) fn is_file(word: &str) -> bool {
    word == STDIN || word.contains('/') || has_ending(Path::new(word))
}

fn has_ending(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
}

/// Reads a file, or standard input for `-`.
///
/// # Errors
///
/// If it cannot be read, or is not text.
pub(super) fn read(file: &str) -> anyhow::Result<Document> {
    if file == STDIN {
        let mut source = String::new();
        std::io::stdin().read_to_string(&mut source).context("could not read standard input")?;
        return Ok(Document { file: "stdin".to_owned(), source, is_stdin: true });
    }
    let source = std::fs::read_to_string(file).with_context(|| format!("could not read {file}"))?;
    Ok(Document { file: file.to_owned(), source, is_stdin: false })
}

/// Reads files, and of folders every workflow file in them, in the order of their names.
///
/// # Errors
///
/// If one cannot be read, or a folder has none.
pub(super) fn read_all(files: &[String]) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    for file in files {
        if !Path::new(file).is_dir() {
            documents.push(read(file)?);
            continue;
        }
        let before = documents.len();
        for path in workflow_files(file).with_context(|| format!("could not read {file}"))? {
            documents.push(read(&path)?);
        }
        if documents.len() == before {
            anyhow::bail!("no workflow file in {file}: none ends in .yaml, .yml or .json");
        }
    }
    Ok(documents)
}

fn workflow_files(dir: &str) -> std::io::Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file() && has_ending(&path) {
            files.push(path.to_string_lossy().into_owned());
        }
    }
    files.sort_unstable();
    Ok(files)
}

impl Document {
    /// What it means; or everything that is wrong with it.
    ///
    /// # Errors
    ///
    /// If it is no workflow.
    pub(super) fn check(&self) -> Result<Parsed, Vec<Diagnostic>> {
        spec::parse(&self.source, spec::name_of_file(&self.file).as_deref())
    }

    /// What it means. What is odd or wrong with it is told on stderr.
    ///
    /// # Errors
    ///
    /// If it is no workflow.
    pub(super) fn parse(&self) -> anyhow::Result<Parsed> {
        match self.check() {
            Ok(parsed) => {
                self.tell(&parsed.warnings);
                Ok(parsed)
            }
            Err(found) => {
                self.tell(&found);
                Err(Failure::new(Exit::Error, format!("{} is no valid workflow", self.file)).into())
            }
        }
    }

    /// Says on stderr what was found.
    pub(super) fn tell(&self, found: &[Diagnostic]) {
        let text = spec::render_ansi(found, &self.file, &self.source);
        if !text.is_empty() {
            say(text.trim_end());
        }
    }
}
