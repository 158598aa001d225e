//! The verbs that propose a command.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use goldenscript::{ArgumentConsumer, Context};
use quorate_model::command::{
    AdvanceClock, AskPerson, AssignTask, CancelRun, DecideTask, DeleteWorkflow, EndLease, FailTask,
    JudgeClock, MintNodeId, PassTask, PauseRun, PauseWorkflow, PruneHistory, PutWorkflow,
    RegisterWorker, ReportTask, ResumeRun, ResumeWorkflow, SetEligibility, SkipTask, StartRun,
    TakeBranch, WithdrawWorker, WorkflowSource,
};
use quorate_model::workflow::{Definition, OnFailure};
use quorate_model::{
    Answer, Applied, Attempt, Command, Containment, Dispatch, DurationMs, Effect, Epoch, Event,
    FencingToken, IdempotencyKey, Json, LeaseEnd, Name, Outcome as Ended, Registration, Reply,
    Request, Trigger, UnixMs, Usage, Verdict, WorkerId,
};
use serde_json::json;

use super::{Outcome, Script, names};
use crate::notation;

type Args<'a> = ArgumentConsumer<'a>;

impl Script {
    /// Proposes a command, or keeps it for the batch.
    pub(super) fn propose(&mut self, command: Command, context: &Context) -> String {
        let key = context.prefix.as_ref().map(|key| IdempotencyKey {
            // A key that is not to be written out: `long` is one byte too long.
            key: match key.as_str() {
                "long" => "k".repeat(quorate_model::KEY_BYTES_MAX + 1),
                "longest" => "k".repeat(quorate_model::KEY_BYTES_MAX),
                "empty" => String::new(),
                other => other.to_owned(),
            },
            request_hash: hash(&command),
        });
        let request = Request { key, command };
        if let Some(batch) = &mut self.batch {
            batch.push(request);
            return String::new();
        }
        self.apply(vec![request], context)
    }

    pub(super) fn apply(&mut self, requests: Vec<Request>, context: &Context) -> String {
        let applied = self.replicas.propose(self.now, requests);
        for effect in &applied.effects {
            if let Effect::Start(dispatch) = effect {
                self.started.insert((dispatch.task, dispatch.attempt), *dispatch);
            }
        }
        let mut out = String::new();
        for answer in &applied.answers {
            let answer = answer_line(answer);
            writeln!(out, "{} {answer}", self.replicas.state.applied()).expect("it is a string");
        }
        out.push_str(&consequences(&applied, context.tags.contains("events")));
        out
    }

    pub(super) fn command(&mut self, verb: &str, args: &mut Args<'_>) -> Outcome<Command> {
        Ok(match verb {
            "put" => Command::PutWorkflow(put(args)?),
            "delete" => Command::DeleteWorkflow(DeleteWorkflow { name: next(args, "name")? }),
            "start" => Command::StartRun(Box::new(self.start(args)?)),
            "cancel" => {
                let run = names::run(required(args, "run")?)?;
                let reason = args.next_pos().unwrap_or_default().to_owned();
                Command::CancelRun(CancelRun { run, reason, by: "ann".to_owned() })
            }
            "pause" | "resume" => intervene(verb, args)?,
            "register" => Command::RegisterWorker(self.register(args)?),
            "assign" => Command::AssignTask(self.assign(args)?),
            "fail" => {
                let task = self.names.task(required(args, "task")?)?;
                let reason = required(args, "reason")?.to_owned();
                Command::FailTask(FailTask { task, reason })
            }
            "pass" => {
                let task = self.names.task(required(args, "task")?)?;
                Command::PassTask(PassTask { task })
            }
            "skip" => {
                let task = self.names.task(required(args, "task")?)?;
                let because = required(args, "reason")?.to_owned();
                Command::SkipTask(SkipTask { task, because })
            }
            "ask" => {
                let task = self.names.task(required(args, "task")?)?;
                let question = required(args, "question")?.to_owned();
                Command::AskPerson(AskPerson { task, question })
            }
            "branch" => {
                let task = self.names.task(required(args, "task")?)?;
                let arm = next(args, "arm")?;
                Command::TakeBranch(TakeBranch { task, arm })
            }
            "report" => Command::ReportTask(self.report(args)?),
            "lease_ends" => Command::EndLease(self.lease_ends(args)?),
            "tick" => Command::AdvanceClock(AdvanceClock {}),
            "decide" => Command::DecideTask(self.decide(args)?),
            "drain" => Command::SetEligibility(eligibility(args, false)?),
            "eligible" => Command::SetEligibility(eligibility(args, true)?),
            "withdraw" => {
                let worker: WorkerId = next(args, "worker")?;
                let epoch = take(args, "epoch")?.unwrap_or_else(|| self.epoch(worker));
                Command::WithdrawWorker(WithdrawWorker { worker, epoch })
            }
            "clock" => {
                let worker: WorkerId = next(args, "worker")?;
                let epoch = take(args, "epoch")?.unwrap_or_else(|| self.epoch(worker));
                let is_sound = required(args, "sound or unsound")? == "sound";
                let drift_ppm = take(args, "ppm")?.unwrap_or_default();
                Command::JudgeClock(JudgeClock { worker, epoch, drift_ppm, is_sound })
            }
            "prune" => {
                let runs: Result<_, _> =
                    std::iter::from_fn(|| args.next_pos()).map(names::run).collect();
                Command::PruneHistory(PruneHistory { runs: runs? })
            }
            "mint" => Command::MintNodeId(MintNodeId {}),
            other => return Err(format!("no verb {other}").into()),
        })
    }

