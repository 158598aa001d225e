//! The rows of tables: what a line says of a run, a task, a workflow, a worker or a member.

use std::collections::BTreeMap;
use std::fmt::Display;

use quorate_api::time::Time;
use quorate_api::view::{
    ArtifactView, MemberView, PauseView, Put, RunView, TaskView, WorkerState, WorkerView,
    WorkflowSummary, WorkflowView,
};

use super::output::{Cell, Item};
use super::progress::{asks, held, why};
use super::span;

impl Item for RunView {
    const KIND: &'static str = "run";
    const HEADINGS: &'static [&'static str] = &[
        "RUN", "WORKFLOW", "STATE", "TASKS", "AGE", "TOOK", "VERSION", "TRIGGER", "CREATED",
        "LABELS",
    ];
    const WIDE: usize = 4;

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self, now_ms: u64) -> Vec<Cell> {
        vec![
            self.id().into(),
            self.workflow.to_string().into(),
            Cell::state(match self.ending {
                Some(_) => "ending",
                None if self.stopping => "stopping",
                None => self.state.text(),
            }),
            format!("{}/{}", self.tasks.ended(), self.tasks.total).into(),
            age(self.created_at, now_ms),
            took(self.duration_ms, Some(self.created_at), now_ms),
            format!("v{}", self.version).into(),
            self.trigger.clone().into(),
            self.created_at.to_string().into(),
            labels(&self.labels),
        ]
    }
}

impl Item for TaskView {
    const KIND: &'static str = "task";
    const HEADINGS: &'static [&'static str] =
        &["TASK", "STATE", "TRIES", "TOOK", "WORKER", "NOTE", "KIND", "NEEDS", "TOKEN"];
    const WIDE: usize = 3;

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self, now_ms: u64) -> Vec<Cell> {
        let latest = self.attempts.last();
        let note = self
            .note
            .clone()
            .or_else(|| asks(self))
            .or_else(|| held(self))
            .or_else(|| latest.and_then(why));
        let note = note.or_else(|| self.late_at.map(|at| format!("late since {at}")));
        let note =
            if self.is_handled { note.map(|note| format!("{note} (handled)")) } else { note };
        let note = note.or_else(|| self.waits_for.as_ref().map(|what| format!("waits for {what}")));
        vec![
            self.id().into(),
            Cell::state(if self.stopping { "stopping" } else { self.state.text() }),
            self.attempts_begun.to_string().into(),
            took(self.duration_ms, self.started_at, now_ms),
            Cell::maybe(latest.map(|attempt| attempt.worker)),
            note.unwrap_or_default().into(),
            self.kind.to_string().into(),
            join(&self.needs).into(),
            Cell::maybe(latest.map(|attempt| attempt.token)),
        ]
    }
}

impl Item for WorkflowSummary {
    const KIND: &'static str = "workflow";
    const HEADINGS: &'static [&'static str] =
        &["WORKFLOW", "VERSION", "TASKS", "STATE", "UPDATED", "DESCRIPTION", "LABELS"];
    const WIDE: usize = 1;

    fn id(&self) -> String {
        self.name.to_string()
    }

    fn cells(&self, now_ms: u64) -> Vec<Cell> {
        vec![
            self.id().into(),
            format!("v{}", self.version).into(),
            self.tasks.to_string().into(),
            activity(self.pause.as_ref()),
            age(self.updated_at, now_ms),
            first_line(&self.description),
            labels(&self.labels),
        ]
    }
}

impl Item for WorkflowView {
    const KIND: &'static str = WorkflowSummary::KIND;
    const HEADINGS: &'static [&'static str] = WorkflowSummary::HEADINGS;
    const WIDE: usize = WorkflowSummary::WIDE;

    fn id(&self) -> String {
        self.name.to_string()
    }

    fn cells(&self, now_ms: u64) -> Vec<Cell> {
        vec![
            self.id().into(),
            format!("v{}", self.version).into(),
            self.tasks.len().to_string().into(),
            activity(self.pause.as_ref()),
            age(self.created_at, now_ms),
            first_line(&self.description),
            labels(&self.labels),
        ]
    }
}

impl Item for Put {
    const KIND: &'static str = WorkflowSummary::KIND;
    const HEADINGS: &'static [&'static str] = &["WORKFLOW", "VERSION", "CHANGED"];
    const WIDE: usize = 0;

    fn id(&self) -> String {
        self.name.to_string()
    }

    fn cells(&self, _: u64) -> Vec<Cell> {
        let changed = if self.changed { "yes" } else { "no" };
        vec![self.id().into(), format!("v{}", self.version).into(), changed.into()]
    }
}

