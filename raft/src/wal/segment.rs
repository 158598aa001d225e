//! A segment: a file of frames.
//!
//! ```text
//! ┌──────┬─────────────┬───────┬───────┬─────┬─ ─ ─ ─ ─
//! │ head │ state frame │ frame │ frame │ ... │ zeros
//! └──────┴─────────────┴───────┴───────┴─────┴─ ─ ─ ─ ─
//! head   magic, format version, number, owner, where the segment before it ends, CRC
//! frame  magic, length, CRC of the records, CRC of these three; records; zeros up to 8 bytes
//! ```
//! A frame is what one write call wrote, and no frame is written before the one in front of it
//! is durable. So a crash can spoil one frame only, the last; a spoilt frame with a sound one
//! behind it was spoilt by something else. Both CRCs cover the segment's number and the
//! frame's offset, so bytes that were meant for another place are never taken for a frame.

use super::record::{PAYLOAD_BYTES_MAX, Record};
use crate::identity::ClusterId;

/// The bytes of a segment's head.
pub(super) const HEAD_BYTES: usize = 64;
/// A frame is closed once it is this large: about what a disk writes while it syncs.
pub(super) const FRAME_BYTES: usize = 4 << 20;
/// No frame is larger: one that was almost full took one more entry of the largest size.
const FRAME_BYTES_MAX: usize = FRAME_BYTES + PAYLOAD_BYTES_MAX + 1024;
/// The bytes of a frame before its records.
pub(super) const FRAME_HEAD_BYTES: usize = 16;
/// Frames begin at multiples of this, so that a search for one has fewer places to look at.
const ALIGNMENT: usize = 8;

const SEGMENT_MAGIC: [u8; 8] = *b"QUORLOG\n";
const FRAME_MAGIC: [u8; 4] = *b"QFrm";
/// The format of segments that this version reads and writes.
pub(super) const FORMAT_VERSION: u32 = 1;

/// Whose log it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The cluster that the node belongs to.
    pub cluster: ClusterId,
    /// The node.
    pub node: u64,
}

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Counts up from 1.
    pub(super) number: u64,
    pub(super) owner: Owner,
    /// Where the last frame of the segment before ends; 0 in the first.
    pub(super) previous_end: u64,
}

/// Why a segment's head cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeadFault {
    /// It is spoilt, or was never written whole.
    Unreadable,
    /// It is sound but of a format that came later.
    Version(u32),
}

/// The name of a segment's file.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:016x}.wal")
}

/// The number in the name of a segment's file; `None` for other files.
pub(super) fn file_number(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_suffix(".wal")?, 16).ok()?;
    (file_name(number) == name).then_some(number)
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.owner.cluster.0.to_le_bytes());
        bytes.extend_from_slice(&self.owner.node.to_le_bytes());
        bytes.extend_from_slice(&self.previous_end.to_le_bytes());
        bytes.resize(HEAD_BYTES - 4, 0);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeadFault> {
        let bytes = bytes.get(..HEAD_BYTES).ok_or(HeadFault::Unreadable)?;
        let (fields, crc) = bytes.split_at(HEAD_BYTES - 4);
        if fields[..8] != SEGMENT_MAGIC || crc != crc32c::crc32c(fields).to_le_bytes() {
            return Err(HeadFault::Unreadable);
        }
        let version = u32::from_le_bytes(array(fields, 8));
        if version != FORMAT_VERSION {
            return Err(HeadFault::Version(version));
        }
        Ok(Self {
            number: u64::from_le_bytes(array(fields, 12)),
            owner: Owner {
                cluster: ClusterId(u128::from_le_bytes(array(fields, 20))),
                node: u64::from_le_bytes(array(fields, 36)),
            },
            previous_end: u64::from_le_bytes(array(fields, 44)),
        })
    }
}

/// The bytes of `N` from `offset` on, which must lie inside.
fn array<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes[offset..offset + N].try_into().expect("a range of N has N bytes")
}

/// A frame in the making.
#[derive(Debug)]
pub(super) struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; FRAME_HEAD_BYTES] }
    }

    /// Adds a record; returns where it lies from the frame's start.
    pub(super) fn push(&mut self, record: &Record) -> usize {
        let offset = self.bytes.len();
        record.encode(&mut self.bytes);
        offset
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == FRAME_HEAD_BYTES
    }

    /// Whether another record should go to another frame.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= FRAME_BYTES
    }

    /// Its size in the file, in bytes.
    pub(super) fn size(&self) -> usize {
        self.bytes.len().next_multiple_of(ALIGNMENT)
    }

    /// The record bytes from `offset` on, as [`push`](Self::push) returned it.
    pub(super) fn record(&self, offset: usize, length: usize) -> &[u8] {
        &self.bytes[offset..offset + length]
    }

    /// The frame as it is written at `offset` of segment `number`, and nowhere else.
    pub(super) fn seal(&mut self, number: u64, offset: u64) -> &[u8] {
        let length = self.bytes.len() - FRAME_HEAD_BYTES;
        debug_assert!(length <= FRAME_BYTES_MAX, "a full frame takes no more records");
        let length = u32::try_from(length).expect("a frame is bounded");
        let (head, records) = self.bytes.split_at_mut(FRAME_HEAD_BYTES);
        head[..4].copy_from_slice(&FRAME_MAGIC);
        head[4..8].copy_from_slice(&length.to_le_bytes());
        let crc = crc32c::crc32c_append(place_crc(number, offset), records);
        head[8..12].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32c::crc32c_append(place_crc(number, offset), &head[..12]);
        head[12..16].copy_from_slice(&crc.to_le_bytes());
        self.bytes.resize(self.size(), 0);
        &self.bytes
    }
}

