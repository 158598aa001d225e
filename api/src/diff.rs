//! What differs between two workflows, by what they mean: not by how they are written.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::view::WorkflowView;

/// Fields of a view that say which version it is, not what it does.
const ABOUT: [&str; 5] = ["version", "created_at", "index", "source", "pause"];

/// One thing that differs. At least one side is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it is about, as `tasks.load.retry.limit`.
    pub path: String,
    /// What it was; `None` if it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it is; `None` if it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// What has to change in `before` for it to do what `after` does. The order of tasks in the
/// file is of no meaning, and neither are comments and spelling.
#[must_use]
pub fn diff(before: &WorkflowView, after: &WorkflowView) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(&mut changes, String::new(), Some(&meaning(before)), Some(&meaning(after)));
    changes
}

/// A view as a tree in which tasks go by their ids.
fn meaning(view: &WorkflowView) -> Value {
    let mut tree = serde_json::to_value(view).expect("a view has keys that are texts");
    let Value::Object(fields) = &mut tree else { return tree };
    fields.retain(|key, _| !ABOUT.contains(&key.as_str()));
    if let Some(Value::Array(tasks)) = fields.remove("tasks") {
        let by_id: Map<String, Value> = tasks.into_iter().filter_map(by_id).collect();
        fields.insert("tasks".to_owned(), Value::Object(by_id));
    }
    drop_milliseconds(&mut tree);
    tree
}

/// A task by its id, with what it is told beside its other fields, as in the file.
fn by_id(mut task: Value) -> Option<(String, Value)> {
    let fields = task.as_object_mut()?;
    let Some(Value::String(id)) = fields.remove("id") else { return None };
    if let Some(Value::Object(told)) = fields.remove("params") {
        fields.extend(told);
    }
    Some((id, task))
}

/// Time spans are there twice, for people and for programs.
fn drop_milliseconds(tree: &mut Value) {
    match tree {
        Value::Object(fields) => {
            let spans: Vec<String> = fields
                .keys()
                .filter(|key| fields.contains_key(&format!("{key}_ms")))
                .map(|key| format!("{key}_ms"))
                .collect();
            fields.retain(|key, _| !spans.contains(key));
            fields.values_mut().for_each(drop_milliseconds);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_milliseconds),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn compare(changes: &mut Vec<Change>, path: String, before: Option<&Value>, after: Option<&Value>) {
    // What is not there and what is empty mean the same.
    let before = before.filter(|value| !is_empty(value));
    let after = after.filter(|value| !is_empty(value));
    if before == after {
        return;
    }
    if let (Some(Value::Object(before)), Some(Value::Object(after))) = (before, after) {
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for key in keys {
            let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            compare(changes, below, before.get(key), after.get(key));
        }
        return;
    }
    changes.push(Change { path, before: before.cloned(), after: after.cloned() });
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::spec;

    fn view(text: &str) -> WorkflowView {
        WorkflowView::draft(&spec::parse(text, Some("w")).expect("it is a workflow"))
    }

    const OLD: &str = "\
timeout: 60m
tasks:
  - {id: a, run: echo a}
  - {id: b, needs: a, run: echo b, retry: 2}
  - {id: gone, run: 'true'}
";

    #[test]
    fn spelling_order_and_comments_are_no_difference() {
        let new = "\
# The same.
timeout: 1h
tasks:
  - {id: b, needs: [a], run: echo b, retry: {limit: 2}, env: {}}
  - {id: gone, run: \"true\"}
  - id: a
    run: echo a
";
        assert_eq!(diff(&view(OLD), &view(new)), []);
    }

    #[test]
    fn each_change_has_its_path_and_both_sides() {
        let new = "\
timeout: 1h
labels: {tier: gold}
tasks:
  - {id: a, run: echo a}
  - {id: b, needs: [a, c], run: echo c, retry: 5}
  - {id: c, run: echo c}
";
        let found = diff(&view(OLD), &view(new));
        let paths: Vec<&str> = found.iter().map(|change| change.path.as_str()).collect();
        let expected = [
            "labels",
            "tasks.b.needs",
            "tasks.b.retry.limit",
            "tasks.b.run",
            "tasks.c",
            "tasks.gone",
        ];
        assert_eq!(paths, expected);
        assert_eq!(found[0].before, None);
        assert_eq!(found[2].before, Some(json!(2)));
        assert_eq!(found[2].after, Some(json!(5)));
        assert_eq!(found[5].after, None);
    }
}
