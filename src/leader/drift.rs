//! How fast the clocks of workers run beside this one.
//!
//! A lease is a span on two clocks, and its margin allows for a drift of 1 %. Each renewal
//! gives two facts about a worker's clock `W`, in terms of the leader's: one that was sent at
//! `w` and received at `l` says that `W(l) >= w`; an answer that was given at `l` and heard at
//! `w` says that `W(l) <= w`. Two facts bound the rate between their instants, however long
//! the messages took: delay makes the bounds wide, never wrong. So a worker whose clock is
//! right is never suspected, and one whose clock is not is found as soon as the bounds are
//! closer than what it is off by.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quorate_model::{Epoch, WorkerId};
use tokio::time::Instant;

use super::leases::DRIFT_PERCENT;
use crate::protocol::Heard;

/// A clock that is off by more is not trusted with a lease: half of what the lease allows for.
const DRIFT_PPM_MAX: f64 = DRIFT_PERCENT as f64 * 10_000.0 / 2.0;

/// One that was not trusted must be off by no more than this to be trusted again, so that it
/// does not go in and out at the limit.
const DRIFT_PPM_SOUND: f64 = DRIFT_PPM_MAX * 0.8;

/// How long facts are kept. In a minute, bounds from answers within 100 ms are 0.2 % apart.
const WINDOW: Duration = Duration::from_secs(60);

/// One fact of each kind is kept for every so long: the one that says most.
const BUCKET: Duration = Duration::from_secs(2);

/// Rates over less are not looked at: clocks have a grain.
const SPAN_MIN: Duration = Duration::from_secs(5);

/// A clock must have run right for this long to be trusted again.
const SPAN_SOUND: Duration = Duration::from_secs(45);

/// Answers whose hearing is not yet known. A worker has one renewal under way, or a few.
const ANSWERS_MAX: usize = 8;

/// What is known of a clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Finding {
    /// Nothing for certain.
    Open,
    /// It is off by more than is allowed; by about so many millionths.
    Unsound(i32),
    /// It has run right for a while; off by about so many millionths.
    Sound(i32),
}

/// The clocks of all workers that renew.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    clocks: BTreeMap<WorkerId, Clock>,
}

/// A worker's clock was at least, or at most, at `worker_ns` when the leader's was at `at`.
#[derive(Clone, Copy, Debug)]
struct Fact {
    at: Instant,
    worker_ns: u64,
}

/// What a stretch of time told.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    begun: Instant,
    at_least: Option<Fact>,
    at_most: Option<Fact>,
}

#[derive(Debug)]
struct Clock {
    epoch: Epoch,
    /// When renewals were answered, by when they were sent.
    answers: VecDeque<(u64, Instant)>,
    /// Oldest first.
    buckets: VecDeque<Bucket>,
    /// When it was last found to be off. What was before says nothing for it: a mean of bad and
    /// good may well look good.
    unsound_at: Option<Instant>,
}

impl Clocks {
    /// Takes in a renewal: when it was sent and when an earlier answer was heard, by the
    /// worker's clock, and when it was received, by ours.
    pub(super) fn hear(
        &mut self,
        (worker, epoch): (WorkerId, Epoch),
        sent_at: u64,
        heard: Option<Heard>,
        received_at: Instant,
    ) -> Finding {
        let new = || Clock {
            epoch,
            answers: VecDeque::new(),
            buckets: VecDeque::new(),
            unsound_at: None,
        };
        let clock = self.clocks.entry(worker).or_insert_with(new);
        if clock.epoch != epoch {
            // Perhaps after a reboot, and then its clock began anew.
            *clock = new();
        }
        clock.forget(received_at);
        let at_least = Fact { at: received_at, worker_ns: sent_at };
        let at_most = heard.and_then(|heard| clock.answered(heard));
        clock.note(at_least, at_most);
        let finding = clock.judge(at_least, at_most);
        if matches!(finding, Finding::Unsound(_)) {
            clock.unsound_at = Some(received_at);
        }
        finding
    }

    /// Notes that a renewal is being answered. `now` must have been read before.
    pub(super) fn answer(&mut self, worker: WorkerId, sent_at: u64, now: Instant) {
        let Some(clock) = self.clocks.get_mut(&worker) else { return };
        if clock.answers.len() >= ANSWERS_MAX {
            clock.answers.pop_front();
        }
        clock.answers.push_back((sent_at, now));
    }

    /// Forgets a worker whose lease is over.
    pub(super) fn end(&mut self, worker: WorkerId) {
        self.clocks.remove(&worker);
    }

    /// Forgets everything: the term is over.
    pub(super) fn clear(&mut self) {
        self.clocks.clear();
    }
}

