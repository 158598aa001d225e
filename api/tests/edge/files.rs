//! Logs and artifacts.

use axum::body::Body;
use axum::http::Method;
use quorate_model::{RunId, TaskId};
use serde_json::{Value, json};

use crate::site::{CHAIN, Site};

const LOG: &str = "\
2026-11-20T09:30:00.1Z stdout F one
2026-11-20T09:30:00.2Z stderr F oops
2026-11-20T09:30:00.3Z stdout P tw
2026-11-20T09:30:00.4Z stdout F o
";

async fn logged(site: &Site, complete: bool) -> (RunId, String) {
    let run = site.start(CHAIN).await;
    let (worker, task) = (site.bare.worker(), TaskId::new(run, 0));
    site.bare.assign(worker, task);
    site.bare.write(task, None, LOG, complete);
    (run, format!("/v1/runs/{run}/tasks/first/attempts/1/log"))
}

#[tokio::test]
async fn shows_a_log_as_the_task_wrote_it() {
    let site = Site::new();
    let (_, path) = logged(&site, true).await;
    let log = site.get(&path).await;
    assert_eq!(log.text, "one\noops\ntwo\n");
    assert_eq!(log.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(log.header("quorate-log-offset"), Some("0"));
    assert_eq!(site.get(&format!("{path}?stream=stderr")).await.text, "oops\n");
    let tail = site.get(&format!("{path}?tail=2")).await;
    assert_eq!(tail.text, "two\n");
    let offset = tail.header("quorate-log-offset").unwrap();
    assert_eq!(site.get(&format!("{path}?offset={offset}")).await.text, "two\n");
    assert_eq!(site.get(&format!("{path}?offset=99999")).await.text, "");
    assert_eq!(site.get(&path.replace("/1/", "/latest/")).await.text, "one\noops\ntwo\n");
    site.get(&format!("{path}?tail=1&offset=1")).await.refused(400, "bad-query");
    site.get(&path.replace("/1/", "/2/")).await.refused(404, "no-such-attempt");
    site.get(&path.replace("first", "second")).await.refused(404, "no-such-attempt");
}

#[tokio::test]
async fn tells_lines_with_time_stream_and_where_to_go_on() {
    let site = Site::new();
    let (_, path) = logged(&site, true).await;
    let ndjson = [("accept", "application/x-ndjson")];
    let log = site.send(Method::GET, &path, &ndjson, Body::empty()).await;
    let lines: Vec<Value> = log.text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(
        lines[1],
        json!({ "ts": "2026-11-20T09:30:00.2Z", "stream": "stderr", "line": "oops", "next": 73 })
    );
    assert_eq!(lines[2]["partial"], true);
    let on = site.get(&format!("{path}?offset=73")).await;
    assert_eq!(on.text, "two\n");
    let sse = [("accept", "text/event-stream")];
    let log = site.send(Method::GET, &path, &sse, Body::empty()).await;
    assert!(log.text.starts_with("id: 36\nevent: log\ndata: {\"ts\":"), "{}", log.text);
    let range = [("range", "bytes=0-9")];
    let raw = site.send(Method::GET, &format!("{path}?format=raw"), &range, Body::empty()).await;
    assert_eq!((raw.status.as_u16(), raw.text.as_str()), (206, "2026-11-20"));
}

#[tokio::test]
async fn follows_a_log_until_the_attempt_has_ended() {
    let site = Site::new();
    let (run, path) = logged(&site, false).await;
    let mut stream = site.stream(&format!("{path}?follow=true"), &[]).await;
    assert_eq!(stream.until("two\n").await, "one\noops\ntwo\n");
    let task = TaskId::new(run, 0);
    site.bare.write(task, None, "2026-11-20T09:30:01Z stdout F three\n", false);
    assert_eq!(stream.until("\n").await, "three\n");
    // Out of reach for a moment, as in an election.
    site.bare.workers_are_unreachable(true);
    site.bare.write(task, None, "2026-11-20T09:30:02Z stdout F fo", false);
    site.bare.workers_are_unreachable(false);
    site.bare.write(task, None, "ur\n2026-11-20T09:30:03Z stdout F end", true);
    assert_eq!(stream.rest().await, "four\nend\n");
    site.bare.workers_are_unreachable(true);
    site.get(&path).await.refused(503, "worker-unreachable");
}

#[tokio::test]
async fn does_not_wait_for_a_log_that_is_not_followed() {
    let site = Site::new();
    let (_, path) = logged(&site, false).await;
    assert_eq!(site.get(&path).await.text, "one\noops\ntwo\n");
}

#[tokio::test]
async fn serves_what_a_task_left_whole_or_in_ranges() {
    let site = Site::new();
    let run = site.start(CHAIN).await;
    let worker = site.bare.worker();
    let base = format!("/v1/runs/{run}/artifacts");
    assert_eq!(site.get(&base).await.is(200), json!({ "items": [] }));
    site.bare.succeed(worker, run, 0, "{}");
    let text = "# Report\n".repeat(40_000);
    site.bare.write(TaskId::new(run, 1), Some("report.md"), &text, true);
    site.bare.succeed(worker, run, 1, "{}");
    let expected = json!({ "items": [
        { "path": "report.md", "task": "second", "attempt": 1, "size": text.len() }
    ] });
    assert_eq!(site.get(&base).await.is(200), expected);
    let path = format!("{base}/report.md");
    let whole = site.get(&path).await;
    assert_eq!(whole.text, text, "of more than one read");
    assert_eq!(whole.header("content-length"), Some(text.len().to_string().as_str()));
    assert_eq!(whole.header("content-type"), Some("text/markdown; charset=utf-8"));
    let part = |range| site.send(Method::GET, &path, range, Body::empty());
    let some = part(&[("range", "bytes=2-7")]).await;
    assert_eq!((some.status.as_u16(), some.text.as_str()), (206, "Report"));
    let shown = format!("bytes 2-7/{}", text.len());
    assert_eq!(some.header("content-range"), Some(shown.as_str()));
    part(&[("range", "bytes=9999999-")]).await.refused(416, "bad-range");
    site.get(&format!("{base}/none.md")).await.refused(404, "no-such-file");
    site.get(&format!("{path}?task=first")).await.refused(404, "no-such-file");
    site.bare.workers_are_unreachable(true);
    assert_eq!(site.get(&base).await.is(200)["items"][0].get("size"), None);
    site.get(&path).await.refused(503, "worker-unreachable");
}

#[tokio::test]
async fn asks_which_file_is_meant() {
    let site = Site::new();
    let both = "{name: both, tasks: [\
        {id: a, run: echo, artifacts: [x/out.csv]}, {id: b, run: echo, artifacts: [x/out.csv]}]}";
    let run = site.start(both).await;
    let worker = site.bare.worker();
    for (position, text) in ["a,1\n", "b,2\n"].into_iter().enumerate() {
        site.bare.write(TaskId::new(run, position), Some("x/out.csv"), text, true);
        site.bare.succeed(worker, run, position, "{}");
    }
    let path = format!("/v1/runs/{run}/artifacts/x/out.csv");
    site.get(&path).await.refused(409, "ambiguous-file");
    assert_eq!(site.get(&format!("{path}?task=b")).await.text, "b,2\n");
}
