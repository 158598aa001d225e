//! Tasks of kind `http`.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::site::{Asked, Site, ok};
use crate::user::{Ran, User, until};

/// Runs a file of these tasks, and answers what came of it.
fn run(user: &User, tasks: &Value, outputs: &Value) -> Ran {
    let file = json!({"name": "site", "tasks": tasks, "outputs": outputs});
    let path = user.file("site.json", &file.to_string());
    user.types(&format!("quorate run {path}"))
}

/// Runs one task of kind `http`.
fn ask(user: &User, http: &Value) -> Ran {
    run(user, &json!([{"id": "ask", "http": http}]), &json!({}))
}

#[test]
fn what_is_asked_and_answered_comes_to_outputs() {
    let (user, site) = (
        User::new(),
        Site::start(|asked| {
            let day = asked.path.split('=').next_back().unwrap_or_default().to_owned();
            let body = json!({"eur": 1.25, "day": day, "list": ["a", "b"]});
            (201, vec![("x-count", "7".to_owned())], body.to_string())
        }),
    );
    let tasks = json!([
        {
            "id": "rates",
            "http": {
                "method": "post", "url": site.url("/rates"), "query": {"d": "${{ 'a&b' }}"},
                "headers": {"X-Run": "${{ run.id }}"}, "json": {"pair": "${{ 'eur' }}", "n": [1]},
                "expect": {"status": 201, "condition": "response.json.eur > 1"},
            },
            "outputs": {
                "eur": "${{ response.json.eur }}", "list": "${{ response.json.list }}",
                "text": "${{ response.status }}:${{ response.headers['x-count'] }}",
            },
        },
        {
            "id": "use", "needs": "rates",
            "env": {"RATE": "${{ tasks.rates.outputs.eur * 2 }}",
                    "SECOND": "${{ tasks.rates.outputs.list[1] }}"},
            "run": "echo \"::output said=$RATE/$SECOND\"",
        },
    ]);
    let outputs = json!({"said": "${{ tasks.use.outputs.said }}",
                         "text": "${{ tasks.rates.outputs.text }}"});
    run(&user, &tasks, &outputs).exits(0).prints("said=2.5/b").prints("text=201:7");

    let [Asked { method, path, headers, body }] = site.asked().try_into().unwrap();
    assert_eq!((method.as_str(), path.as_str()), ("POST", "/rates?d=a%26b"));
    assert_eq!(body, r#"{"n":[1],"pair":"eur"}"#);
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["idempotency-key"], format!("{}/rates", headers["x-run"]));
    assert!(headers["quorate-fencing-token"].parse::<u64>().unwrap() > 0);
    assert_eq!(headers["host"], site.address.to_string());
}