impl Clock {
    fn forget(&mut self, now: Instant) {
        let is_old = |bucket: &Bucket| now.saturating_duration_since(bucket.begun) > WINDOW;
        while self.buckets.front().is_some_and(is_old) {
            self.buckets.pop_front();
        }
    }

    /// When the leader gave an answer that the worker has heard.
    fn answered(&mut self, heard: Heard) -> Option<Fact> {
        let position = self.answers.iter().position(|&(sent_at, _)| sent_at == heard.sent_at)?;
        let (_, at) = self.answers.drain(..=position).next_back()?;
        Some(Fact { at, worker_ns: heard.at })
    }

    /// Keeps facts, if they say more than others of about the same time.
    fn note(&mut self, at_least: Fact, at_most: Option<Fact>) {
        let begun = at_most.map_or(at_least.at, |fact| fact.at.min(at_least.at));
        let is_over =
            |bucket: &Bucket| at_least.at.saturating_duration_since(bucket.begun) > BUCKET;
        if self.buckets.back().is_none_or(is_over) {
            self.buckets.push_back(Bucket { begun, at_least: None, at_most: None });
        }
        let Some(bucket) = self.buckets.back_mut() else { return };
        if bucket.at_least.is_none_or(|kept| lead_ns(kept, at_least) > 0.0) {
            bucket.at_least = Some(at_least);
        }
        if let Some(at_most) = at_most
            && bucket.at_most.is_none_or(|kept| lead_ns(kept, at_most) < 0.0)
        {
            bucket.at_most = Some(at_most);
        }
    }

    /// What the newest facts say together with those before.
    fn judge(&self, at_least: Fact, at_most: Option<Fact>) -> Finding {
        let (mut unsound, mut sound) = (None, None);
        for bucket in &self.buckets {
            let over_ppm = bucket.at_most.and_then(|old| rate_ppm(old, at_least));
            let under_ppm = at_most.zip(bucket.at_least).and_then(|(new, old)| rate_ppm(old, new));
            // The oldest come first, and say it best.
            if unsound.is_none() {
                let too_fast = over_ppm.filter(|&ppm| ppm > DRIFT_PPM_MAX);
                unsound = too_fast.or_else(|| under_ppm.filter(|&ppm| ppm < -DRIFT_PPM_MAX));
            }
            let age = at_least.at.saturating_duration_since(bucket.begun);
            if let (Some(over), Some(under)) = (over_ppm, under_ppm)
                && sound.is_none()
                && age >= SPAN_SOUND
                && self.unsound_at.is_none_or(|at| at < bucket.begun)
                && over >= -DRIFT_PPM_SOUND
                && under <= DRIFT_PPM_SOUND
            {
                sound = Some(f64::midpoint(over, under));
            }
        }
        match (unsound, sound) {
            (Some(ppm), _) => Finding::Unsound(whole(ppm)),
            (None, Some(ppm)) => Finding::Sound(whole(ppm)),
            (None, None) => Finding::Open,
        }
    }
}

/// By how much a worker's clock gained on ours from one fact to the other, in nanoseconds.
fn lead_ns(from: Fact, to: Fact) -> f64 {
    nanos(from.worker_ns, to.worker_ns) - seconds(from.at, to.at) * 1e9
}

/// By how many millionths of the time between them; `None` if that is too short.
fn rate_ppm(from: Fact, to: Fact) -> Option<f64> {
    let span = to.at.checked_duration_since(from.at).filter(|span| *span >= SPAN_MIN)?;
    Some(lead_ns(from, to) / span.as_secs_f64() / 1e3)
}

#[expect(clippy::cast_precision_loss, reason = "a minute has fewer nanoseconds than 2^53")]
fn nanos(from: u64, to: u64) -> f64 {
    if to >= from { (to - from) as f64 } else { -((from - to) as f64) }
}

fn seconds(from: Instant, to: Instant) -> f64 {
    let back = from.saturating_duration_since(to).as_secs_f64();
    to.saturating_duration_since(from).as_secs_f64() - back
}

