//! How many transitions of tasks the cluster commits: a worker that does nothing, at once.
//!
//! It speaks the session protocol like any other, with as many slots as there are to be
//! transitions in flight, and reports each task as soon as it is told to start it. So every
//! task is two committed transitions, assigned and ended, and no process is started.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::protocol::{FromWorker, ToWorker};
use quorate_model::command::ReportTask;
use quorate_model::{Containment, Outcome, Usage};
use quorate_raft::ClusterId;
use quorate_raft::codec::{self, Service};

/// How long the leader may take to answer anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Registers with `slots` at the leader, ends `tasks` tasks as fast as they come, and answers
/// how many transitions that were a second.
pub(crate) async fn per_second(
    leader: &str,
    cluster: ClusterId,
    slots: u32,
    tasks: u64,
) -> Result<f64, String> {
    let connection = codec::connect(leader, cluster, Service::Worker, PATIENCE)
        .await
        .map_err(|error| error.to_string())?;
    let (mut reader, mut writer) = connection.split();
    let name = "bench".parse().map_err(|_| "a worker's name is a name")?;
    let (last, labels) = (None, BTreeMap::new());
    let containment = Containment::Pgroup;
    let register = FromWorker::Register { last, name, labels, slots, containment };
    writer.send(&register).await.map_err(|error| error.to_string())?;
    let (mut recorded, mut sequence, mut begun) = (0, 0, None);
    while recorded < tasks {
        let next = tokio::time::timeout(PATIENCE, reader.next::<ToWorker>()).await;
        let said =
            next.map_err(|_| "the leader went silent")?.map_err(|error| error.to_string())?;
        match said.ok_or("the leader hung up")? {
            ToWorker::Start(start) => {
                begun.get_or_insert_with(Instant::now);
                sequence += 1;
                let report = done(start.dispatch);
                let report = FromWorker::Report { sequence, report };
                writer.send(&report).await.map_err(|error| error.to_string())?;
            }
            ToWorker::Recorded { .. } => recorded += 1,
            ToWorker::Registered { .. } | ToWorker::Renewed { .. } | ToWorker::Read { .. } => {}
            other @ (ToWorker::NotLeader { .. }
            | ToWorker::Refused { .. }
            | ToWorker::Stop { .. }) => return Err(format!("unexpected: {other:?}")),
        }
    }
    let begun = begun.ok_or("nothing was started")?;
    Ok(crate::report::ratio(2 * tasks, begun.elapsed()))
}

fn done(dispatch: quorate_model::Dispatch) -> ReportTask {
    ReportTask {
        task: dispatch.task,
        attempt: dispatch.attempt,
        token: dispatch.token,
        worker: dispatch.worker,
        epoch: dispatch.epoch,
        outcome: Outcome::Succeeded { outputs: None },
        usage: Usage::default(),
    }
}
