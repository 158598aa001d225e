//! What can be seen from outside: the process's own log, and metrics.

use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use quorate_model::{Containment, RunStatus, State};
use quorate_raft::{Node, StorageState};
use tracing_subscriber::EnvFilter;

use crate::leader::Sessions;
use crate::worker::{Probe, WorkerStatus};

/// Has events written to standard error: those that `QUORATE_LOG` asks for (`info` unless
/// set; `quorate_raft=debug,info` and the like), one line each.
pub(crate) fn init(default_level: &str) {
    let filter = EnvFilter::try_from_env("QUORATE_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("{default_level},openraft=error,sled=error")));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr())
        && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi);
    // A second call, as by tests in one process, leaves the first in force.
    drop(subscriber.with_writer(std::io::stderr).try_init());
}

/// Every metric of a node, in the OpenMetrics text format.
#[must_use]
pub(crate) fn metrics(node: &Node, sessions: &Sessions, worker: Option<&Probe>) -> String {
    let mut registry = Registry::with_prefix("quorate");
    let mut readings = read(node, sessions);
    readings.extend(worker.into_iter().flat_map(|worker| read_worker(worker.read())));
    registry.register_collector(Box::new(Readings(readings)));
    let mut text = String::new();
    // Writing to a string fails only where a metric encodes itself wrongly.
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => text,
        Err(error) => format!("# {error}\n# EOF\n"),
    }
}

/// A metric and its value just now.
#[derive(Clone, Copy, Debug)]
struct Reading {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    /// Tells apart the values of one metric, which stand side by side.
    label: Option<(&'static str, &'static str)>,
    value: f64,
}

#[derive(Debug)]
struct Readings(Vec<Reading>);

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for family in self.0.chunk_by(|one, next| one.name == next.name) {
            let [Reading { name, help, kind, label: first, value }, ..] = family else { continue };
            let mut metric = encoder.encode_descriptor(name, help, None, *kind)?;
            if first.is_none() {
                // Without a label no braces either.
                Sample { kind: *kind, value: *value }.encode(metric)?;
                continue;
            }
            for &Reading { kind, label, value, .. } in family {
                let labels: Vec<_> = label.into_iter().collect();
                Sample { kind, value }.encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    kind: MetricType,
    value: f64,
}

impl EncodeMetric for Sample {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self.kind {
            MetricType::Counter => {
                encoder.encode_counter::<NoLabelSet, f64, u64>(&self.value, None)
            }
            MetricType::Gauge | MetricType::Histogram | MetricType::Info | MetricType::Unknown => {
                encoder.encode_gauge(&self.value)
            }
        }
    }

    fn metric_type(&self) -> MetricType {
        self.kind
    }
}

fn read(node: &Node, sessions: &Sessions) -> Vec<Reading> {
    let status = node.status();
    let counted = node.with_state(count);
    let mut readings = vec![
        gauge("raft_term", "Term of this node", number(status.term)),
        gauge("raft_leads", "1 if this node leads", f64::from(u8::from(status.leads))),
        gauge("raft_quorate", "1 if a quorum answers", f64::from(u8::from(status.quorate))),
        gauge("raft_last_index", "Last entry in the log", number(status.last_index)),
        gauge("raft_committed_index", "Last committed entry", number(status.committed_index)),
        gauge("raft_applied_index", "Last applied entry", number(status.applied_index)),
        gauge("raft_snapshot_index", "Last entry in a snapshot", number(status.snapshot_index)),
        gauge(
            "state_equal_index",
            "Last entry after which a quorum had this state",
            number(status.agreement.index),
        ),
        gauge(
            "state_different_voters",
            "Voters with another state after the same entry",
            length(status.agreement.difference.map_or(0, |found| found.nodes.len())),
        ),
        gauge("raft_members", "Nodes of the cluster", length(status.members.len())),
        gauge("raft_purged_index", "Last entry cut off the log", number(status.purged_index)),
        gauge("proposals_queued", "Requests that wait", number(status.proposals.queued)),
        counter("proposals_accepted", "Requests queued", status.proposals.accepted),
        counter("proposals_overloaded", "Requests refused", status.proposals.overloaded),
        counter("proposals_committed", "Requests answered", status.proposals.committed),
        counter("proposals_unknown", "Requests of unknown outcome", status.proposals.unknown),
        counter("proposals_entries", "Entries proposed", status.proposals.entries),
        gauge("disk_bytes", "Size of the disk", number(status.storage.usage.bytes_total)),
        gauge("disk_free_bytes", "Left of the disk", number(status.storage.usage.bytes_free)),
        gauge("storage_state", "0 ok, 1 low, 2 full, 3 failed", level(status.storage.state)),
        counter("log_syncs", "Syncs of the log", status.storage.syncs.count),
        seconds("log_sync_seconds", "Time in syncs of the log", status.storage.syncs.total),
        gauge(
            "log_sync_seconds_max",
            "Longest sync of the log in the last minute or two",
            status.storage.syncs.longest.as_secs_f64(),
        ),
        gauge("runs_live", "Runs in memory", length(counted.runs)),
        gauge("runs_open", "Runs that have not ended", length(counted.open)),
        gauge("tasks_ready", "Tasks that wait for a worker", length(counted.ready)),
        gauge("tasks_running", "Tasks assigned to a worker", length(counted.running)),
        gauge("workers_live", "Workers that hold a lease", length(counted.workers)),
        gauge("workers_ineligible", "Of those, given nothing more", length(counted.ineligible)),
        gauge("workers_quarantined", "Of those, for their clock", length(counted.quarantined)),
        gauge("workers_connected", "Workers connected here", length(sessions.connected().len())),
        gauge("slots_total", "Slots of live workers", length(counted.slots)),
    ];
    let contained = Containment::ALL.iter().zip(counted.contained);
    readings.extend(contained.map(|(containment, workers)| Reading {
        label: Some(("containment", containment.text())),
        ..gauge("worker_containment", "Live workers, by how they hold tasks", length(workers))
    }));
    readings
}

