//! The verbs that look.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use quorate_model::{
    AttemptRecord, Command, Containment, Decision, Intervention, Outcome as Ended, Pause,
    PauseScope, Run, RunId, RunStatus, RunStop, State, Task, TaskStatus, WorkerId, WorkerStatus,
    plan,
};

use super::{Outcome, Script, names};

impl Script {
    fn state(&self) -> &State {
        &self.replicas.state
    }

    pub(super) fn show(&self, run: Option<&str>) -> Outcome<String> {
        let only = run.map(names::run).transpose()?;
        let mut out = String::new();
        for (id, run) in self.state().runs() {
            if only.is_none_or(|only| only == *id) {
                self.show_run(&mut out, *id, run)?;
            }
        }
        Ok(if out.is_empty() { "no runs\n".to_owned() } else { out })
    }

    fn show_run(&self, out: &mut String, id: RunId, run: &Run) -> Outcome<()> {
        let Run { workflow, version, status, .. } = run;
        let stop = match status {
            RunStatus::Stopping(stop)
            | RunStatus::Ending { stop: Some(stop), .. }
            | RunStatus::Ended { stop: Some(stop), .. } => match stop {
                RunStop::Cancelled { reason } => format!(" (cancelled: {reason:?})"),
                RunStop::TimedOut => " (timed out)".to_owned(),
                RunStop::Failed { task } => format!(" ({task} failed)"),
            },
            RunStatus::Running
            | RunStatus::Ending { stop: None, .. }
            | RunStatus::Ended { stop: None, .. } => String::new(),
        };
        let pause = pause(run.pause.as_ref());
        let late = run.late.map(|mark| format!(", late at {}", mark.at)).unwrap_or_default();
        writeln!(out, "{id} {workflow}@{version} {status}{stop}{pause}{late}")?;
        let definition = self.state().definition(run.definition);
        for (task, said) in run.tasks.iter().zip(&definition.tasks) {
            writeln!(out, "  {}: {}", said.id, task_line(task))?;
        }
        Ok(())
    }

    pub(super) fn show_workers(&self) -> String {
        let line = |(id, worker): (&WorkerId, &quorate_model::Worker)| {
            let running: Vec<String> = worker.running.iter().map(ToString::to_string).collect();
            let status = match worker.status {
                WorkerStatus::Live => format!("{} free", worker.slots_free()),
                WorkerStatus::Gone { mark, cause } => format!("gone at {}: {cause:?}", mark.at),
            };
            // The usual in scripts goes without saying.
            let containment = match worker.containment {
                Containment::Pidns => "",
                Containment::Cgroup => " cgroup",
                Containment::Pgroup => " pgroup",
            };
            let bars = bars(worker);
            format!("{id}/{} {status} [{}]{containment}{bars}\n", worker.epoch, running.join(" "))
        };
        self.state().workers().iter().map(line).collect()
    }

    pub(super) fn show_workflows(&self) -> String {
        let line =
            |(name, workflow): (&quorate_model::Name, &quorate_model::workflow::Workflow)| {
                let (first, latest) = (workflow.versions.keys().next(), workflow.latest().0);
                let (first, pause) = (
                    first.copied().unwrap_or_default(),
                    pause(workflow.pause.as_ref()).replace(" with its workflow", ""),
                );
                format!("{name} versions {first} to {latest}{pause}\n")
            };
        self.state().workflows().iter().map(line).collect()
    }

    pub(super) fn show_timers(&self) -> String {
        match self.state().next_deadline() {
            Some(at) => format!("next at {at}\n"),
            None => "no timers\n".to_owned(),
        }
    }

    pub(super) fn show_outstanding(&self, worker: Option<&str>) -> Outcome<String> {
        let effects = match worker {
            Some(worker) => self.state().outstanding_of(worker.parse()?),
            None => self.state().outstanding(),
        };
        let lines: String = effects.iter().map(|effect| format!("{effect}\n")).collect();
        Ok(if lines.is_empty() { "nothing\n".to_owned() } else { lines })
    }

    pub(super) fn show_outputs(&self, run: Option<&str>) -> Outcome<String> {
        let id = names::run(run.ok_or("which run?")?)?;
        let run = self.state().runs().get(&id).ok_or("not live")?;
        let definition = self.state().definition(run.definition);
        Ok(format!("{}\n", plan::render_outputs(definition, id, run)))
    }

    pub(super) fn show_interventions(&self, run: Option<&str>) -> Outcome<String> {
        let id = names::run(run.ok_or("which run?")?)?;
        let run = self.state().runs().get(&id).ok_or("not live")?;
        let line = |Intervention { act, by, reason, mark }: &Intervention| {
            format!("{} {by}: {act} {reason:?}\n", mark.index)
        };
        Ok(run.interventions.iter().map(line).collect())
    }

    pub(super) fn planned(&self, connected: &BTreeSet<WorkerId>) -> Vec<Command> {
        plan::decisions(self.state(), connected)
    }

