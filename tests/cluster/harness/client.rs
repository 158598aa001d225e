//! Somebody who uses the cluster: asks one node after the other, and remembers what was said.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::http::{NoAnswer, Request, Response};
use super::wait::within;
use crate::judge::{Submit, SubmitOutcome};

/// How long anything may take that a healthy cluster does by itself. Generous: the machine may
/// be busy with other tests, and a test that waits longer than it must costs nothing.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// How long one node is waited for before the next one is asked.
const NODE_PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks at a run that goes on.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Submits so far; each has a name of its own.
static SUBMITS: AtomicU64 = AtomicU64::new(0);

/// A client. A clone shares what it remembers.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    addresses: Vec<SocketAddr>,
    /// The node that answered last, and is asked first.
    first: Arc<AtomicUsize>,
    submits: Arc<Mutex<Vec<Submit>>>,
    /// The folder of the ledger.
    proof: PathBuf,
}

impl Client {
    pub(crate) fn new(addresses: Vec<SocketAddr>, proof: PathBuf) -> Self {
        Self { addresses, first: Arc::default(), submits: Arc::default(), proof }
    }

    /// Adds a node that came later.
    pub(crate) fn knows(&mut self, address: SocketAddr) {
        self.addresses.push(address);
    }

    /// Sends a request to one node after the other until one of them answers it for good.
    pub(crate) fn try_ask(&self, request: &Request, limit: Duration) -> Result<Response, String> {
        let request = request.clone().patience(NODE_PATIENCE);
        let mut last = String::new();
        let answered = within(limit, || {
            let first = self.first.load(Ordering::Relaxed);
            (first..first + self.addresses.len()).find_map(|turn| {
                let node = turn % self.addresses.len();
                match request.send(self.addresses[node]) {
                    Ok(response) if response.status < 500 && response.status != 429 => {
                        self.first.store(node, Ordering::Relaxed);
                        Some(response)
                    }
                    Ok(response) => {
                        last = format!("{} {}", response.status, response.text());
                        None
                    }
                    Err(error) => {
                        last = format!("{error:?}");
                        None
                    }
                }
            })
        });
        answered.ok_or(last)
    }

    /// The same, where it must come to pass.
    #[track_caller]
    pub(crate) fn ask(&self, request: &Request) -> Response {
        self.try_ask(request, SOON)
            .unwrap_or_else(|last| panic!("nobody answered {request:?}; the last said: {last}"))
    }

    /// What `path` shows now.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Value {
        let response = self.ask(&Request::get(path));
        assert!(response.is_ok(), "{path}: {} {}", response.status, response.text());
        response.json()
    }

    /// All items of a list.
    #[track_caller]
    pub(crate) fn list(&self, path: &str) -> Vec<Value> {
        let (mut items, mut next) = (Vec::new(), String::new());
        loop {
            let mark = if path.contains('?') { '&' } else { '?' };
            let mut page = self.get(&format!("{path}{mark}limit=1000{next}"));
            if let Some(found) = page["items"].as_array_mut() {
                items.append(found);
            }
            match page["next_page_token"].as_str() {
                Some(token) => next = format!("&page_token={token}"),
                None => return items,
            }
        }
    }

    /// A workflow of tasks that keep the ledger, under a new name. `tasks` is a list in YAML.
    pub(crate) fn workflow(&self, tasks: &str) -> Workflow {
        let name = format!("s{}", SUBMITS.fetch_add(1, Ordering::Relaxed));
        let proof = self.proof.display().to_string();
        let text = format!("name: {name}\nenv: {{PROOF: {proof:?}}}\ntasks:\n{tasks}");
        Workflow { name, text }
    }

    /// Starts a run; repeats itself under the same key until it is acknowledged.
    #[track_caller]
    pub(crate) fn submit(&self, tasks: &str) -> String {
        self.submit_within(tasks, SOON).expect("a submit is acknowledged in time")
    }

    /// The same, where it may also stay unknown.
    #[track_caller]
    pub(crate) fn submit_within(&self, tasks: &str, limit: Duration) -> Option<String> {
        let workflow = self.workflow(tasks);
        let response = self.try_ask(&workflow.request(), limit);
        let run = response.ok().map(|response| started(&response));
        let outcome = run.clone().map_or(SubmitOutcome::Unknown, SubmitOutcome::Acknowledged);
        self.remember(workflow.name, outcome);
        run
    }

    /// Sends a submit to one node, once, and takes whatever comes of it.
    pub(crate) fn submit_once(&self, to: SocketAddr, tasks: &str) -> Result<Response, NoAnswer> {
        let workflow = self.workflow(tasks);
        let answer = workflow.request().send(to);
        let outcome = match &answer {
            Ok(response) if response.is_ok() => SubmitOutcome::Acknowledged(started(response)),
            Ok(response) if response.status == 504 => SubmitOutcome::Unknown,
            Ok(_) | Err(NoAnswer::NotReached(_)) => SubmitOutcome::Refused,
            Err(NoAnswer::Unknown(_)) => SubmitOutcome::Unknown,
        };
        self.remember(workflow.name, outcome);
        answer
    }

    /// Notes what was heard of a submit.
    pub(crate) fn remember(&self, name: String, outcome: SubmitOutcome) {
        let mut submits = self.submits.lock().unwrap_or_else(PoisonError::into_inner);
        submits.push(Submit { name, outcome });
    }

    /// Every submit so far.
    pub(crate) fn submits(&self) -> Vec<Submit> {
        self.submits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The runs that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> Vec<String> {
        let run = |submit: Submit| match submit.outcome {
            SubmitOutcome::Acknowledged(run) => Some(run),
            SubmitOutcome::Unknown | SubmitOutcome::Refused => None,
        };
        self.submits().into_iter().filter_map(run).collect()
    }

    /// A run as it is now.
    #[track_caller]
    pub(crate) fn run(&self, run: &str) -> Value {
        self.get(&format!("/v1/runs/{run}"))
    }

    /// A task of a run as it is now.
    #[track_caller]
    pub(crate) fn task(&self, run: &str, task: &str) -> Value {
        self.get(&format!("/v1/runs/{run}/tasks/{task}"))
    }

    /// Waits until a run has ended; answers how.
    #[track_caller]
    pub(crate) fn await_end(&self, run: &str) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            let state = self.run(run)["state"].as_str().unwrap_or_default().to_owned();
            if state != "running" {
                return state;
            }
            assert!(Instant::now() < deadline, "run {run} has not ended: {}", self.explain(run));
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Everything that is known of a run, for a message.
    #[track_caller]
    pub(crate) fn explain(&self, run: &str) -> String {
        format!("{:#}", self.get(&format!("/v1/runs/{run}/tasks?limit=1000")))
    }
}

#[track_caller]
fn started(response: &Response) -> String {
    assert!(response.is_ok(), "a submit was refused: {} {}", response.status, response.text());
    response.json()["id"].as_str().expect("a run has an id").to_owned()
}

/// A workflow as text, under a name that no other has.
#[derive(Clone, Debug)]
pub(crate) struct Workflow {
    /// Also the idempotency key of its submit.
    pub(crate) name: String,
    text: String,
}

impl Workflow {
    /// Asks for a run of it.
    pub(crate) fn request(&self) -> Request {
        Request::post("/v1/runs").header("idempotency-key", &self.name).yaml(&self.text)
    }

    /// As it would stand in a file.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}
