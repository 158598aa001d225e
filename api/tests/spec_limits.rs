//! The limits of workflow files: each is kept at the limit, and refused one above; and no
//! document, however broken, brings the parser down.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::time::{Duration, Instant};

use quorate_api::spec::{self, Code, DEPTH_MAX, DOCUMENT_BYTES_MAX, Diagnostic, NODES_MAX};
use quorate_model::workflow::validate::{EDGES_MAX, ENV_BYTES_MAX, RETRIES_MAX, TASKS_MAX};

fn refused(text: &str) -> Vec<Diagnostic> {
    spec::parse(text, Some("limits")).map(|parsed| parsed.warnings).unwrap_err()
}

fn only(text: &str) -> Diagnostic {
    let mut found = refused(text);
    assert_eq!(found.len(), 1, "{}", spec::render_text(&found, "limits", ""));
    found.remove(0)
}

#[track_caller]
fn accepted(text: &str) {
    if let Err(found) = spec::parse(text, Some("limits")) {
        panic!("{}", spec::render_text(&found, "limits", ""));
    }
}

/// A chain of tasks, each with what a usual task has.
fn chain(tasks: usize) -> String {
    let mut text = "params: {day: monday}\ntasks:\n  - {id: t0, run: echo hi}\n".to_owned();
    for task in 1..tasks {
        let before = task - 1;
        writeln!(text, "  - id: t{task}").unwrap();
        writeln!(text, "    needs: [t{before}]").unwrap();
        writeln!(
            text,
            "    env: {{N: '${{{{ tasks.t{before}.outputs.n }}}}', D: '${{{{ params.day }}}}'}}"
        )
        .unwrap();
        writeln!(text, "    run: |\n      echo \"n=$((N + 1))\" >> \"$QUORATE_OUTPUT\"").unwrap();
    }
    text
}

#[test]
fn tasks() {
    accepted(&chain(TASKS_MAX));
    let found = only(&chain(TASKS_MAX + 1));
    assert_eq!(found.code, Code::Limit);
    assert_eq!(found.message, "10001 tasks; 10000 is the most: split the workflow into several");
    assert_eq!(found.pointer, "/tasks");
}

#[test]
fn edges() {
    // 100 sources, and 500 tasks that need them all.
    let file = |more: &str| {
        let mut text = "tasks:\n".to_owned();
        for source in 0..100 {
            writeln!(text, "- {{id: s{source}, run: 'true'}}").unwrap();
        }
        let all = (0..100).map(|source| format!("s{source}")).collect::<Vec<_>>().join(",");
        for task in 0..EDGES_MAX / 100 {
            writeln!(text, "- {{id: t{task}, needs: [{all}], run: 'true'}}").unwrap();
        }
        text + more
    };
    accepted(&file(""));
    let found = only(&file("- {id: last, needs: s0, run: 'true'}\n"));
    assert_eq!(found.code, Code::Limit);
}

#[test]
fn environment() {
    let file = |own: usize| {
        let (shared, own) = ("x".repeat(ENV_BYTES_MAX / 2 - 1), "x".repeat(own - 1));
        format!("env: {{A: {shared}}}\ntasks: [{{id: a, run: 'true', env: {{B: {own}}}}}]\n")
    };
    accepted(&file(ENV_BYTES_MAX / 2));
    assert_eq!(only(&file(ENV_BYTES_MAX / 2 + 1)).code, Code::Limit);
    let alone = |bytes: usize| format!("env: {{A: {}}}\nrun: 'true'\n", "x".repeat(bytes - 1));
    accepted(&alone(ENV_BYTES_MAX));
    assert_eq!(only(&alone(ENV_BYTES_MAX + 1)).code, Code::Limit);
}

#[test]
fn retries() {
    accepted(&format!("run: 'true'\nretry: {RETRIES_MAX}\n"));
    assert_eq!(only(&format!("run: 'true'\nretry: {}\n", RETRIES_MAX + 1)).code, Code::BadValue);
}

