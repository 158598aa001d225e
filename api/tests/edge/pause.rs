//! Pausing runs and workflows, and having them go on.

use quorate_model::{Outcome, TaskId};
use serde_json::{Value, json};

use crate::site::{CHAIN, ONE, Site};

#[tokio::test]
async fn a_paused_run_tells_so_and_goes_on_when_resumed() {
    let site = Site::new();
    let run = site.start(CHAIN).await;
    let worker = site.bare.worker();
    let first = TaskId::new(run, 0);
    let tried = site.bare.assign(worker, first);
    let path = format!("/v1/runs/{run}");
    let words = json!({ "by": "ann", "reason": "look first" });
    assert_eq!(site.post(&format!("{path}/pause"), &words).await.is(200)["id"], json!(run));
    site.bare.report(worker, first, tried, Outcome::Succeeded { outputs: None });

    let view = site.get(&path).await.is(200);
    assert_eq!((&view["state"], &view["tasks"]["queued"]), (&json!("paused"), &json!(1)));
    let pause = &view["pause"];
    assert_eq!((&pause["scope"], &pause["by"]), (&json!("run"), &json!("ann")));
    assert_eq!(pause["reason"], "look first");
    let second = site.get(&format!("{path}/tasks/second")).await.is(200);
    assert_eq!(second["waits_for"], "its run to be resumed; ann paused it");
    let listed = site.get("/v1/runs?state=paused").await.is(200);
    assert_eq!(listed["items"][0]["id"], json!(run));

    site.post(&format!("{path}/resume"), &json!({ "by": "bob" })).await.is(200);
    let view = site.get(&path).await.is(200);
    assert_eq!((&view["state"], &view["pause"]), (&json!("running"), &Value::Null));
    site.bare.succeed(worker, run, 1, "{}");
    let events = site.get(&format!("{path}/events")).await.is(200);
    let by_hand: Vec<(&str, &str)> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["event"].as_str().unwrap().starts_with("run."))
        .filter_map(|event| Some((event["event"].as_str()?, event["by"].as_str()?)))
        .collect();
    assert_eq!(by_hand, [("run.paused", "ann"), ("run.resumed", "bob")]);
    site.post(&format!("{path}/pause"), &words).await.refused(409, "run-ended");
}

#[tokio::test]
async fn a_paused_workflow_holds_its_runs_and_those_to_come() {
    let site = Site::new();
    let before = site.start(ONE).await;
    let words = json!({ "by": "ann", "reason": "maintenance" });
    site.post("/v1/workflows/one/pause", &words).await.is(200);
    let after = site.start(ONE).await;
    for run in [before, after] {
        let view = site.get(&format!("/v1/runs/{run}")).await.is(200);
        let scope = &view["pause"]["scope"];
        assert_eq!((&view["state"], scope), (&json!("paused"), &json!("workflow")));
    }
    let shown = site.get("/v1/workflows/one").await.is(200);
    assert_eq!(shown["pause"]["reason"], "maintenance");
    let listed = site.get("/v1/workflows").await.is(200);
    assert_eq!(listed["items"][0]["pause"]["by"], "ann");
    site.post("/v1/workflows/one/resume", &json!({})).await.is(200);
    for run in [before, after] {
        let view = site.get(&format!("/v1/runs/{run}")).await.is(200);
        assert_eq!(view["state"], "running");
    }
    assert_eq!(site.get("/v1/workflows/one").await.is(200)["pause"], Value::Null);
}

#[tokio::test]
async fn what_cannot_be_paused_is_refused() {
    let site = Site::new();
    let none = "/v1/runs/019a0000-0000-7000-8000-000000000000/pause";
    site.post(none, &json!({})).await.refused(404, "no-such-run");
    site.post("/v1/workflows/none/pause", &json!({})).await.refused(404, "no-such-workflow");
    site.post("/v1/workflows/none/resume", &json!({})).await.refused(404, "no-such-workflow");
    let run = site.start(CHAIN).await;
    let worker = site.bare.worker();
    site.bare.assign(worker, TaskId::new(run, 0));
    let path = format!("/v1/runs/{run}");
    let long = json!({ "reason": "x".repeat(1_025) });
    site.post(&format!("{path}/pause"), &long).await.refused(422, "validation");
    site.post(&format!("{path}/cancel"), &json!({})).await.is(202);
    site.post(&format!("{path}/pause"), &json!({})).await.refused(409, "conflict");
    site.post(&format!("{path}/resume"), &json!({})).await.refused(409, "conflict");
}