    fn start(&mut self, args: &mut Args<'_>) -> Outcome<StartRun> {
        let run = names::run(required(args, "run")?)?;
        let name: Name = next(args, "workflow")?;
        let state = &self.replicas.state;
        let source = match args.next_pos() {
            Some(line) => WorkflowSource::Inline { name, definition: notation::workflow(line)? },
            None => {
                let latest = || state.workflows().get(&name).map_or(1, |found| found.latest().0);
                let version = take(args, "version")?.unwrap_or_else(latest);
                WorkflowSource::Stored { name, version }
            }
        };
        let definition = match &source {
            WorkflowSource::Inline { definition, .. } => Some(definition.clone()),
            WorkflowSource::Stored { name, version } => {
                let workflow = state.workflows().get(name);
                let id = workflow.and_then(|found| found.versions.get(version));
                id.map(|id| Definition::clone(state.definition(id.definition)))
            }
        };
        // Of a run that is there already the names are known, and stay.
        if let Some(definition) = definition.filter(|_| !state.runs().contains_key(&run)) {
            self.names.add(run, definition.tasks.into_iter().map(|task| task.id).collect());
        }
        let params = match take::<usize>(args, "params_bytes")? {
            Some(bytes) => Json::new(&json!("x".repeat(bytes - 2))),
            None => Json::new(&serde_json::from_str(args.take_key("params").unwrap_or("{}"))?),
        };
        let logical_time = UnixMs(take(args, "about")?.unwrap_or_default());
        let labels = labels(args)?;
        let trigger = Trigger::Manual;
        Ok(StartRun { run, source, params, labels, trigger, logical_time })
    }

    fn assign(&self, args: &mut Args<'_>) -> Outcome<AssignTask> {
        let task = self.names.task(required(args, "task")?)?;
        let worker: WorkerId = next(args, "worker")?;
        let epoch = take(args, "epoch")?.unwrap_or_else(|| self.epoch(worker));
        Ok(AssignTask { task, worker, epoch, rendered: None })
    }

    fn register(&self, args: &mut Args<'_>) -> Outcome<RegisterWorker> {
        let worker: Option<WorkerId> = args.next_pos().map(str::parse).transpose()?;
        let epoch = take(args, "last")?;
        let last = worker.map(|worker| {
            let epoch = epoch.unwrap_or_else(|| self.epoch(worker));
            Registration { worker, epoch }
        });
        let slots = take(args, "slots")?.unwrap_or(1);
        let lease = DurationMs(take(args, "lease")?.unwrap_or(10_000));
        let containment = match args.take_key("containment") {
            Some(text) => containment(text)?,
            None => Containment::Pidns,
        };
        let (name, labels) = (notation::name("node"), labels(args)?);
        Ok(RegisterWorker { last, name, labels, slots, containment, lease })
    }

    fn epoch(&self, worker: WorkerId) -> Epoch {
        self.replicas.state.workers().get(&worker).map_or(Epoch(0), |found| found.epoch)
    }

