//! What goes to stdout: tables, JSON, names. And the colours of both streams.
//!
//! Colours are written always and taken out by the stream where they are not wanted: no
//! terminal, `NO_COLOR`, `--color never`.

use std::fmt;
use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

/// Failed.
pub(crate) const RED: Paint = Paint("\x1b[31m");
/// Done.
pub(crate) const GREEN: Paint = Paint("\x1b[32m");
/// Waits or was lost; look at it.
pub(crate) const YELLOW: Paint = Paint("\x1b[33m");
/// Under way.
pub(crate) const BLUE: Paint = Paint("\x1b[34m");
/// Of lesser weight.
pub(crate) const DIM: Paint = Paint("\x1b[2m");
/// Of greater weight.
pub(crate) const BOLD: Paint = Paint("\x1b[1m");
/// Back to normal.
pub(crate) const PLAIN: Paint = Paint("\x1b[0m");

/// A change of colour or weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint(&'static str);

impl fmt::Display for Paint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The colour of a state, the same in tables and in progress.
pub(crate) fn paint(state: &str) -> Paint {
    match state {
        "succeeded" | "live" => GREEN,
        "failed" | "timed_out" | "lost" | "upstream_failed" | "gone" | "quarantined" => RED,
        "running" => BLUE,
        "retrying" | "stopping" | "paused" | "cancelled" | "draining" | "drained" => YELLOW,
        "skipped" | "waiting" => DIM,
        _ => PLAIN,
    }
}

/// How data are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// What the API answered, unedited.
    Json,
    /// One JSON document per line.
    Jsonl,
    /// `kind/name`, one per line.
    Name,
}

/// The flags of every verb that prints data.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct OutputArgs {
    /// How to print
    #[arg(short = 'o', long = "output", value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Leave out the line of headings
    #[arg(long)]
    pub(crate) no_headers: bool,
}

/// One thing to print, in every form it may be asked for in.
pub(crate) trait Item {
    /// `run`, as in `run/0192…`.
    const KIND: &'static str;
    /// The headings, the wide ones last.
    const HEADINGS: &'static [&'static str];
    /// How many of the headings only a wide table has.
    const WIDE: usize;
    /// What to refer to it by.
    fn id(&self) -> String;
    /// A cell for each heading. `now_ms`: the time that ages are counted to.
    fn cells(&self, now_ms: u64) -> Vec<Cell>;
}

/// A cell of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    paint: Option<Paint>,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), paint: None }
    }
}

impl Cell {
    /// A state, in its colour.
    pub(crate) fn state(state: &str) -> Self {
        Self { text: state.to_owned(), paint: Some(paint(state)) }
    }

    /// Something that may not be there.
    pub(crate) fn maybe<T: fmt::Display>(value: Option<T>) -> Self {
        value.map_or_else(|| "-".to_owned(), |value| value.to_string()).into()
    }
}

/// Prints a list; `body` is what the API said.
///
/// # Errors
///
/// If `out` cannot be written.
pub(crate) fn print_list<T: Item + Serialize>(
    out: &mut dyn Write,
    args: &OutputArgs,
    items: &[T],
    body: &impl Serialize,
    now_ms: u64,
) -> io::Result<()> {
    if args.quiet {
        return items.iter().try_for_each(|item| writeln!(out, "{}", item.id()));
    }
    match args.format {
        Format::Json => print_json(out, body),
        Format::Jsonl => items.iter().try_for_each(|item| print_line(out, item)),
        Format::Name => {
            items.iter().try_for_each(|item| writeln!(out, "{}/{}", T::KIND, item.id()))
        }
        Format::Table => print_table(out, args, items, T::HEADINGS.len() - T::WIDE, now_ms),
        Format::Wide => print_table(out, args, items, T::HEADINGS.len(), now_ms),
    }
}

