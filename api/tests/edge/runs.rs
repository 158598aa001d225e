//! Runs: started, watched, waited for, cancelled, and what is left of them.

use axum::http::Method;
use quorate_api::backend::ProposeError;
use quorate_model::{DurationMs, Outcome, TaskId};
use serde_json::{Value, json};

use crate::bare::Holder;
use crate::site::{CHAIN, ONE, SOON, Site};

const DAY: DurationMs = DurationMs(24 * 3_600_000);

#[tokio::test]
async fn follows_a_run_from_start_to_history() {
    let site = Site::new();
    site.put_yaml("/v1/workflows/chain", &[], CHAIN).await.is(201);
    let body = json!({ "params": { "day": "monday" }, "labels": { "by": "me" } });
    let answer = site.post("/v1/workflows/chain/runs", &body).await;
    let started = answer.is(201);
    let path = answer.header("location").unwrap().to_owned();
    let run = started["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(path, format!("/v1/runs/{run}"));
    assert_eq!((&started["workflow"], &started["version"]), (&json!("chain"), &json!(1)));

    let view = site.get(&path).await.is(200);
    assert_eq!((&view["state"], &view["stopping"]), (&json!("running"), &json!(false)));
    assert_eq!(view["params"], json!({ "day": "monday" }));
    assert_eq!(view["labels"], json!({ "by": "me", "team": "data" }));
    assert_eq!((&view["tasks"]["queued"], &view["tasks"]["waiting"]), (&json!(1), &json!(1)));
    assert_eq!(view["created_at"], "2026-11-20T09:30:00.000Z");
    let second = site.get(&format!("{path}/tasks/second")).await.is(200);
    assert_eq!((&second["state"], &second["waits_for"]), (&json!("waiting"), &json!("first")));

    let worker = site.bare.worker();
    let first = TaskId::new(run, 0);
    let tried = site.bare.assign(worker, first);
    let task = site.get(&format!("{path}/tasks/first")).await.is(200);
    assert_eq!(
        (&task["state"], &task["attempts"][0]["token"]),
        (&json!("running"), &json!(tried.1))
    );
    site.bare.report(worker, first, tried, Outcome::Succeeded { outputs: None });
    site.bare.pass(DurationMs(1_500));
    site.bare.succeed(worker, run, 1, r#"{"rows": 7}"#);

    let ended = site.get(&path).await.is(200);
    assert_eq!(
        (&ended["state"], &ended["outputs"]),
        (&json!("succeeded"), &json!({ "rows": "7" }))
    );
    assert_eq!((&ended["duration"], &ended["duration_ms"]), (&json!("1.5s"), &json!(1_500)));
    let attempt = site.get(&format!("{path}/tasks/second/attempts/latest")).await.is(200);
    assert_eq!((&attempt["state"], &attempt["exit_code"]), (&json!("succeeded"), &json!(0)));
    assert_eq!(attempt["usage"]["wall"], "1.5s");
    site.get(&format!("{path}/tasks/second/attempts/2")).await.refused(404, "no-such-attempt");
    site.get(&format!("{path}/tasks/third")).await.refused(404, "no-such-task");

    site.bare.pass(DAY);
    assert_eq!(site.bare.live_runs(), 0);
    assert_eq!(site.get(&path).await.is(200), ended, "history tells the same");
    assert_eq!(site.get(&format!("{path}/tasks")).await.is(200)["items"][0]["id"], "first");
}

#[tokio::test]
async fn tells_what_happened_in_the_order_of_the_log() {
    let site = Site::new();
    let run = site.start(CHAIN).await;
    let worker = site.bare.worker();
    let first = TaskId::new(run, 0);
    let tried = site.bare.assign(worker, first);
    site.bare.report(worker, first, tried, Outcome::Lost);
    site.bare.succeed(worker, run, 0, "{}");
    site.bare.succeed(worker, run, 1, "{}");
    let mut events: Vec<Value> = Vec::new();
    let mut token = String::new();
    loop {
        let page = site.get(&format!("/v1/runs/{run}/events?limit=3{token}")).await.is(200);
        events.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => break,
        }
    }
    let shown: Vec<String> = events
        .iter()
        .map(|e| {
            let word = |name: &str| e[name].as_str().unwrap_or("-").to_owned();
            format!("{} {} {} {}", e["index"], word("event"), word("task"), word("state"))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "1 run.created - -",
            "3 attempt.assigned first -",
            "4 attempt.ended first lost",
            "4 task.ready first -",
            "5 attempt.assigned first -",
            "6 attempt.ended first succeeded",
            "6 task.ended first succeeded",
            "6 task.ready second -",
            "7 attempt.assigned second -",
            "8 attempt.ended second succeeded",
            "8 task.ended second succeeded",
            "8 run.ended - succeeded",
        ]
    );
    assert_eq!(events[4]["token"], 5);
    assert_eq!(events[4]["attempt"], 2);
}

/// A task that must not begin twice by itself.
const HELD: &str = "{name: held, tasks: [{id: only, run: pay, on_lost: hold}]}";

#[tokio::test]
async fn a_held_task_waits_for_a_person_and_says_so() {
    let site = Site::new();
    let run = site.start(HELD).await;
    let path = format!("/v1/runs/{run}/tasks/only");
    site.post(&format!("{path}/retry"), &json!({})).await.refused(409, "conflict");
    let (worker, task) = (site.bare.worker(), TaskId::new(run, 0));
    let tried = site.bare.assign(worker, task);
    site.bare.report(worker, task, tried, Outcome::Lost);

    let view = site.get(&path).await.is(200);
    assert_eq!((&view["state"], &view["held"]), (&json!("lost"), &json!(true)));
    assert_eq!((&view["on_lost"], &view["ended_at"]), (&json!("hold"), &Value::Null));
    assert_eq!(view["waits_for"], "a person to decide what becomes of it");
    let counts = &site.get(&format!("/v1/runs/{run}")).await.is(200)["tasks"];
    assert_eq!((&counts["lost"], &counts["held"]), (&json!(1), &json!(1)));

    let why = json!({ "by": "ann", "comment": "not in the books" });
    assert_eq!(site.post(&format!("{path}/retry"), &why).await.is(200)["id"], json!(run));
    let view = site.get(&path).await.is(200);
    assert_eq!((&view["state"], &view["held"]), (&json!("queued"), &json!(false)));
    let decision = &view["decision"];
    assert_eq!((&decision["verdict"], &decision["by"]), (&json!("retry"), &json!("ann")));
    let events = site.get(&format!("/v1/runs/{run}/events")).await.is(200);
    let events = events["items"].as_array().unwrap();
    let find = |name: &str| events.iter().find(|event| event["event"] == name).unwrap();
    assert_eq!(find("task.held")["index"], find("attempt.ended")["index"]);
    assert_eq!(find("task.decided")["comment"], "not in the books");
}

#[tokio::test]
async fn a_held_task_is_declared_what_it_came_to() {
    let site = Site::new();
    let worker = site.bare.worker();
    for (verb, body, state) in [
        ("mark-success", json!({ "outputs": { "paid": 7 } }), "succeeded"),
        ("mark-failed", json!({ "by": "ann" }), "failed"),
    ] {
        let run = site.start(HELD).await;
        let task = TaskId::new(run, 0);
        let tried = site.bare.assign(worker, task);
        site.bare.report(worker, task, tried, Outcome::Lost);
        let path = format!("/v1/runs/{run}/tasks/only");
        let unknown = json!({ "verdict": "retry" });
        site.post(&format!("{path}/{verb}"), &unknown).await.refused(400, "unknown-field");
        let long = json!({ "comment": "x".repeat(1_025) });
        site.post(&format!("{path}/{verb}"), &long).await.refused(422, "validation");
        site.post(&format!("{path}/{verb}"), &body).await.is(200);
        let view = site.get(&path).await.is(200);
        assert_eq!(view["state"], state);
        assert_eq!(view["outputs"], body["outputs"]);
        assert_eq!(site.get(&format!("/v1/runs/{run}")).await.is(200)["state"], state);
        site.post(&format!("{path}/{verb}"), &body).await.refused(409, "conflict");
        site.bare.pass(DAY);
        site.post(&format!("{path}/{verb}"), &body).await.refused(409, "run-ended");
        site.post(&format!("/v1/runs/{run}/tasks/none/{verb}"), &body)
            .await
            .refused(404, "no-such-task");
    }
}

#[tokio::test]
async fn the_late_word_of_a_worker_is_marked() {
    let site = Site::new();
    let run = site.start(HELD).await;
    let (worker, task) = (site.bare.worker(), TaskId::new(run, 0));
    let tried = site.bare.assign(worker, task);
    site.bare.report(worker, task, tried, Outcome::Lost);
    site.bare.report(worker, task, tried, Outcome::Succeeded { outputs: None });
    let view = site.get(&format!("/v1/runs/{run}/tasks/only")).await.is(200);
    assert_eq!((&view["state"], &view["held"]), (&json!("succeeded"), &json!(false)));
    assert_eq!(view["attempts"][0]["late"], true);
}

#[tokio::test]
async fn starts_what_comes_along_as_yaml_or_json() {
    let site = Site::new();
    let yaml = [("content-type", "application/yaml")];
    let nameless = "run: echo hi";
    let started = site.send(Method::POST, "/v1/runs?name=adhoc", &yaml, nameless).await.is(201);
    assert_eq!(started["workflow"], "adhoc");
    let started = site.send(Method::POST, "/v1/runs", &yaml, nameless).await.is(201);
    assert_eq!(started["workflow"], "inline");
    let tree = json!({ "workflow": { "name": "tree", "tasks": [{ "id": "a", "run": "echo" }] } });
    assert_eq!(site.post("/v1/runs", &tree).await.is(201)["workflow"], "tree");
    assert_eq!(site.get("/v1/workflows/tree").await.is(200)["version"], 1);
}

#[tokio::test]
async fn refuses_a_run_that_cannot_be() {
    let site = Site::new();
    site.post("/v1/workflows/none/runs", &json!({})).await.refused(404, "no-such-workflow");
    site.put_yaml("/v1/workflows/chain", &[], CHAIN).await.is(201);
    let version = json!({ "version": 2 });
    site.post("/v1/workflows/chain/runs", &version).await.refused(404, "no-such-version");
    let params = json!({ "params": { "dya": "x" } });
    let problem = site.post("/v1/workflows/chain/runs", &params).await.refused(422, "validation");
    assert!(problem["errors"][0]["message"].as_str().unwrap().contains("dya"), "{problem}");
    let id = "019a0000-0000-7000-8000-000000000000";
    let own = json!({ "workflow": ONE, "run_id": id });
    site.post("/v1/runs", &own).await.is(201);
    let problem = site.post("/v1/runs", &own).await.refused(409, "run-exists");
    assert_eq!(problem["run"], id);
    let worker = site.bare.worker();
    site.bare.succeed(worker, id.parse().unwrap(), 0, "{}");
    site.bare.pass(DAY);
    assert_eq!(site.bare.live_runs(), 0);
    let problem = site.post("/v1/runs", &own).await.refused(409, "run-exists");
    assert_eq!(problem["run"], id, "history counts as well");
}

#[tokio::test]
async fn answers_a_repeat_as_the_first_time() {
    let site = Site::new();
    site.put_yaml("/v1/workflows/chain", &[], CHAIN).await.is(201);
    let headers = [("content-type", "application/json"), ("idempotency-key", "k1")];
    let start =
        |body: &'static str| site.send(Method::POST, "/v1/workflows/chain/runs", &headers, body);
    let first = start("{}").await;
    let again = start("{}").await;
    assert_eq!(again.is(201), first.is(201), "the run of the first time, not one of its own");
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    start("{ }").await.refused(422, "idempotency-key-reused");
    site.send(Method::DELETE, "/v1/workflows/chain", &[], "").await.is(204);
    // By now the edge itself would refuse it; but it was accepted once.
    let late = start("{}").await;
    assert_eq!(late.is(201), first.json());
    assert_eq!(late.header("idempotency-replayed"), Some("true"));
    assert_eq!(site.bare.live_runs(), 1);

    let long = "k".repeat(256);
    for key in ["", long.as_str()] {
        let bad = site.put_yaml("/v1/workflows/chain", &[("idempotency-key", key)], CHAIN).await;
        bad.refused(400, "bad-idempotency-key");
    }
}

#[tokio::test]
async fn repeats_refusals_and_every_other_write_alike() {
    let site = Site::new();
    let key = [("idempotency-key", "put")];
    let first = site.put_yaml("/v1/workflows/chain", &key, CHAIN).await;
    let again = site.put_yaml("/v1/workflows/chain", &key, CHAIN).await;
    assert_eq!(again.is(201), first.is(201), "created, though it is there by now");
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let delete = async |headers: &[(&str, &str)]| {
        site.send(Method::DELETE, "/v1/workflows/chain", headers, "").await
    };
    let once = [("idempotency-key", "d"), ("if-match", "*")];
    delete(&once).await.is(204);
    let again = delete(&once).await;
    again.is(204);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let late = [("idempotency-key", "e")];
    delete(&late).await.refused(404, "no-such-workflow");
    let refused = delete(&late).await;
    refused.refused(404, "no-such-workflow");
    assert_eq!(refused.header("idempotency-replayed"), Some("true"));
}

#[tokio::test]
async fn an_answer_that_was_lost_can_be_asked_for_again() {
    let site = Site::new();
    site.bare.lose_next(ProposeError::Unknown);
    let headers = [("content-type", "application/yaml"), ("idempotency-key", "k")];
    let start = || site.send(Method::POST, "/v1/runs", &headers, ONE);
    start().await.refused(504, "commit-unknown");
    let again = start().await;
    again.is(201);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(site.bare.live_runs(), 1);
}

#[tokio::test]
async fn cancels_a_run_once_everything_of_it_is_gone() {
    let site = Site::new();
    let run = site.start(CHAIN).await;
    let worker = site.bare.worker();
    let first = TaskId::new(run, 0);
    let tried = site.bare.assign(worker, first);
    let path = format!("/v1/runs/{run}");
    let cancel =
        || async { site.post(&format!("{path}/cancel"), &json!({ "reason": "no" })).await };
    assert_eq!(cancel().await.is(202), json!({ "id": run }));
    let view = site.get(&path).await.is(200);
    assert_eq!((&view["state"], &view["stopping"]), (&json!("running"), &json!(true)));
    assert_eq!(view["reason"], "no");
    cancel().await.is(202);
    site.bare.report(worker, first, tried, Outcome::Stopped);
    let view = site.get(&path).await.is(200);
    assert_eq!((&view["state"], &view["stopping"]), (&json!("cancelled"), &json!(false)));
    assert_eq!(view["tasks"]["cancelled"], 2);
    let problem = cancel().await.refused(409, "run-ended");
    assert_eq!(problem["run"], json!(run));
    site.bare.pass(DAY);
    cancel().await.refused(409, "run-ended");
    let none = "/v1/runs/019a0000-0000-7000-8000-000000000000/cancel";
    site.post(none, &json!({})).await.refused(404, "no-such-run");
    let long = json!({ "reason": "x".repeat(1_025) });
    site.post(&format!("{path}/cancel"), &long).await.refused(422, "validation");
}

#[tokio::test]
async fn waits_for_the_end_of_a_run_or_the_time_given() {
    let site = Site::new();
    let run = site.start(ONE).await;
    let path = format!("/v1/runs/{run}/wait");
    let view = site.get(&format!("{path}?timeout=10ms")).await.is(200);
    assert_eq!(view["state"], "running");
    let waiting = tokio::spawn({
        let site = Site { bare: site.bare.clone(), router: site.router.clone() };
        async move { site.get(&format!("{path}?timeout=300s")).await.is(200) }
    });
    let worker = site.bare.worker();
    site.bare.succeed(worker, run, 0, "{}");
    let view = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
    assert_eq!(view["state"], "succeeded");
    site.bare.pass(DAY);
    let view = site.get(&format!("/v1/runs/{run}/wait?timeout=300s")).await.is(200);
    assert_eq!(view["state"], "succeeded");
}

#[tokio::test]
async fn a_blocking_query_returns_at_the_next_change() {
    let site = Site::new();
    let run = site.start(CHAIN).await;
    let path = format!("/v1/runs/{run}");
    let seen = site.get(&path).await;
    let index: u64 = seen.header("quorate-index").unwrap().parse().unwrap();
    assert_eq!(seen.is(200)["index"], index);
    let unchanged = site.get(&format!("{path}?index={index}&wait=10ms")).await;
    assert_eq!(unchanged.header("quorate-index"), Some(index.to_string().as_str()));
    let waiting = tokio::spawn({
        let site = Site { bare: site.bare.clone(), router: site.router.clone() };
        async move { site.get(&format!("{path}?index={index}&wait=300s")).await.is(200) }
    });
    let worker = site.bare.worker();
    site.bare.assign(worker, TaskId::new(run, 0));
    let view = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
    assert!(view["index"].as_u64().unwrap() > index);
    assert_eq!(view["tasks"]["running"], 1);

    let list = site.get("/v1/workers").await;
    let index: u64 = list.header("quorate-index").unwrap().parse().unwrap();
    let waiting = tokio::spawn({
        let site = Site { bare: site.bare.clone(), router: site.router.clone() };
        async move { site.get(&format!("/v1/workers?index={index}&wait=300s")).await.is(200) }
    });
    site.bare.worker();
    let list = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let id = list["items"][0]["id"].as_u64().unwrap();
    let shown = site.get(&format!("/v1/workers/{id}")).await.is(200);
    assert_eq!((&shown["state"], &shown["runs"]), (&json!("live"), &json!([run])));
    site.get("/v1/workers/999").await.refused(404, "no-such-worker");
}

#[tokio::test]
async fn a_worker_is_drained_and_taken_back() {
    let site = Site::new();
    let Holder(worker, _) = site.bare.worker();
    let path = format!("/v1/workers/{}", worker.0);
    let view = site.get(&path).await.is(200);
    assert_eq!((&view["state"], &view["eligible"]), (&json!("live"), &json!(true)));
    let why = json!({ "by": "ann", "reason": "new disk" });
    let answer = site.post(&format!("{path}/drain"), &why).await.is(200);
    assert_eq!(answer["id"], json!(worker.0));
    let view = site.get(&path).await.is(200);
    assert_eq!((&view["state"], &view["eligible"]), (&json!("live"), &json!(false)));
    assert_eq!(
        (&view["slots_free"], &view["ineligible"]),
        (&json!(0), &json!("drained: new disk"))
    );
    assert_eq!(
        (&view["drain"]["by"], &view["index"]),
        (&json!("ann"), &json!(site.bare.applied()))
    );
    let long = json!({ "reason": "x".repeat(1_025) });
    site.post(&format!("{path}/drain"), &long).await.refused(422, "validation");
    site.post(&format!("{path}/eligible"), &why).await.refused(400, "unknown-field");
    site.post("/v1/workers/999/drain", &why).await.refused(404, "no-such-worker");
    site.post(&format!("{path}/eligible"), &json!({})).await.is(200);
    let view = site.get(&path).await.is(200);
    assert_eq!((&view["eligible"], &view["drain"]), (&json!(true), &Value::Null));
}
