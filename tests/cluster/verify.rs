//! `quorate verify`: the proof that an operator can have, here of what tests have done.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{Cluster, Options};
use crate::tasks::{SHORT, chain, failing};
use crate::verdict::assert_right;

/// Asks the servers of a cluster whether they agree, then kills them and replays what each has
/// on its disk. Answers what is refuted, and how many proofs there are.
pub(crate) fn verify(cluster: &mut Cluster) -> (Vec<String>, usize) {
    let servers: Vec<String> =
        cluster.nodes.iter().map(|node| format!("http://{}", node.address())).collect();
    let mut outputs = vec![("replicas".to_owned(), run(&["--server", &servers.join(",")]))];
    for node in &mut cluster.nodes {
        node.power_off();
        outputs.push((node.setup.name.clone(), of_folder(&node.setup.home, &[])));
    }
    let refuted = outputs.iter().filter(|(_, output)| output.status.code() != Some(0));
    let refuted: Vec<String> = refuted
        .map(|(what, output)| format!("verify of {what}: {}\n{}", output.status, text(output)))
        .collect();
    let proven = outputs.len() - refuted.len();
    (refuted, proven)
}

fn of_folder(home: &Path, more: &[&str]) -> Output {
    let home = home.to_str().expect("paths of tests are plain text");
    run(&[&["--data", home], more].concat())
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.arg("verify").args(arguments).env("NO_COLOR", "1");
    command.output().expect("it runs")
}

fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

#[track_caller]
fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(output)))
}

#[test]
fn replicas_and_logs_of_a_cluster_that_lost_its_leader_are_proven() {
    let mut cluster = Cluster::start(3, &Options::default());
    let runs: Vec<String> = (0..5)
        .flat_map(|_| [chain(3, 2), failing("flaky", &[], 1, 2), SHORT.to_owned()])
        .map(|tasks| cluster.client.submit(&tasks))
        .collect();
    let leader = cluster.await_leader();
    cluster.nodes[leader].power_off();
    cluster.nodes[leader].restart();
    runs.iter().for_each(|run| assert_eq!(cluster.client.await_end(run), "succeeded"));
    cluster.await_voters(3);
    assert_right(&cluster, vec![]);

    let in_use = of_folder(&cluster.nodes[0].setup.home, &[]);
    assert_eq!(in_use.status.code(), Some(2), "{}", text(&in_use));
    assert!(text(&in_use).contains("--server"), "{}", text(&in_use));
    let (refuted, proven) = verify(&mut cluster);
    assert_eq!((refuted, proven), (Vec::new(), 4));

    let home = cluster.nodes[0].setup.home.clone();
    let whole = report(&of_folder(&home, &["-o", "json"]));
    let log = &whole["log"];
    assert_eq!(whole["verdict"], "proven");
    // 3, 2 and 1 attempts of five each, at the least.
    assert!(log["assignments"].as_u64() >= Some(30), "{log:#}");
    assert!(log["ends"].as_u64() >= log["assignments"].as_u64(), "{log:#}");
    assert_eq!(log["runs_ended"], 15);
    let last = log["last"].as_u64().expect("it is a number");
    let from = (last - 1).to_string();
    let rest = report(&of_folder(&home, &["-o", "json", "--from", &from]));
    assert_eq!((&rest["log"]["entries"], &rest["log"]["hash"]), (&1.into(), &log["hash"]));
    // It has only been looked at.
    cluster.nodes.iter_mut().for_each(|node| node.restart());
    cluster.await_voters(3);
}

#[test]
fn a_log_that_was_damaged_proves_nothing() {
    let mut cluster = Cluster::start(1, &Options::default());
    let runs: Vec<String> = (0..5).map(|_| cluster.client.submit(SHORT)).collect();
    runs.iter().for_each(|run| assert_eq!(cluster.client.await_end(run), "succeeded"));
    cluster.nodes[0].power_off();
    let home = cluster.nodes[0].setup.home.clone();
    let segments = std::fs::read_dir(home.join("wal")).expect("it has a log");
    let segment = segments.map(|entry| entry.expect("it is there").path());
    let segment = segment.min().expect("the log has a segment");
    let mut bytes = std::fs::read(&segment).expect("it is readable");
    let written = bytes.iter().rposition(|byte| *byte != 0).expect("something is written");
    bytes[written / 2] ^= 1;
    std::fs::write(&segment, bytes).expect("it is writable");
    let output = of_folder(&home, &[]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("broken at byte"), "{}", text(&output));
}
