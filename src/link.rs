//! Two ends of a conversation, as channels: what is behind them is a connection, or a test.

use quorate_raft::codec::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tracing::debug;

/// Messages that may wait in one direction. A peer that is further behind is cut off: it
/// learns all it needs when it connects again.
pub(crate) const LINK_QUEUE_MAX: usize = 4_096;

/// One end: hears `I`, says `O`. The connection ends when both channels do.
#[derive(Debug)]
pub(crate) struct Link<I, O> {
    /// What the other side says.
    pub(crate) incoming: mpsc::Receiver<I>,
    /// What to say to it.
    pub(crate) outgoing: mpsc::Sender<O>,
}

impl<I, O> Link<I, O> {
    /// Two ends that are joined without a connection.
    #[must_use]
    pub(crate) fn pair() -> (Self, Link<O, I>) {
        let (outgoing, theirs) = mpsc::channel(LINK_QUEUE_MAX);
        let (their_outgoing, incoming) = mpsc::channel(LINK_QUEUE_MAX);
        (Self { incoming, outgoing }, Link { incoming: theirs, outgoing: their_outgoing })
    }
}

/// The end of a connection on which each message is a frame.
#[must_use]
pub(crate) fn over<I, O, S>(connection: Connection<S>) -> Link<I, O>
where
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + Sync + 'static,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (ours, mut theirs) = Link::<I, O>::pair();
    let (mut reader, mut writer) = connection.split();
    tokio::spawn(async move {
        while let Some(message) = theirs.incoming.recv().await {
            if let Err(error) = writer.send(&message).await {
                debug!(%error, "connection lost");
                return;
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                () = theirs.outgoing.closed() => return,
                next = reader.next() => next,
            };
            match next {
                Ok(Some(message)) => drop(theirs.outgoing.send(message).await),
                Ok(None) => return,
                Err(error) => return debug!(%error, "connection lost"),
            }
        }
    });
    ours
}