#[test]
fn labels_params_outputs_and_artifacts() {
    let map = |key: &str, count: usize| {
        let entries = (0..count).map(|at| format!("k{at}: v")).collect::<Vec<_>>().join(", ");
        format!("run: 'true'\n{key}: {{{entries}}}\n")
    };
    for (key, max) in [("labels", 16), ("runs_on", 16), ("params", 256), ("outputs", 256)] {
        accepted(&map(key, max));
        assert_eq!(only(&map(key, max + 1)).code, Code::Limit, "{key}");
    }
    let artifacts = |count: usize| {
        let paths = (0..count).map(|at| format!("f{at}")).collect::<Vec<_>>().join(", ");
        format!("run: 'true'\nartifacts: [{paths}]\n")
    };
    accepted(&artifacts(100));
    assert_eq!(only(&artifacts(101)).code, Code::Limit);
    let label = |bytes: usize| format!("run: 'true'\nlabels: {{a: {}}}\n", "x".repeat(bytes));
    accepted(&label(256));
    assert_eq!(only(&label(257)).code, Code::Limit);
}

#[test]
fn scripts_shells_paths_and_factors() {
    let script = |bytes: usize| format!("run: {}\n", "x".repeat(bytes));
    accepted(&script(1024 * 1024));
    assert_eq!(only(&script(1024 * 1024 + 1)).code, Code::Limit);
    let shell = |bytes: usize| format!("run: 'true'\nshell: [{}]\n", "x".repeat(bytes));
    accepted(&shell(1024));
    assert_eq!(only(&shell(1025)).code, Code::Limit);
    let path = |bytes: usize| format!("run: 'true'\nartifacts: {}\n", "x".repeat(bytes));
    accepted(&path(512));
    assert_eq!(only(&path(513)).code, Code::BadValue);
    let backoff = |factor| format!("run: 'true'\nretry: {{limit: 1, backoff: {factor}}}\n");
    accepted(&backoff(100));
    assert_eq!(only(&backoff(101)).code, Code::BadValue);
    let timeout = |days| format!("run: 'true'\ntimeout: {days}d\n");
    accepted(&timeout(3_652));
    assert_eq!(only(&timeout(3_653)).code, Code::BadDuration);
}

/// Cycles are shown one by one, up to ten.
#[test]
fn cycles() {
    let file = |cycles: usize| {
        let mut text = "tasks:\n".to_owned();
        for at in 0..cycles {
            writeln!(text, "- {{id: a{at}, needs: b{at}, run: 'true'}}").unwrap();
            writeln!(text, "- {{id: b{at}, needs: a{at}, run: 'true'}}").unwrap();
        }
        text
    };
    assert_eq!(refused(&file(10)).len(), 10);
    assert_eq!(refused(&file(11)).len(), 10);
}

#[test]
fn a_key_given_twice_is_found_in_any_mapping() {
    for count in [2, 16, 17, 18, 200] {
        let keys: String = (0..count - 1).map(|at| format!("K{at}: v, ")).collect();
        for twice in [0, count - 2] {
            let found = only(&format!("run: 'true'\nenv: {{{keys} K{twice}: w}}\n"));
            assert_eq!(found.code, Code::DuplicateKey, "{count} {twice}");
        }
    }
}

#[test]
fn bytes() {
    let file = |bytes: usize| {
        let mut text = "run: 'true'\n#".to_owned();
        text.push_str(&"x".repeat(bytes - text.len()));
        text
    };
    accepted(&file(DOCUMENT_BYTES_MAX));
    assert_eq!(only(&file(DOCUMENT_BYTES_MAX + 1)).code, Code::Limit);
    assert_eq!(only(&file(5_000_000)).message, "it takes 5000000 bytes; 4194304 is the most");
}

#[test]
fn depth() {
    let file = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!("run: 'true'\nparams: {{p: {{type: list, default: {open}{close}}}}}\n")
    };
    accepted(&file(DEPTH_MAX - 3));
    assert_eq!(only(&file(DEPTH_MAX - 2)).code, Code::Limit);
    for deep in ["[".repeat(1_000_000), "- ".repeat(1_000_000), "? ".repeat(1_000_000)] {
        only(&deep);
    }
}

#[test]
fn nodes() {
    let file = |nodes: usize| {
        let items = vec!["1"; nodes].join(",");
        format!("run: 'true'\nparams: {{p: [{items}]}}\n")
    };
    // The file, two keys with a text and a mapping, and a key with a list.
    accepted(&file(NODES_MAX - 7));
    assert_eq!(only(&file(NODES_MAX - 6)).code, Code::Limit);
}

#[test]
fn aliases_count_as_what_they_stand_for() {
    let mut laughs = "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n".to_owned();
    for level in 1..30 {
        let below = level - 1;
        let items = vec![format!("*a{below}"); 10].join(", ");
        writeln!(laughs, "a{level}: &a{level} [{items}]").unwrap();
    }
    assert_eq!(only(&laughs).code, Code::Limit);

    let long = "x".repeat(100_000);
    let items = vec!["*long"; 1_000].join(", ");
    assert_eq!(only(&format!("a: &long {long}\nb: [{items}]\n")).code, Code::Limit);
    assert_eq!(only("a: &a [*a]\n").code, Code::Syntax);
}

