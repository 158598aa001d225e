//! Our words in place of other programs'.

use super::super::document;
use super::super::section::{Reader, Respelling};
use super::super::workflow;

/// The text with each key as we call it. A text that is no workflow stays as it is.
pub(super) fn ours(text: &str, default_name: Option<&str>) -> String {
    let Ok(root) = document::read(text) else { return text.to_owned() };
    let mut reader = Reader::new(text);
    workflow::read(&mut reader, &root, text, default_name);
    let mut edits = Vec::new();
    for Respelling { key, ours, unit } in reader.respellings {
        // A document that is JSON stays JSON.
        let quote = text[key.from..].chars().next().filter(|first| matches!(first, '"' | '\''));
        let quote = quote.map(String::from).unwrap_or_default();
        edits.push((key.from..key.to, format!("{quote}{ours}{quote}")));
        edits.extend(unit.map(|(end, unit)| (end..end, unit.to_owned())));
    }
    // From the end, so that places stay true. What aliases stand for is found more than once.
    edits.sort_by_key(|(place, _)| (place.start, place.end));
    edits.dedup();
    let mut text = text.to_owned();
    for (place, word) in edits.into_iter().rev() {
        text.replace_range(place, &word);
    }
    text
}
