//! Turns names in `needs` into positions, and finds what keeps the tasks from being a DAG.

use std::collections::HashMap;

use quorate_model::workflow::validate::{DefinitionError, EDGES_MAX};
use quorate_model::workflow::{Graph, TaskDefinition};

use super::section::{Item, Reader};
use super::task::{Draft, Need};
use super::{Code, Diagnostic, Severity, name};

/// Tasks of a cycle that are named.
const CYCLE_SHOWN_MAX: usize = 20;

/// The position of every task by its id. Of tasks with one id, the first.
pub(super) type Positions<'n> = HashMap<&'n str, usize>;

/// Finds the positions, and reports ids that come twice.
pub(super) fn positions<'n>(reader: &mut Reader<'n>, drafts: &[Draft<'n>]) -> Positions<'n> {
    let mut positions = Positions::with_capacity(drafts.len());
    for (index, draft) in drafts.iter().enumerate() {
        if draft.id.is_empty() {
            continue;
        }
        if let Some(&first) = positions.get(draft.id) {
            let line = drafts[first].place.span.line;
            let message = format!("two tasks have the id `{}`; first on line {line}", draft.id);
            let found = Diagnostic::new(Severity::Error, Code::DuplicateTask, message);
            reader.report.add(found.at(draft.place.span, format!("/tasks/{index}/id")));
        } else {
            positions.insert(draft.id, index);
        }
    }
    positions
}

/// Fills in [`TaskDefinition::needs`], and reports what cannot be.
pub(super) fn resolve<'n>(
    reader: &mut Reader<'n>,
    drafts: &[Draft<'n>],
    tasks: &mut [TaskDefinition],
    positions: &Positions<'n>,
) {
    let mut edges = 0;
    for (draft, task) in drafts.iter().zip(tasks) {
        let mut needs = Vec::with_capacity(draft.needs.len());
        for need in &draft.needs {
            match positions.get(need.id) {
                Some(&position) => needs.push(u32::try_from(position).unwrap_or(u32::MAX)),
                None => unknown(reader, draft.id, "needs", need, positions),
            }
        }
        needs.sort_unstable();
        let listed = needs.len();
        needs.dedup();
        if needs.len() < listed {
            let message = format!("`{}` lists a task twice in its needs", draft.id);
            let found = Diagnostic::new(Severity::Warning, Code::Conflict, message);
            let need = &draft.needs[0];
            reader.report.add(found.at(need.place.span, need.pointer.clone()));
        }
        edges += needs.len();
        task.needs = needs;
    }
    if edges > EDGES_MAX {
        let error = DefinitionError::TooManyEdges { edges: edges as u64 };
        reader.report.add(Diagnostic::new(Severity::Error, Code::Limit, error.to_string()));
    }
}

/// Reads the ids of tasks: one, or a list.
pub(super) fn ids<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> Vec<Need<'n>> {
    let mut ids = Vec::new();
    reader.one_or_more(item, "a task id or a list of ids", |reader, item| {
        if let Some(id) = reader.fixed(item) {
            ids.push(Need { id, place: item.node.place, pointer: item.path.to_string() });
        }
    });
    ids
}

/// Reports that a task which another one `needs` is not there.
pub(super) fn unknown<'n>(
    reader: &mut Reader<'n>,
    id: &str,
    needs: &str,
    need: &Need<'n>,
    positions: &Positions<'n>,
) {
    let message = format!("`{id}` {needs} `{}`, which does not exist", need.id);
    let mut found = Diagnostic::new(Severity::Error, Code::UnknownTask, message);
    if !reader.report.is_full()
        && let Some(near) = name::nearest(need.id, positions.keys().copied())
    {
        found = found.with_help(format!("did you mean `{near}`?"));
    }
    reader.report.add(found.at(need.place.span, need.pointer.clone()));
}

/// Reports a cycle by its path, at the need that closes it.
pub(super) fn check_cycle(reader: &mut Reader<'_>, drafts: &[Draft<'_>], tasks: &[TaskDefinition]) {
    let Some(mut cycle) = Graph::cycle(tasks) else { return };
    let first = (0..cycle.len()).min_by_key(|&at| cycle[at]);
    cycle.rotate_left(first.unwrap_or(0));
    let id = |&at: &usize| drafts[at].id;
    let mut ids: Vec<&str> = cycle.iter().take(CYCLE_SHOWN_MAX).map(id).collect();
    if cycle.len() > CYCLE_SHOWN_MAX {
        ids.push("...");
    }
    ids.extend(cycle.first().map(id));
    let message = format!("tasks wait for each other: {}", ids.join(" -> "));
    let mut found = Diagnostic::new(Severity::Error, Code::Cycle, message)
        .with_help("an arrow leads from a task to one that needs it; take one of them away");
    let ends = cycle.first().zip(cycle.last());
    let closing = ends.and_then(|(&first, &last)| {
        drafts[first].needs.iter().find(|need| need.id == drafts[last].id)
    });
    if let Some(need) = closing {
        found = found.at(need.place.span, need.pointer.clone());
    }
    reader.report.add(found);
}
