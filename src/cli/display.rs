//! Live progress on stderr: bars on a terminal, elsewhere a line per change.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use quorate_api::view::{RunView, TaskState};

use super::output::{BOLD, DIM, PLAIN, paint};
use super::progress::{Progress, TaskNow};
use super::span;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// Running tasks shown at once. More would scroll the terminal; the total tells the rest.
const BARS_MAX: usize = 12;

/// Where progress goes.
pub(crate) struct Display {
    began: Instant,
    bars: Option<Bars>,
}

impl Display {
    /// A display that fits stderr.
    pub(crate) fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let live = std::io::stderr().is_terminal() && !dumb;
        Self { began: Instant::now(), bars: live.then(Bars::new) }
    }

    /// Tells of a task that changed. On a terminal, one that runs has a bar to tell it.
    pub(crate) fn tell(&self, task: &TaskNow, progress: &Progress) {
        if self.bars.is_none() || task.state != TaskState::Running {
            self.note(&line(task, progress.id_width()));
        }
    }

    /// Shows what goes on.
    pub(crate) fn show(&mut self, progress: &Progress) {
        if let Some(bars) = &mut self.bars {
            bars.show(progress);
        }
    }

    /// Says something beside the tasks, above whatever goes on.
    pub(crate) fn note(&self, text: &str) {
        let at = self.began.elapsed().as_millis();
        let line =
            format!("{DIM}{:>6}{PLAIN}  {text}", format!("{}.{}s", at / 1_000, at % 1_000 / 100));
        match &self.bars {
            Some(bars) => bars.all.suspend(|| super::say(format_args!("{line}"))),
            None => super::say(format_args!("{line}")),
        }
    }

    /// Takes the bars away; what was told stays.
    pub(crate) fn clear(&mut self) {
        if let Some(bars) = self.bars.take() {
            bars.clear();
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.clear();
    }
}

fn line(task: &TaskNow, width: usize) -> String {
    let (mark, paint) = (task.mark(), paint(task.state.text()));
    format!("{paint}{mark}{PLAIN} {:<width$}  {paint}{}{PLAIN}", task.id, task.sentence())
}

struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    running: BTreeMap<String, ProgressBar>,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let total = all.add(ProgressBar::new(0));
        total.set_style(style("{bar:24} {pos}/{len} tasks  {msg}  {elapsed}"));
        total.enable_steady_tick(TICK);
        Self { all, total, running: BTreeMap::new() }
    }

    fn show(&mut self, progress: &Progress) {
        let (shown, width) = (progress.running().take(BARS_MAX), progress.id_width());
        let shown: Vec<_> = shown.collect();
        self.running.retain(|id, bar| {
            let stays = shown.iter().any(|task| &task.id == id);
            if !stays {
                bar.finish_and_clear();
            }
            stays
        });
        for task in shown {
            let (all, total) = (&self.all, &self.total);
            let bar = self
                .running
                .entry(task.id.clone())
                .or_insert_with(|| spinner(all, total, task, width));
            bar.set_message(task.sentence());
        }
        let counts = progress.counts();
        self.total.set_length(counts.all as u64);
        self.total.set_position(counts.ended as u64);
        self.total.set_message(format!("{BOLD}{} running{PLAIN}", counts.running));
    }

    fn clear(self) {
        for bar in self.running.values() {
            bar.finish_and_clear();
        }
        self.total.finish_and_clear();
        // A bar that cannot be wiped from the terminal is no reason to fail.
        let _ = self.all.clear();
    }
}

fn spinner(all: &MultiProgress, total: &ProgressBar, task: &TaskNow, width: usize) -> ProgressBar {
    // Backdated, so that a task that was joined late does not look young.
    let bar = ProgressBar::new_spinner()
        .with_style(style("{spinner} {prefix}  {msg}  {elapsed}"))
        .with_prefix(format!("{:<width$}", task.id))
        .with_message(task.sentence())
        .with_elapsed(Duration::from_millis(task.took_ms.unwrap_or(0)));
    let bar = all.insert_before(total, bar);
    bar.enable_steady_tick(TICK);
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the template is a constant")
        .progress_chars("━━─")
}

/// How a run ended, in one line.
pub(crate) fn summary(run: &RunView) -> String {
    let state = run.state.text();
    let took = run.duration_ms.map(span::show).unwrap_or_default();
    let (well, total) = (run.tasks.succeeded, run.tasks.total);
    let tasks = if well == total {
        format!("all {total} tasks")
    } else {
        format!("{well} of {total} tasks succeeded")
    };
    format!(
        "{BOLD}{}{PLAIN} {}{}{PLAIN} in {took}, {tasks}  {DIM}run {}{PLAIN}",
        run.workflow,
        paint(state),
        state.replace('_', " "),
        run.id,
    )
}
