//! The house rules, read off the files: who imports whom, how large, called what, tested where.
//!
//! A rule that no machine checks is no rule. Each failure names the file and the way out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of code that a file may have, tests, comments and blank lines not counted. Beyond it,
/// split by noun.
const FILE_CODE_LINES_MAX: usize = 500;

/// Files that are larger, and how large. Numbers here only ever go down.
const LARGER: &[(&str, usize)] = &[];

/// Names that say nothing about what is in a file.
const BANNED_STEMS: &[&str] = &["util", "utils", "helper", "helpers", "common", "misc", "manager"];

/// Marks of unfinished work, each with what to do instead. Split, so that this file is clean.
const BANNED_WORDS: &[(&str, &str)] = &[
    (concat!("TO", "DO"), "open an issue"),
    (concat!("FIX", "ME"), "fix it, or open an issue"),
    (concat!("#[ig", "nore"), "a test that cannot run says why, and fails where it must run"),
    (concat!("todo", "!("), "finish it"),
    (concat!("unimple", "mented!("), "finish it"),
    (concat!("dbg", "!("), "take it out"),
];

/// A source file of this repository.
#[derive(Debug)]
struct Source {
    /// From the root of the repository, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The text without its unit tests, which come last in a file.
    fn code(&self) -> &str {
        self.text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default()
    }

    /// Lines that are neither blank nor comment.
    fn code_lines(&self) -> impl Iterator<Item = &str> {
        let lines = self.code().lines().map(str::trim);
        lines.filter(|line| !line.is_empty() && !line.starts_with("//"))
    }

    /// Whether its code names `path` (as `tokio::`) anywhere.
    fn names(&self, path: &str) -> bool {
        self.code_lines().any(|line| {
            line.match_indices(path).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
            })
        })
    }

    fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    fn stem(&self) -> &str {
        Path::new(&self.path).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn relative(path: &Path) -> String {
    let path = path.strip_prefix(root()).expect("it is in the repository");
    path.to_string_lossy().replace('\\', "/")
}

/// Every file below the folders that are ours.
fn files() -> Vec<PathBuf> {
    let mut open: Vec<PathBuf> =
        ["src", "raft", "api", "tests", "scripts", "examples"].map(|dir| root().join(dir)).into();
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder can be listed").path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let rust = files().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "rs"));
    rust.map(|path| {
        let text = fs::read_to_string(&path).expect("a source file is text");
        Source { path: relative(&path), text }
    })
    .collect()
}

#[track_caller]
fn assert_none(broken: impl IntoIterator<Item = String>) {
    let broken: Vec<String> = broken.into_iter().collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// Who may not name what; `but` are the files that may.
#[derive(Debug)]
struct Wall {
    within: &'static str,
    never: &'static [&'static str],
    but: &'static [&'static str],
    why: &'static str,
}

