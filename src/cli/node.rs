//! `server`, `worker` and the hidden `keeper`: the verbs that stay.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use quorate_model::Containment;
use quorate_raft::ClusterId;

use super::exit::{Exit, Failure};
use super::signals::{Stop, Stops};
use super::{stdout, worker};
use crate::config::{Config, Overrides, Span};
use crate::seeds::{self, Seeds};
use crate::server::{Farewell, Server, StartError};
use crate::worker::{Network, Worker, WorkerOptions};

/// How long running tasks may go on once a worker was told to stop: what Kubernetes gives.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `quorate server` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ServerArgs {
    /// A cluster of one, ready at once; data in ./quorate-data
    #[arg(long)]
    dev: bool,
    /// Read settings from a TOML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for everything the node knows
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:8780]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where others reach this node, if not where it listens
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Join the cluster of these nodes, at the first start
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    join: Vec<String>,
    #[command(flatten)]
    worker: WorkerSettings,
    /// Run no tasks on this node
    #[arg(long)]
    no_worker: bool,
    /// How long a worker may go unheard before its tasks are given to others [default: 10s]
    #[arg(long, value_name = "SPAN")]
    lease: Option<Span>,
    /// How long a follower waits for its leader, at most, before an election [default: 300ms]
    #[arg(long, value_name = "SPAN")]
    election_timeout: Option<Span>,
}

/// What `quorate worker` is told.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct WorkerArgs {
    #[command(subcommand)]
    pub(super) verb: Option<worker::WorkerVerb>,
    /// Nodes of the cluster; one is enough if the others can be reached from here
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', required = true)]
    server: Vec<String>,
    /// Folder for attempts and for results that are not yet recorded
    #[arg(long, value_name = "DIR", default_value = "quorate-worker")]
    data: PathBuf,
    #[command(flatten)]
    worker: WorkerSettings,
}

/// What `quorate keeper` is told, by a worker.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct KeeperArgs {
    /// The worker's folder
    #[arg(long)]
    dir: PathBuf,
    /// How to hold the processes of a task together, at best
    #[arg(long)]
    containment: Containment,
}

/// What `quorate task` is told, by a keeper.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct TaskArgs {
    /// The kind of the task
    kind: String,
    /// What it is to do
    spec: PathBuf,
}

/// Carries out a task that is no program of somebody else.
pub(super) fn task(args: &TaskArgs) -> ExitCode {
    crate::worker::run_child(&args.kind, &args.spec)
}

/// Starts and kills the tasks of a worker, in a process with one thread.
pub(super) fn keeper(args: &KeeperArgs) -> Exit {
    crate::telemetry::init("info");
    match crate::worker::keeper::run(&args.dir, args.containment) {
        ExitCode::SUCCESS => Exit::Done,
        _ => Exit::Error,
    }
}

/// What a worker is, alone or inside a server.
#[derive(Clone, Debug, clap::Args)]
struct WorkerSettings {
    /// Name of the worker, for people [default: the name of the host]
    #[arg(long)]
    name: Option<String>,
    /// Label that tasks may ask for with runs_on; repeat for more
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = super::key_value)]
    labels: Vec<(String, String)>,
    /// How many tasks to run at once [default: by the number of cores]
    #[arg(long)]
    slots: Option<u32>,
    /// How to hold the processes of a task together, at best: pidns, cgroup or pgroup
    /// [default: pidns]
    #[arg(long, value_name = "HOW")]
    containment: Option<Containment>,
    /// Where tasks of kind http may reach besides other machines: 127.0.0.1, or 127.0.0.0/8
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    http_allow: Vec<Network>,
}

impl From<ServerArgs> for Overrides {
    fn from(args: ServerArgs) -> Self {
        let labels: BTreeMap<_, _> = args.worker.labels.into_iter().collect();
        let join: Vec<_> = args.join.iter().map(|seed| host_and_port(seed)).collect();
        Self {
            dev: args.dev.then_some(true),
            data: args.data,
            listen: args.listen,
            advertise: args.advertise,
            join: (!join.is_empty()).then_some(join),
            name: args.worker.name,
            labels: (!labels.is_empty()).then_some(labels),
            slots: args.worker.slots,
            containment: args.worker.containment,
            http_allow: (!args.worker.http_allow.is_empty()).then_some(args.worker.http_allow),
            worker: args.no_worker.then_some(false),
            lease: args.lease,
            election_timeout: args.election_timeout,
        }
    }
}

/// Runs a node until it is told to stop, or stops by itself.
///
/// # Errors
///
/// If it does not start, or its storage fails.
pub(super) async fn server(args: ServerArgs) -> anyhow::Result<Exit> {
    crate::telemetry::init("info");
    let file = args.config.clone();
    let config = Config::load(file.as_deref(), args.into())?;
    let is_dev = config.dev;
    let mut stops = Stops::new()?;
    let server = tokio::select! {
        server = Server::start(config) => server.map_err(not_started)?,
        _ = stops.next() => return Ok(Exit::Done),
    };
    let mut out = stdout();
    writeln!(out, "listening on {}", server.url())?;
    out.flush()?;
    let stop = tokio::select! {
        reason = server.stopped() => {
            let message = format!("the node has stopped: {reason}");
            return Err(Failure::new(Exit::StorageFailed, message).into());
        }
        stop = stops.next() => stop,
    };
    let farewell = match stop {
        Stop::Terminate if !is_dev => Farewell::Return,
        Stop::Terminate | Stop::Interrupt => Farewell::Leave,
    };
    tokio::select! {
        () = server.shutdown(farewell) => Ok(Exit::Done),
        // Asked twice: leadership and tasks are then left as they are.
        _ = stops.next() => Ok(Exit::Interrupted),
    }
}

/// Says by its code whether a node did not start because of what lies on its disk.
fn not_started(error: StartError) -> anyhow::Error {
    if let StartError::Open(refused) = &error
        && refused.is_of_storage()
    {
        return Failure::new(Exit::StorageFailed, refused.to_string()).into();
    }
    error.into()
}

/// Runs a worker until it is told to stop.
///
/// # Errors
///
/// If it does not start.
pub(super) async fn worker(args: WorkerArgs) -> anyhow::Result<Exit> {
    crate::telemetry::init("info");
    let WorkerSettings { name, labels, slots, containment, http_allow } = args.worker;
    let profile = seeds::profile(name.as_deref(), &labels.into_iter().collect(), slots)?;
    let servers = args.server.iter().map(|server| host_and_port(server)).collect();
    let servers = Arc::new(Seeds::new(servers, ClusterId::NONE));
    let mut stops = Stops::new()?;
    let mut options = WorkerOptions::new(args.data, profile, servers);
    options.keeper.containment = containment.unwrap_or(options.keeper.containment);
    options.kinds.http_allow = http_allow;
    let worker = Worker::start(options)?;
    let stop = stops.next().await;
    let leave = async {
        match stop {
            Stop::Terminate => worker.detach().await,
            Stop::Interrupt => worker.stop(PATIENCE).await,
        }
    };
    tokio::select! {
        () = leave => Ok(Exit::Done),
        _ = stops.next() => Ok(Exit::Interrupted),
    }
}

/// Nodes and workers do without HTTP; an address that was taken from a URL will do.
fn host_and_port(address: &str) -> String {
    address.trim_start_matches("http://").trim_end_matches('/').to_owned()
}
