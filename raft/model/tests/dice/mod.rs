//! Chance that can be had again: the same seed rolls the same.

use std::collections::BTreeSet;

/// SplitMix64: small, good enough, and not a dependency.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// An index into something of `length`, which is not 0.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("an index is below a length")
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }
}

/// Runs a test with `count` seeds, or as many as `QUORATE_SEEDS` says, or with the one in
/// `QUORATE_SEED`; a failure names its seed.
/// Each returns what it has reached, and together they must reach all that is `demanded`: a
/// test that never gets anywhere proves nothing.
pub(crate) fn with_seeds(
    count: u64,
    demanded: &[&str],
    test: impl Fn(u64) -> BTreeSet<String> + std::panic::RefUnwindSafe,
) {
    let mut reached = BTreeSet::new();
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let (only, count) = (number("QUORATE_SEED"), number("QUORATE_SEEDS").unwrap_or(count));
    let seeds = only.map_or(0..count, |seed: u64| seed..seed + 1);
    for seed in seeds {
        match std::panic::catch_unwind(|| test(seed)) {
            Ok(seen) => reached.extend(seen),
            Err(panic) => {
                let words = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                panic!("failed with QUORATE_SEED={seed}: {words}");
            }
        }
    }
    let missed = demanded.iter().find(|what| !reached.contains(**what));
    assert!(missed.is_none() || only.is_some(), "no seed reached {missed:?}");
}
