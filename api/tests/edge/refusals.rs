//! What no route lets through, and how it says so.

use axum::body::Body;
use axum::http::Method;
use quorate_api::backend::ProposeError;
use serde_json::json;

use crate::site::{CHAIN, Site};

/// Every route that reads, with names that may or may not exist.
const READS: [&str; 21] = [
    "/v1/workflows",
    "/v1/workflows/chain",
    "/v1/workflows/chain/versions",
    "/v1/workflows/chain/versions/1",
    "/v1/workflows/chain/runs",
    "/v1/runs",
    "/v1/runs/019a0000-0000-7000-8000-000000000000",
    "/v1/runs/019a0000-0000-7000-8000-000000000000/wait",
    "/v1/runs/019a0000-0000-7000-8000-000000000000/events",
    "/v1/runs/019a0000-0000-7000-8000-000000000000/tasks",
    "/v1/runs/019a0000-0000-7000-8000-000000000000/tasks/first",
    "/v1/runs/019a0000-0000-7000-8000-000000000000/tasks/first/attempts/1",
    "/v1/runs/019a0000-0000-7000-8000-000000000000/tasks/first/attempts/1/log",
    "/v1/runs/019a0000-0000-7000-8000-000000000000/artifacts",
    "/v1/runs/019a0000-0000-7000-8000-000000000000/artifacts/a/b",
    "/v1/workers",
    "/v1/workers/7",
    "/v1/cluster",
    "/v1/cluster/members",
    "/v1/schema/workflow.json",
    "/v1/version",
];

#[tokio::test]
async fn refuses_a_parameter_that_no_route_knows() {
    let site = Site::new();
    for path in READS {
        let answer = site.get(&format!("{path}?wiat=1s")).await;
        answer.refused(400, "unknown-parameter");
    }
    let problem = site.get("/v1/runs?stat=failed").await.refused(400, "unknown-parameter");
    assert_eq!(problem["detail"], "no parameter \"stat\" here; did you mean \"state\"?");
    let writes = [
        (Method::POST, "/v1/workflows"),
        (Method::PUT, "/v1/workflows/chain"),
        (Method::DELETE, "/v1/workflows/chain"),
        (Method::POST, "/v1/workflows/validate"),
        (Method::POST, "/v1/workflows/chain/runs"),
        (Method::POST, "/v1/runs"),
        (Method::POST, "/v1/runs/019a0000-0000-7000-8000-000000000000/cancel"),
        (Method::POST, "/v1/cluster/members"),
        (Method::DELETE, "/v1/cluster/members/1"),
        (Method::POST, "/v1/cluster/leader"),
    ];
    for (method, path) in writes {
        let answer = site.send(method, &format!("{path}?dry=1"), &[], CHAIN).await;
        answer.refused(400, "unknown-parameter");
    }
    assert_eq!(site.bare.applied(), 0, "none of it reached the log");
}

#[tokio::test]
async fn refuses_parameters_that_make_no_sense() {
    let site = Site::new();
    for query in [
        "limit=0",
        "limit=1001",
        "limit=ten",
        "limit=1&limit=2",
        "state=done",
        "label=team",
        "label=te%20am=x",
        "created_after=yesterday",
        "order_by=created_at",
        "stale=maybe",
        "index=-1",
        "wait=30",
        "id=xyz!",
        "id=abc",
        "workflow=a%20b",
        "workflow=%ff%zz",
    ] {
        site.get(&format!("/v1/runs?{query}")).await.refused(400, "bad-query");
    }
    site.get("/v1/runs?page_token=00").await.refused(400, "bad-page-token");
    site.get("/v1/runs/none").await.refused(400, "bad-path");
    site.get("/v1/workers/x").await.refused(400, "bad-path");
    site.get("/v1/workflows/a%20b").await.refused(400, "bad-path");
    site.get("/v1/workflows/%ff").await.refused(400, "bad-path");
    site.get("/v1/events?topics=everything").await.refused(400, "bad-query");
}

