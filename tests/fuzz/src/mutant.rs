//! Inputs that are almost right.

/// Numbers at which readers of numbers change their minds; 250 to 253 are marks of bincode.
const EDGES: [u8; 12] = [0, 1, 2, 7, 8, 0x7f, 0x80, 250, 251, 252, 253, 255];

/// Lengths of what is not there, as bincode writes them: all there is, half of it, a terabyte,
/// and four gigabytes.
const CLAIMS: [[u8; 9]; 4] = [
    [253, 255, 255, 255, 255, 255, 255, 255, 255],
    [253, 255, 255, 255, 255, 255, 255, 255, 127],
    [253, 0, 0, 0, 0, 0, 1, 0, 0],
    [253, 0, 0, 0, 0, 1, 0, 0, 0],
];

/// Changes to one input.
const CHANGES_MAX: u64 = 4;

/// Bytes that one change cuts out, doubles or adds.
const PIECE_BYTES_MAX: u64 = 32;

/// Without end; the same for the same seed.
pub(crate) struct Mutants<'a> {
    state: u64,
    sound: &'a [Vec<u8>],
}

impl<'a> Mutants<'a> {
    pub(crate) fn new(seed: u64, sound: &'a [Vec<u8>]) -> Self {
        Self { state: seed, sound }
    }

    /// SplitMix64.
    fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % bound.max(1) as u64).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.roll().to_le_bytes()[0]
    }

    fn sound(&mut self) -> &'a [u8] {
        let at = self.below(self.sound.len());
        self.sound.get(at).map_or(&[], Vec::as_slice)
    }

    /// The next input.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        if self.roll().is_multiple_of(16) {
            let length = self.below(200);
            return (0..length).map(|_| self.byte()).collect();
        }
        let mut input = self.sound().to_vec();
        for _ in 0..=self.roll() % CHANGES_MAX {
            self.change(&mut input);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len());
        let longest = self.below(usize::try_from(PIECE_BYTES_MAX).unwrap_or(1));
        let piece = at..(at + longest).min(input.len());
        match self.roll() % 10 {
            0 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (at % 8)),
            1 => {
                let new = self.byte();
                input.iter_mut().skip(at).take(1).for_each(|byte| *byte = new);
            }
            2 => {
                let edge = self.below(EDGES.len());
                input.iter_mut().skip(at).take(1).for_each(|byte| *byte = EDGES[edge]);
            }
            3 => drop(input.drain(piece)),
            4 => input.extend_from_within(piece),
            5 => {
                let doubled = input[piece].to_vec();
                input.splice(at..at, doubled);
            }
            6 => input.truncate(at),
            7 => {
                let added: Vec<u8> = (0..=longest % 9).map(|_| self.byte()).collect();
                input.splice(at..at, added);
            }
            8 => {
                let claim = self.below(CLAIMS.len());
                let end = input.len().min(at + longest % 2);
                input.splice(at..end, CLAIMS[claim]);
            }
            _ => {
                let other = self.sound();
                let from = self.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from.min(other.len())..]);
            }
        }
    }
}
