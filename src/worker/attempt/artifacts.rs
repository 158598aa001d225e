//! The files of a task that are kept.

use std::fs;
use std::io;
use std::path::{Component, Path};

use super::place::Place;
use super::workspace::Workspace;

/// Artifacts of one attempt: more would be a case for an archive.
const ARTIFACTS_MAX: usize = 1_000;

/// Moves the artifacts of an attempt that succeeded out of its working directory.
///
/// Nothing of the task runs any more, so what is checked here stays so.
///
/// # Errors
///
/// In words for people, if one is not there, or is no regular file within the directory.
pub(super) fn keep(workspace: &Workspace, place: &Place, paths: &[String]) -> Result<(), String> {
    if paths.len() > ARTIFACTS_MAX {
        return Err(format!(
            "{} artifacts are asked for; {ARTIFACTS_MAX} is the most",
            paths.len()
        ));
    }
    let (work, kept) = (workspace.work(), place.artifacts());
    if !paths.is_empty() {
        // It must be new: in one that is there already, anything may be a link.
        place
            .create()
            .and_then(|()| fs::create_dir(&kept))
            .map_err(|error| format!("artifacts cannot be kept: {error}"))?;
    }
    for path in paths {
        let from = find(&work, path).map_err(|reason| format!("the artifact {path:?} {reason}"))?;
        let to = kept.join(path);
        let moved =
            to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::rename(from, to));
        moved.map_err(|error| format!("the artifact {path:?} cannot be kept: {error}"))?;
    }
    Ok(())
}

/// The regular file at `path` below `root`, reached without a link and without leaving it.
///
/// # Errors
///
/// What it is instead, to be put behind its name.
pub(crate) fn find(root: &Path, path: &str) -> Result<std::path::PathBuf, String> {
    let mut found = root.to_path_buf();
    if fs::symlink_metadata(root).is_ok_and(|root| root.is_symlink()) {
        return Err("lies behind a symbolic link".to_owned());
    }
    let mut kind = None;
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => found.push(name),
            Component::CurDir => continue,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err("leads out of the working directory".to_owned());
            }
        }
        let file_type = match fs::symlink_metadata(&found) {
            Ok(metadata) => metadata.file_type(),
            Err(error) if is_absence(&error) => return Err("does not exist".to_owned()),
            Err(error) => return Err(format!("cannot be read: {error}")),
        };
        if file_type.is_symlink() {
            return Err("is, or lies behind, a symbolic link".to_owned());
        }
        kind = Some(file_type);
    }
    match kind {
        Some(kind) if kind.is_file() => Ok(found),
        Some(_) | None => Err("is not a regular file".to_owned()),
    }
}

fn is_absence(error: &io::Error) -> bool {
    // InvalidInput: a NUL, which no name can have.
    let absent =
        [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory, io::ErrorKind::InvalidInput];
    absent.contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use quorate_model::{Attempt, TaskId};

    use super::super::workspace::Workspaces;
    use super::*;

    fn place(dir: &tempfile::TempDir) -> (Workspace, Place) {
        let place = Place::of(dir.path(), TaskId::default(), Attempt(1));
        let workspace = Workspaces::new(dir.path().join("workspaces")).take().unwrap();
        fs::write(dir.path().join("secret"), "s").unwrap();
        let work = workspace.work();
        fs::create_dir(work.join("sub")).unwrap();
        fs::write(work.join("a.csv"), "a").unwrap();
        fs::write(work.join("sub/b.csv"), "b").unwrap();
        symlink(dir.path().join("secret"), work.join("link")).unwrap();
        symlink(dir.path(), work.join("linked")).unwrap();
        (workspace, place)
    }

    #[test]
    fn keeps_files_also_from_below() {
        let dir = tempfile::tempdir().unwrap();
        let (workspace, place) = place(&dir);
        keep(&workspace, &place, &["a.csv".into(), "./sub/b.csv".into()]).unwrap();
        assert_eq!(fs::read(place.artifacts().join("a.csv")).unwrap(), b"a");
        assert_eq!(fs::read(place.artifacts().join("sub/b.csv")).unwrap(), b"b");
        assert!(!workspace.work().join("a.csv").exists());
    }

    #[test]
    fn refuses_every_way_out_and_what_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let (workspace, place) = place(&dir);
        for (path, word) in [
            ("../output", "leads out"),
            ("sub/../../script", "leads out"),
            ("/etc/passwd", "leads out"),
            ("link", "symbolic link"),
            ("linked/secret", "symbolic link"),
            ("sub", "not a regular file"),
            ("", "not a regular file"),
            (".", "not a regular file"),
            ("missing", "does not exist"),
            ("a.csv/x", "does not exist"),
            ("a\0", "does not exist"),
        ] {
            let reason = keep(&workspace, &place, &[path.to_owned()]).unwrap_err();
            assert!(reason.contains(word), "{path:?}: {reason}");
            fs::remove_dir(place.artifacts()).unwrap();
        }
        symlink(dir.path(), place.artifacts()).unwrap();
        let reason = keep(&workspace, &place, &["a.csv".to_owned()]).unwrap_err();
        assert!(reason.contains("cannot be kept"), "{reason}");
        assert!(dir.path().join("secret").exists());
    }
}
