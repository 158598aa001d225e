//! The tasks' own ledger: what they wrote down themselves, in a file that Quorate never reads.
//!
//! Each line is one `write` to a file opened for appending, so lines never mix. All nodes of a
//! test share the clock of one machine, so the order of the lines' times is the order of things.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::judge::{Line, Mark};

/// What the tasks source. bash reads the clock and writes the line by itself: a process started
/// for either would take milliseconds, and could be killed in between.
const SCRIPT: &str = r#"
exec {SILENCE}<>"$PROOF/silence"
# Numbers of processes mean nothing outside of a namespace of them; a random one does.
ME=$SRANDOM
note() {
    printf '%s %s %s %s %s %s %s\n' "$1" "${EPOCHREALTIME/[.,]/}" "$QUORATE_RUN_ID" \
        "$QUORATE_TASK" "$QUORATE_ATTEMPT" "$QUORATE_FENCING_TOKEN" "$ME" >>"$PROOF/ledger"
}
nap() { read -r -t "$1" -u "$SILENCE" || :; }
began() { note S; }
ended() { note E; }
# Beats for so many times 20 ms.
work() { local beat; for ((beat = 0; beat < $1; beat++)); do nap 0.02; note B; done; }
# Leaves something behind that has a session of its own, and beats as long as it is let.
daemon() { setsid bash -c '. "$PROOF/ledger.sh"; while :; do nap 0.02; note D; done' & }
# Beats until a file appears: the test decides when.
work_until() { until [ -e "$PROOF/$1" ]; do nap 0.02; note B; done; }
"#;

/// The folder that a test shares with its tasks.
#[derive(Debug)]
pub(crate) struct Ledger {
    folder: PathBuf,
}

impl Ledger {
    /// Prepares an empty ledger in `folder`.
    pub(crate) fn create(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("the folder can be made");
        fs::write(folder.join("ledger.sh"), SCRIPT).expect("the script can be written");
        fs::write(folder.join("ledger"), "").expect("the ledger can be written");
        let silence = folder.join("silence");
        // Nobody ever writes to it: reading from it with a time limit is a pause without a process.
        let made = Command::new("mkfifo").arg(&silence).status().expect("mkfifo runs");
        assert!(made.success(), "{} can be made", silence.display());
        Self { folder: folder.to_owned() }
    }

    /// The folder, known to tasks as `$PROOF`.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lets go every task that works until `file` exists.
    pub(crate) fn release(&self, file: &str) {
        fs::write(self.folder.join(file), "").expect("the file can be written");
    }

    /// Everything written so far.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let text = fs::read_to_string(self.folder.join("ledger")).expect("the ledger is readable");
        parse(&text)
    }

    /// How often an attempt at `task` of `run` began.
    pub(crate) fn starts(&self, run: &str, task: &str) -> usize {
        let of_task =
            |line: &&Line| line.mark == Mark::Began && line.run == run && line.task == task;
        self.lines().iter().filter(of_task).count()
    }

    /// The processes that wrote, of those that still run.
    pub(crate) fn processes_left(&self) -> Vec<u32> {
        let marker = format!("PROOF={}", self.folder.display()).into_bytes();
        let numbers = fs::read_dir("/proc")
            .expect("/proc is mounted")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        numbers
            .filter(|pid: &u32| {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environment.split(|byte| *byte == 0).any(|variable| variable == marker)
            })
            .collect()
    }
}

/// Reads a ledger. A line that is no line is a violation of what the ledger itself promises.
fn parse(text: &str) -> Vec<Line> {
    text.lines()
        .map(|line| parse_line(line).unwrap_or_else(|| panic!("unreadable line: {line:?}")))
        .collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let mut words = line.split_whitespace();
    let mark = match words.next()? {
        "S" => Mark::Began,
        "B" => Mark::Beat,
        "E" => Mark::Ended,
        "D" => Mark::Daemon,
        _ => return None,
    };
    let at_us = words.next()?.parse().ok()?;
    let (run, task) = (words.next()?.to_owned(), words.next()?.to_owned());
    let attempt = words.next()?.trim_start_matches('#').parse().ok()?;
    let token = words.next()?.trim_start_matches('t').parse().ok()?;
    let process = words.next()?.parse().ok()?;
    words.next().is_none().then_some(Line { mark, at_us, run, task, attempt, token, process })
}
