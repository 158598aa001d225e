//! Chance that can be had again: the same seed rolls the same.

use std::ops::RangeInclusive;
use std::time::Duration;

/// SplitMix64: small, good enough, and not a dependency.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from the range.
    pub(super) fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.roll() % (range.end() - range.start() + 1)
    }

    /// So many milliseconds.
    pub(super) fn ms(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// An index into something of `length`, which is not 0.
    pub(super) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.roll() % length as u64).expect("an index is below a length")
    }

    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.roll() % 100 < chance
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// Some of these, each as likely as not.
    pub(super) fn some<T: Copy>(&mut self, from: &[T]) -> Vec<T> {
        from.iter().copied().filter(|_| self.percent(50)).collect()
    }
}
