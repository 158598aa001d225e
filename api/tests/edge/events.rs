//! The stream of changes.

use quorate_model::TaskId;
use serde_json::{Value, json};

use crate::site::{CHAIN, ONE, Site, Stream};

/// The next event, pings passed over: its id, its name and its data.
async fn next(stream: &mut Stream) -> (Option<u64>, String, Value) {
    loop {
        let text = stream.until("\n\n").await;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
        };
        if let Some(json) = field("data:") {
            let id = field("id:").map(|id| id.parse().unwrap());
            return (id, field("event:").unwrap(), serde_json::from_str(&json).unwrap());
        }
    }
}

#[tokio::test]
async fn tells_those_who_watch_a_run_what_changes() {
    let site = Site::new();
    let run = site.start(CHAIN).await;
    let mut stream = site.stream(&format!("/v1/events?topics=run:{run}"), &[]).await;
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    assert_eq!(stream.until("\n\n").await, "retry: 2000\n\n");
    site.start(ONE).await;
    let worker = site.bare.worker();
    site.bare.assign(worker, TaskId::new(run, 0));
    let (id, name, change) = next(&mut stream).await;
    assert_eq!((id, name.as_str()), (Some(4), "task.updated"));
    assert_eq!((&change["run"], &change["task"]["id"]), (&json!(run), &json!("first")));
    assert_eq!((&change["type"], &change["index"]), (&json!("task.updated"), &json!(4)));
    assert_eq!(change["task"]["state"], "running");
}

#[tokio::test]
async fn goes_on_where_a_client_left_off() {
    let site = Site::new();
    let run = site.start(CHAIN).await;
    let worker = site.bare.worker();
    site.bare.succeed(worker, run, 0, "{}");
    site.bare.succeed(worker, run, 1, "{}");
    let path = format!("/v1/events?topics=run:{run}");
    // Everything of the entry that was seen last, and of those after it.
    let mut stream = site.stream(&path, &[("last-event-id", "5")]).await;
    let mut seen = Vec::new();
    loop {
        let (id, name, change) = next(&mut stream).await;
        let state =
            if name == "run.updated" { &change["run"]["state"] } else { &change["task"]["state"] };
        seen.push(format!("{} {name} {}", id.unwrap(), state.as_str().unwrap()));
        if name == "run.updated" {
            break;
        }
    }
    assert_eq!(
        seen,
        ["6 task.updated succeeded", "6 run.updated succeeded"],
        "each once, as it is"
    );
    // Only what came after the entry that was read.
    let mut stream = site.stream(&format!("{path}&index=5"), &[]).await;
    assert_eq!(next(&mut stream).await.0, Some(6));
    site.stream("/v1/events?topics=cluster", &[]).await;
    let bad = [("last-event-id", "x")];
    let answer = site.send(axum::http::Method::GET, &path, &bad, axum::body::Body::empty()).await;
    answer.refused(400, "bad-header");
}

#[tokio::test]
async fn says_reset_where_it_no_longer_knows_what_was_missed() {
    let site = Site::new();
    site.start(ONE).await;
    // A node that has just begun knows nothing of before.
    let site = Site { router: quorate_api::router(site.bare.clone()), bare: site.bare };
    let mut stream = site.stream("/v1/events", &[("last-event-id", "1")]).await;
    let reset = loop {
        let (_, name, change) = next(&mut stream).await;
        if name == "reset" {
            break change;
        }
        assert_eq!(name, "cluster.leader");
    };
    assert_eq!(reset, json!({ "type": "reset", "index": 1 }));
    let run = site.start(ONE).await;
    loop {
        let (_, name, change) = next(&mut stream).await;
        if name == "run.updated" {
            assert_eq!(change["run"]["id"], json!(run), "and it goes on");
            break;
        }
    }
}

#[tokio::test]
async fn tells_of_workflows_workers_and_leaders() {
    let site = Site::new();
    let mut all = site.stream("/v1/events", &[("accept", "application/x-ndjson")]).await;
    let line = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let leader = line(all.until("\n").await);
    assert_eq!(leader, json!({ "type": "cluster.leader", "leader": 1, "term": 4 }));
    site.put_yaml("/v1/workflows/chain", &[], CHAIN).await.is(201);
    let workflow = line(all.until("\n").await);
    assert_eq!(workflow, json!({ "type": "workflow.updated", "index": 1, "name": "chain" }));
    site.bare.worker();
    let worker = line(all.until("\n").await);
    assert_eq!(
        (&worker["type"], &worker["worker"]["state"]),
        (&json!("worker.updated"), &json!("live"))
    );
    site.bare.cluster_becomes(|cluster| cluster.leader = None);
    assert_eq!(line(all.until("\n").await)["leader"], Value::Null);
    site.bare.cluster_becomes(|cluster| cluster.leader = Some(2));
    assert_eq!(line(all.until("\n").await)["leader"], 2);
}

#[tokio::test]
async fn watches_the_runs_of_a_workflow() {
    let site = Site::new();
    let mut stream = site.stream("/v1/events?topics=workflow:chain", &[]).await;
    site.start(ONE).await;
    let run = site.start(CHAIN).await;
    let (_, name, change) = next(&mut stream).await;
    assert_eq!((name.as_str(), &change["name"]), ("workflow.updated", &json!("chain")));
    let (_, name, change) = next(&mut stream).await;
    assert_eq!((name.as_str(), &change["run"]["id"]), ("run.updated", &json!(run)));
}

#[tokio::test]
async fn a_client_that_stops_reading_holds_up_nobody() {
    let site = Site::new();
    let mut stream = site.stream("/v1/events?topics=workflow:one", &[]).await;
    for _ in 0..quorate_api::EVENTS_KEPT_MAX / 2 {
        site.bare.worker();
    }
    let run = site.start(ONE).await;
    loop {
        let (_, name, change) = next(&mut stream).await;
        if name == "run.updated" {
            assert_eq!(change["run"]["id"], json!(run));
            break;
        }
    }
}

#[tokio::test]
async fn a_node_keeps_so_many_streams_open_and_no_more() {
    let site = Site::new();
    let mut streams = Vec::new();
    for _ in 0..quorate_api::STREAMS_MAX {
        streams.push(site.stream("/v1/events", &[]).await);
    }
    let answer = site.get("/v1/events").await;
    assert_eq!(answer.refused(429, "too-many-streams")["retryable"], true);
    streams.pop();
    site.stream("/v1/events", &[]).await;
}
