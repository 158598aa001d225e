//! The trace of a run: every line that the product logs, hashed, and what is counted of it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::machines::Machines;

/// Shows the trace on standard error as it comes.
const SHOW: &str = "QUORATE_SIMULATION_SHOW";

/// What a run is worth nothing without, over many seeds: a name, and how a line about it reads.
const COUNTED: [(&str, &str); 17] = [
    ("leaders", "this node leads"),
    ("expiries", "cause=Expired"),
    ("releases", "cause=Released"),
    ("registrations", "worker registered"),
    ("resumptions", " resumed "),
    ("stale starts refused", "not started"),
    ("stale reports refused", "report refused"),
    ("snapshots taken", "a snapshot is taken"),
    ("snapshots installed", "a snapshot is installed"),
    ("purges", "purging the log"),
    ("torn tails", "cutting a torn tail"),
    ("tasks taken over", "taken over"),
    ("keepers lost", "the keeper is lost"),
    ("storage failures", "its storage failed"),
    ("lease kills", "killed: the lease is over"),
    ("retries", "not the first attempt"),
    ("removals", "left the cluster"),
];

/// The trace. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Trace(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    hash: u64,
    lines: u64,
    line: Vec<u8>,
    counts: BTreeMap<&'static str, u64>,
    show: bool,
    /// Where the run keeps its files.
    dir: String,
}

impl Trace {
    /// Takes in what is logged in this thread from now on.
    pub(super) fn start(machines: &Machines) -> (Self, tracing::subscriber::DefaultGuard) {
        let show = std::env::var_os(SHOW).is_some();
        let counts = COUNTED.iter().map(|&(name, _)| (name, 0)).collect();
        let dir = std::env::current_dir().and_then(std::fs::canonicalize).expect("it is there");
        let dir = dir.to_string_lossy().into_owned();
        let inner = Inner { hash: 0, lines: 0, line: Vec::new(), counts, show, dir };
        let trace = Self(Arc::new(Mutex::new(inner)));
        let filter = std::env::var(SHOW).ok().filter(|filter| filter.contains('='));
        let filter =
            filter.unwrap_or_else(|| "quorate=debug,quorate_raft=debug,turmoil=info".to_owned());
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_ansi(false)
            .with_timer(SimulatedTime(machines.clone()))
            .with_writer(trace.clone())
            .finish();
        (trace, tracing::subscriber::set_default(subscriber))
    }

    /// The hash of all lines, and how many they were.
    pub(super) fn hash(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.hash, inner.lines)
    }

    /// How often each thing was seen that is counted.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.lock().counts.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn end_line(&mut self) {
        // Where the run keeps its files is no part of it.
        let line = String::from_utf8_lossy(&self.line).replace(&self.dir, "");
        for (name, mark) in COUNTED {
            if line.contains(mark) {
                *self.counts.entry(name).or_default() += 1;
            }
        }
        self.lines += 1;
        for &byte in line.as_bytes() {
            // FNV-1a: this is no secret, and every byte counts.
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.show {
            let _ = io::stderr().write_all(line.as_bytes());
        }
        self.line.clear();
    }
}

impl Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.lock();
        for &byte in bytes {
            inner.line.push(byte);
            if byte == b'\n' {
                inner.end_line();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Trace {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[derive(Debug)]
struct SimulatedTime(Machines);

impl FormatTime for SimulatedTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:>10.4}", self.0.elapsed().as_secs_f64())
    }
}