#[expect(clippy::cast_possible_truncation, reason = "casts of floats saturate, which will do")]
fn whole(ppm: f64) -> i32 {
    ppm.round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: (WorkerId, Epoch) = (WorkerId(7), Epoch(9));

    /// A worker and a leader, and all that lies between them, in a time of their own.
    struct World {
        clocks: Clocks,
        zero: Instant,
        /// True time.
        now: Duration,
        worker_ns: u64,
        ppm: i64,
        heard: Option<Heard>,
        chance: u64,
    }

    impl World {
        fn new(ppm: i64) -> Self {
            let (zero, now, worker_ns) = (Instant::now(), Duration::ZERO, 1_000_000_000_000_000);
            Self { clocks: Clocks::default(), zero, now, worker_ns, ppm, heard: None, chance: 42 }
        }

        /// A number below `below`.
        fn dice(&mut self, below: u64) -> u64 {
            self.chance ^= self.chance << 13;
            self.chance ^= self.chance >> 7;
            self.chance ^= self.chance << 17;
            self.chance % below
        }

        fn pass(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
            self.worker_ns += ms * 1_000_000_u64.saturating_add_signed(self.ppm);
        }

        /// A renewal and its answer, which take so long there and back.
        fn renew(&mut self, there_ms: u64, back_ms: u64) -> Finding {
            let sent_at = self.worker_ns;
            let heard = self.heard.take();
            self.pass(there_ms);
            let finding = self.clocks.hear(WORKER, sent_at, heard, self.zero + self.now);
            self.clocks.answer(WORKER.0, sent_at, self.zero + self.now);
            self.pass(back_ms);
            self.heard = Some(Heard { sent_at, at: self.worker_ns });
            finding
        }

        /// Renewals for a while, with delays up to so much, the answers of some never heard.
        fn renewals(&mut self, seconds: u64, delay_ms: u64) -> Vec<Finding> {
            let end = self.now + Duration::from_secs(seconds);
            let mut findings = Vec::new();
            while self.now < end {
                let (there, back) = (self.dice(delay_ms + 1), self.dice(delay_ms + 1));
                findings.push(self.renew(there, back));
                if self.dice(10) == 0 {
                    self.heard = None;
                }
                let pause = 500 + self.dice(2_000);
                self.pass(pause);
            }
            findings
        }
    }

    fn is_unsound(finding: &Finding) -> bool {
        matches!(finding, Finding::Unsound(_))
    }

    #[test]
    fn no_delay_makes_a_good_clock_suspect() {
        for ppm in [-4_900, -500, 0, 500, 4_900] {
            for delay_ms in [0, 20, 500, 5_000, 30_000] {
                let findings = World::new(ppm).renewals(1_800, delay_ms);
                assert!(!findings.iter().any(is_unsound), "{ppm} ppm, {delay_ms} ms: {findings:?}");
            }
        }
    }

    #[test]
    fn delay_in_one_direction_that_grows_is_not_taken_for_drift() {
        let mut world = World::new(0);
        for round in 0..600 {
            // A queue that fills by 3 %, and then one that drains.
            let delay = 60 * if round < 300 { round } else { 600 - round };
            let finding = world.renew(delay, 1);
            assert!(!is_unsound(&finding), "round {round}: {finding:?}");
            world.pass(2_000);
        }
    }

    #[test]
    fn a_pause_of_either_side_is_not_taken_for_drift() {
        for (there_ms, back_ms) in [(20_000, 1), (1, 20_000), (20_000, 20_000)] {
            let mut world = World::new(300);
            world.renewals(120, 5);
            let mut findings = vec![world.renew(there_ms, back_ms)];
            findings.extend(world.renewals(120, 5));
            assert!(!findings.iter().any(is_unsound), "{there_ms} {back_ms}: {findings:?}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_found_within_a_minute() {
        for ppm in [-20_000, -8_000, 8_000, 50_000] {
            let findings = World::new(ppm).renewals(60, 30);
            let Some(&Finding::Unsound(found)) = findings.iter().rfind(|one| is_unsound(one))
            else {
                panic!("{ppm} ppm is not found: {findings:?}");
            };
            assert!((i64::from(found) - ppm).abs() < 3_000, "{ppm} ppm is taken for {found}");
        }
    }

    #[test]
    fn a_clock_that_runs_right_again_is_trusted_after_a_while_and_not_before() {
        let mut world = World::new(12_000);
        assert!(world.renewals(60, 10).iter().any(is_unsound));
        world.ppm = 100;
        let since = world.now;
        loop {
            let finding = world.renew(5, 5);
            let after = world.now - since;
            if let Finding::Sound(ppm) = finding {
                assert!(after >= SPAN_SOUND, "trusted after {after:?}");
                assert!((-500..500).contains(&ppm), "{ppm}");
                break;
            }
            assert!(after < 2 * WINDOW, "not trusted after {after:?}");
            world.pass(2_000);
        }
        assert!(!world.renewals(300, 10).iter().any(is_unsound));
    }

    #[test]
    fn a_clock_at_the_limit_is_not_trusted_again() {
        let mut world = World::new(4_700);
        let findings = world.renewals(300, 10);
        assert!(findings.iter().all(|one| *one == Finding::Open), "{findings:?}");
    }

    #[test]
    fn a_clock_that_begins_anew_under_another_epoch_is_another_clock() {
        let mut world = World::new(0);
        world.renewals(60, 5);
        let at = world.zero + world.now + Duration::from_secs(10);
        let finding = world.clocks.hear((WORKER.0, Epoch(10)), 5, None, at);
        assert_eq!(finding, Finding::Open);
    }
}
