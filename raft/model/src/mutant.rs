//! Seeded faults: bugs of the protocol that are put in on purpose, to see that tests notice.
//!
//! Builds with `--cfg mutant` hold all of them, each switched off but the one that the
//! environment names: `MUTANT=M4`. In any other build they are not there at all.
//! `scripts/mutants` goes through them.

/// Whether this process has the fault called `name`.
#[cfg(not(mutant))]
#[must_use]
pub const fn is(_name: &str) -> bool {
    false
}

/// Whether this process has the fault called `name`.
#[cfg(mutant)]
#[must_use]
pub fn is(name: &str) -> bool {
    static SEEDED: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("MUTANT").ok());
    SEEDED.as_deref() == Some(name)
}
