//! The works: what is done, on our side and by the yardstick.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_api::client::{Client, Start, What};

use crate::report::{Figure, median, percentile};
use crate::servers::Servers;

/// How long a run of any work may take.
const RUN_WITHIN: Duration = Duration::from_secs(300);

type Result<T> = std::result::Result<T, String>;

/// How much of each work is done: all of it, or just enough to see that it works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) parallel: usize,
    pub(crate) chain: usize,
    pub(crate) calls: usize,
    pub(crate) python: usize,
    pub(crate) transitions: u64,
    pub(crate) failovers: usize,
    pub(crate) rounds: usize,
    pub(crate) watch: Duration,
}

/// Submits a workflow and waits for its end; how long that took.
async fn run(client: &Client, name: &str, source: String) -> Result<Duration> {
    let what = What::Inline { source, name: name.to_owned() };
    let begun = Instant::now();
    let started = client.start(&Start::of(what)).await.map_err(text)?;
    let run = client.wait(started.id, RUN_WITHIN).await.map_err(text)?;
    let took = begun.elapsed();
    let state = run.state.to_string();
    if state == "succeeded" { Ok(took) } else { Err(format!("{name} ended as {state}")) }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// W1: light Python tasks one after another, against as many bare starts of Python.
pub(crate) async fn light_tasks(
    servers: &Servers,
    nodes: usize,
    scale: Scale,
) -> Result<Vec<Figure>> {
    let program = "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\nfib(10)\n";
    let python =
        |_| Command::new("python3").args(["-c", program]).status().is_ok_and(|s| s.success());
    if !python(0) {
        return Ok(Vec::new());
    }
    let mut source = "tasks:\n".to_owned();
    for at in 0..scale.python {
        let indented = program.trim_end().replace('\n', "\n      ");
        let needs = at.checked_sub(1).map_or(String::new(), |last| format!("    needs: t{last}\n"));
        let _ = write!(
            source,
            "  - id: t{at}\n{needs}    shell: python\n    run: |\n      {indented}\n"
        );
    }
    let client = servers.client()?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        ours.push(run(&client, "light", source.clone()).await?.as_secs_f64());
        let begun = Instant::now();
        if !(0..scale.python).all(python) {
            return Err("python3 failed".to_owned());
        }
        bare.push(begun.elapsed().as_secs_f64());
    }
    let measure = format!("{} light Python tasks in a row", scale.python);
    let figure = Figure::new("W1", nodes, &measure, median(&mut ours), "s");
    Ok(vec![figure.against("bare starts of Python", Some(median(&mut bare)))])
}

/// W3: one task, then many in parallel, then one that joins them, against `xargs`.
pub(crate) async fn fan_out(servers: &Servers, nodes: usize, scale: Scale) -> Result<Vec<Figure>> {
    let mut source = "defaults: {shell: sh}\ntasks:\n  - {id: first, run: 'true'}\n".to_owned();
    let mut joined = Vec::new();
    for at in 0..scale.parallel {
        let _ = writeln!(source, "  - {{id: t{at}, needs: first, run: 'true'}}");
        joined.push(format!("t{at}"));
    }
    let _ = writeln!(source, "  - {{id: last, needs: [{}], run: 'true'}}", joined.join(", "));
    let client = servers.client()?;
    let (mut ours, mut xargs) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        ours.push(run(&client, "fan-out", source.clone()).await?.as_secs_f64());
        xargs.push(bare_starts(scale.parallel)?.as_secs_f64());
    }
    let measure = format!("1 + {} parallel + 1 tasks", scale.parallel);
    let figure = Figure::new("W3", nodes, &measure, median(&mut ours), "s");
    Ok(vec![figure.against("xargs -P2 -n1 true", Some(median(&mut xargs)))])
}

fn bare_starts(count: usize) -> Result<Duration> {
    let begun = Instant::now();
    let script = format!("seq {count} | xargs -P2 -I_ true");
    let status = Command::new("sh").args(["-c", &script]).status().map_err(text)?;
    if status.success() { Ok(begun.elapsed()) } else { Err("xargs failed".to_owned()) }
}

/// W4: a chain; the figure is the time from one start to the next.
pub(crate) async fn chain(servers: &Servers, nodes: usize, scale: Scale) -> Result<Vec<Figure>> {
    let ledger = servers.folder().join("chain");
    let stamp = stamp(&ledger);
    let mut source = "tasks:\n".to_owned();
    for at in 0..scale.chain {
        let needs = at.checked_sub(1).map_or(String::new(), |last| format!("needs: t{last}, "));
        let _ = writeln!(source, "  - {{id: t{at}, {needs}run: '{stamp}'}}");
    }
    let client = servers.client()?;
    let mut hops = Vec::new();
    for _ in 0..scale.rounds {
        drop(fs::remove_file(&ledger));
        run(&client, "chain", source.clone()).await?;
        let starts = starts(&ledger)?;
        hops.extend(starts.windows(2).map(|pair| (pair[1] - pair[0]) * 1_000.0));
    }
    let measure = format!("hop in a chain of {}, p50", scale.chain);
    let p99 = percentile(&mut hops.clone(), 99);
    Ok(vec![
        Figure::new("W4", nodes, &measure, median(&mut hops), "ms"),
        Figure::new("W4", nodes, "the same, p99", p99, "ms"),
    ])
}

/// A shell command that appends the time to a file. Bash does it without another process.
fn stamp(ledger: &Path) -> String {
    format!("echo \"$EPOCHREALTIME\" >> \"{}\"", ledger.display())
}

