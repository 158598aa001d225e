//! The client half of a connection on which many requests are under way at once.
//!
//! Each frame is `(number, message)`; an answer bears the number of its question.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::ClusterId;
use crate::codec::{self, FrameError, FrameReader, FrameWriter, Service};

/// Frames that wait to be written, on either half.
pub(crate) const FRAMES_QUEUED_MAX: usize = 256;

/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 1024 * 1024;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The question was never sent.
    #[error("not sent: {0}")]
    NotSent(FrameError),
    /// It was sent, perhaps, and no answer came.
    #[error("no answer: {0}")]
    Lost(FrameError),
}

/// A connection to a node. Cheap to clone; closed with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    frames: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Waiting>,
    last: AtomicU64,
    tasks: [JoinHandle<()>; 2],
}

/// Who waits for which answer.
#[derive(Debug)]
struct Waiting(Mutex<Questions>);

#[derive(Debug)]
struct Questions {
    /// `None` once the connection is broken.
    open: Option<BTreeMap<u64, oneshot::Sender<Bytes>>>,
    /// When the first was asked since an answer came, whether anyone still waits for it or not.
    unanswered_since: Option<Instant>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Link {
    /// Connects to a node.
    pub(crate) async fn open(
        address: &str,
        cluster: ClusterId,
        service: Service,
        deadline: Duration,
    ) -> Result<Self, FrameError> {
        let connection = codec::connect(address, cluster, service, deadline).await?;
        let (reader, writer) = connection.split();
        let (frames, queued) = mpsc::channel(FRAMES_QUEUED_MAX);
        let waiting = Arc::new(Waiting(Mutex::new(Questions {
            open: Some(BTreeMap::new()),
            unanswered_since: None,
        })));
        let tasks = [
            tokio::spawn(hand_out(reader, Arc::clone(&waiting))),
            tokio::spawn(write_frames(writer, queued)),
        ];
        Ok(Self { inner: Arc::new(Inner { frames, waiting, last: AtomicU64::new(0), tasks }) })
    }

    /// Whether it is of no further use.
    pub(crate) fn is_broken(&self) -> bool {
        self.inner.frames.is_closed() || self.inner.waiting.lock().open.is_none()
    }

    /// Whether what was asked has brought no answer for longer than `patience`. A peer that
    /// vanished without a word leaves a connection that looks sound.
    pub(crate) fn is_silent(&self, patience: Duration) -> bool {
        let since = self.inner.waiting.lock().unanswered_since;
        since.is_some_and(|since| since.elapsed() > patience)
    }

    /// Whether it is the same connection.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Sends a question. The answer is awaited with [`Pending::answer`].
    pub(crate) async fn ask<Q: Serialize>(&self, question: &Q) -> Result<Pending, CallError> {
        let number = self.inner.last.fetch_add(1, Ordering::Relaxed);
        let mut frame = Vec::new();
        codec::append_frame(&mut frame, &(number, question)).map_err(CallError::NotSent)?;
        let (tell, told) = oneshot::channel();
        {
            let mut waiting = self.inner.waiting.lock();
            let Some(open) = &mut waiting.open else {
                return Err(CallError::NotSent(FrameError::Torn));
            };
            open.insert(number, tell);
            waiting.unanswered_since.get_or_insert_with(Instant::now);
        }
        let pending = Pending { number, told, waiting: Arc::clone(&self.inner.waiting) };
        match self.inner.frames.send(frame).await {
            Ok(()) => Ok(pending),
            Err(_) => Err(CallError::NotSent(FrameError::Torn)),
        }
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        question: &Q,
        deadline: Duration,
    ) -> Result<A, CallError> {
        let asked = Instant::now();
        let ask = tokio::time::timeout(deadline, self.ask(question));
        let pending = ask.await.map_err(|_| CallError::NotSent(FrameError::Late(deadline)))??;
        pending.answer(deadline.saturating_sub(asked.elapsed())).await
    }
}

/// A question whose answer is on its way.
#[derive(Debug)]
pub(crate) struct Pending {
    number: u64,
    told: oneshot::Receiver<Bytes>,
    waiting: Arc<Waiting>,
}

impl Pending {
    /// Waits for the answer.
    pub(crate) async fn answer<A: DeserializeOwned>(
        mut self,
        deadline: Duration,
    ) -> Result<A, CallError> {
        let told = tokio::time::timeout(deadline, &mut self.told).await;
        let told = told.map_err(|_| CallError::Lost(FrameError::Late(deadline)))?;
        let payload = told.map_err(|_| CallError::Lost(FrameError::Torn))?;
        codec::decode(&payload).map_err(CallError::Lost)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(open) = &mut self.waiting.lock().open {
            open.remove(&self.number);
        }
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Questions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives each answer to whoever asked, until the connection ends.
async fn hand_out(mut reader: FrameReader<impl AsyncRead + Unpin>, waiting: Arc<Waiting>) {
    while let Ok(Some(payload)) = reader.next_payload().await {
        let Ok((number, rest)) = codec::decode_prefix::<u64>(&payload) else { break };
        let tell = {
            let mut waiting = waiting.lock();
            waiting.unanswered_since = None;
            waiting.open.as_mut().and_then(|open| open.remove(&number))
        };
        if let Some(tell) = tell {
            // Whoever asked may be gone.
            let _ = tell.send(payload.slice_ref(rest));
        }
    }
    waiting.lock().open = None;
}

/// Writes frames as they come, those that wait together at once.
pub(crate) async fn write_frames(
    mut writer: FrameWriter<impl AsyncWrite + Unpin>,
    mut queued: mpsc::Receiver<Vec<u8>>,
) {
    while let Some(mut frames) = queued.recv().await {
        while frames.len() < WRITE_BYTES {
            let Ok(more) = queued.try_recv() else { break };
            frames.extend(more);
        }
        if writer.send_frames(&frames).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::codec::Connection;

    const SOON: Duration = Duration::from_secs(10);

    /// A link, and its other end.
    async fn opened() -> (Link, Connection<tokio::net::TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let cluster = ClusterId(1);
        let open = Link::open(&address, cluster, Service::Raft, SOON);
        let accept = async {
            let (stream, _) = listener.accept().await.unwrap();
            codec::accept(stream, cluster, SOON).await.unwrap().0
        };
        let (link, far) = tokio::join!(open, accept);
        (link.unwrap(), far)
    }

    #[tokio::test]
    async fn is_silent_once_questions_bring_no_answer_even_if_nobody_waits_for_one() {
        let (link, mut far) = opened().await;
        assert!(!link.is_silent(Duration::ZERO), "nothing was asked");
        drop(link.ask(&"a heartbeat").await.unwrap());
        let (number, _) = far.reader.next::<(u64, String)>().await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(link.is_silent(Duration::from_millis(1)));
        assert!(!link.is_silent(SOON), "there is patience left");
        assert!(!link.is_broken());

        far.writer.send(&(number, "an answer")).await.unwrap();
        let answered = async {
            while link.is_silent(Duration::ZERO) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, answered).await.expect("a late answer is one");
    }
}
