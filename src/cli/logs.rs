//! `logs`: what tasks wrote, of one or of all, as it is or as it comes.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{self, SelectAll};
use futures_util::{Stream, StreamExt as _};
use quorate_api::client::{Client, Error, LogQuery};
use quorate_api::view::{LogLine, LogStream, RunView, TaskView};
use quorate_model::RunId;

use super::connect;
use super::exit::{Exit, Failure};
use super::output::{DIM, PLAIN, YELLOW};
use super::{Global, stdout};

/// How long one look waits for the run to change, before it looks for new attempts anyway.
const LOOK_WAIT: Duration = Duration::from_secs(10);

/// What `quorate logs` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct LogsArgs {
    /// Id of a run, a unique part of it, or @last
    run: String,
    /// Which task; all of them unless said
    task: Option<String>,
    /// Go on as long as the run does
    #[arg(short, long)]
    follow: bool,
    /// Begin with the last so many lines of each log
    #[arg(long, value_name = "LINES")]
    tail: Option<u64>,
    /// Begin each line with its time
    #[arg(long)]
    timestamps: bool,
    /// Begin each line with its task, as is done anyway for more than one
    #[arg(long)]
    prefix: bool,
    /// Which try, from 1; the latest unless said
    #[arg(long, value_name = "N", requires = "task")]
    attempt: Option<u32>,
}

/// Prints what tasks wrote.
///
/// # Errors
///
/// If there is no such run, task or try, its worker cannot be reached, or stdout not written.
pub(super) async fn logs(global: &Global, args: LogsArgs) -> anyhow::Result<Exit> {
    let client = connect::client(global).await?;
    let id = connect::find_run(&client, &args.run).await?;
    let mut printer = Printer::new(&args, stdout());
    let mut logs = Logs::new(connect::patient(&client), id, &args);
    let run = client.run(id).await?;
    logs.look(&run).await?;
    if logs.seen.is_empty() && !args.follow {
        return Err(nothing_yet(id, &args).into());
    }
    if args.follow {
        follow(&mut logs, run, &mut printer).await?;
    } else {
        while let Some((task, line)) = logs.next().await? {
            printer.print(&task, &line)?;
        }
    }
    printer.finish()?;
    Ok(Exit::Done)
}

fn nothing_yet(run: RunId, args: &LogsArgs) -> Failure {
    let message = match (&args.task, args.attempt) {
        (Some(task), Some(attempt)) => format!("{task} has had no try #{attempt}"),
        (Some(task), None) => format!("{task} has not begun"),
        (None, _) => "no task has begun".to_owned(),
    };
    Failure::new(Exit::NotFound, message)
        .hint(format!("to wait for it, add -f; quorate ls tasks {run}"))
}

async fn follow(
    logs: &mut Logs,
    mut run: RunView,
    printer: &mut Printer<impl Write>,
) -> anyhow::Result<()> {
    loop {
        if run.state.is_final() {
            // Of attempts that began last, the streams end by themselves.
            logs.look(&run).await?;
            while let Some((task, line)) = logs.next().await? {
                printer.print(&task, &line)?;
            }
            return Ok(());
        }
        let client = logs.client.clone();
        let change = client.run_after(run.id, run.index, LOOK_WAIT);
        tokio::pin!(change);
        run = loop {
            tokio::select! {
                run = &mut change => break run?,
                line = logs.next(), if !logs.streams.is_empty() => {
                    if let Some((task, line)) = line? {
                        printer.print(&task, &line)?;
                        printer.flush()?;
                    }
                }
            }
        };
        logs.look(&run).await?;
    }
}

type Lines = Pin<Box<dyn Stream<Item = Result<(String, LogLine), Error>> + Send>>;

/// The logs of a run, merged as they come.
struct Logs {
    client: Client,
    run: RunId,
    task: Option<String>,
    attempt: Option<u32>,
    query: LogQuery,
    seen: BTreeSet<(String, u32)>,
    streams: SelectAll<Lines>,
}

impl Logs {
    fn new(client: Client, run: RunId, args: &LogsArgs) -> Self {
        let query = LogQuery { follow: args.follow, tail: args.tail, ..LogQuery::default() };
        let (task, attempt) = (args.task.clone(), args.attempt);
        Self { client, run, task, attempt, query, seen: BTreeSet::new(), streams: SelectAll::new() }
    }

