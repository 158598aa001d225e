//! F5: a workflow file in form means what it meant, and can be drawn; nothing panics.

use quorate_fuzz::Fuzz;

use super::{corpus, documents};
use crate::graph::{Graph, layout};
use crate::spec;
use crate::view::WorkflowView;

/// The input is the text, or what of it is UTF-8.
fn bring_into_form(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    let formatted = match spec::format(&text, Some("w")) {
        Ok(formatted) => formatted,
        Err(found) if found.iter().any(|one| one.message.contains("cannot be kept")) => {
            return "cannot be followed".to_owned();
        }
        Err(found) => {
            assert!(!found.is_empty(), "refused without a reason");
            return "refused".to_owned();
        }
    };
    let parsed = spec::parse(&formatted, Some("w")).expect("it is still a workflow");
    let graph = Graph::of(&WorkflowView::draft(&parsed).tasks);
    let svg = graph.svg(parsed.name.as_str(), &layout(&graph));
    let drawn = parsed.definition.tasks.iter().filter(|task| task.hook.is_none()).count();
    assert_eq!(svg.matches("<rect ").count(), drawn);
    let _others = (graph.dot("w"), graph.mermaid());
    if formatted == text { "in form".to_owned() } else { "formatted".to_owned() }
}

#[test]
fn form_is_found_or_refused_and_can_be_drawn() {
    let demanded = &["formatted", "in form", "refused", "cannot be followed"];
    Fuzz { corpus: corpus("format"), seeds: documents(), demanded }.run(bring_into_form);
}
