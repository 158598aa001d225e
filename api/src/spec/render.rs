//! Findings as a compiler prints them.

use std::fmt::Write;

use super::{Diagnostic, Label, Severity, Span};

/// Columns of a source line that are shown; of a longer one, those around the finding.
const LINE_CHARS_MAX: usize = 120;

/// Columns shown before a finding far to the right.
const LEAD_CHARS: usize = 40;

/// Sequences that set the parts of a finding apart.
#[derive(Clone, Copy, Debug, Default)]
struct Colours {
    strong: &'static str,
    error: &'static str,
    warning: &'static str,
    note: &'static str,
    faint: &'static str,
    plain: &'static str,
}

const ANSI: Colours = Colours {
    strong: "\x1b[1m",
    error: "\x1b[1;31m",
    warning: "\x1b[1;33m",
    note: "\x1b[1;36m",
    faint: "\x1b[2m",
    plain: "\x1b[0m",
};

impl Colours {
    fn of(self, severity: Severity) -> &'static str {
        match severity {
            Severity::Error => self.error,
            Severity::Warning => self.warning,
            Severity::Note => self.note,
        }
    }
}

/// Prints findings for people: `file:line:column: error: message`, the line it stands on with
/// the place underlined, other places that it is about, and the way out. Without colours.
#[must_use]
pub fn render_text(diagnostics: &[Diagnostic], file: &str, source: &str) -> String {
    render(diagnostics, file, source, Colours::default())
}

/// The same with the colours of a terminal.
#[must_use]
pub fn render_ansi(diagnostics: &[Diagnostic], file: &str, source: &str) -> String {
    render(diagnostics, file, source, ANSI)
}

fn render(diagnostics: &[Diagnostic], file: &str, source: &str, colours: Colours) -> String {
    let mut page = Page { out: String::new(), lines: source.lines().collect(), colours, margin: 0 };
    for found in diagnostics {
        // A string takes all that is written to it.
        let _ = page.finding(found, file);
    }
    page.out
}

/// What is printed so far, and of what.
struct Page<'s> {
    out: String,
    lines: Vec<&'s str>,
    colours: Colours,
    /// Columns of the largest line number of a finding.
    margin: usize,
}

impl Page<'_> {
    fn finding(&mut self, found: &Diagnostic, file: &str) -> std::fmt::Result {
        let Diagnostic { severity, message, span, labels, help, .. } = found;
        let Colours { strong, plain, .. } = self.colours;
        let (colour, message) = (self.colours.of(*severity), printable(message));
        let place = span.map(|span| format!("{}:{}:", span.line, span.column)).unwrap_or_default();
        let out = &mut self.out;
        writeln!(
            out,
            "{strong}{file}:{place}{plain} {colour}{severity}:{plain} {strong}{message}{plain}"
        )?;
        let last =
            labels.iter().map(|label| label.span.line).chain(span.map(|span| span.line)).max();
        self.margin = last.map_or(0, |line| line.to_string().len());
        if let Some(span) = span {
            self.excerpt(*span, colour, '^', "")?;
        }
        for Label { span, message } in labels {
            self.excerpt(*span, self.colours.note, '-', &printable(message))?;
        }
        let (margin, Colours { faint, plain, .. }) = (self.margin, self.colours);
        help.iter().try_for_each(|help| {
            writeln!(self.out, " {:margin$} {faint}={plain} help: {}", "", printable(help))
        })
    }

    /// A line with a place of it underlined by `mark`, and a word about it.
    fn excerpt(&mut self, span: Span, colour: &str, mark: char, message: &str) -> std::fmt::Result {
        let Some(line) = self.lines.get(span.line.saturating_sub(1) as usize) else {
            return Ok(());
        };
        let (shown, before, width) = excerpt(line, span);
        let (margin, Colours { faint, plain, .. }) = (self.margin, self.colours);
        let marks = mark.to_string().repeat(width);
        let space = if message.is_empty() { "" } else { " " };
        writeln!(self.out, " {faint}{:margin$} |{plain} {shown}", span.line)?;
        let marked = format!("{colour}{marks}{space}{message}{plain}");
        writeln!(self.out, " {faint}{:margin$} |{plain} {:before$}{marked}", "", "")
    }
}

/// The part of a line around a span, the column in it where the span begins, and how wide it
/// is. One column a character.
fn excerpt(line: &str, span: Span) -> (String, usize, usize) {
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
    let width = end.min(to).saturating_sub(column).max(1);
    (shown.trim_end().to_owned(), before, width)
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

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn colours_add_nothing_but_themselves() {
        let text = "tasks:\n  - {id: a, needs: b, run: 'true'}\n  - {id: b, needs: a, rnu: 'x'}\n";
        let found = parse(text, Some("w")).unwrap_err();
        let coloured = render_ansi(&found, "w.yaml", text);
        let stripped = [ANSI.strong, ANSI.error, ANSI.warning, ANSI.note, ANSI.faint, ANSI.plain]
            .iter()
            .fold(coloured.clone(), |text, colour| text.replace(colour, ""));
        assert_ne!(coloured, stripped);
        assert_eq!(stripped, render_text(&found, "w.yaml", text));
        let first = "w.yaml:2:20: error: tasks wait for each other: a -> b -> a\n";
        assert!(stripped.starts_with(first), "{stripped}");
        let beside = format!(" | {}- `b` needs `a`\n", " ".repeat(19));
        assert!(stripped.contains(&beside), "{stripped}");
    }
}
