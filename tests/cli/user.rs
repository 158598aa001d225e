//! Somebody at a terminal, and a server for them.

use std::fs;
use std::path::PathBuf;
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

pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A user with a home of their own.
pub(crate) struct User {
    pub(crate) home: tempfile::TempDir,
    pub(crate) address: String,
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A command that runs. Killed when dropped, as by a test that fails.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) streams: Option<[JoinHandle<String>; 2]>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl User {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for dir in ["state", "tmp"] {
            fs::create_dir(home.path().join(dir)).unwrap();
        }
        // Nobody listens there: it is the port of a service from 1983.
        Self { home, address: "http://127.0.0.1:1".to_owned() }
    }

    /// Types a command, its words apart by spaces.
    pub(crate) fn types(&self, line: &str) -> Ran {
        self.begins(line).ends()
    }

    pub(crate) fn begins(&self, line: &str) -> Running {
        self.begins_with(line, Stdio::null())
    }

    pub(crate) fn begins_with(&self, line: &str, stdin: Stdio) -> Running {
        Running::of(self.command(line).stdin(stdin))
    }

    pub(crate) fn command(&self, line: &str) -> Command {
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

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    }

    pub(crate) fn temporary(&self) -> PathBuf {
        self.home.path().join("tmp")
    }

    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.temporary()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

pub(crate) fn read(mut stream: impl std::io::Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Running {
    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let streams = [
            read(child.stdout.take().expect("stdout is a pipe")),
            read(child.stderr.take().expect("stderr is a pipe")),
        ];
        Self { child, streams: Some(streams) }
    }

    pub(crate) fn ends(mut self) -> Ran {
        let status = self.status();
        let streams = self.streams.take().expect("a command ends once");
        let [out, err] = streams.map(|stream| stream.join().unwrap());
        Ran { code: status.code(), out, err }
    }

    pub(crate) fn status(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "a command took longer than {DEADLINE:?}");
            thread::sleep(POLL);
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }
}

impl Ran {
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn prints(self, text: &str) -> Self {
        assert!(self.out.contains(text), "stdout lacks {text:?}: {self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "stderr lacks {text:?}: {self:#?}");
        self
    }

    pub(crate) fn word(&self) -> String {
        self.out.split_whitespace().next().unwrap_or_default().to_owned()
    }
}

/// A server of one node. Stopped when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn start(user: &mut User) -> Self {
        Self::start_with(user, &[])
    }

    pub(crate) fn start_with(user: &mut User, flags: &[&str]) -> Self {
        let folder = user.home.path().join("data");
        let printed = user.home.path().join("server.out");
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.args(["server", "--dev", "--listen", "127.0.0.1:0", "--name", "dev"]);
        command.args(["--label", "disk=ssd", "--data"]).arg(folder).args(flags);
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

pub(crate) fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        if let Some(seen) = look() {
            return seen;
        }
        thread::sleep(POLL);
    }
    panic!("not within {DEADLINE:?}: {what}");
}
