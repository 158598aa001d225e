//! The command line, as a user meets it: the built binary, its two streams and its exit code.

#![expect(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The longest that one command may take; most take milliseconds, the demo ten seconds.
const DEADLINE: Duration = Duration::from_secs(120);

/// Between two looks at whether something has happened.
const POLL: Duration = Duration::from_millis(5);

/// Tests that start servers go one after the other: their clocks are real.
static SERVERS: Mutex<()> = Mutex::new(());

fn one_at_a_time() -> MutexGuard<'static, ()> {
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A user with a home of their own.
struct User {
    home: tempfile::TempDir,
    address: String,
}

/// What a command came to.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A command that runs. Killed when dropped, as by a test that fails.
struct Running {
    child: Child,
    streams: Option<[JoinHandle<String>; 2]>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl User {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for dir in ["state", "tmp"] {
            fs::create_dir(home.path().join(dir)).unwrap();
        }
        // Nobody listens there: it is the port of a service from 1983.
        Self { home, address: "http://127.0.0.1:1".to_owned() }
    }

    /// Types a command, its words apart by spaces.
    fn types(&self, line: &str) -> Ran {
        self.begins(line).ends()
    }

    fn begins(&self, line: &str) -> Running {
        self.begins_with(line, Stdio::null())
    }

    fn begins_with(&self, line: &str, stdin: Stdio) -> Running {
        let mut command = self.command(line);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let streams = [
            read(child.stdout.take().expect("stdout is a pipe")),
            read(child.stderr.take().expect("stderr is a pipe")),
        ];
        Running { child, streams: Some(streams) }
    }

    fn command(&self, line: &str) -> Command {
        let words = line.strip_prefix("quorate ").expect("a line begins with the program");
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.args(words.split(' ')).current_dir(env!("CARGO_MANIFEST_DIR"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QUORATE_")) {
            command.env_remove(name);
        }
        command
            .env_remove("COLUMNS")
            .env("QUORATE_ADDR", &self.address)
            .env("XDG_STATE_HOME", self.home.path().join("state"))
            .env("TMPDIR", self.temporary());
        command
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    }

    fn temporary(&self) -> PathBuf {
        self.home.path().join("tmp")
    }

    fn leftovers(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.temporary()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

fn read(mut stream: impl std::io::Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Running {
    fn ends(mut self) -> Ran {
        let status = self.status();
        let streams = self.streams.take().expect("a command ends once");
        let [out, err] = streams.map(|stream| stream.join().unwrap());
        Ran { code: status.code(), out, err }
    }

    fn status(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "a command took longer than {DEADLINE:?}");
            thread::sleep(POLL);
        }
    }

    fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }
}

impl Ran {
    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    fn prints(self, text: &str) -> Self {
        assert!(self.out.contains(text), "stdout lacks {text:?}: {self:#?}");
        self
    }

    #[track_caller]
    fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "stderr lacks {text:?}: {self:#?}");
        self
    }

    fn word(&self) -> String {
        self.out.split_whitespace().next().unwrap_or_default().to_owned()
    }
}

/// A server of one node. Stopped when dropped.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(user: &mut User) -> Self {
        let folder = user.home.path().join("data");
        let printed = user.home.path().join("server.out");
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.args(["server", "--dev", "--listen", "127.0.0.1:0", "--name", "dev"]);
        command.args(["--label", "disk=ssd", "--data"]).arg(folder);
        let out = fs::File::create(&printed).unwrap();
        let child = command.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn().unwrap();
        let url = until("the server listens", || {
            let text = fs::read_to_string(&printed).ok()?;
            Some(text.strip_prefix("listening on ")?.strip_suffix('\n')?.to_owned())
        });
        user.address.clone_from(&url);
        Self { child, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        if let Some(seen) = look() {
            return seen;
        }
        thread::sleep(POLL);
    }
    panic!("not within {DEADLINE:?}: {what}");
}

/// Compares with a file in `tests/cli`. `UPDATE_GOLDENFILES=1` writes it; read the diff.
#[track_caller]
fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(name);
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        fs::write(&path, text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(&path).unwrap(), "{name}");
}

#[test]
fn tells_what_it_can_do() {
    let user = User::new();
    let mut all = String::new();
    let verbs = [
        "demo",
        "run",
        "server",
        "worker",
        "submit",
        "apply",
        "validate",
        "ls",
        "get",
        "describe",
        "logs",
        "cancel",
        "wait",
        "cluster",
        "version",
        "completion",
        "help",
    ];
    for verb in verbs {
        let line = format!("quorate help {verb}");
        let help = user.types(&line).exits(0);
        all.push_str(&format!("$ {line}\n{}\n", help.out));
    }
    assert_golden("help.golden", &all);
    user.types("quorate help cluster leader").exits(0).prints("transfer");
    user.types("quorate help exit-codes").exits(0).prints("  3  the run failed\n");
    user.types("quorate help env").exits(0).prints("QUORATE_ADDR");
    user.types("quorate help nonsense").exits(2).says("topics: exit-codes, env");
    user.types("quorate version").exits(0).prints(env!("CARGO_PKG_VERSION"));
    user.types("quorate completion bash").exits(0).prints("_quorate()");
}