/// The import directions of the architecture. Crates are kept apart by Cargo as well; these
/// walls stand within them, and against crates that Cargo would let in.
const WALLS: &[Wall] = &[
    Wall {
        within: "raft/model/src/",
        never: &[
            "tokio::",
            "openraft::",
            "sled::",
            "axum::",
            "rand::",
            "quorate_raft::",
            "quorate_api::",
            "std::time::",
            "std::fs",
            "std::net",
            "std::thread",
            "HashMap",
            "HashSet",
        ],
        but: &[],
        why: "the model is a pure function: no clock, chance, disk or network, and maps in order",
    },
    Wall {
        within: "raft/expression/src/",
        never: &["std::time::", "std::fs", "std::net", "std::thread", "HashMap", "quorate_"],
        but: &[],
        why: "what an expression comes to depends on what it is given and nothing else",
    },
    Wall {
        within: "raft/model/src/",
        never: &["quorate_expression::"],
        but: &["raft/model/src/plan/"],
        why: "apply evaluates nothing: two versions of an engine may differ over a text",
    },
    Wall {
        within: "raft/model/src/command/",
        never: &["crate::plan"],
        but: &[],
        why: "apply does not plan: decide on the leader, log the decision, apply mechanically",
    },
    Wall {
        within: "raft/",
        never: &["quorate_api::", "axum::", "reqwest::"],
        but: &[],
        why: "the log and the edge never see each other",
    },
    Wall {
        within: "raft/src/",
        never: &["sled::"],
        but: &["raft/src/history/", "raft/src/snapshot.rs", "raft/src/error.rs"],
        why: "only history and snapshot know that there is sled",
    },
    Wall {
        within: "raft/src/wal/",
        never: &["openraft::", "quorate_model::"],
        but: &[],
        why: "the log on disk knows records and bytes, not what they mean",
    },
    Wall {
        within: "raft/src/history/",
        never: &["openraft::"],
        but: &[],
        why: "history is filled by apply and knows nothing of how entries came to be",
    },
    Wall {
        within: "api/",
        never: &["quorate_raft::", "openraft::", "sled::"],
        but: &[],
        why: "the edge and the log never see each other",
    },
    Wall {
        within: "src/",
        never: &["openraft::", "sled::"],
        but: &[],
        why: "raft hides what it is built of",
    },
    Wall {
        within: "src/leader/",
        never: &["crate::worker", "crate::cli", "crate::server"],
        but: &[],
        why: "leader and worker talk through the session protocol, on one node as on two",
    },
    Wall {
        within: "src/worker/",
        never: &["crate::leader", "crate::cli", "crate::server", "crate::backend"],
        but: &[],
        why: "leader and worker talk through the session protocol, on one node as on two",
    },
    Wall {
        within: "src/cli/",
        never: &["crate::leader", "crate::backend"],
        but: &[],
        why: "the command line is a client of the API like any other",
    },
    Wall {
        within: "src/",
        never: &["anyhow::"],
        but: &["src/cli/", "src/main.rs"],
        why: "callers branch on errors; anyhow is for the command line, which only prints them",
    },
    Wall {
        within: "src/",
        never: &["println!", "print!", "std::process::exit"],
        but: &["src/cli/"],
        why: "stdout is data and belongs to the command line",
    },
];

#[test]
fn nobody_imports_what_is_not_theirs_to_know() {
    let sources = sources();
    let mut broken = Vec::new();
    for wall in WALLS {
        let inside = sources.iter().filter(|source| source.is_in(wall.within));
        for source in inside.filter(|source| !wall.but.iter().any(|but| source.is_in(but))) {
            let named = wall.never.iter().filter(|never| source.names(never));
            broken
                .extend(named.map(|never| format!("{} names {never}: {}", source.path, wall.why)));
        }
    }
    assert_none(broken);
}

#[test]
fn a_name_is_found_in_code_and_nowhere_else() {
    let text =
        "//! sled::Db in a comment\nuse sled::Db;\n#[cfg(test)]\nmod tests {\n    anyhow::x\n}\n";
    let source = Source { path: "raft/src/a.rs".to_owned(), text: text.to_owned() };
    assert!(source.names("sled::"));
    assert!(!source.names("led::") && !source.names("anyhow::"));
    assert_eq!(source.code_lines().count(), 1);
}

/// A command may use what puts a workflow, since a run can bring one along; no other.
#[test]
fn commands_do_not_lean_on_one_another() {
    const ALLOWED: &[(&str, &str)] = &[("start_run", "put_workflow")];
    let sources = sources();
    let commands = || {
        let inside = sources.iter().filter(|source| source.is_in("raft/model/src/command/"));
        inside.filter(|source| source.stem() != "mod")
    };
    let mut broken = Vec::new();
    for one in commands() {
        for other in commands().filter(|other| other.path != one.path) {
            let named = one.names(&format!("super::{}", other.stem()));
            if named && !ALLOWED.contains(&(one.stem(), other.stem())) {
                broken.push(format!("{} uses {}: settle what both need", one.path, other.path));
            }
        }
    }
    assert_none(broken);
}

