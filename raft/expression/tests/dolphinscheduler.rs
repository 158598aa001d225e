//! The table of DolphinScheduler's time expressions in the README, row by row, against values
//! that `dolphinscheduler/generate.py` computed apart from this program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use quorate_expression::{Context, RunFacts, Zone, render};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the README says instead of each.
fn equivalents(readme: &str) -> BTreeMap<String, String> {
    let rows = readme.lines().filter_map(|line| {
        let cells = line.strip_prefix("| `$")?.strip_suffix("` |")?;
        let (there, here) = cells.split_once("` | `")?;
        Some((format!("${there}"), here.replace(r"\|", "|")))
    });
    rows.collect()
}

#[test]
fn every_row_of_the_table_comes_to_the_same() {
    let table = equivalents(&read("README.md"));
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for line in read("tests/dolphinscheduler/expected.tsv").lines() {
        let [zone, at, there, expected] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("not four columns: {line}");
        };
        let here = table.get(there).unwrap_or_else(|| panic!("the README has no {there}"));
        let mut context = Context::default();
        context.set_run(&RunFacts {
            id: String::new(),
            trigger: String::new(),
            logical_time_ms: at.parse().expect("milliseconds"),
            zone: Zone::named(zone).expect("a zone"),
        });
        let found = render(here, &context);
        if found.as_deref() != Ok(expected) {
            wrong.push(format!("{zone} {at} {there}: {expected}, but {here} is {found:?}"));
        }
        seen.insert(there.to_owned());
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(seen.len() >= 33, "{} expressions were held against it", seen.len());
    let unseen: Vec<&String> = table
        .iter()
        .filter(|(there, here)| here.contains('|') && !seen.contains(*there))
        .map(|(there, _)| there)
        .collect();
    assert!(unseen.is_empty(), "nothing is held against {unseen:?}");
}
