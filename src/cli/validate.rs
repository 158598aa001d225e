//! `validate`: what is wrong with workflow files, for people and for programs.

use std::io::{self, Write};

use quorate_api::page::Page;
use quorate_api::spec::{Diagnostic, Parsed, Severity, render_ansi};
use serde::Serialize;

use super::document::{self, Document};
use super::exit::Exit;
use super::output::{BOLD, GREEN, PLAIN, RED, print_json};
use super::{sarif, say, stdout};

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
    /// SARIF 2.1.0, for what gathers the findings of many tools
    Sarif,
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
        ReportFormat::Sarif => {
            let found = checks.iter().map(|(d, check)| (d.file.as_str(), findings(check)));
            print_json(&mut out, &sarif::log(found))?;
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
    let Document { file, source, is_stdin: _ } = document;
    out.write_all(render_ansi(findings(check), file, source).as_bytes())?;
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
