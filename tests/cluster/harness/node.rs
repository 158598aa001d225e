//! One process of the built binary: a node, or a worker of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use super::http::{NoAnswer, Request, Response};
use super::network::processes_in;
use super::wait::{until, within};

/// How long a node may take until it listens: joining waits for an election at worst.
const START: Duration = Duration::from_secs(30);

/// How long a node may take to stop when asked to.
const STOP: Duration = Duration::from_secs(20);

/// Lines of a log that are shown when a test fails.
const LOG_LINES_SHOWN: usize = 80;

/// What a node prints once it serves.
const LISTENING: &str = "listening on http://";

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// A node. It says when it listens.
    Server,
    /// A worker without a vote.
    Worker,
}

/// How to start a process again and again.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// For people, and for the names of files.
    pub(crate) name: String,
    /// What it is.
    pub(crate) verb: Verb,
    /// The folder with its log, in which it runs.
    pub(crate) folder: PathBuf,
    /// The folder with its data.
    pub(crate) home: PathBuf,
    /// The network namespace to start it in.
    pub(crate) namespace: Option<String>,
    /// Flags but for `--data` and `--listen`.
    pub(crate) flags: Vec<String>,
    /// Variables on top of the test's own.
    pub(crate) env: Vec<(String, String)>,
    /// Port 0 of it is replaced by the one that was given at the first start.
    pub(crate) listen: SocketAddr,
}

impl Setup {
    /// Has it join the cluster of this node, should it start anew.
    pub(crate) fn join(&mut self, node: String) {
        match self.flags.iter().position(|flag| flag == "--join") {
            Some(at) => self.flags[at + 1] = node,
            None => self.flags.extend(["--join".to_owned(), node]),
        }
    }
}

/// A process that can be killed, frozen, and started again on what it left behind.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) setup: Setup,
    child: Option<Child>,
    frozen: bool,
}

impl Process {
    /// Starts it; a node, until it listens.
    #[track_caller]
    pub(crate) fn start(setup: Setup) -> Self {
        let mut process = Self { setup, child: None, frozen: false };
        process.restart();
        process
    }

    /// The same, if it will.
    ///
    /// # Errors
    ///
    /// With all that it said, if it won't.
    pub(crate) fn try_start(setup: Setup) -> Result<Self, String> {
        let mut process = Self { setup, child: None, frozen: false };
        process.try_restart().map(|()| process)
    }