#[test]
fn no_file_is_too_large() {
    let allowed: BTreeMap<&str, usize> = LARGER.iter().copied().collect();
    let mut broken = Vec::new();
    for source in sources() {
        let lines = source.code_lines().count();
        let max = allowed.get(source.path.as_str()).copied().unwrap_or(FILE_CODE_LINES_MAX);
        if lines > max {
            broken.push(format!(
                "{} has {lines} lines of code; {max} is the most: split it by noun",
                source.path
            ));
        } else if max > FILE_CODE_LINES_MAX && lines < max {
            broken.push(format!("{} is down to {lines} lines: lower its number here", source.path));
        }
    }
    assert_none(broken);
}

#[test]
fn files_are_named_for_what_they_hold() {
    let mut broken = Vec::new();
    for path in files() {
        let path = relative(&path);
        let names = path.split('/').map(|name| name.split('.').next().unwrap_or_default());
        for name in names.filter(|name| BANNED_STEMS.contains(name)) {
            broken.push(format!("{path}: {name:?} says nothing; find the noun"));
        }
    }
    assert_none(broken);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut broken = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            for (word, instead) in BANNED_WORDS.iter().filter(|(word, _)| line.contains(word)) {
                broken.push(format!("{}:{}: {word}: {instead}", source.path, number + 1));
            }
        }
    }
    assert_none(broken);
}

/// `unsafe` stands in one module, and one of the tests, a line of reason with each.
#[test]
fn unsafe_stands_where_it_is_looked_for() {
    let files = ["src/worker/sys.rs", "tests/cluster/harness/sys.rs"];
    let allowed = |path: &str| files.contains(&path) || path.starts_with("src/worker/sys/");
    let unsafe_word = concat!("unsafe", " {");
    let found = sources().into_iter().filter(|source| !allowed(&source.path));
    let found = found.filter(|source| source.code_lines().any(|line| line.contains(unsafe_word)));
    assert_none(found.map(|source| format!("{}: move it to src/worker/sys.rs", source.path)));
}

/// The verbs of the model's scripts, and the command that each proposes.
fn script_verbs() -> BTreeMap<String, String> {
    let path = root().join("raft/model/tests/script/propose.rs");
    let text = fs::read_to_string(path).expect("the scripts have a runner");
    let (mut verbs, mut verb) = (BTreeMap::new(), None);
    for line in text.lines().map(str::trim) {
        if let Some((name, _)) = line.strip_prefix('"').and_then(|rest| rest.split_once("\" =>")) {
            verb = Some(name.to_owned());
        }
        if let (Some(name), Some((_, rest))) = (&verb, line.split_once("Command::")) {
            let command: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
            verbs.entry(command).or_insert_with(|| name.clone());
        }
    }
    verbs
}

/// `put_workflow` as the type that it holds.
fn type_of(stem: &str) -> String {
    let words = stem.split('_').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_ascii_uppercase() + rest
    });
    words.collect()
}

#[test]
fn every_command_is_in_a_golden_script() {
    let verbs = script_verbs();
    let scripts: Vec<String> = files()
        .iter()
        .filter(|path| relative(path).starts_with("raft/model/testscripts/"))
        .map(|path| fs::read_to_string(path).expect("a script is text"))
        .collect();
    let first_words: BTreeSet<&str> = scripts
        .iter()
        .flat_map(|script| script.lines())
        .filter_map(|line| line.split(": ").last()?.split_whitespace().next())
        .collect();
    let sources = sources();
    let commands = sources.iter().filter(|source| source.is_in("raft/model/src/command/"));
    let mut broken = Vec::new();
    for command in commands.map(Source::stem).filter(|stem| *stem != "mod") {
        match verbs.get(&type_of(command)) {
            None => broken.push(format!("{command}: no verb of the scripts proposes it")),
            Some(verb) if !first_words.contains(verb.as_str()) => {
                broken.push(format!("{command}: no script says {verb}"));
            }
            Some(_) => {}
        }
    }
    assert_none(broken);
}

/// The verbs of the command line, as they are typed.
fn cli_verbs() -> Vec<String> {
    let text = fs::read_to_string(root().join("src/cli/mod.rs")).expect("there is a command line");
    let body = text.split_once("enum Verb {").expect("it has verbs").1;
    let body = body.split_once("\n}").expect("the enum ends").0;
    let lines = body.lines().map(str::trim).filter(|line| !line.starts_with(['/', '#']));
    let names = lines.filter_map(|line| line.split(['(', ',', ' ']).next());
    names.filter(|name| !name.is_empty()).map(str::to_lowercase).collect()
}

