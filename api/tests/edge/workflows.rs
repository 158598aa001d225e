//! Workflows: put, read, depended on, deleted.

use axum::body::Body;
use axum::http::Method;
use quorate_api::spec::JSON_SCHEMA;
use serde_json::json;

use crate::site::{CHAIN, ONE, Site};

const CYCLE: &str = "\
name: round
tasks:
  - {id: a, needs: b, run: echo}
  - {id: b, needs: c, run: echo}
  - {id: c, needs: a, run: echo}
";

#[tokio::test]
async fn editors_get_the_schema_of_a_workflow_file() {
    let site = Site::new();
    let answer = site.get("/v1/schema/workflow.json").await;
    assert_eq!(answer.header("content-type"), Some("application/schema+json"));
    let schema = answer.is(200);
    assert_eq!(schema, serde_json::from_str::<serde_json::Value>(JSON_SCHEMA).unwrap());
}

#[tokio::test]
async fn puts_a_workflow_and_knows_when_nothing_changed() {
    let site = Site::new();
    let first = site.put_yaml("/v1/workflows/chain", &[], CHAIN).await;
    assert_eq!(first.is(201), json!({ "name": "chain", "version": 1, "changed": true }));
    assert_eq!(first.header("etag"), Some("\"v1\""));
    assert_eq!(first.header("location"), Some("/v1/workflows/chain"));

    let again = site.put_yaml("/v1/workflows/chain", &[], CHAIN).await;
    assert_eq!(again.is(200), json!({ "name": "chain", "version": 1, "changed": false }));

    let other = CHAIN.replace("echo 2", "echo 3");
    let next = site.put_yaml("/v1/workflows/chain", &[], &other).await;
    assert_eq!(next.is(200), json!({ "name": "chain", "version": 2, "changed": true }));

    let shown = site.get("/v1/workflows/chain").await;
    let view = shown.is(200);
    assert_eq!(shown.header("etag"), Some("\"v2\""));
    assert_eq!(view["version"], 2);
    assert_eq!(view["tasks"][1]["needs"], json!(["first"]));
    assert_eq!(
        view["params"]["day"],
        json!({ "type": "string", "default": "today", "description": "" })
    );
    let yaml = site.get("/v1/workflows/chain/versions/1?format=yaml").await;
    assert_eq!(yaml.text, CHAIN);
    assert_eq!(yaml.header("content-type"), Some("application/yaml"));
    let versions = site.get("/v1/workflows/chain/versions").await.is(200);
    assert_eq!(versions["items"][0]["version"], 2);
    assert_eq!(versions["items"][1]["version"], 1);
}

#[tokio::test]
async fn creates_a_workflow_once() {
    let site = Site::new();
    let yaml = [("content-type", "application/yaml")];
    let create = || site.send(Method::POST, "/v1/workflows", &yaml, CHAIN);
    create().await.is(201);
    create().await.refused(409, "workflow-exists");
    let other = site.put_yaml("/v1/workflows/other", &[], CHAIN).await;
    let problem = other.refused(422, "validation");
    assert_eq!(problem["errors"][0]["pointer"], "/name");
}

#[tokio::test]
async fn writes_only_where_the_version_is_the_one_expected() {
    let site = Site::new();
    let path = "/v1/workflows/chain";
    let other = CHAIN.replace("echo 2", "echo 3");
    let put = async |headers: &[(&str, &str)], text: &str| site.put_yaml(path, headers, text).await;
    put(&[("if-match", "*")], CHAIN).await.refused(404, "no-such-workflow");
    put(&[("if-match", "\"v1\"")], CHAIN).await.refused(412, "version-mismatch");
    put(&[("if-none-match", "*")], CHAIN).await.is(201);
    put(&[("if-none-match", "*")], &other).await.refused(412, "version-mismatch");
    put(&[("if-match", "\"v2\"")], &other).await.refused(412, "version-mismatch");
    put(&[("if-match", "v1")], &other).await.refused(400, "bad-header");
    put(&[("if-match", "\"v1\""), ("if-none-match", "*")], &other).await.refused(400, "bad-header");
    assert_eq!(put(&[("if-match", "\"v1\"")], &other).await.is(200)["version"], 2);
    assert_eq!(put(&[("if-match", "*")], CHAIN).await.is(200)["version"], 3);

    let same = site.send(Method::GET, path, &[("if-none-match", "\"v3\"")], Body::empty()).await;
    assert_eq!(same.status, 304);
    assert!(same.text.is_empty());
    let delete = |tag| site.send(Method::DELETE, path, tag, Body::empty());
    delete(&[("if-match", "\"v2\"")]).await.refused(412, "version-mismatch");
    delete(&[("if-match", "\"v3\"")]).await.is(204);
    delete(&[]).await.refused(404, "no-such-workflow");
    site.get(path).await.refused(404, "no-such-workflow");
}

#[tokio::test]
async fn points_at_every_fault_of_a_document() {
    let site = Site::new();
    let problem = site.put_yaml("/v1/workflows/round", &[], CYCLE).await.refused(422, "validation");
    let faults = problem["errors"].as_array().unwrap();
    assert!(
        faults.iter().any(|f| f["code"] == "cycle" && f["line"].as_u64() > Some(2)),
        "{problem}"
    );
    assert!(problem["detail"].as_str().unwrap().contains("->"), "{problem}");

    let broken = "name: x\ntasks: [{id: a, run: echo\n";
    let problem = site.put_yaml("/v1/workflows/x", &[], broken).await.refused(400, "syntax");
    assert!(problem["errors"][0]["line"].is_u64(), "{problem}");

    // The same document is no bad request where it was sent to hear what is wrong with it.
    let yaml = [("content-type", "application/yaml")];
    let validity = site.send(Method::POST, "/v1/workflows/validate", &yaml, CYCLE).await.is(200);
    assert_eq!(validity["valid"], false);
    assert!(!validity["errors"].as_array().unwrap().is_empty());
    let validity = site.send(Method::POST, "/v1/workflows/validate", &yaml, CHAIN).await.is(200);
    assert_eq!(validity["valid"], true);
    assert_eq!((&validity["name"], &validity["tasks"]), (&json!("chain"), &json!(2)));
}

#[tokio::test]
async fn lists_workflows_by_name_a_page_at_a_time() {
    let site = Site::new();
    for name in ["b", "d", "a", "c", "e"] {
        let source = ONE.replace("one", name);
        site.put_yaml(&format!("/v1/workflows/{name}"), &[], &source).await.is(201);
    }
    let (mut names, mut path) = (Vec::new(), "/v1/workflows?limit=2".to_owned());
    loop {
        let page = site.get(&path).await.is(200);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        names.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        // What comes in before the page does not shift it.
        site.put_yaml("/v1/workflows/aa", &[], &ONE.replace("one", "aa")).await;
        match page["next_page_token"].as_str() {
            Some(token) => path = format!("/v1/workflows?limit=2&page_token={token}"),
            None => break,
        }
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    let page = site.get("/v1/workflows?limit=2").await.is(200);
    let token = page["next_page_token"].as_str().unwrap();
    let foreign = site.get(&format!("/v1/workers?page_token={token}")).await;
    foreign.refused(400, "bad-page-token");
}