#[test]
fn the_example_runs() {
    let (user, looks) = (User::new(), AtomicU32::new(0));
    let site = Site::start(move |asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/rates?day=2026-11-23") => ok(r#"{"eur": 0.92, "pairs": ["eur", "gbp"]}"#),
        ("PUT", _) => (202, Vec::new(), String::new()),
        // Not there before it is asked for, then under way, then done.
        _ => match looks.fetch_add(1, Ordering::Relaxed) {
            0 => (404, Vec::new(), String::new()),
            1 | 2 => ok(r#"{"state": "running"}"#),
            _ => ok(r#"{"state": "done", "pages": 3}"#),
        },
    });
    let line = format!("quorate run examples/http.quorate.yaml -p service={}", site.url(""));
    user.types(&line).exits(0).prints("eur=0.92").prints("pages=3");
}

#[test]
fn a_response_that_is_not_what_it_must_be_fails_the_task() {
    let (user, site) = (
        User::new(),
        Site::start(|asked| match asked.path.as_str() {
            "/busy" => (503, Vec::new(), "too much to do".to_owned()),
            "/gone" => (404, Vec::new(), "no such thing".to_owned()),
            "/long" => ok(&"x".repeat(4 * 1024 * 1024 + 1)),
            "/just" => ok(&"x".repeat(4 * 1024 * 1024)),
            _ => ok("{\"state\": \"bad\"}"),
        }),
    );
    let url = |path| json!({"url": site.url(path), "timeout": "20s"});
    ask(&user, &url("/busy")).exits(3).says("must be 200 to 299").says("too much to do");
    ask(&user, &url("/gone")).exits(3).says("404").says("no such thing");
    ask(&user, &url("/long")).exits(3).says("more than 4 MiB");
    ask(&user, &url("/just")).exits(0);
    let condition = json!({"condition": "response.json.state == 'good'"});
    let picky = json!({"url": site.url("/"), "expect": condition});
    ask(&user, &picky).exits(3).says("the response is not what it must be").says("bad");
    let missing = json!([{"id": "ask", "http": site.url("/"),
                          "outputs": {"n": "${{ response.json.count }}"}}]);
    run(&user, &missing, &json!({})).exits(3).says("outputs.n: undefined value");
    let allowed = json!({"url": site.url("/busy"), "expect": {"status": [200, 503]}});
    ask(&user, &allowed).exits(0);
}

#[test]
fn what_may_pass_exits_so_that_it_can_be_told_from_what_does_not() {
    let user = User::new();
    let site = Site::start(|asked| match asked.path.as_str() {
        "/busy" => (503, Vec::new(), String::new()),
        _ => (400, Vec::new(), String::new()),
    });
    let code = |url: &str| {
        let spec = json!({"params": {"url": url}, "allowed": ["127.0.0.1"]});
        let spec = user.file("spec.json", &spec.to_string());
        user.types(&format!("quorate task http {spec}")).code
    };
    assert_eq!(code(&site.url("/busy")), Some(75));
    assert_eq!(code(&site.url("/wrong")), Some(1));
    // Nobody listens at a port that was free just now.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(code(&format!("http://{free}/")), Some(75));
    user.types("quorate task http nowhere.json").exits(1).says("nowhere.json cannot be read");
}

#[test]
fn redirects_are_followed_so_far_and_take_nothing_along_to_strangers() {
    let user = User::new();
    let stranger = Site::start(|_| ok("there"));
    let there = stranger.url("/there");
    let site = Site::start(move |asked| match asked.path.as_str() {
        "/away" => (302, vec![("location", there.clone())], String::new()),
        "/away-with-body" => (307, vec![("location", there.clone())], String::new()),
        "/ring" => (302, vec![("location", "/ring".to_owned())], String::new()),
        "/near" => (303, vec![("location", "end?x=1".to_owned())], String::new()),
        _ => ok("end"),
    });
    let headers = json!({"x-key": "k", "authorization": "Bearer b", "accept": "text/plain"});
    let post = |path: &str| json!({"method": "POST", "url": site.url(path), "headers": headers, "body": "b"});
    ask(&user, &post("/near")).exits(0);
    let near = site.asked().into_iter().find(|asked| asked.path == "/end?x=1").unwrap();
    assert_eq!((near.method.as_str(), near.body.as_str()), ("GET", ""));
    assert_eq!(near.headers["x-key"], "k");

    ask(&user, &post("/away")).exits(0);
    let [away] = stranger.asked().try_into().unwrap();
    assert_eq!(away.headers["accept"], "text/plain");
    for name in ["x-key", "authorization", "quorate-fencing-token", "idempotency-key"] {
        assert!(!away.headers.contains_key(name), "{name}: {away:?}");
    }
    ask(&user, &post("/away-with-body")).exits(3).says("would send the body to");
    assert_eq!(stranger.asked().len(), 1);

    ask(&user, &json!({"url": site.url("/ring"), "redirects": 3})).exits(3).says("more than 3");
    assert_eq!(site.count("GET", "/ring"), 4);
    let none = json!({"url": site.url("/ring"), "redirects": 0, "expect": {"status": 302}});
    ask(&user, &none).exits(0);
}

/// A node that is not for development, and so does not let tasks reach its own machine.
struct Strict(Child);

impl Strict {
    fn start(user: &mut User, flags: &[&str]) -> Self {
        let printed = user.home.path().join("strict.out");
        let out = std::fs::File::create(&printed).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.args(["server", "--listen", "127.0.0.1:0", "--data"]);
        command.arg(tempfile::tempdir_in(user.home.path()).unwrap().keep()).args(flags);
        let child = command.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn();
        let strict = Self(child.unwrap());
        user.address = until("the server listens", || {
            let text = std::fs::read_to_string(&printed).ok()?;
            Some(text.strip_prefix("listening on ")?.strip_suffix('\n')?.to_owned())
        });
        strict
    }
}

impl Drop for Strict {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn tasks_do_not_reach_the_machine_of_the_worker_unless_they_may() {
    let mut user = User::new();
    let site = Site::start(|asked| match asked.path.as_str() {
        "/metadata" => {
            (302, vec![("location", "http://169.254.169.254/latest".to_owned())], String::new())
        }
        _ => ok("inside"),
    });
    let submit = |user: &User, url: &str| {
        let file = json!({"name": "reach", "tasks": [{"id": "ask", "http": url}]});
        let path = user.file("reach.json", &file.to_string());
        let ran = user.types(&format!("quorate submit {path} --wait"));
        let logs = user.types(&format!("quorate logs {} ask", ran.word()));
        (ran, logs.out)
    };
    let port = site.address.port();
    let strict = Strict::start(&mut user, &[]);
    for host in ["127.0.0.1", "localhost", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"] {
        let (ran, log) = submit(&user, &format!("http://{host}:{port}/"));
        ran.exits(3);
        assert!(log.contains("--http-allow"), "{host}: {log}");
    }
    assert_eq!(site.asked().len(), 0);
    drop(strict);

    let _lenient = Strict::start(&mut user, &["--http-allow", "127.0.0.0/8"]);
    submit(&user, &site.url("/")).0.exits(0);
    let (ran, log) = submit(&user, &site.url("/metadata"));
    ran.exits(3);
    assert!(log.contains("169.254.169.254, where tasks may not reach"), "{log}");
}
