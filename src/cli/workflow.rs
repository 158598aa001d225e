//! `apply` and `validate`: the verbs of a workflow file.

use std::io::{self, Write};

use quorate_api::page::Page;
use quorate_api::spec::{Diagnostic, Parsed, Severity, render_text};
use serde::Serialize;

use super::connect::{self, now_ms};
use super::document::{self, Document};
use super::exit::Exit;
use super::output::{BOLD, GREEN, OutputArgs, PLAIN, RED, print_json, print_list};
use super::{Global, say, stdout};

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

/// What `quorate validate` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ValidateArgs {
    /// Files, folders of files, or - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// How to print what is found
    #[arg(short = 'o', long = "output", value_name = "FORMAT", value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum ReportFormat {
    /// As a compiler would
    #[default]
    Text,
    /// One JSON document
    Json,
    /// Annotations of a GitHub workflow
    Github,
}

/// Checks files, without a server. Answers [`Exit::Error`] if any is refused.
///
/// # Errors
///
/// If a file cannot be read, or stdout cannot be written.
pub(super) fn validate(args: &ValidateArgs) -> anyhow::Result<Exit> {
    let documents = document::read_all(&args.files)?;
    let checks: Vec<_> = documents.iter().map(|document| (document, document.check())).collect();
    let mut out = stdout();
    match args.format {
        ReportFormat::Text => checks.iter().try_for_each(|(d, check)| tell(&mut out, d, check))?,
        ReportFormat::Json => {
            let reports: Vec<_> = checks.iter().map(|(d, check)| Report::of(d, check)).collect();
            print_json(&mut out, &Page::whole(reports))?;
        }
        ReportFormat::Github => checks.iter().try_for_each(|(d, c)| annotate(&mut out, d, c))?,
    }
    out.flush()?;
    let refused = checks.iter().filter(|(_, check)| check.is_err()).count();
    if refused == 0 {
        return Ok(Exit::Done);
    }
    if checks.len() > 1 {
        say(format_args!("{refused} of {} files are no valid workflows", checks.len()));
    }
    Ok(Exit::Error)
}

type Check = Result<Parsed, Vec<Diagnostic>>;

fn findings(check: &Check) -> &[Diagnostic] {
    match check {
        Ok(parsed) => &parsed.warnings,
        Err(found) => found,
    }
}

/// One line for a file that is valid. What is found goes to stdout: here it is the data.
fn tell(out: &mut dyn Write, document: &Document, check: &Check) -> io::Result<()> {
    let Document { file, source } = document;
    out.write_all(render_text(findings(check), file, source).as_bytes())?;
    match check {
        Ok(Parsed { name, definition, .. }) => {
            let tasks = definition.tasks.len();
            writeln!(out, "{GREEN}✓{PLAIN} {file}: {BOLD}{name}{PLAIN}, {tasks} tasks")
        }
        Err(found) => {
            let errors = found.iter().filter(|found| found.severity == Severity::Error).count();
            writeln!(out, "{RED}✗{PLAIN} {file}: {errors} errors")
        }
    }
}

/// What is known of a file, as JSON.
#[derive(Debug, Serialize)]
struct Report<'a> {
    file: &'a str,
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<usize>,
    diagnostics: &'a [Diagnostic],
}

impl<'a> Report<'a> {
    fn of(document: &'a Document, check: &'a Check) -> Self {
        let parsed = check.as_ref().ok();
        Self {
            file: &document.file,
            valid: parsed.is_some(),
            name: parsed.map(|parsed| parsed.name.to_string()),
            tasks: parsed.map(|parsed| parsed.definition.tasks.len()),
            diagnostics: findings(check),
        }
    }
}

/// Workflow commands of GitHub: `::error file=…,line=…::message`.
fn annotate(out: &mut dyn Write, document: &Document, check: &Check) -> io::Result<()> {
    for found in findings(check) {
        let level = match found.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "notice",
        };
        write!(out, "::{level} file={}", escape(&document.file, &[':', ',']))?;
        if let Some(span) = found.span {
            write!(out, ",line={},col={},endLine={}", span.line, span.column, span.end_line)?;
            write!(out, ",endColumn={}", span.end_column)?;
        }
        let help = found.help.iter().map(|help| format!(" ({help})"));
        let message: String = std::iter::once(found.message.clone()).chain(help).collect();
        writeln!(out, "::{}", escape(&message, &[]))?;
    }
    Ok(())
}

/// Writes `%`, line ends and `special` as GitHub wants them.
fn escape(text: &str, special: &[char]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if matches!(char, '%' | '\r' | '\n') || special.contains(&char) {
            escaped.push_str(&format!("%{:02X}", u32::from(char)));
        } else {
            escaped.push(char);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_is_one_line() {
        assert_eq!(escape("a:b,c%\nd", &[':', ',']), "a%3Ab%2Cc%25%0Ad");
    }
}
