//! The encoding of values: bincode, of which nothing shows outside.

use std::io;

use quorate_model::{Entry, UnixMs};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{FRAME_BYTES_MAX, FrameError};
use crate::types::LogEntry;

/// What decoding one frame may allocate: small numbers take up to eight times the room in
/// memory that they take in a frame.
const DECODED_BYTES_MAX: usize = 8 * FRAME_BYTES_MAX;

/// The format of a log entry, its first byte. An old one must decode for ever.
const ENTRY_FORMAT: u8 = 1;

/// The encoding of everything: bincode with variable-length numbers, and a limit on what a
/// forged length can make us allocate.
pub(super) fn encoding() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DECODED_BYTES_MAX>()
}

/// Encodes a value.
///
/// # Panics
///
/// If the value's serialization fails by itself, which none of ours does.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, encoding()).expect("our types serialize")
}

/// Decodes a value that takes up all of `bytes`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    let (value, rest) = decode_prefix(bytes)?;
    if rest.is_empty() {
        return Ok(value);
    }
    Err(FrameError::Malformed(format!("{} bytes too many", rest.len())))
}

/// Decodes a value at the start of `bytes`, and answers what follows it.
pub(crate) fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), FrameError> {
    let (value, read) = bincode::serde::decode_from_slice(bytes, encoding())
        .map_err(|error| FrameError::Malformed(error.to_string()))?;
    Ok((value, &bytes[read..]))
}

/// Encodes a log entry of requests that are encoded already.
pub(crate) fn encode_entry<'a>(
    proposed_at: UnixMs,
    requests: impl ExactSizeIterator<Item = &'a [u8]>,
) -> LogEntry {
    let mut bytes = vec![ENTRY_FORMAT];
    // An `Entry` field by field: a sequence is its length and then its elements.
    bytes.extend(encode(&proposed_at));
    bytes.extend(encode(&(requests.len() as u64)));
    for request in requests {
        bytes.extend_from_slice(request);
    }
    LogEntry(bytes.into())
}

/// Decodes a log entry.
pub(crate) fn decode_entry(entry: &LogEntry) -> Result<Entry, FrameError> {
    let Some((&format, body)) = entry.0.split_first() else {
        return Err(FrameError::Malformed("an empty entry".into()));
    };
    if format != ENTRY_FORMAT {
        return Err(FrameError::Malformed(format!("an entry of format {format}")));
    }
    decode(body)
}

/// Encodes a value of any size into `writer`.
pub(crate) fn encode_into<T: Serialize + ?Sized>(
    value: &T,
    writer: &mut impl io::Write,
) -> io::Result<()> {
    let config = bincode::config::standard();
    bincode::serde::encode_into_std_write(value, writer, config).map_err(io::Error::other)?;
    Ok(())
}

/// Decodes a value of any size out of something that holds `bytes` at most. A checksum vouches
/// for what was written, but not for who wrote it: a length that was made up must not make us
/// allocate what is not there, since where that fails the process ends.
pub(crate) fn decode_from<T: DeserializeOwned>(
    reader: &mut impl io::Read,
    bytes: u64,
) -> io::Result<T> {
    const MIB: usize = 1 << 20;
    // The limit is a constant to bincode, so there are a few of them. Each allows what it is for
    // sixteen times, as small numbers take more room in memory.
    match bytes {
        0..=0xf_ffff => decode_within::<T, { 16 * MIB }>(reader),
        0x10_0000..=0xfff_ffff => decode_within::<T, { 4_096 * MIB }>(reader),
        0x1000_0000.. => decode_within::<T, { 1_048_576 * MIB }>(reader),
    }
}

fn decode_within<T: DeserializeOwned, const BYTES_MAX: usize>(
    reader: &mut impl io::Read,
) -> io::Result<T> {
    let config = bincode::config::standard().with_limit::<BYTES_MAX>();
    bincode::serde::decode_from_std_read(reader, config)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

#[cfg(test)]
mod tests {
    use quorate_model::command::{CancelRun, MintNodeId};
    use quorate_model::{Command, IdempotencyKey, Request, RunId};

    use super::*;

    fn sample() -> Entry {
        let key = IdempotencyKey { key: "k".into(), request_hash: 300 };
        let run = RunId(uuid::Uuid::from_u128(7));
        let cancel = Command::CancelRun(CancelRun { run, reason: "no".into(), by: "ann".into() });
        let mint = Request::from(Command::MintNodeId(MintNodeId {}));
        let requests = vec![Request { key: Some(key), command: cancel }, mint];
        Entry { proposed_at: UnixMs(1_000), requests }
    }

    fn encoded(entry: &Entry) -> LogEntry {
        let requests: Vec<Vec<u8>> = entry.requests.iter().map(encode).collect();
        encode_entry(entry.proposed_at, requests.iter().map(Vec::as_slice))
    }

    #[test]
    fn entry_of_encoded_requests_is_an_encoded_entry() {
        let entry = sample();
        let bytes = encoded(&entry);
        assert_eq!(bytes.0[1..], encode(&entry));
        assert_eq!(decode_entry(&bytes).unwrap(), entry);
    }

    #[test]
    fn keeps_the_format_of_released_entries() {
        let hex: String = encoded(&sample()).0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "01fbe8030201016bfb2c01031000000000000000000000000000000007026e6f03616e6e000b"
        );
    }

    #[test]
    fn refuses_what_is_no_entry() {
        let sound = encoded(&sample()).0.to_vec();
        for length in 0..sound.len() {
            let cut = LogEntry(sound[..length].to_vec().into());
            assert!(decode_entry(&cut).is_err(), "{length} bytes");
        }
        let longer = LogEntry([&sound[..], &[0]].concat().into());
        assert!(decode_entry(&longer).is_err());
        let later = LogEntry([&[2], &sound[1..]].concat().into());
        assert!(decode_entry(&later).unwrap_err().to_string().contains("format 2"));
    }

    #[test]
    fn allocates_nothing_for_a_length_that_was_made_up() {
        let mut text = vec![253];
        for length in [u64::MAX, u64::MAX / 2, 1 << 46, 1 << 36] {
            text.truncate(1);
            text.extend(length.to_le_bytes());
            assert!(decode_from::<String>(&mut text.as_slice(), text.len() as u64).is_err());
        }
    }
}
