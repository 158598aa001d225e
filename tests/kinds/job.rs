//! Work elsewhere that outlives the attempt that started it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use serde_json::json;

use crate::site::{Site, ok};
use crate::user::{Server, User, until};

struct Worker(Child);

impl Worker {
    fn start(name: &str, home: &Path, server: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        let server = server.trim_start_matches("http://");
        command.args(["worker", "--http-allow", "127.0.0.1", "--name", name, "--server", server]);
        command.arg("--data").arg(home.join(name)).stdin(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// As if its machine were gone: its keeper kills what runs when the lease is over.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_next_attempt_waits_for_the_job_that_the_last_had_started() {
    let (started, looks) = (Arc::new(OnceLock::<String>::new()), Arc::new(AtomicU32::new(0)));
    let done = Arc::new(AtomicBool::new(false));
    let site = {
        let (started, looks, done) = (started, looks.clone(), done.clone());
        Site::start(move |asked| {
            if asked.method == "PUT" {
                drop(started.set(asked.path.clone()));
                return (202, Vec::new(), String::new());
            }
            if started.get() != Some(&asked.path) {
                return (404, Vec::new(), String::new());
            }
            looks.fetch_add(1, Ordering::Relaxed);
            let state = if done.load(Ordering::Relaxed) { "done" } else { "running" };
            ok(&json!({"state": state, "rows": 12}).to_string())
        })
    };
    let mut user = User::new();
    let server = Server::start_with(&mut user, &["--no-worker", "--lease", "1s"]);
    let home = user.home.path().to_owned();
    let mut first = Worker::start("first", &home, &server.url);
    let url = site.url("/jobs/${{ run.id }}");
    let file = json!({
        "name": "far",
        "tasks": [{
            "id": "load",
            "http": {
                "method": "PUT", "url": url,
                "job": {"poll": url, "every": "20ms", "done": "response.json.state == 'done'",
                        "failed": "response.json.state == 'failed'"},
            },
            "outputs": {"rows": "${{ response.json.rows }}"},
        }],
        "outputs": {"rows": "${{ tasks.load.outputs.rows }}"},
    });
    let path = user.file("far.json", &file.to_string());
    let run = user.types(&format!("quorate submit {path}")).exits(0).word();
    until("the job is looked at", || (looks.load(Ordering::Relaxed) > 2).then_some(()));
    first.kill();
    let _second = Worker::start("second", &home, &server.url);
    // Not by its log at once: that of the first is with the worker that is gone, and whoever asks
    // for it is asked to wait.
    until("another attempt begins", || {
        let tasks = user.types(&format!("quorate ls tasks {run} -o json")).exits(0);
        let tasks: serde_json::Value = serde_json::from_str(&tasks.out).unwrap();
        (tasks["items"][0]["attempts_begun"] == 2).then_some(())
    });
    until("another attempt looks at it", || {
        let described = user.types(&format!("quorate logs {run} load"));
        described.out.contains("was started before").then_some(())
    });
    done.store(true, Ordering::Relaxed);
    let ended = user.types(&format!("quorate wait {run} -o json")).exits(0);
    let ended: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(ended["outputs"]["rows"], "12", "{ended}");
    let puts = site.asked().iter().filter(|asked| asked.method == "PUT").count();
    assert_eq!(puts, 1, "the job was started once");
}

#[test]
fn a_job_that_fails_fails_its_task() {
    let user = User::new();
    let started = AtomicBool::new(false);
    let site = Site::start(move |asked| {
        if asked.method == "POST" {
            started.store(true, Ordering::Relaxed);
            ok("")
        } else if started.load(Ordering::Relaxed) {
            ok(r#"{"state": "failed", "why": "no rows"}"#)
        } else {
            (404, Vec::new(), String::new())
        }
    });
    let job = json!({"poll": site.url("/state"), "every": "20ms", "done": "false",
                     "failed": "response.json.state == 'failed'"});
    let http = json!({"method": "POST", "url": site.url("/jobs"), "job": job});
    let file = json!({"name": "far", "tasks": [{"id": "load", "http": http}]});
    let path = user.file("far.json", &file.to_string());
    let ran = user.types(&format!("quorate run {path}"));
    ran.exits(3).says("the job has failed").says("no rows");
}
