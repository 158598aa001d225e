//! What a process is started with: the script, its environment, and the program it is given to.

use std::collections::BTreeMap;

use quorate_model::workflow::validate::ENV_BYTES_MAX;
use serde_json::json;

use super::document::Value;
use super::report::Path;
use super::section::{Item, Reader};
use super::template::Role;
use super::{Code, name};

/// Bytes of a script, as workers take them.
const SCRIPT_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of the command that scripts are given to: every task keeps a copy of the default.
const SHELL_BYTES_MAX: usize = 1024;

impl<'n> Reader<'n> {
    /// The commands of a shell, or of another program.
    pub(super) fn script(&mut self, item: Item<'n, '_>, index: usize) -> &'n str {
        let text = self.text(item).unwrap_or("");
        if let Value::Scalar(scalar) = &item.node.value
            && scalar.text.trim().is_empty()
        {
            self.bad_value(item, Code::BadValue, "`run` is empty".to_owned());
        }
        if text.len() > SCRIPT_BYTES_MAX {
            let message =
                format!("`run` takes {} bytes; {SCRIPT_BYTES_MAX} is the most", text.len());
            self.bad_value(item, Code::Limit, message);
        }
        self.template(item, text, Role::Script(index));
        text
    }

    /// The environment of a workflow or a task.
    pub(super) fn env(&mut self, item: Item<'n, '_>, role: Role) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        let mut bytes = 0;
        for (key, node) in self.entries(item, "a mapping of names to values").unwrap_or_default() {
            let path = Path::Key(&item.path, &key.text);
            self.name(name::variable(&key.text), key.place, &path);
            let item = Item { node, key: Some(key), path };
            let text = match &node.value {
                Value::Scalar(scalar) if scalar.is_null() => "",
                Value::Scalar(_) | Value::List(_) | Value::Map(_) => self.text(item).unwrap_or(""),
            };
            self.template(item, text, role);
            bytes += key.text.len() + text.len();
            env.insert(key.text.clone().into_owned(), text.to_owned());
        }
        if bytes > ENV_BYTES_MAX {
            let message = format!("`env` takes {bytes} bytes; {ENV_BYTES_MAX} is the most");
            self.bad_value(item, Code::Limit, message);
        }
        env
    }

    /// What a script is given to: a program by its name or path, or a command as words.
    pub(super) fn shell(&mut self, item: Item<'n, '_>, role: Role) -> serde_json::Value {
        let mut words = Vec::new();
        self.one_or_more(item, "a program or a list of words", |reader, item| {
            let Some(word) = reader.text(item) else { return };
            reader.template(item, word, role);
            words.push(word);
        });
        let bytes: usize = words.iter().map(|word| word.len()).sum();
        if bytes > SHELL_BYTES_MAX {
            let message = format!("`shell` takes {bytes} bytes; {SHELL_BYTES_MAX} is the most");
            self.bad_value(item, Code::Limit, message);
        } else if words.first().is_none_or(|program| program.is_empty()) {
            self.bad_value(item, Code::BadValue, "`shell` names no program".to_owned());
        }
        if let Value::List(_) = item.node.value {
            return json!(words);
        }
        let program = words.pop().unwrap_or_default();
        let is_program = program.starts_with('/') || !program.contains('/');
        if !is_program || program.contains(char::is_whitespace) {
            let message =
                format!("{program:?} is neither a name nor an absolute path of a program");
            let list: Vec<&str> = program.split_whitespace().collect();
            let help = format!("to give it arguments, say `shell: [{}]`", list.join(", "));
            let place = item.node.place;
            self.report.error_with_help(Code::BadValue, place, &item.path, message, help);
        }
        json!(program)
    }
}
