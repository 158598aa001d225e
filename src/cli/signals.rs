//! The signals that are heard: from the first on they no longer end the process by themselves.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C. One that comes while nobody waits is not lost.
#[derive(Debug)]
pub(crate) struct Interrupts(Signal);

impl Interrupts {
    /// Hears from now on.
    ///
    /// # Errors
    ///
    /// If the system does not let it.
    pub(crate) fn new() -> io::Result<Self> {
        signal(SignalKind::interrupt()).map(Self)
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // Nothing will come any more; whoever waits for this waits for something else too.
            std::future::pending().await
        }
    }
}

/// How a process was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// By Ctrl-C: somebody has enough of it.
    Interrupt,
    /// By SIGTERM, as service managers do, also when they are about to start it again.
    Terminate,
}

/// The two ways in which a process is asked to stop.
#[derive(Debug)]
pub(crate) struct Stops {
    interrupts: Interrupts,
    terminate: Signal,
}

impl Stops {
    /// Hears from now on.
    ///
    /// # Errors
    ///
    /// If the system does not let it.
    pub(crate) fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { interrupts: Interrupts::new()?, terminate })
    }

    /// Waits until it is asked to stop, once more, and says how.
    pub(crate) async fn next(&mut self) -> Stop {
        tokio::select! {
            () = self.interrupts.next() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
        }
    }
}
