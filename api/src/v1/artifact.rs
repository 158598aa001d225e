//! Files that the tasks of a run have left.

use axum::http::HeaderValue;
use futures_util::future::join_all;
use quorate_model::{Attempt, Retired, RunId, TaskEnd, TaskId, TaskStatus};

use super::file::{Source, send};
use super::run;
use crate::answer::{Answered, At, found};
use crate::error::{Code, Failure};
use crate::feed::Topic;
use crate::request::Call;
use crate::view::ArtifactView;
use crate::wait::READ;

/// `GET /v1/runs/{run}/artifacts`: by task and in the order of the workflow.
pub(super) async fn list(At(id): At<RunId>, call: Call) -> Answered {
    let query = call.query(&["limit", "page_token", READ[0], READ[1], READ[2]])?;
    let (limit, position) = (query.limit()?, query.page_position()?);
    let from = position.and_then(|position| Some(u64::from_be_bytes(position.try_into().ok()?)));
    let from = from.and_then(|from| usize::try_from(from).ok()).unwrap_or(0);
    let (index, run) = call.read(query, Topic::Run(id), || run::look(&call.edge, id)).await?;
    let all = left(&run);
    let to = all.len().min(from.saturating_add(limit));
    let views = all.get(from..to).unwrap_or_default().iter().map(|file| async {
        let size = file.source(&run).size(&call.edge).await.ok();
        file.view(&run, size)
    });
    let items = join_all(views).await.into_iter().flatten().collect();
    let end = (to < all.len()).then(|| (to as u64).to_be_bytes());
    let page = query.page::<ArtifactView>(items, end.as_ref().map(|end| &end[..]));
    Ok(found(index, &page))
}

/// `GET /v1/runs/{run}/artifacts/{path}`: a file; `?task=` where several left one of the name.
pub(super) async fn get(At((id, path)): At<(RunId, String)>, call: Call) -> Answered {
    let query = call.query(&["task", "stale"])?;
    let task = query.one("task")?;
    call.refresh(query).await?;
    let run = run::find(&call.edge, id)?;
    let name = |file: &Left<'_>| run.definition.tasks[file.position].id.as_str();
    let mut files = left(&run);
    files.retain(|file| file.path == path && task.is_none_or(|task| name(file) == task));
    match &files[..] {
        [file] => send(&call, file.source(&run), media(&path)).await,
        [] => Err(Failure::new(Code::NoSuchFile, format!("run {id} has left no file {path}"))),
        several => {
            let tasks: Vec<&str> = several.iter().map(name).collect();
            let detail = format!("say which with ?task=: {} left a {path}", tasks.join(", "));
            Err(Failure::new(Code::AmbiguousFile, detail).of_run(id))
        }
    }
}

/// A file that a task has left: tasks keep theirs when they succeed.
#[derive(Clone, Copy, Debug)]
struct Left<'a> {
    position: usize,
    attempt: Attempt,
    path: &'a str,
}

fn left(run: &Retired) -> Vec<Left<'_>> {
    let tasks = run.run.tasks.iter().zip(&run.definition.tasks).enumerate();
    let succeeded = tasks.filter(|(_, (task, _))| {
        task.status == TaskStatus::Ended(TaskEnd::Succeeded) && task.attempts_begun.0 > 0
    });
    let files = succeeded.flat_map(|(position, (task, said))| {
        let attempt = task.attempts_begun;
        said.artifacts.iter().map(move |path| Left { position, attempt, path })
    });
    files.collect()
}

impl Left<'_> {
    fn source(self, run: &Retired) -> Source {
        let task = TaskId::new(run.id, self.position);
        Source { task, attempt: self.attempt, artifact: Some(self.path.to_owned()) }
    }

    fn view(self, run: &Retired, size: Option<u64>) -> Option<ArtifactView> {
        let task = run.definition.tasks.get(self.position)?.id.clone();
        Some(ArtifactView { path: self.path.to_owned(), task, attempt: self.attempt.0, size })
    }
}

/// What a file likely is. Nothing that a browser would execute.
fn media(path: &str) -> HeaderValue {
    let ending = path.rsplit_once('.').map(|(_, ending)| ending);
    HeaderValue::from_static(match ending {
        Some("md") => "text/markdown; charset=utf-8",
        Some("csv") => "text/csv; charset=utf-8",
        Some("json") => "application/json",
        Some("txt" | "log" | "tsv" | "yaml" | "yml" | "html") => "text/plain; charset=utf-8",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("pdf") => "application/pdf",
        Some(_) | None => "application/octet-stream",
    })
}
