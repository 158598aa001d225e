//! The language of the scripts: one verb for each command, some to look with.
//!
//! ```text
//! put NAME LINE [timeout=MS] [deadline=MS] [on_failure=stop] [expect=VERSION] [TASK=SCRIPT]...   workflows, as in `notation`
//! delete NAME
//! start RUN NAME [LINE] [version=N] [params=JSON] [about=MS] [LABEL=VALUE]...
//!                                          LINE: comes along inline; about: logical time
//! cancel RUN [REASON]
//! pause RUN|WORKFLOW [BY] [REASON] · resume RUN|WORKFLOW [BY] [REASON]
//! register [WORKER] [last=EPOCH] [slots=N] [lease=MS] [containment=C] [LABEL=VALUE]...
//!                                          WORKER: it had this id
//! assign TASK WORKER [epoch=N]             TASK is r1/a, or r1/7 by position
//! fail TASK REASON · pass TASK · skip TASK REASON · branch TASK ARM · ask TASK QUESTION
//! report TASK OUTCOME [attempt=N] [token=N] [worker=W] [epoch=N] [code=N] [outputs=JSON]
//! decide TASK retry|succeeded|failed [BY] [COMMENT] [outputs=JSON]
//! drain WORKER [REASON] · eligible WORKER · withdraw WORKER [epoch=N]
//! clock WORKER sound|unsound [ppm=N] [epoch=N]
//! lease_ends WORKER [released] [epoch=N]
//! tick · prune RUN... · mint
//! go [WORKER]...                           proposes what the planner plans
//! repeat N LINE                            N proposals in one entry; % in LINE counts from 1
//! batch · commit                           the proposals between go into one entry
//! show [RUN] · workers · workflows · ready · deciding · outstanding [WORKER] · timers · keys · plan
//! check · hash · outputs RUN · interventions RUN
//! status NAME LINE... · event NAME LINE... · matrix TASK
//! ```
//!
//! Every proposal takes `at=MS`, which sets the clock for it and those after it. A prefix is
//! an idempotency key: `k1: start r1 etl`. Events are shown by the tag `[events]`; of a plan
//! `[count]` shows the size.
//! The first worker to register in the first entry is w2, for ids begin at 2.

mod matrix;
mod names;
mod propose;
mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use goldenscript::{Command as Line, Context};
use quorate_model::{Attempt, Dispatch, Request, TaskId, UnixMs, WorkerId};

use crate::replicas::Replicas;
use names::Names;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// A script that runs.
#[derive(Default)]
pub(crate) struct Script {
    replicas: Replicas,
    names: Names,
    /// The clock of the leader.
    now: UnixMs,
    /// What every attempt was started with, for reports of it.
    started: BTreeMap<(TaskId, Attempt), Dispatch>,
    /// Proposals that wait for the end of the batch.
    batch: Option<Vec<Request>>,
    /// For `matrix`: names, and the lines that lead there.
    statuses: Vec<(String, Vec<String>)>,
    events: Vec<(String, Vec<String>)>,
}

impl goldenscript::Runner for Script {
    type Command = Line;

    fn run(&mut self, line: &Line, context: &Context) -> Outcome<String> {
        let mut args = line.consume_args();
        if let Some(at) = args.take_key("at") {
            self.now = at.parse()?;
        }
        let out = match line.name.as_str() {
            "show" => self.show(args.next_pos())?,
            "workers" => self.show_workers(),
            "workflows" => self.show_workflows(),
            "ready" => self.replicas.state.ready().map(|task| format!("{task}\n")).collect(),
            "deciding" => self.replicas.state.deciding().map(|task| format!("{task}\n")).collect(),
            "timers" => self.show_timers(),
            "outstanding" => self.show_outstanding(args.next_pos())?,
            "keys" => format!("{} keys\n", self.replicas.state.keys_count()),
            "outputs" => self.show_outputs(args.next_pos())?,
            "plan" if context.tags.contains("count") => {
                format!("{} planned\n", self.planned(&self.workers_named(&mut args)?).len())
            }
            "plan" => self.show_plan(&self.workers_named(&mut args)?),
            "interventions" => self.show_interventions(args.next_pos())?,
            "hash" => self.compare_hashes(),
            "status" => {
                self.statuses.push(matrix::case(&mut args)?);
                String::new()
            }
            "event" => {
                self.events.push(matrix::case(&mut args)?);
                String::new()
            }
            "matrix" => self.matrix(args.next_pos())?,
            "repeat" => self.repeat(&mut args)?,
            "batch" => {
                self.batch = Some(Vec::new());
                String::new()
            }
            "commit" => {
                let requests = self.batch.take().ok_or("no batch to commit")?;
                self.apply(requests, context)
            }
            "go" => {
                let commands = self.planned(&self.workers_named(&mut args)?);
                self.apply(commands.into_iter().map(Request::from).collect(), context)
            }
            verb => {
                let command = self.command(verb, &mut args)?;
                self.propose(command, context)
            }
        };
        args.reject_next()?;
        Ok(self.names.shorten(&out))
    }

    fn end_script(&mut self) -> Outcome<()> {
        self.replicas.agree();
        Ok(())
    }
}

impl Script {
    /// Proposes a line many times in one entry, and says how often each kind of answer came.
    fn repeat(&mut self, args: &mut goldenscript::ArgumentConsumer<'_>) -> Outcome<String> {
        let count: u64 = args.next_pos().ok_or("how often?")?.parse()?;
        let line = args.next_pos().ok_or("which line?")?;
        let mut lines = vec!["batch".to_owned()];
        lines.extend((1..=count).map(|number| line.replace('%', &number.to_string())));
        lines.push("commit".to_owned());
        let answers = self.play(&lines)?;
        let refused = answers.matches("rejected").count();
        Ok(format!("{} answers, {refused} rejected\n", answers.matches('@').count()))
    }

    /// The workers that a line names; all of them if it names none.
    fn workers_named(
        &self,
        args: &mut goldenscript::ArgumentConsumer<'_>,
    ) -> Outcome<BTreeSet<WorkerId>> {
        let mut named = BTreeSet::new();
        while let Some(worker) = args.next_pos() {
            named.insert(worker.parse()?);
        }
        if named.is_empty() {
            named.extend(self.replicas.state.workers().keys());
        }
        Ok(named)
    }
}