    /// A report of the latest attempt, or of the one that is named, as its worker would send
    /// it: with what it was started with.
    fn report(&self, args: &mut Args<'_>) -> Outcome<ReportTask> {
        let task = self.names.task(required(args, "task")?)?;
        let outcome = outcome(args)?;
        let latest = self.replicas.state.task(task).map_or(Attempt(0), |t| t.attempts_begun);
        let attempt = take(args, "attempt")?.unwrap_or(latest);
        let nothing = Dispatch {
            task,
            attempt,
            token: FencingToken(0),
            worker: WorkerId(0),
            epoch: Epoch(0),
        };
        let started = self.started.get(&(task, attempt)).copied().unwrap_or(nothing);
        Ok(ReportTask {
            task,
            attempt,
            token: take(args, "token")?.unwrap_or(started.token),
            worker: take(args, "worker")?.unwrap_or(started.worker),
            epoch: take(args, "epoch")?.unwrap_or(started.epoch),
            outcome,
            usage: Usage::default(),
        })
    }

    fn decide(&self, args: &mut Args<'_>) -> Outcome<DecideTask> {
        let task = self.names.task(required(args, "task")?)?;
        let verdict = match required(args, "verdict")? {
            "retry" => Verdict::Retry,
            "succeeded" => Verdict::Succeeded,
            "failed" => Verdict::Failed,
            other => return Err(format!("no verdict {other}").into()),
        };
        let outputs = outputs(args)?;
        let (by, comment) = (args.next_pos().unwrap_or("ann"), args.next_pos().unwrap_or_default());
        Ok(DecideTask { task, verdict, outputs, by: by.to_owned(), comment: comment.to_owned() })
    }

    fn lease_ends(&self, args: &mut Args<'_>) -> Outcome<EndLease> {
        let worker: WorkerId = next(args, "worker")?;
        let cause = match args.next_pos() {
            Some("released") => LeaseEnd::Released,
            None => LeaseEnd::Expired,
            Some(other) => return Err(format!("no cause {other}").into()),
        };
        let epoch = take(args, "epoch")?.unwrap_or_else(|| self.epoch(worker));
        Ok(EndLease { worker, epoch, cause })
    }
}

/// Pauses or resumes a run, or a workflow.
fn intervene(verb: &str, args: &mut Args<'_>) -> Outcome<Command> {
    let what = required(args, "run or workflow")?;
    let by = args.next_pos().unwrap_or("ann").to_owned();
    let reason = args.next_pos().unwrap_or_default().to_owned();
    Ok(match (verb, names::run(what)) {
        ("pause", Ok(run)) => Command::PauseRun(PauseRun { run, by, reason }),
        ("pause", Err(_)) => {
            Command::PauseWorkflow(PauseWorkflow { workflow: what.parse()?, by, reason })
        }
        (_, Ok(run)) => Command::ResumeRun(ResumeRun { run, by, reason }),
        (_, Err(_)) => Command::ResumeWorkflow(ResumeWorkflow { workflow: what.parse()? }),
    })
}

fn eligibility(args: &mut Args<'_>, is_eligible: bool) -> Outcome<SetEligibility> {
    let worker = next(args, "worker")?;
    let reason = args.next_pos().unwrap_or_default().to_owned();
    Ok(SetEligibility { worker, is_eligible, reason, by: "ann".to_owned() })
}

fn put(args: &mut Args<'_>) -> Outcome<PutWorkflow> {
    let name = next(args, "name")?;
    let mut definition = notation::workflow(required(args, "tasks")?)?;
    definition.timeout = take(args, "timeout")?.map(DurationMs);
    definition.deadline = take(args, "deadline")?.map(DurationMs);
    if args.take_key("on_failure") == Some("stop") {
        definition.on_failure = OnFailure::Stop;
    }
    let expected_version = take(args, "expect")?;
    if let Some(script) = args.take_key("output") {
        definition.outputs.insert(notation::name("out"), script.to_owned());
    }
    if let Some(value) = args.take_key("env") {
        definition.env.insert("VALUE".to_owned(), value.to_owned());
    }
    if let Some(bytes) = take(args, "env_bytes")? {
        definition.env.insert("VALUE".to_owned(), "x".repeat(bytes));
    }
    while let Some((task, script)) = args.next_key() {
        let position = definition.position(task).ok_or_else(|| format!("no task {task}"))?;
        definition.tasks[position].action = notation::script(script);
    }
    Ok(PutWorkflow { name, definition, expected_version })
}

