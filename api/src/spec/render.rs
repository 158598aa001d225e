//! Findings as a compiler prints them.

use std::fmt::Write;

use super::{Diagnostic, Span};

/// Columns of a source line that are shown; of a longer one, those around the finding.
const LINE_CHARS_MAX: usize = 120;

/// Columns shown before a finding far to the right.
const LEAD_CHARS: usize = 40;

/// Prints findings for people: `file:line:column: error: message`, the line it stands on with
/// the place underlined, and the way out. Without colours.
#[must_use]
pub fn render_text(diagnostics: &[Diagnostic], file: &str, source: &str) -> String {
    let lines: Vec<&str> = source.lines().collect();
    let mut out = String::new();
    for found in diagnostics {
        // A string takes all that is written to it.
        let _ = write_one(&mut out, found, file, &lines);
    }
    out
}

fn write_one(out: &mut String, found: &Diagnostic, file: &str, lines: &[&str]) -> std::fmt::Result {
    let Diagnostic { severity, message, span, help, .. } = found;
    let message = printable(message);
    let Some(span) = span else {
        writeln!(out, "{file}: {severity}: {message}")?;
        return help.iter().try_for_each(|help| writeln!(out, "  = help: {}", printable(help)));
    };
    writeln!(out, "{file}:{}:{}: {severity}: {message}", span.line, span.column)?;
    let number = span.line.to_string();
    let margin = number.len();
    if let Some(line) = lines.get(span.line.saturating_sub(1) as usize) {
        let (shown, underline) = excerpt(line, *span);
        writeln!(out, " {number} | {shown}")?;
        writeln!(out, " {:margin$} | {underline}", "")?;
    }
    help.iter().try_for_each(|help| writeln!(out, " {:margin$} = help: {}", "", printable(help)))
}

/// The part of a line around a span, and carets under the span. One column a character.
fn excerpt(line: &str, span: Span) -> (String, String) {
    let column = (span.column as usize).saturating_sub(1);
    let length = line.chars().count();
    let end = if span.end_line == span.line {
        (span.end_column as usize).saturating_sub(1)
    } else {
        length
    };
    let from = if length > LINE_CHARS_MAX { column.saturating_sub(LEAD_CHARS) } else { 0 };
    let to = from + LINE_CHARS_MAX;
    let mut shown: String = line.chars().skip(from).take(LINE_CHARS_MAX).map(visible).collect();
    if from > 0 {
        shown.insert_str(0, "...");
    }
    if length > to {
        shown.push_str("...");
    }
    let before = if from > 0 { column - from + "...".len() } else { column };
    let carets = end.min(to).saturating_sub(column).max(1);
    (shown.trim_end().to_owned(), format!("{}{}", " ".repeat(before), "^".repeat(carets)))
}

fn printable(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// What a document says must not steer the terminal it is printed on.
fn visible(char: char) -> char {
    match char {
        '\t' => ' ',
        char if char.is_control() => '\u{fffd}',
        char => char,
    }
}