/// Prints one thing, as [`print_list`] would a list of one; as JSON it is not a list.
///
/// # Errors
///
/// If `out` cannot be written.
pub(crate) fn print_one<T: Item + Serialize>(
    out: &mut dyn Write,
    args: &OutputArgs,
    item: &T,
    now_ms: u64,
) -> io::Result<()> {
    print_list(out, args, std::slice::from_ref(item), item, now_ms)
}

/// Prints the answer to a change: the id of what was changed, or `body` where JSON is wanted.
///
/// # Errors
///
/// If `out` cannot be written.
pub(crate) fn print_id(
    out: &mut dyn Write,
    args: &OutputArgs,
    kind: &str,
    id: &dyn fmt::Display,
    body: &impl Serialize,
) -> io::Result<()> {
    match (args.quiet, args.format) {
        (false, Format::Json) => print_json(out, body),
        (false, Format::Jsonl) => print_line(out, body),
        (false, Format::Name) => writeln!(out, "{kind}/{id}"),
        (true, _) | (false, Format::Table | Format::Wide) => writeln!(out, "{id}"),
    }
}

fn print_table<T: Item>(
    out: &mut dyn Write,
    args: &OutputArgs,
    items: &[T],
    columns: usize,
    now_ms: u64,
) -> io::Result<()> {
    let mut table = Table::new(&T::HEADINGS[..columns], !args.no_headers);
    for item in items {
        table.push(item.cells(now_ms));
    }
    table.print(out)
}

/// Prints a JSON document to be read by people and programs alike.
///
/// # Errors
///
/// If `out` cannot be written.
pub(crate) fn print_json(out: &mut dyn Write, body: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, body)?;
    writeln!(out)
}

fn print_line(out: &mut dyn Write, body: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, body)?;
    writeln!(out)
}

/// Columns without borders: two spaces apart, each as wide as its widest cell, no space at
/// the end of a line.
#[derive(Debug)]
pub(crate) struct Table {
    columns: usize,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns, and a line of headings if asked for.
    pub(crate) fn new(headings: &[&str], with_headings: bool) -> Self {
        let heading = |text: &&str| Cell { text: (*text).to_owned(), paint: Some(DIM) };
        let rows =
            if with_headings { vec![headings.iter().map(heading).collect()] } else { Vec::new() };
        Self { columns: headings.len(), rows }
    }

    /// Adds a row. Cells past the last column are left out.
    pub(crate) fn push(&mut self, mut cells: Vec<Cell>) {
        cells.truncate(self.columns);
        self.rows.push(cells);
    }

    /// Writes it out.
    ///
    /// # Errors
    ///
    /// If `out` cannot be written.
    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut widths = vec![0; self.columns];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.text.chars().count().max(*width);
            }
        }
        self.rows.iter().try_for_each(|row| print_row(out, row, &widths))
    }
}

fn print_row(out: &mut dyn Write, row: &[Cell], widths: &[usize]) -> io::Result<()> {
    let last = row.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
    for (column, (cell, &width)) in row.iter().zip(widths).enumerate().take(last + 1) {
        match cell.paint {
            Some(paint) => write!(out, "{paint}{}{PLAIN}", cell.text)?,
            None => out.write_all(cell.text.as_bytes())?,
        }
        if column < last {
            let pad = width - cell.text.chars().count() + 2;
            write!(out, "{:pad$}", "")?;
        }
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(table: &Table) -> String {
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let mut table = Table::new(&["ID", "STATE", "NOTE"], false);
        table.push(vec!["a".into(), "running".into(), "".into()]);
        table.push(vec!["größer".into(), "ok".into(), "late".into()]);
        assert_eq!(shown(&table), "a       running\ngrößer  ok       late\n");
    }

    #[test]
    fn colour_takes_no_room() {
        let mut table = Table::new(&["STATE", "ID"], false);
        table.push(vec![Cell::state("failed"), "a".into()]);
        table.push(vec![Cell::state("succeeded"), "b".into()]);
        assert_eq!(shown(&table), "\x1b[31mfailed\x1b[0m     a\n\x1b[32msucceeded\x1b[0m  b\n");
    }
}