#[test]
fn mistakes_are_shown_up_to_a_limit() {
    let mut text = "tasks:\n".to_owned();
    for task in 0..5_000 {
        writeln!(text, "- {{id: t{task}, needs: [x{task}, y{task}], rnu: 'true'}}").unwrap();
    }
    let found = refused(&text);
    assert_eq!(found.len(), 201);
    assert_eq!(found[200].message, "14800 more errors are not shown");
}

/// The largest workflow is read at once, also where each task refers to one far before it.
/// An idle machine needs a fifth of a second; the bound is for what is quadratic, and must
/// hold on a busy one.
#[test]
fn the_largest_workflow_is_read_quickly() {
    let took_max = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 2 });
    let mut far = "tasks:\n- {id: t0, run: 'true'}\n".to_owned();
    for task in 1..TASKS_MAX {
        let (before, env) = (task - 1, "${{ tasks.t0.state }}");
        writeln!(far, "- {{id: t{task}, needs: t{before}, run: 'true', env: {{A: '{env}'}}}}")
            .unwrap();
    }
    let back: String = (0..TASKS_MAX)
        .map(|task| format!("- {{id: t{task}, needs: t{}, run: 'true'}}\n", (task + 1) % TASKS_MAX))
        .collect();
    let unknown: String = (0..TASKS_MAX)
        .map(|task| format!("- {{id: t{task}, needs: [u{task}, v{task}, w{task}], run: 'true'}}\n"))
        .collect();
    let files = [chain(TASKS_MAX), far, format!("tasks:\n{back}"), format!("tasks:\n{unknown}")];
    for (index, file) in files.iter().enumerate() {
        let began = Instant::now();
        let outcome = spec::parse(file, Some("large"));
        let took = began.elapsed();
        assert_eq!(outcome.is_ok(), index < 2);
        assert!(took < took_max, "file {index} took {took:?}");
    }
}

/// Cuts, doubles, swaps and replaces pieces of good and bad files. The seed is in the message.
#[test]
fn no_bytes_bring_the_parser_down() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/spec");
    let mut corpus: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    corpus.sort();
    for seed in 0..20_000_u64 {
        let mut dice = Dice(seed);
        let text = mutate(&corpus, &mut dice);
        let outcome = std::panic::catch_unwind(|| match spec::parse(&text, Some("fuzz")) {
            Ok(parsed) => parsed.definition.validate().map_err(|error| error.to_string()),
            Err(found) => {
                let shown = spec::render_text(&found, "fuzz", &text);
                if shown.is_empty() { Err("refused without a word".to_owned()) } else { Ok(()) }
            }
        });
        assert!(matches!(outcome, Ok(Ok(()))), "seed {seed}: {outcome:?}\n{text}");
    }
}

fn mutate(corpus: &[String], dice: &mut Dice) -> String {
    const PIECES: [&str; 24] = [
        "\n",
        " ",
        "\t",
        ":",
        ": ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "'",
        "|",
        ">",
        "&a ",
        "*a",
        "!!str ",
        "${{",
        "}}",
        "\u{0}",
        "\u{feff}",
        "\u{1f600}",
        "? ",
        "---\n",
    ];
    let mut bytes = corpus[dice.below(corpus.len())].clone().into_bytes();
    for _ in 0..=dice.below(8) {
        let at = dice.below(bytes.len() + 1);
        let length = dice.below(24).min(bytes.len() - at);
        match dice.below(5) {
            0 => drop(bytes.drain(at..at + length)),
            1 => {
                let piece = bytes[at..at + length].to_vec();
                let to = dice.below(bytes.len() + 1);
                drop(bytes.splice(to..to, piece));
            }
            2 => drop(bytes.splice(at..at, PIECES[dice.below(PIECES.len())].bytes())),
            3 => {
                let other = &corpus[dice.below(corpus.len())];
                drop(bytes.splice(at..at + length, other.bytes().take(dice.below(200))));
            }
            _ => {
                let byte = u8::try_from(dice.below(256)).unwrap();
                bytes.insert(at, byte);
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// SplitMix64: the same for a seed on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % bound.max(1) as u64).unwrap()
    }
}
