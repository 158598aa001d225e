//! The key `approval`: a question to a person.

use std::collections::BTreeMap;

use quorate_expression::{Zone, is_template};
use quorate_model::Name;
use quorate_model::workflow::{Approval, OnTimeout, Param};

use super::document::Value;
use super::section::{Item, Reader, Schema};
use super::template::Role;
use super::{Code, params};

/// Bytes of a question: it is shown in lists.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// People or groups who are asked.
const APPROVERS_MAX: usize = 32;

pub(super) const APPROVAL: Schema = Schema {
    what: "`approval`",
    keys: &["message", "approvers", "inputs", "timeout", "on_timeout"],
    spellings: &[("prompt", "message"), ("input", "inputs"), ("timeout_sec", "timeout")],
    later: &[],
    hints: &[],
};

/// `approval: Publish?`, or a mapping.
pub(super) fn read<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>, index: usize) -> Approval {
    let mut approval = Approval {
        message: String::new(),
        approvers: Vec::new(),
        inputs: BTreeMap::new(),
        timeout: None,
        on_timeout: OnTimeout::default(),
    };
    if let Value::Scalar(_) = item.node.value {
        approval.message = message(reader, item, index);
        return approval;
    }
    let Some(fields) = reader.fields(item.node, &item.path, &APPROVAL) else { return approval };
    match fields.get("message") {
        Some(item) => approval.message = message(reader, item, index),
        None if fields.is_refused => {}
        None => {
            let message = "`approval` needs a `message`".to_owned();
            let help = "add, for example, `message: Publish?`";
            let place = fields.place;
            reader.report.error_with_help(Code::MissingKey, place, &item.path, message, help);
        }
    }
    if let Some(item) = fields.get("approvers") {
        reader.one_or_more(item, "a name or a list of names", |reader, item| {
            approval.approvers.extend(reader.short(item).map(str::to_owned));
        });
        if approval.approvers.len() > APPROVERS_MAX {
            let message = format!("more than {APPROVERS_MAX} approvers; name a group");
            reader.bad_value(item, Code::Limit, message);
        }
    }
    approval.inputs = fields.get("inputs").map(|item| inputs(reader, item)).unwrap_or_default();
    approval.timeout = fields.get("timeout").and_then(|item| reader.timeout(item));
    if let Some(item) = fields.get("on_timeout") {
        const CHOICES: [(&str, OnTimeout); 2] =
            [("reject", OnTimeout::Reject), ("approve", OnTimeout::Approve)];
        approval.on_timeout = reader.one_of(item, &CHOICES, "choice for `on_timeout`");
        if approval.timeout.is_none() {
            let message = "`on_timeout` needs a `timeout`".to_owned();
            reader.bad_value(item, Code::Conflict, message);
        }
        let open = approval.inputs.iter().find(|(_, input)| input.default.is_none());
        if let (OnTimeout::Approve, Some((name, _))) = (approval.on_timeout, open) {
            let message = format!("nobody fills in `{name}` then: give it a `default`");
            reader.bad_value(item, Code::Conflict, message);
        }
    }
    approval
}

fn message<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>, index: usize) -> String {
    let text = reader.text(item).unwrap_or("");
    if text.trim().is_empty() || text.len() > MESSAGE_BYTES_MAX {
        let message = format!("a question has 1 to {MESSAGE_BYTES_MAX} bytes");
        reader.bad_value(item, Code::BadValue, message);
    }
    reader.template(item, text, Role::Env(index));
    text.to_owned()
}

/// As the parameters of a workflow; the word of a type alone stands for one to be filled in.
fn inputs<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> BTreeMap<Name, Param> {
    let mut inputs = params::read(reader, item, &Zone::default());
    for (name, input) in &mut inputs {
        let Some(default) = &input.default else { continue };
        if is_template(default.as_str()) {
            let message = format!("not supported yet: a template as the default of `{name}`");
            reader.bad_value(item, Code::NotSupportedYet, message);
        }
        let word = default.value().as_str().and_then(params::kind_named);
        if let Some(kind) = word {
            input.kind = kind;
            input.default = None;
        }
    }
    inputs
}
