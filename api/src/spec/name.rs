//! Names, and the one that was probably meant.

use quorate_model::{NAME_BYTES_MAX, Name};

/// The nearest of some known words: near enough to be a slip of the fingers.
pub(super) fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let length = word.chars().count();
    let slips_max = (length / 3).clamp(1, 3).min(length.saturating_sub(1));
    known
        .into_iter()
        .filter(|other| other.len().abs_diff(word.len()) <= slips_max)
        .map(|other| (strsim::osa_distance(&word.to_lowercase(), &other.to_lowercase()), other))
        .filter(|&(slips, _)| slips <= slips_max)
        .min_by_key(|&(slips, _)| slips)
        .map(|(_, other)| other)
}

/// The name of a workflow: `[a-z0-9][a-z0-9._-]*`.
pub(super) fn workflow(text: &str) -> Result<Name, String> {
    let narrow = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    checked(text, text.bytes().all(narrow) && !text.starts_with('_')).ok_or_else(|| {
        format!(
            "{text:?} is no name of a workflow: use 1 to {NAME_BYTES_MAX} lower-case letters, \
             digits, '.', '_' or '-', and begin with a letter or a digit"
        )
    })
}

/// The id of a task: `[A-Za-z0-9_][A-Za-z0-9_-]*`. No dots: they separate it in templates.
pub(super) fn task(text: &str) -> Result<Name, String> {
    checked(text, !text.contains('.')).ok_or_else(|| {
        format!(
            "{text:?} is no task id: use 1 to {NAME_BYTES_MAX} letters, digits, '_' or '-', and \
             begin with a letter, a digit or '_'"
        )
    })
}

/// The name of a parameter: an identifier, as templates take it.
pub(super) fn param(text: &str) -> Result<Name, String> {
    checked(text, is_identifier(text)).ok_or_else(|| {
        format!(
            "{text:?} is no name of a parameter: use letters, digits and '_', and do not begin \
             with a digit"
        )
    })
}

/// The name of a label or an output.
pub(super) fn any(text: &str) -> Result<Name, String> {
    text.parse().map_err(|error: quorate_model::NameError| error.to_string())
}

/// The name of an environment variable that a task may be given.
pub(super) fn variable(text: &str) -> Result<(), String> {
    // What workers refuse: LD_* could have a task run code before its program does.
    if text.starts_with("QUORATE_") || text.starts_with("LD_") {
        return Err(format!("{text:?} cannot be set: QUORATE_* and LD_* are reserved"));
    }
    if is_identifier(text) && text.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "{text:?} is no name of an environment variable: use 1 to {NAME_BYTES_MAX} letters, digits \
         and '_', and do not begin with a digit"
    ))
}

fn checked(text: &str, narrow: bool) -> Option<Name> {
    text.parse().ok().filter(|_| narrow)
}

fn is_identifier(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !text.starts_with(|first: char| first.is_ascii_digit())
        && !text.is_empty()
}

/// The name that a file gives to the workflow in it: `Daily Sales.quorate.yaml` is
/// `daily-sales`. `None` if nothing is left.
#[must_use]
pub fn name_of_file(file: &str) -> Option<String> {
    let file = file.rsplit('/').next().unwrap_or(file);
    let stem = ["yaml", "yml", "json"]
        .iter()
        .find_map(|ending| file.strip_suffix(ending)?.strip_suffix('.'))
        .unwrap_or(file);
    let stem = stem.strip_suffix(".quorate").unwrap_or(stem).to_ascii_lowercase();
    let keep = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
    let name: String = stem.chars().map(|char| if keep(char) { char } else { '-' }).collect();
    let name = name.trim_start_matches(['.', '_', '-']);
    let name = &name[..name.len().min(NAME_BYTES_MAX)];
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_word_that_was_meant() {
        let keys = ["needs", "name", "run", "retry", "runs_on"];
        assert_eq!(nearest("need", keys), Some("needs"));
        assert_eq!(nearest("rnu", keys), Some("run"));
        assert_eq!(nearest("Retry", keys), Some("retry"));
        assert_eq!(nearest("zzz", keys), None);
        assert_eq!(nearest("", keys), None);
    }

    #[test]
    fn takes_names_up_to_their_limit() {
        let long = "a".repeat(NAME_BYTES_MAX);
        for check in [workflow, task, param, any] {
            assert!(check(&long).is_ok());
            assert!(check(&format!("{long}a")).is_err());
            assert!(check("").is_err());
        }
        assert!(variable(&long).is_ok() && variable(&format!("{long}a")).is_err());
        assert!(workflow("a.b-c_9").is_ok() && workflow("A").is_err() && workflow("_a").is_err());
        assert!(task("A-b_9").is_ok() && task("a.b").is_err() && task("-a").is_err());
        assert!(param("day_2").is_ok() && param("2day").is_err() && param("a-b").is_err());
        assert!(variable("_X9").is_ok() && variable("9X").is_err());
        assert!(variable("QUORATE_RUN_ID").is_err());
    }

    #[test]
    fn names_a_workflow_after_its_file() {
        let name = |file| name_of_file(file).unwrap_or_default();
        assert_eq!(name("jobs/Daily Sales.quorate.yaml"), "daily-sales");
        assert_eq!(name("hello.yml"), "hello");
        assert_eq!(name("a.b.json"), "a.b");
        assert_eq!(name("-"), "");
        assert_eq!(name(".quorate.yaml"), "");
    }
}
