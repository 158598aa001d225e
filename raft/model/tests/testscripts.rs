//! Runs the goldenscripts in `testscripts/`: commands in, transcript out.
//! Regenerate with `UPDATE_GOLDENFILES=1 cargo test`, then read the diff.

mod notation;
mod replicas;
mod script;

use test_each_file::test_each_path;

test_each_path! { in "./raft/model/testscripts" => run_script }

fn run_script(path: &std::path::Path) {
    goldenscript::run(&mut script::Script::default(), path).expect("script failed");
}
