//! F5: a workflow file is read or refused with a place for each mistake, in bounded time; what
//! is read is valid, and is the same when it is read again.

use quorate_fuzz::Fuzz;
use quorate_model::workflow::Definition;

use super::{corpus, documents};
use crate::spec::{self, render_text};

/// The input is the text, or what of it is UTF-8.
fn read_document(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    match spec::parse(&text, Some("w")) {
        Ok(parsed) => {
            parsed.definition.validate().expect("what is read is valid");
            let _shown = render_text(&parsed.warnings, "w.yaml", &text);
            let again = spec::parse(&text, Some("w")).expect("it was read before");
            assert_eq!(again, parsed, "it is another workflow the next time");
            let written = serde_json::to_string(&parsed.definition).expect("it can be written");
            let carried: Definition = serde_json::from_str(&written).expect("it can be read");
            assert_eq!(carried, parsed.definition, "it is another workflow once it was sent");
            format!("read with {} warnings", parsed.warnings.len().min(1))
        }
        Err(found) => {
            assert!(!found.is_empty(), "refused without a reason");
            let _shown = render_text(&found, "w.yaml", &text);
            let code = found.iter().map(|one| format!("{:?}", one.code)).min();
            format!("refused: {}", code.unwrap_or_default())
        }
    }
}

#[test]
fn no_document_makes_the_reader_panic_or_change_its_mind() {
    let demanded = &["read with 0", "read with 1", "refused"];
    Fuzz { corpus: corpus("document"), seeds: documents(), demanded }.run(read_document);
}
