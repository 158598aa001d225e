//! The list of runs: live and finished as one, newest first, a page at a time.

use quorate_model::DurationMs;
use serde_json::{Value, json};

use crate::site::{CHAIN, ONE, Site};

const TICK: DurationMs = DurationMs(1_000);

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

/// Walks through all pages, with `between` after each.
async fn walk(site: &Site, query: &str, between: impl AsyncFn()) -> Vec<String> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let page = site.get(&format!("/v1/runs?limit=3{query}{token}")).await.is(200);
        all.extend(ids(&page));
        between().await;
        match page["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => return all,
        }
    }
}

#[tokio::test]
async fn pages_stay_put_while_runs_come_and_leave_for_history() {
    let site = Site::new();
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.push(site.finish(ONE).await.to_string());
        site.bare.pass(TICK);
    }
    for _ in 0..5 {
        expected.push(site.start(ONE).await.to_string());
        site.bare.pass(TICK);
    }
    expected.reverse();
    assert!((5..10).contains(&site.bare.live_runs()), "some have left, some have not");
    let listed = walk(&site, "", async || {
        // One comes, and time goes by so that others leave.
        site.finish(ONE).await;
        site.bare.pass(DurationMs(5_000));
    })
    .await;
    assert_eq!(listed, expected, "none twice, none passed over");
}

#[tokio::test]
async fn lists_runs_of_the_same_instant_by_id() {
    let site = Site::new();
    for _ in 0..7 {
        site.start(ONE).await;
    }
    let listed = walk(&site, "", async || {}).await;
    let mut sorted = listed.clone();
    sorted.sort();
    sorted.dedup();
    sorted.reverse();
    assert_eq!(listed, sorted);
    assert_eq!(listed.len(), 7);
}

#[tokio::test]
async fn filters_hold_for_live_and_finished_runs_alike() {
    let site = Site::new();
    let old = site.finish(ONE).await.to_string();
    site.bare.pass(DurationMs(24 * 3_600_000));
    let live = site.start(CHAIN).await.to_string();
    let labelled = json!({ "workflow": ONE, "labels": { "team": "ops" } });
    let other = site.post("/v1/runs", &labelled).await.is(201)["id"].clone();
    let other = other.as_str().unwrap().to_owned();
    let list = async |query: &str| {
        let mut found = ids(&site.get(&format!("/v1/runs?{query}")).await.is(200));
        found.sort();
        found
    };
    let sorted = |mut ids: Vec<&String>| {
        ids.sort();
        ids.into_iter().cloned().collect::<Vec<_>>()
    };
    assert_eq!(list("").await, sorted(vec![&old, &live, &other]));
    assert_eq!(list("state=succeeded").await, sorted(vec![&old]));
    assert_eq!(list("state=running").await, sorted(vec![&live, &other]));
    assert_eq!(
        list("state=running&state=succeeded&workflow=one").await,
        sorted(vec![&old, &other])
    );
    assert_eq!(list("workflow=chain&workflow=none").await, sorted(vec![&live]));
    assert_eq!(list("label=team%3Ddata").await, sorted(vec![&live]));
    assert_eq!(list("label=team%3Ddata&label=team%3Dops").await, sorted(vec![&live, &other]));
    assert_eq!(list("created_before=2026-11-20T10:00:00Z").await, sorted(vec![&old]));
    assert_eq!(list("created_after=2026-11-20T10:00:00Z").await, sorted(vec![&live, &other]));
    assert_eq!(list(&format!("id={old}")).await, sorted(vec![&old]));
    assert_eq!(list(&format!("id={}", &old[old.len() - 8..])).await, sorted(vec![&old]));
    assert!(list("state=failed").await.is_empty());
    let of_one = site.get("/v1/workflows/one/runs?state=succeeded").await.is(200);
    assert_eq!(ids(&of_one), [old]);
    let brief = site.get("/v1/runs").await.is(200);
    assert_eq!(brief["items"][0].get("params"), None, "lists are brief");
    let tokenless = site.get("/v1/runs?limit=1").await.is(200);
    let token = tokenless["next_page_token"].as_str().unwrap();
    let other_list = format!("/v1/runs?limit=1&state=running&page_token={token}");
    site.get(&other_list).await.refused(400, "bad-page-token");
}

#[tokio::test]
async fn looks_through_a_long_history_in_steps() {
    let site = Site::new();
    let wanted = site.finish(ONE).await.to_string();
    let worker = site.bare.worker();
    for _ in 0..600 {
        let run = site.start(ONE).await;
        site.bare.succeed(worker, run, 0, "{}");
        site.bare.pass(DurationMs(1));
    }
    site.bare.pass(DurationMs(24 * 3_600_000));
    site.bare.pass(DurationMs(0));
    assert_eq!(site.bare.live_runs(), 0);
    let found = walk(&site, &format!("&id={wanted}"), async || {}).await;
    assert_eq!(found, [wanted]);
}
