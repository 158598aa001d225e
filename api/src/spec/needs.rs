//! Turns names in `needs` into positions, and finds what keeps the tasks from being a DAG.

use std::collections::{HashMap, HashSet};

use quorate_model::workflow::validate::{DefinitionError, EDGES_MAX};
use quorate_model::workflow::{Graph, TaskDefinition, TriggerRule};

use super::section::{Item, Reader};
use super::task::{Draft, Need};
use super::{Code, Diagnostic, Severity, name};

/// Tasks of a cycle that are named.
const CYCLE_SHOWN_MAX: usize = 20;

/// Cycles that are shown: more are likely one mistake.
const CYCLES_SHOWN_MAX: usize = 10;

/// The position of every task by its id. Of tasks with one id, the first.
pub(super) type Positions<'n> = HashMap<&'n str, usize>;

/// Has each task that does not say what it needs need the one before it. What a switch chooses
/// among needs the switch.
pub(super) fn in_sequence(drafts: &mut [Draft<'_>]) {
    let targets = drafts.iter().flat_map(|draft| draft.targets.iter().flatten());
    let chosen: HashSet<&str> = targets.map(|target| target.id).collect();
    for at in 1..drafts.len() {
        let before = drafts[at - 1].id;
        let draft = &mut drafts[at];
        if !draft.says_needs && !before.is_empty() && !chosen.contains(draft.id) {
            let pointer = format!("/tasks/{at}/id");
            draft.needs.push(Need { id: before, place: draft.place, pointer });
        }
    }
}

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
            let found = found.with_label(drafts[first].place.span, "first here");
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
                None => unknown(reader, drafts, draft.id, "needs", need, positions),
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
    drafts: &[Draft<'n>],
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
        let place = drafts[positions[near]].place;
        found =
            found.with_help(format!("did you mean `{near}`?")).with_label(place.span, "is here");
    }
    reader.report.add(found.at(need.place.span, need.pointer.clone()));
}

/// Reports each cycle by its path, with every need that is part of it.
pub(super) fn check_cycles(
    reader: &mut Reader<'_>,
    drafts: &[Draft<'_>],
    tasks: &[TaskDefinition],
) {
    let Some(first) = Graph::cycle(tasks) else { return };
    report_cycle(reader, drafts, first.clone());
    // The others come to light once each cycle that was found is cut.
    let mut rest = tasks.to_vec();
    cut(&mut rest, &first);
    for _ in 1..CYCLES_SHOWN_MAX {
        let Some(cycle) = Graph::cycle(&rest) else { return };
        cut(&mut rest, &cycle);
        report_cycle(reader, drafts, cycle);
    }
}

/// Takes the need away that closes a cycle.
fn cut(tasks: &mut [TaskDefinition], cycle: &[usize]) {
    if let Some((&first, &last)) = cycle.first().zip(cycle.last()) {
        tasks[first].needs.retain(|&need| need as usize != last);
    }
}

/// `cycle`: positions, each needing the one before it, and the first the last.
fn report_cycle(reader: &mut Reader<'_>, drafts: &[Draft<'_>], mut cycle: Vec<usize>) {
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
    let before = cycle.iter().cycle().skip(cycle.len().saturating_sub(1));
    for (&at, &before) in cycle.iter().zip(before).take(CYCLE_SHOWN_MAX) {
        let need = drafts[at].needs.iter().find(|need| need.id == drafts[before].id);
        let Some(need) = need else { continue };
        if found.span.is_none() {
            found = found.at(need.place.span, need.pointer.clone());
        } else {
            let message = format!("`{}` needs `{}`", drafts[at].id, need.id);
            found = found.with_label(need.place.span, message);
        }
    }
    reader.report.add(found);
}

/// Warns of tasks that can never begin.
pub(super) fn check_reach(reader: &mut Reader<'_>, drafts: &[Draft<'_>], tasks: &[TaskDefinition]) {
    let arms = arms(tasks);
    for (draft, task) in drafts.iter().zip(tasks) {
        let waits_for_failure =
            matches!(task.trigger_rule, TriggerRule::OneFailed | TriggerRule::AllFailed);
        let (message, help) = if task.needs.is_empty() && waits_for_failure {
            let message = format!("`{}` waits for a failure, and needs no task", draft.id);
            (message, "name the tasks that may fail in its `needs`")
        } else if task.trigger_rule == TriggerRule::AllSuccess
            && let Some([one, other]) = excluded(&task.needs, &arms)
        {
            let message = format!(
                "`{}` never begins: it needs `{}` and `{}`, of which a switch takes one",
                draft.id, tasks[one].id, tasks[other].id
            );
            (message, "say `trigger_rule: none_failed_min_one_success`")
        } else {
            continue;
        };
        let found = Diagnostic::new(Severity::Warning, Code::Unreachable, message);
        reader.report.add(found.with_help(help).at(draft.place.span, ""));
    }
}

/// Of each task that exactly one arm of a switch names: the position of the switch, and the arm.
type Arms = HashMap<usize, (usize, usize)>;

fn arms(tasks: &[TaskDefinition]) -> Arms {
    let mut arms = Arms::new();
    let mut several = HashSet::new();
    for (at, task) in tasks.iter().enumerate() {
        let Some(switch) = task.action.switch() else { continue };
        for (arm, targets) in switch.all_targets().enumerate() {
            for &target in targets {
                if arms.insert(target as usize, (at, arm)).is_some() {
                    several.insert(target as usize);
                }
            }
        }
    }
    arms.retain(|target, _| !several.contains(target));
    arms
}

/// Two tasks of which a switch takes one.
fn excluded(needs: &[u32], arms: &Arms) -> Option<[usize; 2]> {
    let mut taken: HashMap<usize, (usize, usize)> = HashMap::new();
    for need in needs.iter().map(|&need| need as usize) {
        let Some(&(switch, arm)) = arms.get(&need) else { continue };
        let &mut (first, taken_arm) = taken.entry(switch).or_insert((need, arm));
        if taken_arm != arm {
            return Some([first, need]);
        }
    }
    None
}
