//! Choices that can be made again: everything random in a test comes from one printed number.

use std::time::{SystemTime, UNIX_EPOCH};

/// Set to repeat a run of a test.
const SEED: &str = "QUORATE_TESTS_SEED";

/// A sequence of numbers that a seed determines: xorshift64*, good enough to choose by.
#[derive(Clone, Debug)]
pub(crate) struct Seed {
    first: u64,
    state: u64,
}

impl Seed {
    /// The seed of the environment, or a new one.
    pub(crate) fn choose() -> Self {
        let given = std::env::var(SEED).ok().and_then(|text| text.parse().ok());
        let clock =
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.subsec_nanos());
        Self::new(given.unwrap_or_else(|| u64::from(clock())))
    }

    pub(crate) fn new(first: u64) -> Self {
        // The generator stays at zero for ever, and small seeds start alike.
        Self { first, state: first.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 }
    }

    /// How to have the same choices again.
    pub(crate) fn repeat(&self) -> String {
        format!("{SEED}={}", self.first)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let mixed = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(mixed).expect("31 bits fit") % end
    }

    /// All of them, in some order.
    pub(crate) fn shuffled<T: Copy>(&mut self, from: &[T]) -> Vec<T> {
        let mut all = from.to_vec();
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last + 1));
        }
        all
    }
}
