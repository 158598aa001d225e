//! Feeds broken input to whatever reads what others wrote. For tests.
//!
//! A target is one function over bytes, which panics if something is wrong and otherwise says
//! in a word or two what came of them. The same function can be driven by `cargo fuzz`. Here it
//! gets its corpus, which is committed, and then mutants of it: a second of them within
//! `cargo test`, and as many as `QUORATE_FUZZ_SECONDS` says otherwise. `QUORATE_SEED` repeats
//! a run, `QUORATE_FUZZ_GROW=1` adds an input to the corpus for each new thing that comes of one.

#![allow(clippy::print_stdout, reason = "what a run came to is for people")]

mod mutant;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mutant::Mutants;

/// How long mutants are tried within `cargo test`.
const BRIEFLY: Duration = Duration::from_secs(1);

/// The longest that one input may take, on a machine with much else to do. Input that takes
/// longer is a way to stop a node.
const INPUT_TIME_MAX: Duration = Duration::from_secs(10);

/// Larger mutants are cut: what matters of size stands in a length.
const INPUT_BYTES_MAX: usize = 256 * 1024;

/// How much of a bad input is printed.
const SHOWN_BYTES_MAX: usize = 512;

/// What is fed, and to what.
#[derive(Debug)]
pub struct Fuzz {
    /// The folder with the corpus; its name is that of the target.
    pub corpus: PathBuf,
    /// Sound inputs, made by the code that is tested, to begin from.
    pub seeds: Vec<Vec<u8>>,
    /// What must come of some input, or the target is not reached: the beginnings of what it
    /// says.
    pub demanded: &'static [&'static str],
}

impl Fuzz {
    /// Feeds the corpus, the seeds and their mutants to `target`.
    ///
    /// # Panics
    ///
    /// If the target does, or takes too long, or nothing `demanded` ever comes of an input.
    pub fn run(self, target: fn(&[u8]) -> String) {
        let Self { corpus, seeds, demanded } = self;
        let grows = std::env::var_os("QUORATE_FUZZ_GROW").is_some();
        let mut found = Found { target, corpus, inputs: 0, words: BTreeMap::new(), grows: false };
        let kept = read_all(&found.corpus);
        assert!(!kept.is_empty(), "{}: no corpus", found.corpus.display());
        kept.iter().for_each(|input| found.feed(input));
        found.grows = grows;
        let sound: Vec<Vec<u8>> = kept.into_iter().chain(seeds).collect();
        sound.iter().for_each(|input| found.feed(input));

        let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
        let seconds = number("QUORATE_FUZZ_SECONDS");
        let seed = number("QUORATE_SEED").unwrap_or_else(|| seconds.map_or(1, |_| clock()));
        // Before, for a process that runs out of memory says nothing after.
        println!("{}: QUORATE_SEED={seed}", found.name());
        let begun = Instant::now();
        let span = seconds.map_or(BRIEFLY, Duration::from_secs);
        let mut mutants = Mutants::new(seed, &sound);
        while begun.elapsed() < span {
            let mut input = mutants.next();
            input.truncate(INPUT_BYTES_MAX);
            found.feed(&input);
        }

        println!("{}: {} inputs", found.name(), found.inputs);
        for (words, count) in &found.words {
            println!("  {count:>9} {words}");
        }
        let reached = |demanded: &str| found.words.keys().any(|words| words.starts_with(demanded));
        let missed: Vec<_> = demanded.iter().filter(|demanded| !reached(demanded)).collect();
        assert!(missed.is_empty(), "{}: no input came to {missed:?}", found.name());
    }
}

/// What came of the inputs.
struct Found {
    target: fn(&[u8]) -> String,
    corpus: PathBuf,
    inputs: u64,
    words: BTreeMap<String, u64>,
    /// Whether the corpus takes what is new.
    grows: bool,
}

impl Found {
    fn name(&self) -> String {
        self.corpus.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn feed(&mut self, input: &[u8]) {
        let begun = Instant::now();
        let words = catch_unwind(AssertUnwindSafe(|| (self.target)(input)));
        let took = begun.elapsed();
        let Ok(words) = words else { self.blame(input, "it panicked") };
        if took > INPUT_TIME_MAX {
            self.blame(input, &format!("it took {took:?}"));
        }
        self.inputs += 1;
        let count = self.words.entry(words).or_insert(0);
        *count += 1;
        if *count == 1 && self.grows {
            self.keep(input);
        }
    }

    fn keep(&self, input: &[u8]) {
        let path = self.corpus.join(format!("{:016x}", digest(input)));
        fs::write(path, input).expect("the corpus can be written");
    }

    /// Says which input it was, and leaves it where it can be taken into the corpus.
    fn blame(&self, input: &[u8], what: &str) -> ! {
        let file = format!("quorate-fuzz-{}-{:016x}", self.name(), digest(input));
        let path = std::env::temp_dir().join(file);
        let left = fs::write(&path, input).map_or_else(|e| e.to_string(), |()| "left".to_owned());
        let shown = input[..input.len().min(SHOWN_BYTES_MAX)].escape_ascii();
        panic!("{}: {what}: {} ({left}): {shown}", self.name(), path.display());
    }
}

/// The inputs in a folder, in the order of their names.
fn read_all(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("an input can be read")).collect()
}

/// FNV-1a: names files, nothing else.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |since| since.as_secs())
}
