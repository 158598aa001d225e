//! Frames on a connection, and the encoding of what stands in them.
//!
//! ```text
//! connection = "QUORATE1" frame(Hello) ◄─► frame(Greeting), then frames both ways
//! frame      = length: u32 LE | crc32c(payload): u32 LE | payload: bincode
//! ```
//!
//! Used by the peers of the Raft group and by the sessions of workers alike. What is sent is
//! each service's own affair; that bytes arrive whole, and from the right cluster, is ours.

mod encoding;

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::ClusterId;
use crate::machine::{self, Stream};

use encoding::encoding;
pub(crate) use encoding::{
    decode, decode_entry, decode_from, decode_prefix, encode, encode_entry, encode_into,
};

/// The first bytes of every connection that speaks frames; anything else is HTTP.
pub const MAGIC: [u8; 8] = *b"QUORATE1";

/// The version of everything that goes through frames. Nodes of different versions refuse
/// each other.
pub const PROTOCOL: u32 = 1;

/// The largest payload of a frame: twice the largest log entry.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The largest first frame: whoever has not said hello gets no memory.
const HELLO_BYTES_MAX: usize = 4 * 1024;

/// Bytes before the payload: length and checksum.
const HEADER_BYTES: usize = 8;

/// How much is read at once, and how far a buffer grows on a mere announcement.
const READ_BYTES: usize = 64 * 1024;

impl ClusterId {
    /// No cluster: of whoever belongs to none yet.
    pub const NONE: Self = Self(0);
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    /// Between members: votes, log entries, snapshots.
    Raft,
    /// Proposals, read indexes and changes of membership, for the leader.
    Forward,
    /// The session of a worker.
    Worker,
    /// Bytes that attempts wrote, between nodes.
    Files,
}

/// The first frame of whoever connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Must be the cluster of the node that accepts. [`ClusterId::NONE`] if not known yet:
    /// then a worker may come, and a node that asks to join.
    pub cluster: ClusterId,
    /// What for.
    pub service: Service,
}

/// The first frame of whoever accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Greeting {
    /// Go on.
    Welcome {
        /// The cluster of the node that accepts.
        cluster: ClusterId,
    },
    /// The connection ends here, and why.
    Refusal(String),
}

/// Why a connection came to nothing, or broke.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// It broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// It ended in the middle of a frame.
    #[error("the connection ended in the middle of a frame")]
    Torn,
    /// It does not begin with [`MAGIC`].
    #[error("the connection does not speak this protocol")]
    NotQuorate,
    /// A frame is larger than any may be.
    #[error("a frame of {bytes} bytes; {bytes_max} is the most")]
    TooLarge {
        /// Its size, as it says.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The checksum differs.
    #[error("a frame is damaged: its checksum differs")]
    Damaged,
    /// The payload is not what it should be.
    #[error("a frame makes no sense: {0}")]
    Malformed(String),
    /// Nothing came in time.
    #[error("nothing came within {0:?}")]
    Late(Duration),
    /// The other side refuses us, or we refused it.
    #[error("refused: {0}")]
    Refused(String),
}

/// A connection after the greeting.
#[derive(Debug)]
pub struct Connection<S> {
    /// Frames that come in.
    pub reader: FrameReader<ReadHalf<S>>,
    /// Frames that go out.
    pub writer: FrameWriter<WriteHalf<S>>,
    /// The cluster of the node that accepted.
    pub cluster: ClusterId,
}

impl<S: AsyncRead + AsyncWrite> Connection<S> {
    fn new(stream: S, cluster: ClusterId) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self { reader: FrameReader::new(read), writer: FrameWriter::new(write), cluster }
    }

    /// The two directions, each to be used by a task of its own.
    pub fn split(self) -> (FrameReader<ReadHalf<S>>, FrameWriter<WriteHalf<S>>) {
        (self.reader, self.writer)
    }
}

/// Connects to a node and greets it. Without delay for small frames.
///
/// # Errors
///
/// If nobody answers within `deadline`, or with a refusal.
pub async fn connect(
    address: &str,
    cluster: ClusterId,
    service: Service,
    deadline: Duration,
) -> Result<Connection<Box<dyn Stream>>, FrameError> {
    let attempt = async {
        let mut connection = Connection::new(machine::connect(address).await?, cluster);
        connection.writer.io.write_all(&MAGIC).await?;
        connection.writer.send(&Hello { protocol: PROTOCOL, cluster, service }).await?;
        connection.reader.bytes_max = HELLO_BYTES_MAX;
        let greeting = connection.reader.next::<Greeting>().await?.ok_or(FrameError::Torn)?;
        connection.reader.bytes_max = FRAME_BYTES_MAX;
        match greeting {
            Greeting::Welcome { cluster } => Ok(Connection { cluster, ..connection }),
            Greeting::Refusal(reason) => Err(FrameError::Refused(reason)),
        }
    };
    tokio::time::timeout(deadline, attempt).await.map_err(|_| FrameError::Late(deadline))?
}

