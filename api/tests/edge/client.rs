//! The typed client, over real connections to a bare backend.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use quorate_api::backend::ProposeError;
use quorate_api::client::{Client, Error, LogQuery, RunQuery, Start, Watch, What, Words};
use quorate_api::view::{ChangeView, RunState, TaskState, Transition};
use quorate_model::{RunId, TaskId};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::bare::Bare;
use crate::site::{CHAIN, ONE, SOON};

/// A node that listens, in a runtime of its own so that it can go down with all connections.
struct Node {
    bare: Arc<Bare>,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Node {
    async fn start() -> Self {
        Self::over(Arc::new(Bare::new())).await
    }

    async fn over(bare: Arc<Bare>) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let backend = Arc::clone(&bare);
        let (told, listens) = oneshot::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, quorate_api::router(backend)).await.unwrap();
        });
        Self { bare, address: listens.await.unwrap(), runtime: Some(runtime) }
    }

    fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    fn client(&self) -> Client {
        Client::new([self.address.to_string()]).unwrap().with_deadline(SOON)
    }
}

/// An address where nobody listens.
async fn nowhere() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

fn inline(source: &str) -> Start {
    Start::of(What::Inline { source: source.to_owned(), name: "inline".to_owned() })
}

#[tokio::test]
async fn does_all_that_a_command_line_needs() {
    let node = Node::start().await;
    let client = node.client();
    let put = client.put_workflow("chain", CHAIN, Some(0)).await.unwrap();
    assert!(put.changed);
    assert_eq!(client.workflow("chain").await.unwrap().source, CHAIN);
    assert_eq!(client.workflows(None, 10).await.unwrap().items[0].tasks, 2);
    assert!(client.validate(ONE).await.unwrap().valid);
    let start = Start::of(What::Stored { name: "chain".to_owned(), version: None });
    let run = client.start(&start).await.unwrap().id;
    let worker = node.bare.worker();
    node.bare.succeed(worker, run, 0, "{}");
    node.bare.write(TaskId::new(run, 1), Some("report.md"), "# Report\n", true);
    node.bare.succeed(worker, run, 1, r#"{"rows": 7}"#);
    let view = client.wait(run, SOON).await.unwrap();
    assert_eq!(view.state, RunState::Succeeded);
    assert_eq!(view.outputs.unwrap()["rows"], "7");
    let tasks = client.tasks(run).await.unwrap();
    assert!(tasks.iter().all(|task| task.state == TaskState::Succeeded));
    let transitions = client.transitions(run).await.unwrap();
    assert_eq!(transitions.last().unwrap().event, Transition::RunEnded);
    let file = client.artifact(run, "report.md", None).await.unwrap();
    let bytes: Vec<u8> = file.map(|piece| piece.unwrap().to_vec()).concat().await;
    assert_eq!(bytes, b"# Report\n");
    assert_eq!(client.artifacts(run).await.unwrap()[0].size, Some(9));
    assert_eq!(client.workers().await.unwrap()[0].slots, 100);
    assert_eq!(client.cluster().await.unwrap().leader, Some(1));
    assert!(client.cluster_hash().await.unwrap().state_hash.is_some());
    assert_eq!(client.add_member("127.0.0.1:9", false).await.unwrap().node, 9);
    client.remove_member(9).await.unwrap();
    client.transfer_leadership(None).await.unwrap();
    assert_eq!(client.members().await.unwrap().len(), 3);
    client.ready().await.unwrap();
    assert_eq!(client.version().await.unwrap().api, "v1");
    client.delete_workflow("chain", Some(1)).await.unwrap();
    let gone = client.workflow("chain").await.unwrap_err();
    assert_eq!((gone.status(), gone.code()), (Some(404), Some("no-such-workflow")));
    let ended = client.cancel(run, &Words::default()).await.unwrap_err();
    assert_eq!(ended.code(), Some("run-ended"));
}

#[tokio::test]
async fn finds_a_run_by_a_piece_of_its_id() {
    let node = Node::start().await;
    let client = node.client();
    let run = client.start(&inline(ONE)).await.unwrap().id;
    let other = client.start(&inline(ONE)).await.unwrap().id;
    let text = run.to_string();
    assert_eq!(client.find_run(&text).await, Ok(run));
    assert_eq!(client.find_run(&text[text.len() - 12..]).await, Ok(run));
    let both = client.find_run(&text[..4]).await.unwrap_err();
    let Error::Ambiguous { found, .. } = both else { panic!("{both:?}") };
    assert!(found.contains(&run) && found.contains(&other));
    let none = client.find_run("ffffffff").await.unwrap_err();
    assert_eq!(none, Error::NoSuchRun("ffffffff".to_owned()));
    let query = RunQuery { states: vec![RunState::Running], ..RunQuery::default() };
    assert_eq!(client.runs(&query).await.unwrap().items.len(), 2);
}

#[tokio::test]
async fn tries_the_next_address_and_waits_out_an_election() {
    let node = Node::start().await;
    let addresses = [nowhere().await, node.address.to_string()];
    let client = Client::new(addresses).unwrap().with_deadline(SOON);
    assert!(client.workflows(None, 1).await.unwrap().items.is_empty());
    node.bare.fail_next(ProposeError::NoLeader, 3);
    let run = client.start(&inline(ONE)).await.unwrap().id;
    // The answer is lost, and asking again gets the same run.
    node.bare.lose_next(ProposeError::Unknown);
    let lost = client.start(&inline(ONE)).await.unwrap().id;
    assert_ne!(run, lost);
    assert_eq!(node.bare.live_runs(), 2);
}

#[tokio::test]
async fn gives_up_at_its_deadline() {
    let short = Duration::from_millis(300);
    let client = Client::new([nowhere().await]).unwrap().with_deadline(short);
    let error = client.cluster().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    let node = Node::start().await;
    node.bare.cluster_becomes(|cluster| cluster.leader = None);
    let client = node.client().with_deadline(short);
    let error = client.workflows(None, 1).await.unwrap_err();
    assert_eq!(error.code(), Some("no-leader"));
    assert!(client.clone().with_stale(true).workflows(None, 1).await.is_ok());
    // A server that takes connections and says nothing leaves a write in doubt.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = deaf.local_addr().unwrap().to_string();
    let client = Client::new([address]).unwrap().with_deadline(short);
    let error = client.put_workflow("one", ONE, None).await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error:?}");
    drop(deaf);
}