#[test]
fn every_verb_of_the_command_line_is_in_a_test() {
    let tests: Vec<String> = files()
        .iter()
        .filter(|path| relative(path).starts_with("tests/") && !path.ends_with("tidy.rs"))
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect();
    let said = |verb: &str| {
        let ways = [format!("\"{verb}\""), format!("quorate {verb}"), format!("\"{verb} ")];
        tests.iter().any(|test| {
            ways.iter().any(|way| test.contains(way))
                || test.lines().any(|line| line.split_whitespace().next() == Some(verb))
        })
    };
    // The keeper is no verb for people; workers start it, and their tests kill it.
    let untested = cli_verbs().into_iter().filter(|verb| verb != "keeper" && !said(verb));
    assert_none(untested.map(|verb| format!("quorate {verb}: no test says it")));
}

/// Every path that the README names is there.
#[test]
fn the_readme_names_nothing_that_is_not_there() {
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let quoted = readme.split('`').skip(1).step_by(2).flat_map(str::split_whitespace);
    let linked = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let is_path = |word: &&str| {
        let ours = ["src/", "raft/", "api/", "tests/", "scripts/", "examples/", ".ci/"];
        ours.iter().any(|folder| word.starts_with(folder)) && !word.contains(['<', '*', '{'])
    };
    let paths: BTreeSet<&str> = quoted.chain(linked).filter(is_path).collect();
    let missing = paths.into_iter().filter(|path| !root().join(path).exists());
    assert_none(missing.map(|path| format!("README.md names {path}, which is not there")));
}

/// Every name that a test can have: of functions, of the modules that hold them, of scripts.
fn names_of_tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in files() {
        let path = relative(&path);
        names.extend(path.split(['/', '.']).map(str::to_owned));
    }
    for source in sources() {
        let functions = source.text.split("fn ").skip(1);
        let named = functions.filter_map(|rest| rest.split(['(', '<']).next());
        names.extend(named.map(str::to_owned));
    }
    names
}

/// Every test that the account of what is shown names is there. A name ends in `*` or dots where
/// it stands for several, or is long.
#[test]
fn the_account_of_reliability_names_no_test_that_is_not_there() {
    const WORDS_OF_A_TEST: usize = 5;
    let text = fs::read_to_string(root().join("RELIABILITY.md")).expect("there is an account");
    let quoted = text.split('`').skip(1).step_by(2).flat_map(str::split_whitespace);
    let is_name = |word: &&str| {
        let letter = |c: char| c.is_ascii_alphanumeric() || "_:*…".contains(c);
        let is_long = word.split('_').count() >= WORDS_OF_A_TEST;
        word.chars().all(letter) && (word.contains("::") || is_long)
    };
    let names = names_of_tests();
    let is_there = |word: &&str| {
        let last = word.trim_end_matches("::").rsplit("::").next().unwrap_or_default();
        match last.strip_suffix(['*', '…']) {
            Some(start) => names.iter().any(|name| name.starts_with(start)),
            None => names.contains(last),
        }
    };
    let missing: BTreeSet<&str> = quoted.filter(is_name).filter(|word| !is_there(word)).collect();
    assert_none(missing.into_iter().map(|word| format!("RELIABILITY.md: there is no {word}")));
}

/// A name that is a number says nothing when it fails.
#[test]
fn tests_are_named_for_what_they_claim() {
    let mut broken = Vec::new();
    for source in sources() {
        let mut after_attribute = false;
        for line in source.text.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("fn ").or_else(|| line.strip_prefix("async fn "))
                && after_attribute
            {
                let name = rest.split('(').next().unwrap_or_default();
                let last = name.rsplit('_').next().unwrap_or_default();
                if name.starts_with("test_") || last.parse::<u32>().is_ok() {
                    broken.push(format!("{}: {name}: say what it claims", source.path));
                }
            }
            after_attribute = line.starts_with("#[") && (after_attribute || line.contains("test"));
        }
    }
    assert_none(broken);
}