/// Reads the magic and the hello of a connection, and answers. The magic must not have been
/// consumed: peek at it.
///
/// # Errors
///
/// If it is no hello of this protocol, or of another cluster. The other side has been told
/// why, if it is one of us, and the connection is closed.
pub async fn accept<S: AsyncRead + AsyncWrite>(
    stream: S,
    cluster: ClusterId,
    deadline: Duration,
) -> Result<(Connection<S>, Hello), FrameError> {
    let mut connection = Connection::new(stream, cluster);
    let greet = async {
        let mut magic = [0; MAGIC.len()];
        connection.reader.io.read_exact(&mut magic).await?;
        if magic != MAGIC {
            return Err(FrameError::NotQuorate);
        }
        connection.reader.bytes_max = HELLO_BYTES_MAX;
        let hello = connection.reader.next::<Hello>().await?.ok_or(FrameError::Torn)?;
        connection.reader.bytes_max = FRAME_BYTES_MAX;
        if let Err(reason) = judge(hello, cluster) {
            connection.writer.send(&Greeting::Refusal(reason.clone())).await?;
            return Err(FrameError::Refused(reason));
        }
        connection.writer.send(&Greeting::Welcome { cluster }).await?;
        Ok(hello)
    };
    let greeted = tokio::time::timeout(deadline, greet).await;
    let hello = greeted.map_err(|_| FrameError::Late(deadline))??;
    Ok((connection, hello))
}

/// Whether a hello is welcome; if not, why.
fn judge(hello: Hello, cluster: ClusterId) -> Result<(), String> {
    let Hello { protocol, cluster: theirs, service } = hello;
    if protocol != PROTOCOL {
        return Err(format!(
            "this node speaks protocol {PROTOCOL}, the other {protocol}: run the same version \
             on both"
        ));
    }
    let newcomer = theirs == ClusterId::NONE
        && matches!(service, Service::Worker | Service::Forward | Service::Files);
    if theirs == cluster || newcomer {
        return Ok(());
    }
    Err(format!("this node belongs to cluster {cluster}, the other to {theirs}"))
}

/// The incoming direction of a connection.
#[derive(Debug)]
pub struct FrameReader<R> {
    io: R,
    buffer: BytesMut,
    bytes_max: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames from `io`.
    pub fn new(io: R) -> Self {
        Self { io, buffer: BytesMut::new(), bytes_max: FRAME_BYTES_MAX }
    }

    /// The next message; `None` if the connection was closed between frames. Can be cancelled
    /// at no loss.
    ///
    /// # Errors
    ///
    /// If there is no whole and sound frame. Then the connection is of no further use.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        self.next_payload().await?.map(|payload| decode(&payload)).transpose()
    }

    /// The next payload, its checksum verified. As [`next`](Self::next) otherwise.
    pub(crate) async fn next_payload(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(payload) = self.take_frame()? {
                return Ok(Some(payload));
            }
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Torn) };
            }
        }
    }

    /// Takes a frame out of the buffer, or makes room to read more of it.
    fn take_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else {
            self.buffer.reserve(READ_BYTES);
            return Ok(None);
        };
        let [l0, l1, l2, l3, c0, c1, c2, c3] = *header;
        let bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let checksum = u32::from_le_bytes([c0, c1, c2, c3]);
        let bytes_max = self.bytes_max;
        if bytes > bytes_max {
            return Err(FrameError::TooLarge { bytes, bytes_max });
        }
        let missing = (HEADER_BYTES + bytes).saturating_sub(self.buffer.len());
        if missing > 0 {
            self.buffer.reserve(missing.min(READ_BYTES));
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let payload = self.buffer.split_to(bytes).freeze();
        if crc32c::crc32c(&payload) != checksum {
            return Err(FrameError::Damaged);
        }
        Ok(Some(payload))
    }
}

/// The outgoing direction of a connection.
#[derive(Debug)]
pub struct FrameWriter<W> {
    io: W,
    buffer: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes frames to `io`.
    pub fn new(io: W) -> Self {
        Self { io, buffer: Vec::new() }
    }

    /// Sends a message at once.
    ///
    /// # Errors
    ///
    /// If the connection broke, or the message is too large for a frame.
    pub async fn send<T: Serialize + ?Sized>(&mut self, message: &T) -> Result<(), FrameError> {
        self.buffer.clear();
        append_frame(&mut self.buffer, message)?;
        self.flush_buffer().await
    }

    /// Sends frames made by [`append_frame`].
    pub(crate) async fn send_frames(&mut self, frames: &[u8]) -> Result<(), FrameError> {
        self.io.write_all(frames).await?;
        Ok(self.io.flush().await?)
    }

    async fn flush_buffer(&mut self) -> Result<(), FrameError> {
        self.io.write_all(&self.buffer).await?;
        self.io.flush().await?;
        if self.buffer.capacity() > READ_BYTES {
            self.buffer = Vec::new();
        }
        Ok(())
    }
}

