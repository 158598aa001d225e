//! Broken input for what reads the texts of people and of tasks.

mod document;
mod format;
mod lines;

use std::fs;
use std::path::{Path, PathBuf};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz").join(target)
}

/// What the tests of the format read.
fn documents() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.join("testdata/spec"), root.join("../examples")];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("it is there"));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "yaml" || kind == "json"));
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("it can be read")).collect()
}
