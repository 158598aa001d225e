//! Whatever is sent to a node: a clear answer, nothing lost, no node down.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::harness::client::Workflow;
use crate::harness::{Cluster, Options, Request, Response, SOON, until};
use crate::judge::SubmitOutcome;
use crate::tasks::SHORT;
use crate::verdict::assert_right;

/// How long a connection may stay open after nonsense.
const HANG_UP: Duration = Duration::from_secs(15);

/// Sends what must be refused; the answer says what is wrong, for programs and for people.
#[track_caller]
fn refused(cluster: &Cluster, request: &Request, status: u16, code: &str) -> Response {
    let response = cluster.nodes[0].send(request).expect("the node answers");
    assert_eq!((response.status, response.code().as_str()), (status, code), "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let detail = response.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert!(!detail.is_empty(), "{}", response.text());
    response
}

/// The node still knows what it knew, and still works.
#[track_caller]
fn assert_unharmed(cluster: &Cluster, before: &str) {
    assert_eq!(cluster.client.await_end(before), "succeeded");
    let after = cluster.client.submit(SHORT);
    assert_eq!(cluster.client.await_end(&after), "succeeded");
    assert_right(cluster, vec![]);
}

fn yaml(text: &str) -> Request {
    Request::post("/v1/runs").yaml(text)
}

#[test]
fn a_bad_document_is_refused_with_the_place_and_the_way_out() {
    let cluster = Cluster::start(1, &Options::default());
    let before = cluster.client.submit(SHORT);

    let broken = refused(&cluster, &yaml("tasks:\n  - id: a\n   run: x\n"), 400, "syntax");
    assert!(broken.json()["errors"][0]["line"].is_u64(), "{}", broken.text());
    let unknown = "name: a\ntasks:\n  - id: a\n    run: x\n    need: b\n";
    let unknown = refused(&cluster, &yaml(unknown), 422, "validation");
    assert_eq!(unknown.json()["errors"][0]["line"], 5, "{}", unknown.text());
    assert!(unknown.text().contains("needs"), "the nearest key is named: {}", unknown.text());
    let cycle =
        "name: a\ntasks:\n  - {id: a, run: x, needs: [b]}\n  - {id: b, run: x, needs: [a]}\n";
    let cycle = refused(&cluster, &yaml(cycle), 422, "validation");
    assert!(cycle.text().contains("a -> b -> a"), "{}", cycle.text());
    let nobody = "name: a\ntasks:\n  - {id: first, run: x}\n  - {id: b, run: x, needs: [frist]}\n";
    let nobody = refused(&cluster, &yaml(nobody), 422, "validation");
    assert!(nobody.text().contains("first"), "{}", nobody.text());
    let twice = "name: a\ntasks:\n  - {id: a, run: x}\n  - {id: a, run: x}\n";
    refused(&cluster, &yaml(twice), 422, "validation");
    let deep = format!("name: a\ntasks: {}{}", "[".repeat(5_000), "]".repeat(5_000));
    refused(&cluster, &yaml(&deep), 400, "syntax");
    let laughs = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\ntasks: [*e,*e,*e,*e,*e,*e,*e,*e]\n";
    refused(&cluster, &yaml(laughs), 422, "validation");
    for text in ["", "null", "7", "[]", "tasks: []", "name: 'no name at all!'\nrun: x"] {
        refused(&cluster, &yaml(text), 422, "validation");
    }
    assert_unharmed(&cluster, &before);
}

#[test]
fn a_dag_at_the_limit_is_taken_and_one_past_it_refused() {
    let cluster = Cluster::start(1, &Options { workers: false, ..Options::default() });
    let tasks = |count: usize| {
        let lines = (0..count).map(|task| format!("  - {{id: t{task}, run: 'true'}}\n"));
        format!("name: large\ntasks:\n{}", lines.collect::<String>())
    };
    let patience = Duration::from_secs(30);
    let over = refused(&cluster, &yaml(&tasks(10_001)).patience(patience), 422, "validation");
    assert!(over.text().contains("10000") || over.text().contains("10,000"), "{}", over.text());
    let taken =
        cluster.nodes[0].send(&yaml(&tasks(10_000)).patience(patience)).expect("it answers");
    assert_eq!(taken.status, 201, "{}", taken.text());
    let run = taken.json()["id"].as_str().expect("a run has an id").to_owned();
    let cancelled =
        cluster.client.ask(&Request::post(format!("/v1/runs/{run}/cancel")).json(&json!({})));
    assert!(cancelled.is_ok(), "{}", cancelled.text());
    assert_eq!(cluster.client.await_end(&run), "cancelled");
}

#[test]
fn a_body_too_large_is_refused() {
    let cluster = Cluster::start(1, &Options::default());
    let before = cluster.client.submit(SHORT);
    let large = format!("name: a\ndescription: '{}'\nrun: x\n", "x".repeat(5 * 1024 * 1024));
    let answer = refused(&cluster, &yaml(&large), 413, "body-too-large");
    assert!(answer.text().contains("4 MiB"), "the limit is named: {}", answer.text());
    assert_unharmed(&cluster, &before);
}

#[test]
fn unknown_words_are_refused_not_passed_over() {
    let cluster = Cluster::start(1, &Options::default());
    let before = cluster.client.submit(SHORT);
    for path in ["/v1/runs?stat=failed", "/v1/cluster?foo=1", "/v1/workflows?limt=3"] {
        refused(&cluster, &Request::get(path), 400, "unknown-parameter");
    }
    refused(&cluster, &Request::get("/v1/runs?limit=0"), 400, "bad-query");
    refused(&cluster, &Request::get("/v1/runs?limit=x"), 400, "bad-query");
    refused(&cluster, &Request::get("/v1/runs?page_token=zzz"), 400, "bad-page-token");
    refused(&cluster, &Request::get("/v1/nothing"), 404, "no-such-route");
    refused(
        &cluster,
        &Request::get("/v1/runs/0192e4a0-0000-7000-8000-000000000000"),
        404,
        "no-such-run",
    );
    refused(&cluster, &Request::get("/v1/runs/not-an-id"), 400, "bad-path");
    refused(&cluster, &Request::new("PATCH", "/v1/runs"), 405, "method-not-allowed");
    let path = format!("/v1/runs/{before}/cancel");
    let body = json!({"reson": "a typing error must not cancel"});
    refused(&cluster, &Request::post(path).json(&body), 400, "unknown-field");
    let odd = Request::post("/v1/runs").header("content-type", "image/png").body("x");
    refused(&cluster, &odd, 415, "unsupported-media-type");
    assert_unharmed(&cluster, &before);
}

/// One key stands for one request.
#[test]
fn a_key_used_for_something_else_is_refused() {
    let cluster = Cluster::start(1, &Options::default());
    let before = cluster.client.submit(SHORT);
    let (one, other) = (cluster.client.workflow(SHORT), cluster.client.workflow(SHORT));
    let key = "the same key";
    let said = |workflow: &Workflow| {
        Request::post("/v1/runs").header("idempotency-key", key).yaml(workflow.text())
    };
    let taken = cluster.nodes[0].send(&said(&one)).expect("the node answers");
    assert_eq!(taken.status, 201, "{}", taken.text());
    let run = taken.json()["id"].as_str().expect("a run has an id").to_owned();
    cluster.client.remember(one.name.clone(), SubmitOutcome::Acknowledged(run.clone()));
    let again = cluster.nodes[0].send(&said(&one)).expect("the node answers");
    assert_eq!((again.status, again.json()["id"].as_str()), (201, Some(run.as_str())));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    refused(&cluster, &said(&other), 422, "idempotency-key-reused");
    cluster.client.remember(other.name, SubmitOutcome::Refused);
    assert_eq!(cluster.client.await_end(&run), "succeeded");
    assert_unharmed(&cluster, &before);
}

#[test]
fn garbage_on_the_port_ends_its_own_connection_only() {
    let cluster = Cluster::start(3, &Options::default());
    let before = cluster.client.submit(SHORT);
    let magic = b"QUORATE1";
    let mut noise = vec![0_u8; 100_000];
    noise
        .iter_mut()
        .enumerate()
        .for_each(|(at, byte)| *byte = u8::try_from(at * at % 251).unwrap_or(0));
    let huge = [magic.as_slice(), &u32::MAX.to_le_bytes(), &[0; 4], &noise].concat();
    let wrong_sum = [magic.as_slice(), &4_u32.to_le_bytes(), &[1; 4], &[2; 4]].concat();
    let nonsense = {
        let payload = [0xff_u8; 64];
        let sum = crc32c::crc32c(&payload).to_le_bytes();
        [magic.as_slice(), &64_u32.to_le_bytes(), &sum, &payload].concat()
    };
    let half = [magic.as_slice(), &100_u32.to_le_bytes(), &[0; 4]].concat();
    let http = b"GET /v1/cluster HTTP/9.9\r\n\r\n".to_vec();
    let part = magic[..5].to_vec();
    let all = [&noise, &huge, &wrong_sum, &nonsense, &half, &http, &part];
    // All at once: a node waits some seconds for more of what looks like a beginning.
    thread::scope(|scope| {
        for node in &cluster.nodes {
            all.iter().for_each(|bytes| drop(scope.spawn(|| hangs_up(node.address(), bytes))));
        }
    });
    for node in 0..3 {
        assert!(cluster.view(node).is_some(), "node{node} is there");
    }
    assert_unharmed(&cluster, &before);
}

/// Sends bytes and closes its side; the node must close the other in time.
#[track_caller]
fn hangs_up(address: std::net::SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).expect("the node accepts");
    stream.set_read_timeout(Some(HANG_UP)).expect("a socket has timeouts");
    // It may hang up before it has heard everything.
    drop(stream.write_all(bytes));
    drop(stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
}

/// A node of another cluster stands where one of ours was.
#[test]
fn a_node_of_another_cluster_is_neither_heard_nor_harmed() {
    let mut ours = Cluster::start(3, &Options::default());
    let theirs = Cluster::start(1, &Options::default());
    let (mine, their) = (ours.client.submit(SHORT), theirs.client.submit(SHORT));
    assert_eq!(theirs.client.await_end(&their), "succeeded");
    let cluster_id = |cluster: &Cluster, node| cluster.view(node).map(|view| view["id"].clone());
    assert_ne!(cluster_id(&ours, 0), cluster_id(&theirs, 0));

    let place = ours.nodes[2].address();
    ours.nodes[2].kill();
    let mut theirs = theirs;
    theirs.nodes[0].kill();
    theirs.nodes[0].setup.listen = place;
    theirs.nodes[0].restart();
    theirs.client.knows(place);
    // Ours goes on with two of three, and says nothing to the stranger that it would take.
    let more = ours.client.workflow(SHORT);
    let answer = ours.nodes[0].send(&more.request()).expect("the node answers");
    assert!(answer.is_ok(), "{}", answer.text());
    let view = until(SOON, "the stranger leads its own", || {
        theirs.view(0).filter(|view| view["leader"] == view["node"])
    });
    assert_eq!(view["members"].as_array().map(Vec::len), Some(1), "{view:#}");
    let kept =
        theirs.nodes[0].send(&Request::get(format!("/v1/runs/{their}"))).expect("it answers");
    assert!(kept.is_ok(), "{}", kept.text());
    drop(theirs);
    ours.nodes[2].restart();
    ours.await_voters(3);
    assert_eq!(ours.client.await_end(&mine), "succeeded");
}
