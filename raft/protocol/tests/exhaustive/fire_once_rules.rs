//! What firing once holds, and what each of its rules is for.

use crate::fire_once::{
    Bounds, COMMITTED_FIRST, DECIDED_ONCE, FireModel, NONE_PASSED_OVER, ONE_EFFECT, Rule,
};
use crate::{counterexample, exhaust};

/// Three leaders, and an edit while ticks are due.
const EDITED: Bounds = Bounds { terms: 3, versions: 2, restores: 0, proposals: 3 };

/// Three leaders, and all set back to an older copy.
const RESTORED: Bounds = Bounds { terms: 3, versions: 1, restores: 1, proposals: 3 };

#[test]
fn with_every_rule_each_tick_fires_once() {
    exhaust(FireModel { bounds: EDITED, without: &[] });
}

#[test]
fn set_back_to_an_older_copy_a_tick_is_still_one_run_to_the_world() {
    exhaust(FireModel { bounds: RESTORED, without: &[] });
}

/// Without `rules`, `property` breaks in so many steps and no fewer.
#[track_caller]
fn assert_breaks(rules: &'static [Rule], bounds: Bounds, property: &'static str, fewest: usize) {
    let model = || FireModel { bounds, without: rules };
    let steps = counterexample(model, property, fewest);
    let steps = steps.unwrap_or_else(|| panic!("without {rules:?} still: {property}"));
    assert_eq!(steps.len(), fewest, "without {rules:?}, not \"{property}\": {steps:?}");
    println!("without {rules:?}, not \"{property}\", in {} steps: {steps:?}", steps.len());
}

#[test]
fn a_proposal_that_comes_again_fires_again_unless_apply_looks() {
    assert_breaks(&[Rule::CursorInApply], EDITED, DECIDED_ONCE, 4);
    assert_breaks(&[Rule::CursorInApply], EDITED, NONE_PASSED_OVER, 7);
}

#[test]
fn what_begins_before_it_is_committed_may_never_be() {
    assert_breaks(&[Rule::CommitBeforeAct], EDITED, COMMITTED_FIRST, 2);
    assert_breaks(&[Rule::CommitBeforeAct], EDITED, ONE_EFFECT, 4);
}

#[test]
fn between_two_entries_a_tick_is_lost() {
    assert_breaks(&[Rule::OneEntry], EDITED, NONE_PASSED_OVER, 3);
}

#[test]
fn a_new_version_that_begins_anew_fires_the_same_ticks_again() {
    assert_breaks(&[Rule::CursorOutlivesVersion], EDITED, DECIDED_ONCE, 5);
}

#[test]
fn a_snapshot_without_the_cursor_fires_the_same_ticks_again() {
    assert_breaks(&[Rule::CursorInSnapshot], EDITED, DECIDED_ONCE, 5);
}

/// The cursor alone keeps decisions apart. The id is for whoever knows of a run that the cluster
/// has forgotten: a database with a key, a client whose answer was lost.
#[test]
fn with_an_id_by_chance_a_tick_is_two_runs_to_the_world_once_all_is_set_back() {
    exhaust(FireModel { bounds: EDITED, without: &[Rule::IdFromTick] });
    assert_breaks(&[Rule::IdFromTick], RESTORED, ONE_EFFECT, 9);
}

/// What the id cannot do: it names the version, so that an edit between makes another of it.
#[test]
fn set_back_and_edited_a_tick_is_two_runs_to_the_world() {
    let bounds = Bounds { versions: 2, ..RESTORED };
    assert_breaks(&[], bounds, ONE_EFFECT, 10);
}