#[tokio::test]
async fn says_in_words_what_the_router_itself_refuses() {
    let site = Site::new();
    site.get("/v2/runs").await.refused(404, "no-such-route");
    let patch = site.send(Method::PATCH, "/v1/runs", &[], Body::empty()).await;
    patch.refused(405, "method-not-allowed");
    assert_eq!(patch.header("allow"), Some("GET,HEAD,POST"));
    let problem = site.get("/v1/runs/019a0000-0000-7000-8000-000000000000").await;
    let problem = problem.refused(404, "no-such-run");
    assert_eq!(problem["instance"], "/v1/runs/019a0000-0000-7000-8000-000000000000");
    assert_eq!(problem["run"], "019a0000-0000-7000-8000-000000000000");
    assert_eq!(problem["retryable"], false);
}

#[tokio::test]
async fn refuses_bodies_that_are_not_what_they_should_be() {
    let site = Site::new();
    let json = [("content-type", "application/json")];
    let send = |body: &'static str| site.send(Method::POST, "/v1/runs", &json, body);
    let problem = send("{\"workflow\": ").await.refused(400, "syntax");
    assert_eq!(problem["errors"][0]["line"], 1);
    send("[]").await.refused(400, "syntax");
    send("{}").await.refused(422, "validation");
    send("{\"workflow\": 7}").await.refused(422, "validation");
    let problem = send("{\"workflow\": \"\", \"parms\": {}}").await.refused(400, "unknown-field");
    assert_eq!(problem["errors"][0]["pointer"], "/parms");
    assert!(problem["detail"].as_str().unwrap().contains("did you mean \"params\"?"));
    let one = json!({ "workflow": crate::site::ONE, "run_id": "x" });
    let problem = site.post("/v1/runs", &one).await.refused(422, "validation");
    assert_eq!(problem["errors"][0]["pointer"], "/run_id");
    let one = json!({ "workflow": crate::site::ONE, "labels": { "a": "x".repeat(257) } });
    site.post("/v1/runs", &one).await.refused(422, "validation");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let answer = site.send(Method::POST, "/v1/runs", &form, CHAIN).await;
    answer.refused(415, "unsupported-media-type");
    let answer = site.send(Method::POST, "/v1/runs", &[], vec![0xff, 0xfe]).await;
    answer.refused(400, "syntax");
    assert_eq!(site.bare.applied(), 0, "none of it reached the log");
}

#[tokio::test]
async fn refuses_a_body_of_five_megabytes_and_takes_one_of_four() {
    let site = Site::new();
    let pad = |bytes: usize| format!("{CHAIN}#{}\n", "x".repeat(bytes - CHAIN.len() - 2));
    let over = quorate_api::BODY_BYTES_MAX + 1;
    for bytes in [5_000_000, over] {
        site.put_yaml("/v1/workflows/chain", &[], &pad(bytes)).await.refused(413, "body-too-large");
    }
    assert_eq!(site.bare.applied(), 0);
    // At the limit the body is read; that a document is shorter is a rule of documents.
    let answer = site.put_yaml("/v1/workflows/chain", &[], &pad(over - 1)).await;
    assert_ne!(answer.status, 413, "{}", answer.text);
}

#[tokio::test]
async fn refuses_a_head_of_more_than_its_size() {
    let site = Site::new();
    let long = "x".repeat(quorate_api::HEADER_BYTES_MAX);
    let answer = site.send(Method::GET, "/v1/version", &[("x-long", &long)], Body::empty()).await;
    answer.refused(431, "headers-too-large");
    site.get(&format!("/v1/runs?id={long}")).await.refused(431, "headers-too-large");
    let fits = [("x-long", &long[..long.len() - 100])];
    site.send(Method::GET, "/v1/version", &fits, Body::empty()).await.is(200);
}