fn read_worker(status: WorkerStatus) -> Vec<Reading> {
    let WorkerStatus { lease_left, slots, running, started_total, reports_pending, is_disk_full } =
        status;
    let left = lease_left.unwrap_or_default().as_secs_f64();
    vec![
        gauge("worker_lease_seconds", "What is left of the lease of this worker", left),
        gauge("worker_slots", "Slots of this worker", f64::from(slots)),
        gauge("worker_running", "Attempts that run on this worker", length(running)),
        counter("worker_started", "Attempts that this worker started", started_total),
        gauge(
            "worker_disk_full",
            "1 if it begins nothing for want of room",
            f64::from(is_disk_full),
        ),
        gauge("worker_reports_pending", "Results not yet recorded", length(reports_pending)),
    ]
}

fn gauge(name: &'static str, help: &'static str, value: f64) -> Reading {
    Reading { name, help, kind: MetricType::Gauge, label: None, value }
}

fn counter(name: &'static str, help: &'static str, value: u64) -> Reading {
    Reading { name, help, kind: MetricType::Counter, label: None, value: number(value) }
}

/// A counter of time.
fn seconds(name: &'static str, help: &'static str, value: Duration) -> Reading {
    Reading { name, help, label: None, kind: MetricType::Counter, value: value.as_secs_f64() }
}

fn level(state: StorageState) -> f64 {
    match state {
        StorageState::Ok => 0.0,
        StorageState::Low => 1.0,
        StorageState::Full => 2.0,
        StorageState::Failed => 3.0,
    }
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    runs: usize,
    open: usize,
    ready: usize,
    running: usize,
    workers: usize,
    ineligible: usize,
    quarantined: usize,
    slots: usize,
    /// Workers, in the order of [`Containment::ALL`].
    contained: [usize; 3],
}

fn count(state: &State) -> Counted {
    let live = || state.workers().values().filter(|worker| worker.is_live());
    let is_open = |status: &RunStatus| !matches!(status, RunStatus::Ended { .. });
    Counted {
        runs: state.runs().len(),
        open: state.runs().values().filter(|run| is_open(&run.status)).count(),
        ready: state.ready_count(),
        running: live().map(|worker| worker.running.len()).sum(),
        workers: live().count(),
        ineligible: live().filter(|worker| !worker.is_eligible()).count(),
        quarantined: live().filter(|worker| worker.quarantine.is_some()).count(),
        slots: live().map(|worker| worker.slots as usize).sum(),
        contained: Containment::ALL
            .map(|one| live().filter(|worker| worker.containment == one).count()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric need not be exact beyond 2^53")]
fn number(value: u64) -> f64 {
    value as f64
}

fn length(value: usize) -> f64 {
    number(value as u64)
}
