//! F9: a log is the same lines however its bytes come, and every byte of it is accounted for.

use quorate_fuzz::Fuzz;

use super::corpus;
use crate::lines::Lines;

/// The first byte says how large the pieces are; the log follows.
fn read_log(input: &[u8]) -> String {
    let Some((&size, log)) = input.split_first() else { return "nothing".to_owned() };
    let pieces = log.chunks(usize::from(size).max(1));
    let (mut whole, mut pieced) = (Lines::new(0), Lines::new(0));
    let mut expected = whole.push(log);
    expected.extend(whole.rest());
    let mut found: Vec<_> = pieces.flat_map(|piece| pieced.push(piece)).collect();
    found.extend(pieced.rest());
    assert_eq!(found, expected, "it depends on how the bytes come");

    let end = found.last().map_or(0, |line| line.next);
    assert_eq!(end, log.len() as u64, "bytes are passed over");
    let text: usize = found.iter().map(|line| line.text.len()).sum();
    assert!(text <= log.len(), "more text than bytes");
    let is_ours = found.iter().any(|line| !line.view().ts.is_empty());
    resume_anywhere(log, &found.iter().map(|line| line.next).collect::<Vec<_>>());
    if is_ours { "lines of ours".to_owned() } else { "lines of others".to_owned() }
}

/// From where a line ends, the rest is what it was.
fn resume_anywhere(log: &[u8], ends: &[u64]) {
    for (at, &end) in ends.iter().enumerate().take(4) {
        let from = usize::try_from(end).expect("it lies in memory");
        let mut lines = Lines::new(end);
        let mut rest: Vec<u64> = lines.push(&log[from..]).iter().map(|line| line.next).collect();
        rest.extend(lines.rest().map(|line| line.next));
        // The first is left out if it looks like the middle of a line.
        let expected = &ends[at + 1..];
        assert!(rest == expected || rest == expected[1..], "{rest:?} for {expected:?}");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let log = "2026-11-20T09:30:00.1Z stdout F one\n\
        2026-11-20T09:30:00.2Z stderr P tw\n\
        2026-11-20T09:30:00.3Z stderr F o  o\n\
        2026-11-20T09:30:00.4Z stdout F \x1b[31mr\u{e4}d\x1b[0m\n\
        not ours\n\
        2026-11-20T09:30:00.5Z stdout F end";
    [1, 7, 200].map(|size| [&[size], log.as_bytes()].concat()).into()
}

#[test]
fn no_log_loses_a_byte() {
    let demanded = &["lines of ours", "lines of others"];
    Fuzz { corpus: corpus("lines"), seeds: seeds(), demanded }.run(read_log);
}