#[test]
fn refuses_what_is_no_command() {
    let user = User::new();
    user.types("quorate sumbit").exits(2).says("submit");
    user.types("quorate ls tasks").exits(2).says("<RUN>");
    user.types("quorate submit x --timeout 3").exits(2).says("3s or 3m");
    user.types("quorate ls --limit 0").exits(2).says("1 to 1000");
    user.types("quorate get everything").exits(2).says("say run/ID");
    user.types("quorate server --lease 5").exits(2).says("10s");
}

#[test]
fn checks_files_without_a_server() {
    let user = User::new();
    user.types("quorate validate examples").exits(0).prints("✓ examples/hello.quorate.yaml: hello");
    user.types("quorate validate nowhere.yaml").exits(1).says("could not read nowhere.yaml");

    let bad = "tests/cli/bad.yaml";
    let text = user.types(&format!("quorate validate {bad}")).exits(1);
    assert_golden("validate.golden", &text.out);
    let json = user.types(&format!("quorate validate {bad} -o json")).exits(1);
    let report: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(report["items"][0]["valid"], false);
    assert_eq!(report["items"][0]["diagnostics"][0]["severity"], "error");
    user.types(&format!("quorate validate {bad} -o github"))
        .exits(1)
        .prints("::error file=tests/cli/bad.yaml,line=");
    user.types(&format!("quorate run {bad}")).exits(1).says("bad.yaml:");
}

