//! What every event makes of every status: each pair in a script of its own.

use std::fmt::Write as _;

use goldenscript::ArgumentConsumer;

use super::{Outcome, Script, show};

/// A name, and the lines that lead there.
pub(super) fn case(args: &mut ArgumentConsumer<'_>) -> Outcome<(String, Vec<String>)> {
    let name = args.next_pos().ok_or("which name?")?.to_owned();
    Ok((name, std::iter::from_fn(|| args.next_pos()).map(str::to_owned).collect()))
}

impl Script {
    /// A line for every pair, with what became of the task and why if nothing did.
    pub(super) fn matrix(&self, task: Option<&str>) -> Outcome<String> {
        let task = task.ok_or("which task?")?;
        let mut out = String::new();
        for (status, there) in &self.statuses {
            for (event, lines) in &self.events {
                let mut script = Self::default();
                script.play(there)?;
                let before = script.task_line(task)?;
                let answers = script.play(lines)?;
                let after = script.task_line(task)?;
                let became = if before == after { "stays" } else { &after };
                let refused = answers.lines().filter_map(|line| line.split_once("rejected: "));
                let refused: Vec<&str> = refused.map(|(_, why)| why).collect();
                writeln!(out, "{status:<9} {event:<12} {became} {}", refused.join("; "))?;
            }
        }
        let lines = out.lines().map(|line| format!("{}\n", line.trim_end()));
        Ok(lines.collect())
    }

    /// Runs lines as a script of their own.
    pub(super) fn play(&mut self, lines: &[String]) -> Outcome<String> {
        if lines.is_empty() {
            return Ok(String::new());
        }
        Ok(goldenscript::generate(self, &format!("{}\n---\n\n", lines.join("\n")))?)
    }

    fn task_line(&self, task: &str) -> Outcome<String> {
        let id = self.names.task(task)?;
        let gone = |rejection| format!("{rejection}");
        Ok(self.replicas.state.task(id).map_or_else(gone, show::task_line))
    }
}