#[tokio::test]
async fn says_no_with_the_words_of_the_server() {
    let node = Node::start().await;
    let client = node.client();
    let error = client.put_workflow("one", "tasks: [{id: a, needs: a, run: x}]", None).await;
    let error = error.unwrap_err();
    let problem = error.problem().unwrap();
    assert_eq!(problem.status, 422);
    assert!(problem.errors[0].line.is_some(), "{problem:?}");
    // Five megabytes go out in full before the answer is read.
    let large = format!("{ONE}\n#{}", "x".repeat(5_000_000));
    let error = client.put_workflow("one", &large, None).await.unwrap_err();
    assert_eq!(error.code(), Some("body-too-large"));
    let start = Start { key: Some("k".to_owned()), ..inline(ONE) };
    let first = client.start(&start).await.unwrap();
    assert_eq!(client.start(&start).await.unwrap(), first);
}

#[tokio::test]
async fn follows_a_log_from_node_to_node() {
    let mut first = Node::start().await;
    let second = Node::over(Arc::clone(&first.bare)).await;
    let addresses = [first.address.to_string(), second.address.to_string()];
    let client = Client::new(addresses).unwrap().with_deadline(SOON);
    let run = client.start(&inline(ONE)).await.unwrap().id;
    let task = TaskId::new(run, 0);
    let worker = first.bare.worker();
    first.bare.assign(worker, task);
    first.bare.write(task, None, "2026-11-20T09:30:01Z stdout F one\n", false);
    let query = LogQuery { follow: true, ..LogQuery::default() };
    let mut log = client.log(run, "only", 1, query);
    assert_eq!(log.next().await.unwrap().unwrap().line, "one");
    first.stop();
    first.bare.write(
        task,
        None,
        "2026-11-20T09:30:02Z stdout F two\n2026-11-20T09:30:03Z stdout F end",
        true,
    );
    assert_eq!(log.next().await.unwrap().unwrap().line, "two");
    assert_eq!(log.next().await.unwrap().unwrap().line, "end");
    assert!(log.next().await.is_none());
    let mut none = client.log(run, "only", 2, LogQuery::default());
    assert_eq!(none.next().await.unwrap().unwrap_err().code(), Some("no-such-attempt"));
    assert!(none.next().await.is_none());
}

#[tokio::test]
async fn watches_a_run_to_its_end() {
    let node = Node::start().await;
    let client = node.client();
    let run = client.start(&inline(ONE)).await.unwrap().id;
    let index = Some(client.run(run).await.unwrap().index);
    let mut changes = client.changes(Watch { runs: vec![run], index, ..Watch::default() });
    let worker = node.bare.worker();
    node.bare.succeed(worker, run, 0, "{}");
    let ended = tokio::time::timeout(SOON, async {
        while let Some(change) = changes.next().await {
            if let ChangeView::Run { run, .. } = change.unwrap()
                && run.state.is_final()
            {
                return run.id;
            }
        }
        RunId::default()
    });
    assert_eq!(ended.await.unwrap(), run);
    let view = client.run_after(run, 0, SOON).await.unwrap();
    assert_eq!(view.state, RunState::Succeeded);
}