#[test]
fn says_where_nobody_answers_and_what_to_type() {
    let user = User::new();
    user.types("quorate ls").exits(9).says("quorate server --dev");
    user.types("quorate ls --address nowhere:what").exits(2).says("--address http://HOST:PORT");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let user = User::new();
    let mut command = user.command("quorate completion bash");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn runs_a_file_without_a_server() {
    let _gate = one_at_a_time();
    let user = User::new();
    let hello = user.types("quorate run examples/hello.quorate.yaml").exits(0);
    hello.says("✓ main  succeeded").says("hello succeeded in");

    let artifacts = user.home.path().join("artifacts");
    let line = format!(
        "quorate run examples/etl.quorate.yaml -p minimum=50 --artifacts {}",
        artifacts.display()
    );
    user.types(&line).exits(0).prints("total=184.50\n").prints("revenue.csv  load");
    let saved = fs::read_to_string(artifacts.join("load/revenue.csv")).unwrap();
    assert!(saved.contains(",France,1,120.00"), "{saved}");
    assert_eq!(user.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn exits_as_the_run_did() {
    let _gate = one_at_a_time();
    let user = User::new();
    let failing = user.file("failing.yaml", "run: echo no luck; exit 7\n");
    user.types(&format!("quorate run {failing}"))
        .exits(3)
        .says("failed #1")
        .says("exit code 7")
        .says("main | no luck");
    let late = user.file("late.yaml", "timeout: 300ms\ntasks: [{id: a, run: exec sleep 60}]\n");
    user.types(&format!("quorate run {late}")).exits(5).says("late timed out");
    let typed = user.file("typed.yaml", "params: {n: {type: int, default: 1}}\nrun: 'true'\n");
    user.types(&format!("quorate run {typed} -p n=one")).exits(2).says("-p n=3");
    user.types(&format!("quorate run {typed} -p m=1")).exits(2).says("no parameter `m`");
    user.types(&format!("quorate run {typed} -- n=4")).exits(0);
    assert_eq!(user.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn cancels_a_run_of_its_own_on_ctrl_c() {
    let _gate = one_at_a_time();
    let user = User::new();
    let flag = user.home.path().join("begun");
    let text = format!("tasks: [{{id: a, run: 'touch {}; exec sleep 60'}}]\n", flag.display());
    let long = user.file("long.yaml", &text);
    let running = user.begins(&format!("quorate run {long}"));
    until("the task begins", || flag.exists().then_some(()));
    running.signal("INT");
    running.ends().exits(4).says("cancelled");
    assert_eq!(user.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn submits_waits_and_tells() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let server = Server::start(&mut user);
    let run = user
        .types("quorate submit examples/etl.quorate.yaml --wait -l team=x -p minimum=@tests/cli/minimum")
        .exits(0)
        .says("✓ load")
        .word();
    user.types("quorate ls").exits(0).prints(&run).prints("5/5");
    user.types("quorate ps -q -l team=x").exits(0).prints(&run);
    user.types("quorate ls -o name --state succeeded").exits(0).prints(&format!("run/{run}\n"));
    user.types("quorate ls --state failed --no-headers").exits(0).prints("");
    user.types("quorate list workflows").exits(0).prints("Revenue by country");
    user.types("quorate ls workers").exits(0).prints("disk=ssd");
    user.types("quorate ls tasks @last").exits(0).prints("transform");
    user.types("quorate describe").exits(0).prints("total=184.50").prints("revenue.csv");
    user.types(&format!("quorate status run/{run}")).exits(0).prints("minimum=50");
    user.types("quorate logs @last load").exits(0).prints("United States,1,64.50\n");
    user.types("quorate logs @last -f --tail 1").exits(0).prints("check | orders: 184.50");
    user.types("quorate wait @last").exits(0).prints("succeeded");
    user.types("quorate get workflow/etl -o wide").exits(0).prints("team=sales");
    user.types("quorate get worker/dev").exits(0).prints("live");
    user.types("quorate version --server").exits(0).prints("server");
    user.types("quorate cluster status").exits(0).prints("leader");
    user.types("quorate cluster members -q").exits(0).prints("1\n");
    user.types("quorate cluster leader").exits(0).prints("1\n");

    let body = user.types(&format!("quorate get run/{run} -o json")).exits(0).out;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["outputs"]["total"], "184.50");
    drop(server);
    user.types("quorate ls").exits(9);
}

#[test]
fn refusals_of_the_server_have_codes_and_a_next_step() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let _server = Server::start(&mut user);
    user.types("quorate describe").exits(6).says("no run was started from here");
    let apply = "quorate apply -f examples/hello.quorate.yaml";
    user.types(apply).exits(0).prints("hello     v1       yes");
    user.types(apply).exits(0).prints("hello     v1       no");
    user.types("quorate submit nothing").exits(6).says("quorate ls workflows");
    user.types("quorate trigger hello --wait").exits(0);
    user.types("quorate stop @last").exits(7).says("has ended");
    user.types("quorate get run/ffff").exits(6).says("quorate ls");
    user.types("quorate logs @last nobody").exits(6).says("quorate ls tasks");
    user.types("quorate cluster remove 7").exits(2).says("--yes");
    user.types("quorate cluster remove 7 --yes").exits(6).says("quorate cluster members");
    user.types("quorate submit hello --version 9").exits(6).says("version 9");
    let again = "quorate submit hello -q --idempotency-key once";
    let first = user.types(again).exits(0).word();
    assert_eq!(user.types(again).exits(0).word(), first);
}

#[test]
fn lets_go_of_a_run_on_ctrl_c_and_comes_back() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let _server = Server::start(&mut user);
    let flag = user.home.path().join("begun");
    let text =
        format!("name: long\ntasks: [{{id: a, run: 'touch {}; exec sleep 60'}}]\n", flag.display());
    let long = user.file("long.yaml", &text);
    let waiting = user.begins(&format!("quorate submit {long} --wait"));
    until("the task begins", || flag.exists().then_some(()));
    waiting.signal("INT");
    waiting.ends().exits(130).says("to come back: quorate wait");
    user.types("quorate wait @last --timeout 100ms").exits(5).says("still runs");
    user.types("quorate cancel @last --reason enough").exits(0);
    user.types("quorate wait @last").exits(4);
    user.types("quorate describe @last").exits(0).prints("Reason    enough");
}

#[test]
fn a_worker_joins_and_leaves() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let server = Server::start(&mut user);
    let folder = user.home.path().join("worker");
    let line = format!(
        "quorate worker --server {} --name hand --slots 2 --label gpu=yes --data {}",
        server.url,
        folder.display()
    );
    let worker = user.begins(&line);
    let state = |wanted: &str| {
        let workers = user.types("quorate ls workers --no-headers").exits(0).out;
        let hand = workers.lines().find(|line| line.contains(" hand "))?.to_owned();
        hand.contains(wanted).then_some(())
    };
    until("it is live", || state("live"));
    let there = user.file("there.yaml", "tasks: [{id: a, runs_on: {gpu: yes}, run: echo here}]\n");
    user.types(&format!("quorate submit {there} --wait")).exits(0);
    worker.signal("TERM");
    worker.ends().exits(0);
    until("it is gone", || state("gone"));
}

#[test]
fn reads_a_workflow_from_standard_input() {
    let user = User::new();
    let mut running = user.begins_with("quorate validate -", Stdio::piped());
    let mut stdin = running.child.stdin.take().expect("stdin is a pipe");
    stdin.write_all(b"run: echo hi\n").unwrap();
    drop(stdin);
    running.ends().exits(0).prints("1 tasks");
}

#[test]
fn the_demo_holds_and_leaves_nothing_behind() {
    let _gate = one_at_a_time();
    let user = User::new();
    let demo = user.types("quorate demo").exits(0);
    let demo = demo.says("kill -9 ").says("ms after the kill").says("crates succeeded");
    let demo = demo.prints("# Crates").prints("✓ nothing lost: all 16 tasks succeeded");
    assert!(!demo.out.contains('✗'), "{demo:#?}");
    assert_eq!(user.leftovers(), Vec::<PathBuf>::new());
}