fn outcome(args: &mut Args<'_>) -> Outcome<Ended> {
    Ok(match required(args, "outcome")? {
        "succeeded" => Ended::Succeeded { outputs: outputs(args)? },
        "exited" => Ended::Exited { code: take(args, "code")?.unwrap_or(1) },
        "signalled" => Ended::Signalled { signal: 9 },
        "broken" => Ended::Broken { reason: "no such shell".to_owned() },
        "stopped" => Ended::Stopped,
        "returned" => Ended::Returned,
        "lost" => Ended::Lost,
        other => return Err(format!("no outcome {other}").into()),
    })
}

fn outputs(args: &mut Args<'_>) -> Outcome<Option<Json>> {
    let outputs = match take::<usize>(args, "outputs_bytes")? {
        Some(bytes) => Some(json!("x".repeat(bytes - 2))),
        None => args.take_key("outputs").map(serde_json::from_str).transpose()?,
    };
    Ok(outputs.as_ref().map(Json::new))
}

fn containment(text: &str) -> Outcome<Containment> {
    let known = Containment::ALL.into_iter().find(|known| known.text() == text);
    Ok(known.ok_or_else(|| format!("no containment {text}"))?)
}

/// What is left of the keys of a line.
fn labels(args: &mut Args<'_>) -> Outcome<BTreeMap<Name, String>> {
    let mut labels = BTreeMap::new();
    while let Some((name, value)) = args.next_key() {
        labels.insert(name.parse()?, value.to_owned());
    }
    Ok(labels)
}

fn required<'a>(args: &mut Args<'a>, what: &str) -> Outcome<&'a str> {
    Ok(args.next_pos().ok_or_else(|| format!("which {what}?"))?)
}

fn next<T: FromStr<Err: std::error::Error + 'static>>(
    args: &mut Args<'_>,
    what: &str,
) -> Outcome<T> {
    Ok(required(args, what)?.parse()?)
}

fn take<T: FromStr<Err: std::error::Error + 'static>>(
    args: &mut Args<'_>,
    key: &str,
) -> Outcome<Option<T>> {
    Ok(args.take_key(key).map(str::parse).transpose()?)
}

/// Tells two requests apart, as the edge does by their bodies.
fn hash(command: &Command) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    format!("{command:?}").hash(&mut hasher);
    hasher.finish()
}

fn answer_line(answer: &Answer) -> String {
    let said = match &answer.reply {
        Ok(Reply::Done) => "done".to_owned(),
        Ok(Reply::WorkflowPut { version, changed: true }) => format!("put as version {version}"),
        Ok(Reply::WorkflowPut { version, changed: false }) => format!("is version {version}"),
        Ok(Reply::RunStarted { run, version }) => format!("started {run}, version {version}"),
        Ok(Reply::Assigned { attempt, token }) => format!("assigned {attempt} {token}"),
        Ok(Reply::Registered { worker, epoch }) => format!("registered {worker}/{epoch}"),
        Ok(Reply::Minted { id }) => format!("minted {id}"),
        Err(rejection) => format!("rejected: {rejection}"),
    };
    // A long key is quoted in full, and long.
    let said = said.replace(&"k".repeat(quorate_model::KEY_BYTES_MAX), "kkk...");
    if answer.replayed { format!("{said} (as before)") } else { said }
}

fn consequences(applied: &Applied, events: bool) -> String {
    let effects = applied.effects.iter().map(|effect| format!("  → {effect}\n"));
    let retired = applied.retired.iter().map(|old| format!("  retired {}\n", old.id));
    let pruned = applied.pruned.iter().map(|run| format!("  pruned {run}\n"));
    let events = applied.events.iter().filter(|_| events).map(event_line);
    effects.chain(retired).chain(pruned).chain(events).collect()
}

fn event_line(event: &Event) -> String {
    match event {
        Event::Run(run) => format!("  event: run {run}\n"),
        Event::Task(task) => format!("  event: task {task}\n"),
        Event::Workflows => "  event: workflows\n".to_owned(),
        Event::Worker(worker) => format!("  event: worker {worker}\n"),
    }
}