    pub(super) fn show_plan(&self, connected: &BTreeSet<WorkerId>) -> String {
        let lines: String = self.planned(connected).iter().map(plan_line).collect();
        if lines.is_empty() { "nothing\n".to_owned() } else { lines }
    }

    /// The hash itself may change with the compiler; that replicas have the same may not.
    pub(super) fn compare_hashes(&self) -> String {
        self.replicas.agree();
        "the same\n".to_owned()
    }
}

fn pause(pause: Option<&Pause>) -> String {
    let line = |Pause { scope, by, reason, .. }: &Pause| match scope {
        PauseScope::Run => format!(", paused by {by}: {reason:?}"),
        PauseScope::Workflow => format!(", paused with its workflow by {by}: {reason:?}"),
    };
    pause.map(line).unwrap_or_default()
}

/// What speaks against giving a worker work.
fn bars(worker: &quorate_model::Worker) -> String {
    let drain = worker.drain.as_ref();
    let drain = drain.map(|drain| format!(", drained by {}: {:?}", drain.by, drain.reason));
    let leaving = worker.leaving.map(|_| ", leaving".to_owned());
    let quarantine = worker.quarantine.map(|found| format!(", drifts {} ppm", found.drift_ppm));
    [drain, leaving, quarantine].into_iter().flatten().collect()
}

fn plan_line(command: &Command) -> String {
    match command {
        Command::AssignTask(assign) => {
            let rendered = assign.rendered.as_ref();
            let told = rendered.map(|told| format!(": {} {:?}", told.params, told.env));
            format!("assign {} to {}{}\n", assign.task, assign.worker, told.unwrap_or_default())
        }
        Command::PassTask(pass) => format!("pass {}\n", pass.task),
        Command::SkipTask(skip) => format!("skip {}: {}\n", skip.task, skip.because),
        Command::AskPerson(ask) => format!("ask {}: {}\n", ask.task, ask.question),
        Command::TakeBranch(take) => format!("branch {} {}\n", take.task, take.arm),
        Command::FailTask(fail) => format!("fail {}: {}\n", fail.task, fail.reason),
        Command::PutWorkflow(_)
        | Command::DeleteWorkflow(_)
        | Command::StartRun(_)
        | Command::CancelRun(_)
        | Command::ReportTask(_)
        | Command::RegisterWorker(_)
        | Command::EndLease(_)
        | Command::AdvanceClock(_)
        | Command::PruneHistory(_)
        | Command::MintNodeId(_)
        | Command::DecideTask(_)
        | Command::SetEligibility(_)
        | Command::WithdrawWorker(_)
        | Command::JudgeClock(_)
        | Command::PauseRun(_)
        | Command::ResumeRun(_)
        | Command::PauseWorkflow(_)
        | Command::ResumeWorkflow(_) => unreachable!("the planner proposes nothing else"),
    }
}

pub(super) fn task_line(task: &Task) -> String {
    let mut out = task.status.to_string();
    if let TaskStatus::Waiting(tally) = task.status {
        let (s, f, k) = (tally.succeeded, tally.failed, tally.skipped);
        let _ = write!(out, " ({s} succeeded, {f} failed, {k} skipped)");
        if tally.untaken > 0 {
            let _ = write!(out, ", {} of them untaken", tally.untaken);
        }
    }
    if let Some(why) = task.flight().and_then(|flight| flight.stop) {
        let _ = write!(out, ", told to stop: {why:?}");
    }
    if !task.attempts.is_empty() {
        let records: Vec<String> = task.attempts.iter().map(record).collect();
        let _ = write!(out, " after {}", records.join(", "));
    }
    if let Some(Decision { verdict, by, comment, .. }) = &task.decision {
        let _ = write!(out, "; {by} decided {verdict} {comment:?}");
    }
    if let Some(mark) = task.late {
        let _ = write!(out, "; late at {}", mark.at);
    }
    if let Some(question) = &task.question {
        let _ = write!(out, "; {question:?}");
    }
    if let Some(arm) = task.branch {
        let _ = write!(out, "; took arm {arm}");
    }
    if let Some(note) = &task.note {
        let _ = write!(out, "; {note}");
    }
    if let Some(outputs) = &task.outputs {
        let _ = write!(out, "; put out {outputs}");
    }
    out
}

fn record(past: &AttemptRecord) -> String {
    let outcome = match &past.outcome {
        Ended::Succeeded { .. } => "succeeded".to_owned(),
        Ended::Exited { code } => format!("exited {code}"),
        Ended::Signalled { signal } => format!("signal {signal}"),
        Ended::Broken { reason } => format!("broken ({reason})"),
        Ended::Stopped => "stopped".to_owned(),
        Ended::Returned => "returned".to_owned(),
        Ended::Lost => "lost".to_owned(),
    };
    let late = if past.late { " late" } else { "" };
    format!("{} {outcome}{late}", past.attempt)
}