/// Appends a frame with `message` to `buffer`.
pub(crate) fn append_frame<T: Serialize + ?Sized>(
    buffer: &mut Vec<u8>,
    message: &T,
) -> Result<(), FrameError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    if let Err(error) = bincode::serde::encode_into_std_write(message, buffer, encoding()) {
        buffer.truncate(start);
        return Err(FrameError::Malformed(error.to_string()));
    }
    let payload = &buffer[start + HEADER_BYTES..];
    let (bytes, checksum) = (payload.len(), crc32c::crc32c(payload));
    let length = u32::try_from(bytes).ok().filter(|_| bytes <= FRAME_BYTES_MAX);
    let Some(length) = length else {
        buffer.truncate(start);
        return Err(FrameError::TooLarge { bytes, bytes_max: FRAME_BYTES_MAX });
    };
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    buffer[start + 4..start + HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn frame(message: &impl Serialize) -> Vec<u8> {
        let mut frame = Vec::new();
        append_frame(&mut frame, message).unwrap();
        frame
    }

    async fn read_all(bytes: &[u8]) -> Result<Vec<String>, FrameError> {
        let mut reader = FrameReader::new(bytes);
        let mut messages = Vec::new();
        while let Some(message) = reader.next::<String>().await? {
            messages.push(message);
        }
        Ok(messages)
    }

    #[tokio::test]
    async fn reads_frames_whatever_they_are_cut_into() {
        let (near, far) = duplex(1);
        let sent = ["", "a", &"long".repeat(100)].map(str::to_owned);
        let frames = sent.iter().flat_map(frame).collect::<Vec<u8>>();
        let writing = tokio::spawn(async move {
            FrameWriter::new(near).send_frames(&frames).await.unwrap();
        });
        let mut reader = FrameReader::new(far);
        for message in sent {
            assert_eq!(reader.next::<String>().await.unwrap(), Some(message));
        }
        assert_eq!(reader.next::<String>().await.unwrap(), None);
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn takes_no_frame_with_a_flipped_bit() {
        let sound = frame(&"message");
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read_all(&bytes).await.is_err(), "bit {bit}");
        }
        for length in 1..sound.len() {
            assert!(read_all(&sound[..length]).await.is_err(), "{length} bytes");
        }
    }

    #[tokio::test]
    async fn allocates_nothing_on_a_mere_claim() {
        let claims_much = frame(&(u64::MAX / 2));
        let error = read_all(&claims_much).await.unwrap_err();
        assert!(matches!(error, FrameError::Malformed(_)), "{error}");
        let mut reader = FrameReader::new(&claims_much[..]);
        assert!(reader.next::<Vec<u64>>().await.is_err());

        let too_large = vec![0_u8; FRAME_BYTES_MAX + 1];
        let error = append_frame(&mut Vec::new(), &too_large).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { .. }), "{error}");
    }

    async fn greet(hello: Hello, cluster: ClusterId) -> (Greeting, Result<Hello, FrameError>) {
        let (near, far): (DuplexStream, DuplexStream) = duplex(1024);
        let client = tokio::spawn(async move {
            let mut connection = Connection::new(near, hello.cluster);
            connection.writer.io.write_all(&MAGIC).await.unwrap();
            connection.writer.send(&hello).await.unwrap();
            connection.reader.next::<Greeting>().await.unwrap().unwrap()
        });
        let accepted = accept(far, cluster, SOON).await.map(|(_, hello)| hello);
        (client.await.unwrap(), accepted)
    }

    #[tokio::test]
    async fn greets_its_own_and_newcomers_only() {
        let (own, other) = (ClusterId(1), ClusterId(2));
        let hello = |cluster, service| Hello { protocol: PROTOCOL, cluster, service };
        for welcome in [
            hello(own, Service::Raft),
            hello(own, Service::Worker),
            hello(ClusterId::NONE, Service::Worker),
            hello(ClusterId::NONE, Service::Forward),
        ] {
            let (greeting, accepted) = greet(welcome, own).await;
            assert_eq!(greeting, Greeting::Welcome { cluster: own });
            assert_eq!(accepted.unwrap(), welcome);
        }
        for unwelcome in [
            hello(other, Service::Raft),
            hello(ClusterId::NONE, Service::Raft),
            Hello { protocol: PROTOCOL + 1, ..hello(own, Service::Raft) },
        ] {
            let (greeting, accepted) = greet(unwelcome, own).await;
            assert!(matches!(greeting, Greeting::Refusal(_)), "{greeting:?}");
            assert!(matches!(accepted, Err(FrameError::Refused(_))), "{accepted:?}");
        }
    }

    #[tokio::test]
    async fn waits_for_a_hello_only_so_long() {
        let (_silent, far) = duplex(1024);
        let accepted = accept(far, ClusterId(1), Duration::from_millis(1)).await;
        assert!(matches!(accepted, Err(FrameError::Late(_))));
    }
}
