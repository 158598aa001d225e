//! The records of the log, and their bytes.
//!
//! A record is `kind: u8 | length: u32 | body`, all integers little-endian. The format is
//! ours, field by field, so that no change of openraft's types changes what is on disk. It is
//! frozen: a new need is a new kind.

use bytes::Bytes;

/// The largest payload of an entry, in bytes: twice the largest frame between nodes, so an
/// entry that could be sent can be stored.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// The bytes before a record's body.
const RECORD_HEAD_BYTES: usize = 5;
/// The bytes of an entry's body before its payload.
const ENTRY_HEAD_BYTES: usize = 25;

/// Where an entry stands in the log, and which leader put it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The term of that leader.
    pub term: u64,
    /// The node that led.
    pub node: u64,
    /// From 0, without gaps.
    pub index: u64,
}

/// Whom this node has voted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ballot {
    /// The term of the vote.
    pub term: u64,
    /// The candidate.
    pub node: u64,
    /// Whether a quorum elected it.
    pub committed: bool,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// What the payload is; the log does not look into it.
    pub kind: EntryKind,
    /// At most [`PAYLOAD_BYTES_MAX`].
    pub payload: Bytes,
}

/// What an entry carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// Nothing; it marks a new leader.
    Blank = 0,
    /// Requests to the state machine.
    Normal = 1,
    /// A new membership.
    Membership = 2,
}

/// What the log remembers, one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The node voted.
    Ballot(Ballot),
    /// An entry was appended.
    Entry(Entry),
    /// All entries behind this one are void; without one, all.
    Truncate(Option<Position>),
    /// All entries up to this one may be forgotten.
    Purge(Position),
    /// All entries up to this one are known to be committed.
    Committed(Position),
    /// The node started for the n-th time.
    Incarnation(u64),
    /// The last entry before this segment.
    Last(Position),
}

impl Record {
    /// Appends the record to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.kind(), 0, 0, 0, 0]);
        match self {
            Self::Ballot(ballot) => {
                out.extend_from_slice(&ballot.term.to_le_bytes());
                out.extend_from_slice(&ballot.node.to_le_bytes());
                out.push(u8::from(ballot.committed));
            }
            Self::Entry(entry) => {
                entry.position.encode(out);
                out.push(entry.kind as u8);
                out.extend_from_slice(&entry.payload);
            }
            Self::Truncate(None) => {}
            Self::Truncate(Some(position))
            | Self::Purge(position)
            | Self::Committed(position)
            | Self::Last(position) => position.encode(out),
            Self::Incarnation(number) => out.extend_from_slice(&number.to_le_bytes()),
        }
        let length = u32::try_from(out.len() - start - RECORD_HEAD_BYTES)
            .expect("a payload is bounded, and so is a record");
        out[start + 1..start + RECORD_HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
    }

    /// Takes the first record off `bytes`; `None` if it is malformed or of an unknown kind.
    pub(super) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<RECORD_HEAD_BYTES>()?;
        let [kind, length @ ..] = *head;
        let (mut body, rest) = rest.split_at_checked(u32::from_le_bytes(length) as usize)?;
        let record = match kind {
            1 => Self::Ballot(Ballot {
                term: number(&mut body)?,
                node: number(&mut body)?,
                committed: flag(&mut body)?,
            }),
            2 => Self::Entry(Entry::decode(&mut body)?),
            3 if body.is_empty() => Self::Truncate(None),
            3 => Self::Truncate(Some(Position::decode(&mut body)?)),
            4 => Self::Purge(Position::decode(&mut body)?),
            5 => Self::Committed(Position::decode(&mut body)?),
            6 => Self::Incarnation(number(&mut body)?),
            7 => Self::Last(Position::decode(&mut body)?),
            _ => return None,
        };
        *bytes = rest;
        body.is_empty().then_some(record)
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Ballot(_) => 1,
            Self::Entry(_) => 2,
            Self::Truncate(_) => 3,
            Self::Purge(_) => 4,
            Self::Committed(_) => 5,
            Self::Incarnation(_) => 6,
            Self::Last(_) => 7,
        }
    }
}

impl Position {
    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.term.to_le_bytes());
        out.extend_from_slice(&self.node.to_le_bytes());
        out.extend_from_slice(&self.index.to_le_bytes());
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self { term: number(bytes)?, node: number(bytes)?, index: number(bytes)? })
    }
}

impl Entry {
    /// What the entry's record takes on disk, in bytes.
    pub(super) fn record_bytes(&self) -> usize {
        RECORD_HEAD_BYTES + ENTRY_HEAD_BYTES + self.payload.len()
    }

    /// Takes all of `bytes`.
    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let position = Position::decode(bytes)?;
        let (kind, payload) = bytes.split_first()?;
        let kind = match kind {
            0 => EntryKind::Blank,
            1 => EntryKind::Normal,
            2 => EntryKind::Membership,
            _ => return None,
        };
        let payload = Bytes::copy_from_slice(payload);
        *bytes = &[];
        Some(Self { position, kind, payload })
    }
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*first))
}

fn flag(bytes: &mut &[u8]) -> Option<bool> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    match first {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITION: Position = Position { term: 3, node: 1, index: 9 };

    fn every_kind() -> Vec<Record> {
        let payload = Bytes::from_static(b"payload");
        vec![
            Record::Ballot(Ballot { term: 3, node: 1, committed: true }),
            Record::Entry(Entry { position: POSITION, kind: EntryKind::Normal, payload }),
            Record::Truncate(None),
            Record::Truncate(Some(POSITION)),
            Record::Purge(POSITION),
            Record::Committed(POSITION),
            Record::Incarnation(2),
            Record::Last(POSITION),
        ]
    }

    #[test]
    fn decodes_what_it_encodes() {
        let mut bytes = Vec::new();
        for record in every_kind() {
            record.encode(&mut bytes);
        }
        let mut rest = bytes.as_slice();
        for record in every_kind() {
            assert_eq!(Record::decode(&mut rest), Some(record));
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn refuses_every_shorter_record() {
        for record in every_kind() {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            for length in 0..bytes.len() {
                assert_eq!(Record::decode(&mut &bytes[..length]), None, "{record:?} {length}");
            }
        }
    }

    #[test]
    fn keeps_the_format_of_released_logs() {
        let position = "030000000000000001000000000000000900000000000000";
        let golden = [
            "01110000000300000000000000010000000000000001".to_owned(),
            format!("0220000000{position}017061796c6f6164"),
            "0300000000".to_owned(),
            format!("0318000000{position}"),
            format!("0418000000{position}"),
            format!("0518000000{position}"),
            "06080000000200000000000000".to_owned(),
            format!("0718000000{position}"),
        ];
        for (record, golden) in every_kind().into_iter().zip(golden) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, golden, "{record:?}");
        }
    }
}