    /// Opens the logs of attempts that were not there before.
    async fn look(&mut self, run: &RunView) -> Result<(), Error> {
        let tasks = match &self.task {
            Some(task) => vec![self.client.task(run.id, task).await?],
            None => self.client.tasks(run.id).await?,
        };
        let mut opened = Vec::new();
        for task in &tasks {
            let attempt = self.wanted(task);
            opened.extend(attempt.and_then(|attempt| self.open(task.id.to_string(), attempt)));
        }
        if self.query.follow {
            self.streams.extend(opened);
        } else {
            // What is written already is told task by task.
            self.streams.push(Box::pin(stream::iter(opened).flatten()));
        }
        Ok(())
    }

    fn wanted(&self, task: &TaskView) -> Option<u32> {
        let latest = task.attempts.last().map(|attempt| attempt.attempt);
        let there = |&wanted: &u32| task.attempts.iter().any(|a| a.attempt == wanted);
        self.attempt.map_or(latest, |wanted| Some(wanted).filter(there))
    }

    fn open(&mut self, task: String, attempt: u32) -> Option<Lines> {
        if !self.seen.insert((task.clone(), attempt)) {
            return None;
        }
        let lines = self.client.log(self.run, &task, attempt, self.query.clone());
        Some(Box::pin(lines.map(move |line| Ok((task.clone(), line?)))))
    }

    async fn next(&mut self) -> Result<Option<(String, LogLine)>, Error> {
        self.streams.next().await.transpose()
    }
}

/// Writes lines, whole or in pieces, with what they are to begin with.
struct Printer<W> {
    out: W,
    timestamps: bool,
    prefix: bool,
    /// The task and the stream whose line is not at its end.
    open: Option<(String, LogStream)>,
}

impl<W: Write> Printer<W> {
    fn new(args: &LogsArgs, out: W) -> Self {
        Self {
            out,
            timestamps: args.timestamps,
            prefix: args.prefix || args.task.is_none(),
            open: None,
        }
    }

    fn print(&mut self, task: &str, line: &LogLine) -> io::Result<()> {
        let goes_on = self.open.as_ref().is_some_and(|(open, s)| open == task && *s == line.stream);
        if !goes_on {
            self.end_line()?;
            self.begin_line(task, line)?;
        }
        self.out.write_all(line.line.as_bytes())?;
        if line.partial {
            self.open = Some((task.to_owned(), line.stream));
        } else {
            self.open = None;
            writeln!(self.out)?;
        }
        Ok(())
    }

    fn begin_line(&mut self, task: &str, line: &LogLine) -> io::Result<()> {
        if self.timestamps {
            write!(self.out, "{DIM}{}{PLAIN} ", line.ts)?;
        }
        match (self.prefix, line.stream) {
            (false, _) => Ok(()),
            (true, LogStream::Stdout) => write!(self.out, "{task} | "),
            (true, LogStream::Stderr) => write!(self.out, "{task} {YELLOW}|{PLAIN} "),
        }
    }

    fn end_line(&mut self) -> io::Result<()> {
        if self.open.take().is_some() {
            writeln!(self.out)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.end_line()?;
        self.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(prefix: bool, lines: &[(&str, LogStream, &str, bool)]) -> String {
        let mut printer = Printer { out: Vec::new(), timestamps: false, prefix, open: None };
        for &(task, stream, line, partial) in lines {
            let (ts, line) = (String::new(), line.to_owned());
            printer.print(task, &LogLine { ts, stream, line, partial, next: 0 }).unwrap();
        }
        printer.finish().unwrap();
        anstream::adapter::strip_bytes(&printer.out).into_vec().try_into().unwrap()
    }

    #[test]
    fn pieces_of_a_line_are_put_together() {
        use LogStream::Stdout;
        let lines = [("a", Stdout, "one ", true), ("a", Stdout, "line", false)];
        assert_eq!(printed(true, &lines), "a | one line\n");
    }

    #[test]
    fn a_line_that_comes_in_between_breaks_another() {
        use LogStream::{Stderr, Stdout};
        let lines = [
            ("a", Stdout, "one ", true),
            ("a", Stderr, "oh", false),
            ("b", Stdout, "b", false),
            ("a", Stdout, "line", true),
        ];
        assert_eq!(printed(true, &lines), "a | one \na | oh\nb | b\na | line\n");
        assert_eq!(printed(false, &lines), "one \noh\nb\nline\n");
    }
}
