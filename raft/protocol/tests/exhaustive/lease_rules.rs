//! What the lease protocol holds, and what each of its rules is for.

use stateright::Checker as _;

use crate::lease::{
    ACCOUNTED_FOR, AUTHORISED, Bounds, LeaseModel, Rule, SINGLE_EXECUTION, STARTS_ONCE,
};
use crate::{counterexample, exhaust};

/// One leader after another, one registration after another, a restart of the agent, and the
/// task given to both workers.
const BOUNDS: Bounds = Bounds { terms: 2, attempts: 2, registrations: 2, restarts: 1, messages: 2 };

/// Where neither a second registration nor a restart is needed to go wrong.
const PLAIN: Bounds = Bounds { registrations: 1, restarts: 0, ..BOUNDS };

/// Where the agent restarts, and does not register anew.
const RESTARTED: Bounds = Bounds { restarts: 1, ..PLAIN };

/// Where it registers anew, and does not restart.
const REGISTERED: Bounds = Bounds { registrations: 2, ..PLAIN };

/// `QUORATE_BOUNDS=terms,attempts,registrations,restarts,messages`, to go further.
fn bounds() -> Bounds {
    let Ok(text) = std::env::var("QUORATE_BOUNDS") else { return BOUNDS };
    let numbers: Vec<u8> = text.split(',').map(|part| part.parse().expect("a number")).collect();
    let [terms, attempts, registrations, restarts, messages] = numbers[..] else {
        panic!("five numbers, not {text:?}");
    };
    assert!((1..=3).contains(&terms) && attempts <= 7 && registrations <= 7, "too far: {text:?}");
    Bounds { terms, attempts, registrations, restarts, messages: messages.into() }
}

#[test]
fn with_every_rule_nothing_goes_wrong() {
    let bounds = bounds();
    println!("{bounds:?}");
    let checker = exhaust(LeaseModel::new(bounds, &[]));
    let missed = checker.model().missed();
    assert!(missed.is_empty(), "the model never came to {missed:?}");
}

/// Without `rules`, each property breaks in so many steps and no fewer. Ticks count as steps.
#[track_caller]
fn assert_breaks(rules: &'static [Rule], bounds: Bounds, broken: &[(&'static str, usize)]) {
    for &(property, fewest) in broken {
        let steps = counterexample(|| LeaseModel::new(bounds, rules), property, fewest);
        let steps = steps.unwrap_or_else(|| panic!("without {rules:?} still: {property}"));
        assert_eq!(steps.len(), fewest, "without {rules:?}, not \"{property}\": {steps:?}");
        println!("without {rules:?}, not \"{property}\", in {} steps: {steps:?}", steps.len());
    }
}

#[test]
fn counted_from_the_answer_a_lease_outlasts_what_the_leader_knows() {
    assert_breaks(&[Rule::CountFromSend], PLAIN, &[(ACCOUNTED_FOR, 4), (SINGLE_EXECUTION, 13)]);
}

/// That nothing revives a lease, and that none is granted while it is ending, stand in for each
/// other: an answer can come too late only after the worker's deadline, for the leader has waited
/// for that. One of the two is enough to keep attempts apart; we have both.
#[test]
fn a_lease_that_comes_back_while_it_is_ending_outlives_it() {
    let both = &[Rule::NeverRevive, Rule::MarkEnding];
    assert_breaks(both, PLAIN, &[(ACCOUNTED_FOR, 9), (SINGLE_EXECUTION, 13)]);
    exhaust(LeaseModel::new(REGISTERED, &[Rule::MarkEnding]));
    exhaust(LeaseModel::new(REGISTERED, &[Rule::NeverRevive]));
}

/// But a restarted agent does not know what was killed at the deadline: were the lease to come
/// back, so would the order to start it.
#[test]
fn a_lease_that_comes_back_starts_again_what_was_killed() {
    assert_breaks(&[Rule::NeverRevive], RESTARTED, &[(STARTS_ONCE, 14)]);
}

#[test]
fn a_deposed_leader_that_asks_no_quorum_extends_what_the_next_has_ended() {
    assert_breaks(
        &[Rule::QuorumBeforeRenewal],
        PLAIN,
        &[(ACCOUNTED_FOR, 5), (SINGLE_EXECUTION, 14)],
    );
}

#[test]
fn without_either_margin_the_leader_is_too_early() {
    assert_breaks(&[Rule::DriftMargin], PLAIN, &[(SINGLE_EXECUTION, 9)]);
    assert_breaks(&[Rule::KillMargin], PLAIN, &[(SINGLE_EXECUTION, 9)]);
}

#[test]
fn a_new_leader_that_does_not_wait_knows_nothing_of_what_the_last_granted() {
    assert_breaks(&[Rule::NewLeaderWaits], PLAIN, &[(SINGLE_EXECUTION, 7)]);
}

#[test]
fn a_deposed_leader_that_acts_before_it_commits_starts_what_runs_elsewhere() {
    assert_breaks(&[Rule::CommitBeforeAct], PLAIN, &[(AUTHORISED, 7), (SINGLE_EXECUTION, 13)]);
}

#[test]
fn an_order_that_comes_after_the_deadline_must_not_start_anything() {
    assert_breaks(&[Rule::StartInsideLease], PLAIN, &[(SINGLE_EXECUTION, 10)]);
}

#[test]
fn an_order_that_comes_again_must_not_start_anything() {
    assert_breaks(&[Rule::StartOnce], PLAIN, &[(STARTS_ONCE, 5), (SINGLE_EXECUTION, 7)]);
}

#[test]
fn an_order_for_an_older_registration_must_not_start_anything() {
    assert_breaks(&[Rule::OwnEpoch], REGISTERED, &[(SINGLE_EXECUTION, 6)]);
}

#[test]
fn what_is_not_killed_at_the_deadline_runs_beside_its_successor() {
    assert_breaks(&[Rule::KillAtDeadline], PLAIN, &[(SINGLE_EXECUTION, 10)]);
}

#[test]
fn what_is_released_must_not_run() {
    assert_breaks(&[Rule::ReleaseWhenQuiet], PLAIN, &[(SINGLE_EXECUTION, 6)]);
}

/// The keeper outlives the agent, and with it the lease. An agent that says a release and is
/// restarted must not find that lease and go on with it: the release may yet be on its way.
#[test]
fn what_was_released_is_not_resumed() {
    assert_breaks(&[Rule::ReleaseIsFinal], RESTARTED, &[(SINGLE_EXECUTION, 8)]);
}

#[test]
fn a_registration_gives_away_what_still_runs() {
    assert_breaks(&[Rule::RegisterWhenQuiet], REGISTERED, &[(SINGLE_EXECUTION, 8)]);
}

/// A restarted agent has forgotten which attempts ended and were recorded. A deposed leader may
/// have missed the same, and start them again.
#[test]
fn a_deposed_leader_that_lets_an_agent_resume_starts_what_has_ended() {
    let broken = [(STARTS_ONCE, 10), (SINGLE_EXECUTION, 11)];
    assert_breaks(&[Rule::QuorumBeforeResume], RESTARTED, &broken);
}

#[test]
fn a_report_of_an_older_attempt_must_not_end_a_newer_one() {
    let bounds = Bounds { attempts: 3, ..PLAIN };
    assert_breaks(&[Rule::FenceReports], bounds, &[(AUTHORISED, 7), (SINGLE_EXECUTION, 8)]);
}

#[test]
fn what_is_reported_to_have_ended_must_not_run() {
    assert_breaks(&[Rule::ReportWhenDead], PLAIN, &[(SINGLE_EXECUTION, 6)]);
}