#[tokio::test]
async fn tells_what_the_cluster_cannot_do_now() {
    let site = Site::new();
    let put = || site.put_yaml("/v1/workflows/chain", &[], CHAIN);
    for (fault, status, code) in [
        (ProposeError::NoLeader, 503, "no-leader"),
        (ProposeError::Unknown, 504, "commit-unknown"),
        (ProposeError::Overloaded, 429, "overloaded"),
        (ProposeError::TooLarge { bytes: 2, bytes_max: 1 }, 413, "body-too-large"),
        (ProposeError::Stopping, 503, "stopping"),
    ] {
        site.bare.fail_next(fault, 1);
        let answer = put().await;
        let problem = answer.refused(status, code);
        let retryable = status >= 429;
        assert_eq!(problem["retryable"], retryable);
        assert_eq!(answer.header("retry-after"), retryable.then_some("1"));
    }
    site.bare.fail_next(ProposeError::DiskFull("node 1 has no room".to_owned()), 1);
    let full = put().await;
    assert_eq!(full.refused(503, "disk-full")["detail"], "node 1 has no room");
    assert_eq!(full.header("retry-after"), Some("10"), "somebody has to make room first");
    put().await.is(201);
    site.bare.cluster_becomes(|cluster| cluster.leader = None);
    let answer = site.get("/v1/workflows").await;
    answer.refused(503, "no-leader");
    assert_eq!(answer.header("quorate-known-leader"), None);
    let stale = site.get("/v1/workflows?stale=true").await;
    assert_eq!(stale.is(200)["items"][0]["name"], "chain");
    assert_eq!(stale.header("quorate-node"), Some("1"));
    assert_eq!(stale.header("quorate-last-contact"), Some("3"));
    site.get("/readyz").await.refused(503, "not-ready");
    assert_eq!(site.get("/healthz").await.text, "ok\n");
}

/// Whoever asks a node that has no room for news gets them from the leader all the same.
#[tokio::test]
async fn a_node_without_room_has_the_leader_answer_reads() {
    let (site, leader) = (Site::new(), Site::new());
    leader.put_yaml("/v1/workflows/chain", &[], CHAIN).await.is(201);
    let address = leader.listen().await;
    site.bare.cluster_becomes(|cluster| {
        cluster.storage.state = "full".to_owned();
        cluster.leader = Some(2);
        cluster.members[1].address = address.to_string();
    });
    let news = site.get("/v1/workflows/chain").await;
    assert_eq!(news.is(200)["name"], "chain");
    assert_eq!(news.header("quorate-node"), Some("1"), "who was asked says so");
    site.get("/v1/workflows/other").await.refused(404, "no-such-workflow");
    let cluster = site.get("/v1/cluster").await;
    assert_eq!(cluster.is(200)["storage"]["state"], "full", "it is this node's own view");
    site.post("/v1/workflows/chain/runs", &json!({})).await.refused(503, "disk-full");

    // Two nodes that take each other for the leader do not go on for ever.
    let itself = site.listen().await;
    site.bare.cluster_becomes(|cluster| cluster.members[1].address = itself.to_string());
    site.get("/v1/workflows/chain").await.refused(503, "disk-full");
}

#[tokio::test]
async fn shows_and_changes_the_cluster() {
    let site = Site::new();
    assert_eq!(site.get("/readyz").await.text, "ok\n");
    assert_eq!(site.get("/v1/version").await.is(200)["api"], "v1");
    let metrics = site.get("/metrics").await;
    assert!(metrics.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let cluster = site.get("/v1/cluster?hash=true").await.is(200);
    assert_eq!((&cluster["leader"], &cluster["quorate"]), (&json!(1), &json!(true)));
    assert_eq!(cluster["state_hash"].as_str().unwrap().len(), 16);
    let join = json!({ "address": "127.0.0.1:7009" });
    let joined = site.post("/v1/cluster/members", &join).await.is(201);
    assert_eq!(joined, json!({ "node": 9, "cluster": "c1" }));
    site.post("/v1/cluster/members", &join).await.refused(409, "membership");
    for address in ["", "nowhere", ":1", "host:0", "host:99999"] {
        let join = json!({ "address": address });
        site.post("/v1/cluster/members", &join).await.refused(422, "validation");
    }
    site.post("/v1/cluster/members", &json!({})).await.refused(422, "validation");
    let members = site.get("/v1/cluster/members").await.is(200);
    assert_eq!(members["items"].as_array().unwrap().len(), 4);
    let path = "/v1/cluster/members/9";
    site.send(Method::DELETE, path, &[], Body::empty()).await.is(204);
    site.send(Method::DELETE, path, &[], Body::empty()).await.refused(404, "no-such-member");
    site.post("/v1/cluster/leader", &json!({ "to": 3 })).await.is(204);
    site.post("/v1/cluster/leader", &json!({ "to": 4 })).await.refused(404, "no-such-member");
    assert_eq!(site.get("/v1/cluster").await.is(200)["leader"], 3);
}