/// Ties a CRC to a place.
fn place_crc(number: u64, offset: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), &offset.to_le_bytes())
}

/// A sound frame, as found in a file.
#[derive(Debug)]
pub(super) struct FrameFound<'a> {
    pub(super) records: &'a [u8],
    /// Where the next frame begins.
    pub(super) end: usize,
}

/// The frame at `offset` of segment `number`, whose whole content is `bytes`; `None` if it is
/// not sound.
pub(super) fn frame_at(number: u64, bytes: &[u8], offset: usize) -> Option<FrameFound<'_>> {
    let (length, crc) = frame_head_at(number, bytes, offset)?;
    let start = offset + FRAME_HEAD_BYTES;
    let records = bytes.get(start..start + length)?;
    let end = (start + length).next_multiple_of(ALIGNMENT);
    let padding = bytes.get(start + length..end)?;
    let sound = crc32c::crc32c_append(place_crc(number, offset as u64), records) == crc
        && padding.iter().all(|byte| *byte == 0);
    sound.then_some(FrameFound { records, end })
}

/// The length and the CRC of a frame's records, if a sound frame head is at `offset`.
fn frame_head_at(number: u64, bytes: &[u8], offset: usize) -> Option<(usize, u32)> {
    let head = bytes.get(offset..offset + FRAME_HEAD_BYTES)?;
    if head[..4] != FRAME_MAGIC {
        return None;
    }
    let crc = crc32c::crc32c_append(place_crc(number, offset as u64), &head[..12]);
    let length = u32::from_le_bytes(array(head, 4)) as usize;
    let sound = crc == u32::from_le_bytes(array(head, 12)) && length <= FRAME_BYTES_MAX;
    sound.then(|| (length, u32::from_le_bytes(array(head, 8))))
}

/// Where after `offset` the next frame head is. One is enough: it was written after all that
/// is in front of it had become durable, whatever its own records look like.
pub(super) fn frame_after(number: u64, bytes: &[u8], offset: usize) -> Option<usize> {
    (offset.next_multiple_of(ALIGNMENT)..bytes.len())
        .step_by(ALIGNMENT)
        .filter(|&place| place > offset)
        .find(|&place| frame_head_at(number, bytes, place).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head =
        Head { number: 7, owner: Owner { cluster: ClusterId(0xabc), node: 3 }, previous_end: 4096 };

    fn two_frames() -> Vec<u8> {
        let mut bytes = vec![0; HEAD_BYTES];
        for index in 0..2 {
            let mut frame = Frame::new();
            frame.push(&Record::Truncate(None));
            frame.push(&Record::Incarnation(index));
            let offset = bytes.len() as u64;
            bytes.extend_from_slice(frame.seal(7, offset));
        }
        bytes
    }

    #[test]
    fn reads_a_head_back() {
        assert_eq!(Head::decode(&HEAD.encode()), Ok(HEAD));
        assert_eq!(HEAD.encode().len(), HEAD_BYTES);
    }

    #[test]
    fn knows_a_later_format_from_a_broken_one() {
        let mut bytes = HEAD.encode();
        bytes[8] = 2;
        assert_eq!(Head::decode(&bytes), Err(HeadFault::Unreadable));
        let crc = crc32c::crc32c(&bytes[..HEAD_BYTES - 4]);
        bytes[HEAD_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Head::decode(&bytes), Err(HeadFault::Version(2)));
    }

    #[test]
    fn finds_frames_only_where_they_were_written() {
        let bytes = two_frames();
        let first = frame_at(7, &bytes, HEAD_BYTES).expect("the first frame is sound");
        assert!(frame_at(7, &bytes, first.end).is_some());
        assert!(frame_at(8, &bytes, HEAD_BYTES).is_none(), "another segment's");
        assert_eq!(frame_after(7, &bytes, HEAD_BYTES), Some(first.end));
        assert_eq!(frame_after(7, &bytes, first.end), None);

        let mut moved = bytes.clone();
        moved.copy_within(HEAD_BYTES..first.end, first.end);
        assert!(frame_at(7, &moved, first.end).is_none(), "meant for another offset");
    }

    #[test]
    fn takes_no_frame_with_a_flipped_bit() {
        let sound = two_frames();
        let end = frame_at(7, &sound, HEAD_BYTES).expect("the first frame is sound").end;
        for bit in HEAD_BYTES * 8..end * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(frame_at(7, &bytes, HEAD_BYTES).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn names_sort_and_read_back() {
        assert_eq!(file_number(&file_name(31)), Some(31));
        assert!(file_name(9) < file_name(16));
        assert_eq!(file_number("000000000000001F.wal"), None);
        assert_eq!(file_number("1.wal"), None);
    }

    #[test]
    fn keeps_the_format_of_released_segments() {
        let hex =
            |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        let golden = "51554f524c4f470a010000000700000000000000bc0a0000000000000000000000000000\
                      030000000000000000100000000000000000000000000000d5ca0d1c";
        assert_eq!(hex(&HEAD.encode()), golden);
        let mut frame = Frame::new();
        frame.push(&Record::Incarnation(2));
        let golden = "5146726d0d00000013127875ba27885406080000000200000000000000000000";
        assert_eq!(hex(frame.seal(7, 64)), golden);
    }
}