    /// Starts it again, on the same data and at the same address.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        if let Err(reason) = self.try_restart() {
            panic!("{} did not start: {reason}\n{}", self.setup.name, self.log_tail());
        }
    }

    /// Starts it again, if it will.
    ///
    /// # Errors
    ///
    /// With all that it said, if it won't.
    pub(crate) fn try_restart(&mut self) -> Result<(), String> {
        self.kill();
        let said_before = self.log().len();
        let spawned = command(&self.setup).spawn();
        let child = self.child.insert(spawned.map_err(|error| error.to_string())?);
        if self.setup.verb == Verb::Worker {
            return Ok(());
        }
        match lines_of(child).recv_timeout(START) {
            Ok(line) => {
                let address =
                    line.strip_prefix(LISTENING).and_then(|rest| rest.trim().parse().ok());
                self.setup.listen = address.ok_or_else(|| format!("it printed {line:?}"))?;
                Ok(())
            }
            Err(_) => match self.exited(STOP) {
                Some(status) => {
                    let said = self.log().split_off(said_before);
                    Err(format!("{status}: {said}"))
                }
                None => Err("it neither listens nor exits".to_owned()),
            },
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.setup.listen
    }

    /// Whether it was started, and not killed since.
    pub(crate) fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// Whether it runs and answers at all.
    pub(crate) fn is_serving(&self) -> bool {
        self.is_up() && !self.frozen
    }

    /// Sends it a request.
    pub(crate) fn send(&self, request: &Request) -> Result<Response, NoAnswer> {
        request.send(self.address())
    }

    /// SIGKILL, at once and without a word; waits until the kernel is done with it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        self.frozen = false;
    }

    /// SIGKILL for it and all that came of it: the machine is off.
    pub(crate) fn power_off(&mut self) {
        let processes = self.child.as_ref().map(|child| descendants(child.id()));
        self.kill();
        kill_all(&processes.unwrap_or_default());
        if let Some(namespace) = &self.setup.namespace {
            // Whatever has left its family is still on its host.
            until(STOP, "nothing runs on a host without power", || {
                let left = processes_in(namespace);
                kill_all(&left);
                left.is_empty().then_some(())
            });
        }
    }

    /// Its process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// SIGTERM; waits until it has gone.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.try_terminate().expect("a node stops when it is asked to")
    }

    /// The same, if it will.
    pub(crate) fn try_terminate(&mut self) -> Option<ExitStatus> {
        self.signal("TERM");
        self.exited(STOP)
    }

    /// SIGSTOP: it goes on existing, and does nothing.
    pub(crate) fn freeze(&mut self) {
        self.signal("STOP");
        self.frozen = true;
    }

    /// SIGCONT: it goes on, and does not know that time has passed.
    pub(crate) fn thaw(&mut self) {
        self.signal("CONT");
        self.frozen = false;
    }

    /// Waits until it has exited by itself.
    pub(crate) fn exited(&mut self, limit: Duration) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        let status = within(limit, || child.try_wait().expect("a child can be waited for"))?;
        self.child = None;
        Some(status)
    }

    #[track_caller]
    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("it runs").id();
        assert!(self::signal(signal, &[pid]), "{} can be signalled", self.setup.name);
    }

    /// The whole of its log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log_file(&self.setup)).unwrap_or_default()
    }

    /// The end of its log, to be shown when a test fails.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        format!("--- {} at {}\n{}\n", self.setup.name, self.setup.listen, tail.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log_file(setup: &Setup) -> PathBuf {
    setup.folder.join(format!("{}.log", setup.name))
}

fn open_log(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).expect("the log can be written")
}

fn command(setup: &Setup) -> Command {
    let binary = env!("CARGO_BIN_EXE_quorate");
    let mut command = match &setup.namespace {
        None => Command::new(binary),
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace, binary]);
            command
        }
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QUORATE_") {
            command.env_remove(name);
        }
    }
    let level = std::env::var("QUORATE_TESTS_LOG").unwrap_or_else(|_| "info".to_owned());
    match setup.verb {
        Verb::Server => command.args(["server", "--listen", &setup.listen.to_string()]),
        Verb::Worker => command.arg("worker"),
    };
    command.arg("--data").arg(&setup.home).args(&setup.flags);
    command.env("QUORATE_LOG", level).env("NO_COLOR", "1");
    command.envs(setup.env.iter().map(|(name, value)| (name, value)));
    command.current_dir(&setup.folder).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(open_log(&log_file(setup)));
    command
}

/// Everything that has come of a process, itself not included.
fn descendants(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("/proc is mounted")
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name of the program, in parentheses, may itself contain anything.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// SIGKILL for processes that may be gone already.
pub(super) fn kill_all(processes: &[u32]) {
    signal("KILL", processes);
}

/// Sends a signal to processes; whether all of them were there to get it.
pub(crate) fn signal(signal: &str, processes: &[u32]) -> bool {
    // The shell's own `kill`: there need not be a program of that name.
    let script = ["-c", "kill -s \"$0\" \"$@\" 2>/dev/null", signal].map(str::to_owned);
    let pids = processes.iter().map(u32::to_string);
    processes.is_empty()
        || Command::new("sh")
            .args(script.into_iter().chain(pids))
            .status()
            .is_ok_and(|s| s.success())
}

/// The lines that a child prints. Read to the end, so that it never waits for a reader.
fn lines_of(child: &mut Child) -> Receiver<String> {
    let stdout = child.stdout.take().expect("its output is piped");
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Nobody listens any more once the first line has come.
            drop(sender.send(line));
        }
    });
    lines
}