impl Item for WorkerView {
    const KIND: &'static str = "worker";
    const HEADINGS: &'static [&'static str] = &[
        "WORKER",
        "NAME",
        "STATE",
        "RUNNING",
        "SLOTS",
        "SINCE",
        "CONTAINMENT",
        "LABELS",
        "LEASE",
        "EPOCH",
        "NOTE",
    ];
    const WIDE: usize = 3;

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self, now_ms: u64) -> Vec<Cell> {
        vec![
            self.id().into(),
            self.name.to_string().into(),
            Cell::state(state_of(self)),
            self.running.to_string().into(),
            self.slots.to_string().into(),
            age(self.gone_at.unwrap_or(self.registered_at), now_ms),
            self.containment.text().into(),
            labels(&self.labels),
            self.lease.clone().into(),
            self.epoch.to_string().into(),
            Cell::maybe(self.ineligible.as_ref()),
        ]
    }
}

/// How a worker is, in a word.
pub(super) fn state_of(worker: &WorkerView) -> &'static str {
    match worker.state {
        WorkerState::Live if worker.quarantine.is_some() => "quarantined",
        WorkerState::Live if worker.eligible => "live",
        WorkerState::Live if worker.running > 0 => "draining",
        WorkerState::Live => "drained",
        WorkerState::Gone => "gone",
    }
}

impl Item for MemberView {
    const KIND: &'static str = "member";
    const HEADINGS: &'static [&'static str] = &["NODE", "ADDRESS", "ROLE", "MATCHED"];
    const WIDE: usize = 0;

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self, _: u64) -> Vec<Cell> {
        let role = match (self.leader, self.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        vec![
            self.id().into(),
            self.address.clone().into(),
            role.into(),
            Cell::maybe(self.matched_index.map(|index| format!("@{index}"))),
        ]
    }
}

impl Item for ArtifactView {
    const KIND: &'static str = "artifact";
    const HEADINGS: &'static [&'static str] = &["ARTIFACT", "TASK", "SIZE"];
    const WIDE: usize = 0;

    fn id(&self) -> String {
        self.path.clone()
    }

    fn cells(&self, _: u64) -> Vec<Cell> {
        let size = self.size.map(|bytes| format!("{bytes} B"));
        vec![self.id().into(), self.task.to_string().into(), Cell::maybe(size)]
    }
}

fn age(since: Time, now_ms: u64) -> Cell {
    span::show(now_ms.saturating_sub(since.0.0)).into()
}

/// How long something took, or has taken so far if it has begun.
fn took(ended_ms: Option<u64>, began: Option<Time>, now_ms: u64) -> Cell {
    let so_far = began.map(|began| now_ms.saturating_sub(began.0.0));
    Cell::maybe(ended_ms.or(so_far).map(span::show))
}

/// Whether the runs of a workflow start anything.
fn activity(pause: Option<&PauseView>) -> Cell {
    Cell::state(if pause.is_some() { "paused" } else { "active" })
}

fn first_line(text: &str) -> Cell {
    text.lines().next().unwrap_or_default().into()
}

fn labels(labels: &BTreeMap<impl Display, String>) -> Cell {
    if labels.is_empty() {
        return "-".into();
    }
    let all: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    all.join(",").into()
}

fn join(names: &[impl Display]) -> String {
    let all: Vec<_> = names.iter().map(ToString::to_string).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(",") }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::Value;

    use super::super::output::{Format, OutputArgs, print_list};
    use super::*;

    /// Views as the API would send them.
    const VIEWS: &str = include_str!("../../tests/cli/views.json");

    /// What ages are counted to: a little after the last instant in the views.
    const NOW: &str = "2026-11-23T12:00:00Z";

    fn transcript<T: Item + serde::Serialize + DeserializeOwned>(
        views: &Value,
        of: &str,
    ) -> String {
        let items: Vec<T> = serde_json::from_value(views[of].clone()).unwrap();
        let now_ms = NOW.parse::<Time>().unwrap().0.0;
        let mut out = Vec::new();
        for format in [Format::Table, Format::Wide, Format::Name] {
            out.extend(format!("# {of}, {format:?}\n").bytes());
            let args = OutputArgs { format, ..OutputArgs::default() };
            print_list(&mut out, &args, &items, &items, now_ms).unwrap();
        }
        let plain = anstream::adapter::strip_bytes(&out).into_vec();
        String::from_utf8(plain).unwrap() + "\n"
    }

    #[test]
    fn tables_look_as_they_did() {
        let views: Value = serde_json::from_str(VIEWS).unwrap();
        let shown = [
            transcript::<RunView>(&views, "runs"),
            transcript::<TaskView>(&views, "tasks"),
            transcript::<WorkflowSummary>(&views, "workflows"),
            transcript::<Put>(&views, "put"),
            transcript::<WorkerView>(&views, "workers"),
            transcript::<MemberView>(&views, "members"),
            transcript::<ArtifactView>(&views, "artifacts"),
        ]
        .concat();
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/tables.golden");
        if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
            std::fs::write(golden, &shown).unwrap();
        }
        assert_eq!(shown, std::fs::read_to_string(golden).unwrap());
    }
}