/// The times in such a file, in seconds since the epoch.
fn starts(ledger: &Path) -> Result<Vec<f64>> {
    let text = fs::read_to_string(ledger).map_err(text)?;
    text.lines().map(|line| line.parse().map_err(|_| format!("{line:?} is no time"))).collect()
}

/// W5: from the call of the API to the start of the first process, on an idle system.
pub(crate) async fn first_start(
    servers: &Servers,
    nodes: usize,
    scale: Scale,
) -> Result<Vec<Figure>> {
    let ledger = servers.folder().join("first");
    let source = format!("run: '{}'\n", stamp(&ledger));
    let client = servers.client()?;
    let mut waits = Vec::new();
    for _ in 0..scale.calls {
        drop(fs::remove_file(&ledger));
        let called = now();
        run(&client, "first", source.clone()).await?;
        let started = starts(&ledger)?.first().copied().ok_or("nothing was started")?;
        waits.push((started - called) * 1_000.0);
    }
    Ok(vec![Figure::new("W5", nodes, "call to first process, p50", median(&mut waits), "ms")])
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// W6: what it costs to be there: time until ready, memory and CPU of an idle node.
pub(crate) async fn idle(servers: &Servers, nodes: usize, scale: Scale) -> Result<Vec<Figure>> {
    let before = cpu_seconds(&servers.pids())?;
    tokio::time::sleep(scale.watch).await;
    let used = cpu_seconds(&servers.pids())? - before;
    let count = f64::from(u32::try_from(nodes).unwrap_or(1));
    let percent = used / scale.watch.as_secs_f64() * 100.0 / count;
    let mut memory = Vec::new();
    for pid in servers.pids() {
        memory.push(memory_mib(pid)?);
    }
    let ready = servers.first_ready.as_secs_f64() * 1_000.0;
    Ok(vec![
        Figure::new("W6", nodes, "cold start to ready, first node", ready, "ms"),
        Figure::new("W6", nodes, "idle memory of a node (PSS)", median(&mut memory), "MiB"),
        Figure::new("W6", nodes, "idle CPU of a node", percent, "%"),
    ])
}

/// User and system time of processes, in seconds.
fn cpu_seconds(pids: &[u32]) -> Result<f64> {
    let mut ticks = 0.0;
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(text)?;
        // Behind the name, which may contain anything: fields 14 and 15, counted from 1.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        for at in [11, 12] {
            ticks += fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        }
    }
    Ok(ticks / 100.0)
}

/// The proportional set size of a process and its children, in MiB.
fn memory_mib(pid: u32) -> Result<f64> {
    let mut kib = 0.0;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let family = children.split_whitespace().filter_map(|child| child.parse().ok());
    for pid in std::iter::once(pid).chain(family) {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).map_err(text)?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let value = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib += value.unwrap_or(0.0);
    }
    Ok(kib / 1_024.0)
}

/// How long after the leader was killed the next task starts, wherever it does.
pub(crate) async fn failover(scale: Scale) -> Result<Vec<Figure>> {
    let mut gaps = Vec::new();
    for _ in 0..scale.failovers {
        let mut servers = Servers::start(3, &[]).await?;
        gaps.push(one_failover(&mut servers).await?);
    }
    let mut sorted = gaps.clone();
    Ok(vec![
        Figure::new("F1", 3, "leader killed to next task started, p50", median(&mut gaps), "ms"),
        Figure::new("F1", 3, "the same, worst", percentile(&mut sorted, 100), "ms"),
    ])
}

/// Kills the leader and at once submits to the others, as a client that knows them all would.
async fn one_failover(servers: &mut Servers) -> Result<f64> {
    let ledger = servers.folder().join("failover");
    let (leader, _) = servers.leader().await?;
    servers.kill(leader);
    let killed = now();
    // Its worker held no task, so what is measured is the cluster and not the lease.
    run(&servers.client()?, "failover", format!("run: '{}'\n", stamp(&ledger))).await?;
    let started = starts(&ledger)?.first().copied().ok_or("nothing was started")?;
    Ok((started - killed) * 1_000.0)
}

/// Committed transitions through the session protocol, against puts into etcd.
pub(crate) async fn transitions(nodes: usize, scale: Scale) -> Result<Vec<Figure>> {
    const IN_FLIGHT: u32 = 512;
    let servers = Servers::start(nodes, &["--no-worker"]).await?;
    let client = servers.client()?;
    let (_, leader) = servers.leader().await?;
    let cluster = client.cluster().await.map_err(text)?.id.parse().map_err(text)?;
    let mut source = "tasks:\n".to_owned();
    for at in 0..scale.transitions {
        let _ = writeln!(source, "  - {{id: t{at}, run: 'true'}}");
    }
    let name = "transitions".to_owned();
    let start = Start::of(What::Inline { source, name });
    client.start(&start).await.map_err(text)?;
    let ours =
        crate::transitions::per_second(&leader, cluster, IN_FLIGHT, scale.transitions).await?;
    let puts = match crate::etcd::Etcd::start(nodes).await {
        Some(etcd) => Some(etcd.puts_per_second(IN_FLIGHT as usize, scale.watch).await),
        None => None,
    };
    let measure = "committed transitions, 512 in flight";
    Ok(vec![Figure::new("T1", nodes, measure, ours, "1/s").against("etcd puts", puts)])
}

/// Quiet: nothing of the yardsticks' output is of interest.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = Command::new("uname").arg("-r").stderr(Stdio::null()).output();
    let kernel = kernel.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!("{cores} cores, Linux {}", kernel.unwrap_or_default())
}
