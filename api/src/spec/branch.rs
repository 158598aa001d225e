//! What decides whether a task begins, and which of those after it: `when` and `switch`.

use quorate_model::workflow::validate::{ARMS_MAX, CONDITION_BYTES_MAX};
use quorate_model::workflow::{Action, Arm, Switch, TaskDefinition, TriggerRule};

use super::needs::{self, Positions};
use super::report::Path;
use super::section::{Item, Reader, Schema};
use super::task::{Draft, Need};
use super::{Code, Diagnostic, Severity};

pub(super) const ARM: Schema = Schema {
    what: "an arm of `switch`",
    keys: &["when", "then", "else"],
    spellings: &[("if", "when"), ("condition", "when"), ("default", "else"), ("otherwise", "else")],
    later: &[],
    hints: &[],
};

/// The targets of each arm of a switch, as written; those of `else` are last, and always there.
pub(super) type Targets<'n> = Vec<Vec<Need<'n>>>;

/// Reads `when`: an expression, with or without `${{ }}` around it.
pub(super) fn condition<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>, index: usize) -> String {
    let text = reader.text(item).unwrap_or("");
    if text.len() > CONDITION_BYTES_MAX {
        let bytes = text.len();
        let message = format!("a condition of {bytes} bytes; {CONDITION_BYTES_MAX} is the most");
        reader.bad_value(item, Code::Limit, message);
    } else {
        reader.condition(item, text, index);
    }
    text.to_owned()
}

/// Reads `switch`: the conditions, and the names of what they choose among.
pub(super) fn switch<'n>(
    reader: &mut Reader<'n>,
    item: Item<'n, '_>,
    index: usize,
) -> (Switch, Targets<'n>) {
    let mut switch = Switch { arms: Vec::new(), otherwise: Vec::new() };
    let (mut targets, mut otherwise) = (Vec::new(), None);
    let what = "a list of `- when: CONDITION` with `then: [TASK]`";
    let Some(nodes) = reader.list(item, what) else { return (switch, vec![Vec::new()]) };
    if nodes.is_empty() {
        reader.bad_value(item, Code::BadValue, "`switch` chooses nothing; add an arm".to_owned());
    }
    if nodes.len() > ARMS_MAX {
        let message = format!("{} arms; {ARMS_MAX} is the most", nodes.len());
        reader.bad_value(item, Code::Limit, message);
        return (switch, vec![Vec::new()]);
    }
    for (at, node) in nodes.iter().enumerate() {
        let path = Path::Index(&item.path, at);
        let Some(fields) = reader.fields(node, &path, &ARM) else { continue };
        if let Some(last) = fields.get("else") {
            let stands_alone = fields.get("when").is_none() && fields.get("then").is_none();
            if !stands_alone || otherwise.is_some() || at + 1 < nodes.len() {
                let message = "`else` is the last arm, and has no `when`".to_owned();
                reader.bad_value(last, Code::Conflict, message);
            }
            otherwise = Some(needs::ids(reader, last));
            continue;
        }
        for key in ["when", "then"] {
            if fields.get(key).is_none() && !fields.is_refused {
                let message = format!("an arm of `switch` needs `{key}`");
                let help = "say `- when: CONDITION` and `then: [TASK]`, or `- else: [TASK]`";
                reader.report.error_with_help(Code::MissingKey, fields.place, &path, message, help);
            }
        }
        let when = fields.get("when").map(|item| condition(reader, item, index));
        switch.arms.push(Arm { when: when.unwrap_or_default(), then: Vec::new() });
        targets.push(fields.get("then").map(|item| needs::ids(reader, item)).unwrap_or_default());
    }
    targets.push(otherwise.unwrap_or_default());
    (switch, targets)
}

/// Fills in what each switch chooses among, which needs it from then on without saying so.
pub(super) fn resolve<'n>(
    reader: &mut Reader<'n>,
    drafts: &[Draft<'n>],
    tasks: &mut [TaskDefinition],
    positions: &Positions<'n>,
) {
    for (draft, at) in drafts.iter().zip(0u32..) {
        let mut found: Vec<Vec<u32>> = Vec::with_capacity(draft.targets.len());
        for names in &draft.targets {
            let mut arm = Vec::with_capacity(names.len());
            for name in names {
                let Some(&target) = positions.get(name.id) else {
                    needs::unknown(reader, drafts, draft.id, "chooses", name, positions);
                    continue;
                };
                arm.push(u32::try_from(target).unwrap_or(u32::MAX));
                let task = &mut tasks[target];
                if let Err(place) = task.needs.binary_search(&at) {
                    task.needs.insert(place, at);
                }
                if task.trigger_rule == TriggerRule::Always {
                    let message = format!(
                        "`{}` is chosen by `{}`, so its trigger rule cannot be `always`",
                        name.id, draft.id
                    );
                    let found = Diagnostic::new(Severity::Error, Code::Conflict, message);
                    reader.report.add(found.at(name.place.span, name.pointer.clone()));
                }
            }
            arm.sort_unstable();
            arm.dedup();
            found.push(arm);
        }
        if let Action::Switch(switch) = &mut tasks[at as usize].action {
            switch.otherwise = found.pop().unwrap_or_default();
            for (arm, then) in switch.arms.iter_mut().zip(found) {
                arm.then = then;
            }
        }
    }
}

/// Notes the predecessors whose state the conditions of a task look at.
pub(super) fn judge(tasks: &mut [TaskDefinition], judged: &[(usize, usize)]) {
    for &(task, before) in judged {
        let Some(task) = tasks.get_mut(task) else { continue };
        let before = u32::try_from(before).unwrap_or(u32::MAX);
        if let (Ok(_), Err(place)) =
            (task.needs.binary_search(&before), task.judges.binary_search(&before))
        {
            task.judges.insert(place, before);
        }
    }
}
