//! The example of a fenced table, against a real PostgreSQL. Where none is installed, the tests
//! say so, and fail instead where `QUORATE_TESTS_COMPULSORY` is set.

#![expect(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long the server may take to answer, and a command to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at whether the server answers.
const POLL: Duration = Duration::from_millis(50);

/// A user that may do nothing, for a server that refuses to be run by root.
const NOBODY: u32 = 65_534;

/// A PostgreSQL of its own, in a folder of its own. Stopped when dropped.
struct Postgres {
    home: tempfile::TempDir,
    programs: PathBuf,
    server: Child,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // With its children, and at once: nothing of it is of use to anybody.
        let _ = self.run("pg_ctl", &["stop", "-m", "immediate", "-D", &self.data()]);
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

/// Where the programs of a server are, if there is one.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let debian = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let has_all = |dir: &PathBuf| {
        ["initdb", "postgres", "pg_ctl", "psql"].iter().all(|name| dir.join(name).is_file())
    };
    debian.chain(std::env::split_paths(&path)).find(has_all)
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|found| std::os::unix::fs::MetadataExt::uid(&found) == 0)
}

/// As whoever runs the test, or as nobody if that is root.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir("/").env_remove("PGOPTIONS").stdin(Stdio::null());
    command
}

impl Postgres {
    /// Starts one; `None` where there is none to start.
    fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            let is_compulsory = std::env::var_os("QUORATE_TESTS_COMPULSORY").is_some();
            assert!(!is_compulsory, "PostgreSQL is not installed");
            // Past the test runner, which keeps what a test that passes prints to itself.
            drop(std::io::stderr().write_all(b"skipped: PostgreSQL is not installed\n"));
            return None;
        };
        let home = tempfile::tempdir().unwrap();
        if is_root() {
            chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let cluster = home.path().join("data");
        let initdb = command(&programs.join("initdb"))
            .args(["--auth=trust", "--username=quorate", "--no-sync", "--pgdata"])
            .arg(&cluster)
            .output()
            .unwrap();
        assert!(initdb.status.success(), "{}", String::from_utf8_lossy(&initdb.stderr));
        let server = command(&programs.join("postgres"))
            .args(["-F", "-c", "listen_addresses=", "-k"])
            .arg(home.path())
            .arg("-D")
            .arg(&cluster)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let postgres = Self { home, programs, server };
        let deadline = Instant::now() + PATIENCE;
        while !postgres.sql("", "SELECT 1").status.success() {
            assert!(Instant::now() < deadline, "PostgreSQL does not answer");
            thread::sleep(POLL);
        }
        let fence = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/postgres/fence.sql");
        let fence = fs::read_to_string(fence).unwrap();
        assert!(postgres.sql("", &fence).status.success());
        Some(postgres)
    }

    fn data(&self) -> String {
        self.home.path().join("data").to_string_lossy().into_owned()
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        command(&self.programs.join(program)).args(args).output().unwrap()
    }

    fn sql(&self, options: &str, statement: &str) -> Output {
        command(&self.programs.join("psql"))
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "quorate", "-d", "postgres", "-h"])
            .arg(self.home.path())
            .args(["-c", statement])
            .env("PGOPTIONS", options)
            .output()
            .unwrap()
    }

    /// Writes as an attempt with this token would.
    fn write_as(&self, token: u64, statement: &str) -> Output {
        let resource = "-c quorate.fencing_resource=revenue/2026-11-23";
        self.sql(&format!("-c quorate.fencing_token={token} {resource}"), statement)
    }

    /// What one query says.
    fn says(&self, query: &str) -> String {
        let output = self.sql("", query);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs a workflow without a server, against this database.
    fn quorate(&self, file: &Path) -> Output {
        let scratch = tempfile::tempdir().unwrap();
        Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(["run", "-p", "user=quorate", "-p"])
            .arg(format!("host={}", self.home.path().display()))
            .arg(file)
            .env("TMPDIR", scratch.path())
            .env("XDG_STATE_HOME", scratch.path())
            .output()
            .unwrap()
    }
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/postgres/revenue.quorate.yaml")
}

#[track_caller]
fn assert_refused(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(why), "{said}");
}

#[test]
fn the_example_writes_and_nobody_older_does_after_it() {
    let Some(postgres) = Postgres::start() else { return };
    let ran = postgres.quorate(&example());
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let rows = "SELECT string_agg(country || ' ' || amount, ', ' ORDER BY country) FROM revenue";
    let written = "de 33.10, fr 151.90, us 64.50";
    assert_eq!(postgres.says(rows), written);
    let token: u64 = postgres.says("SELECT token FROM quorate.fences").parse().unwrap();
    for statement in ["DELETE FROM revenue", "UPDATE revenue SET amount = 0", "TRUNCATE revenue"] {
        assert_refused(&postgres.write_as(token - 1, statement), "is stale");
        assert_refused(&postgres.sql("", statement), "is fenced");
    }
    assert_eq!(postgres.says(rows), written);
    assert!(postgres.write_as(token, "DELETE FROM revenue WHERE country = 'de'").status.success());
    assert!(postgres.write_as(token + 1, "DELETE FROM revenue").status.success());
    assert_refused(&postgres.write_as(token, "DELETE FROM revenue"), "is stale");
}

#[test]
fn the_token_of_an_attempt_that_was_given_up_is_refused() {
    let Some(postgres) = Postgres::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (first, file) = (folder.path().join("first"), folder.path().join("revenue.yaml"));
    let text = fs::read_to_string(example()).unwrap();
    // The first attempt fails when it has its token, and something of it is still on its way.
    let script = "    run: |\n      # The token";
    let fails = format!(
        "    run: |\n      if [ ! -e {first} ]; then echo $QUORATE_FENCING_TOKEN > {first}; exit 1; fi\n      # The token",
        first = first.display()
    );
    assert!(text.contains(script));
    fs::write(&file, text.replace(script, &fails)).unwrap();
    let ran = postgres.quorate(&file);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let straggler: u64 = fs::read_to_string(first).unwrap().trim().parse().unwrap();
    let late = postgres.write_as(straggler, "UPDATE revenue SET amount = 0");
    assert_refused(&late, &format!("fencing token {straggler} is stale"));
    assert_eq!(postgres.says("SELECT sum(amount) FROM revenue"), "249.50");
}

#[test]
fn writers_take_turns_so_none_is_overtaken_between_check_and_write() {
    let Some(postgres) = Postgres::start() else { return };
    let insert =
        |country: &str| format!("INSERT INTO revenue VALUES ('2026-11-23', '{country}', 1)");
    thread::scope(|scope| {
        // The older one has passed the guard, and dawdles before it commits.
        let older = scope.spawn(|| {
            let slow = format!("BEGIN; {}; SELECT pg_sleep(2); COMMIT", insert("old"));
            postgres.write_as(5, &slow)
        });
        let deadline = Instant::now() + PATIENCE;
        let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        while postgres.says(asleep) == "0" {
            assert!(Instant::now() < deadline, "the older writer does not begin");
            thread::sleep(POLL);
        }
        assert!(postgres.write_as(6, &insert("new")).status.success());
        assert!(older.join().unwrap().status.success());
    });
    // The newer came after the older, not between its check and its commit.
    assert_eq!(
        postgres.says("SELECT string_agg(country, ' ' ORDER BY xmin::text::int) FROM revenue"),
        "old new"
    );
    assert_refused(&postgres.write_as(5, "DELETE FROM revenue"), "is stale");
}
