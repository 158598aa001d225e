//! F7: a template comes to a bounded text or to a reason, and what stands in a param arrives as
//! it is: nothing in it is evaluated.

use std::collections::BTreeMap;
use std::path::Path;

use quorate_expression::RENDERED_BYTES_MAX;
use quorate_fuzz::Fuzz;
use quorate_model::command::{RegisterWorker, StartRun, WorkflowSource};
use quorate_model::plan::decisions;
use quorate_model::workflow::Definition;
use quorate_model::{
    Command, Containment, DurationMs, Entry, Json, LogIndex, RunId, State, Trigger, UnixMs,
    WorkerId,
};
use serde_json::json;
use uuid::Uuid;

use crate::notation;

/// What a reason may come to: it is shown to people, and stands in the log.
const REASON_BYTES_MAX: usize = 64 * 1024;

/// The input is a template, and behind the first zero the value of a param.
fn render(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    let (template, value) = text.split_once('\0').unwrap_or((&text, "${{ 1 }}"));
    let is_sound = quorate_expression::references(template).is_ok();
    let state = with_run(definition(template), value);
    let proposed = decisions(&state, &state.workers().keys().copied().collect());
    let [first, second] = proposed.as_slice() else { panic!("two tasks are ready") };
    if value.len() <= RENDERED_BYTES_MAX {
        assert_eq!(env(second, "PLAIN"), value, "a param is passed on as it is");
    }
    if let Command::FailTask(failed) = first {
        assert!(failed.reason.len() <= REASON_BYTES_MAX, "{} bytes", failed.reason.len());
        return format!("a reason; {}", if is_sound { "well formed" } else { "not well formed" });
    }
    assert!(is_sound, "what cannot be read cannot be rendered");
    let rendered = env(first, "ANY");
    assert!(rendered.len() <= RENDERED_BYTES_MAX, "{} bytes", rendered.len());
    if !template.contains("${{") {
        assert_eq!(rendered, template, "a text that is no template stays");
    }
    "a text".to_owned()
}

/// A task with the template, and one that passes the param on.
fn definition(template: &str) -> Definition {
    let task = |id: &str, name: &str, text: &str| {
        let mut task = notation::task(id, Vec::new()).expect("a name");
        let pass = ("PASS".to_owned(), "${{ run.id }}".to_owned());
        task.env = BTreeMap::from([(name.to_owned(), text.to_owned()), pass]);
        task
    };
    notation::of_tasks(vec![
        task("any", "ANY", template),
        task("plain", "PLAIN", "${{ params.value }}"),
    ])
}

fn with_run(definition: Definition, value: &str) -> State {
    let mut state = State::default();
    let register = RegisterWorker {
        last: None,
        name: notation::name("node"),
        labels: [].into(),
        slots: 9,
        containment: Containment::Pidns,
        lease: DurationMs(1),
    };
    let source = WorkflowSource::Inline { name: notation::name("w"), definition };
    let (labels, trigger) = ([].into(), Trigger::Manual);
    let params = Json::new(&json!({"value": value, "list": [1, "two", {"three": null}]}));
    let run = RunId(Uuid::from_u128(1));
    let start = Command::StartRun(Box::new(StartRun {
        run,
        source,
        params,
        labels,
        trigger,
        logical_time: UnixMs(0),
    }));
    let requests = vec![Command::RegisterWorker(register).into(), start.into()];
    let applied = state.apply(LogIndex(2), Entry { proposed_at: UnixMs(0), requests });
    assert!(applied.answers.iter().all(|answer| answer.reply.is_ok()), "{:?}", applied.answers);
    assert!(state.workers().contains_key(&WorkerId(2)));
    state
}

fn env<'a>(assigned: &'a Command, name: &str) -> &'a str {
    let Command::AssignTask(assigned) = assigned else { panic!("not assigned: {assigned:?}") };
    let rendered = assigned.rendered.as_ref().expect("it has a template");
    rendered.env.get(name).expect("the variable is there")
}

#[test]
fn no_template_panics_or_reads_what_a_param_says() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz/template");
    let demanded = &["a text", "a reason; well formed", "a reason; not well formed"];
    Fuzz { corpus, seeds: Vec::new(), demanded }.run(render);
}
