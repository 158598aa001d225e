//! Short names for runs and tasks: `r1/a` for the task `a` of run 00000000-...-000000000001.

use std::collections::BTreeMap;

use quorate_model::{Name, RunId, TaskId};
use uuid::Uuid;

use super::Outcome;

/// What every run id begins with in a script.
const LONG: &str = "00000000-0000-0000-0000-";

/// Hexadecimal digits behind it.
const DIGITS: usize = 12;

/// The tasks of every run that a script has started.
#[derive(Default)]
pub(super) struct Names {
    tasks: BTreeMap<RunId, Vec<Name>>,
}

/// The run called `r1`.
pub(super) fn run(text: &str) -> Outcome<RunId> {
    let number = text.strip_prefix('r').ok_or_else(|| format!("{text} is no run"))?;
    Ok(RunId(Uuid::from_u128(number.parse()?)))
}

impl Names {
    pub(super) fn add(&mut self, run: RunId, tasks: Vec<Name>) {
        self.tasks.insert(run, tasks);
    }

    /// The task called `r1/a`, or `r1/7` by position.
    pub(super) fn task(&self, text: &str) -> Outcome<TaskId> {
        let (of, id) = text.split_once('/').ok_or_else(|| format!("{text} is no task"))?;
        let run = run(of)?;
        let names = self.tasks.get(&run).map_or(&[][..], Vec::as_slice);
        match names.iter().position(|name| name.as_str() == id) {
            Some(position) => Ok(TaskId::new(run, position)),
            None => Ok(TaskId { run, index: id.parse()? }),
        }
    }

    /// A text with short names in place of long ones.
    pub(super) fn shorten(&self, text: &str) -> String {
        let mut parts = text.split(LONG);
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (digits, rest) = part.split_at(DIGITS.min(part.len()));
            let number = u128::from_str_radix(digits, 16).unwrap_or_default();
            out.push_str(&format!("r{number}"));
            out.push_str(&self.shorten_position(RunId(Uuid::from_u128(number)), rest));
        }
        out
    }

    /// Names the position that a text begins with.
    fn shorten_position(&self, run: RunId, rest: &str) -> String {
        let Some(tail) = rest.strip_prefix('/') else { return rest.to_owned() };
        let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (position, tail) = tail.split_at(end);
        let names = self.tasks.get(&run).map_or(&[][..], Vec::as_slice);
        let name = position.parse::<usize>().ok().and_then(|at| names.get(at));
        name.map_or_else(|| rest.to_owned(), |name| format!("/{name}{tail}"))
    }
}
