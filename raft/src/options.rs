//! What a node is told when it is opened.

use std::path::PathBuf;
use std::time::Duration;

use crate::ClusterId;

/// How to open a node.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory. One node's, and no one else's; created if absent.
    pub dir: PathBuf,
    /// Where the other nodes reach this one: `host:port`.
    pub advertise_address: String,
    /// Where the node comes from.
    pub start: Start,
    /// How soon a silent leader is replaced.
    pub timing: Timing,
    /// A snapshot is taken after so many entries.
    pub snapshot_after_entries: u64,
    /// A snapshot is taken after so many bytes of entries, if that is earlier: entries can be
    /// of 4 MiB each, and all since the last but one snapshot are kept.
    pub snapshot_after_bytes: u64,
    /// The size of a file of the write-ahead log, in bytes.
    pub wal_segment_bytes: u64,
    /// States are compared with those of the other voters after every so many entries. It takes
    /// a copy of the state, and some milliseconds of a core for ten thousand live tasks.
    pub digest_every: u64,
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new(
        dir: impl Into<PathBuf>,
        advertise_address: impl Into<String>,
        start: Start,
    ) -> Self {
        Self {
            dir: dir.into(),
            advertise_address: advertise_address.into(),
            start,
            timing: Timing::default(),
            snapshot_after_entries: 200_000,
            snapshot_after_bytes: 256 * 1024 * 1024,
            wal_segment_bytes: 64 * 1024 * 1024,
            digest_every: 4_096,
        }
    }
}

/// Where a node comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It founds a cluster, as its node 1 and only voter. The directory must hold no node.
    Bootstrap,
    /// It was given an id by [`ask_to_join`](crate::ask_to_join). The directory must hold no
    /// node.
    Join {
        /// Never used before.
        node_id: u64,
        /// The cluster that minted it.
        cluster_id: ClusterId,
    },
    /// It was here before. The directory must hold a node.
    Resume,
}

/// How soon a silent leader is replaced. The same on all nodes.
///
/// A leader has a lease of two thirds of `election_max`: so long after it was last heard
/// nobody else is elected, and so long after it last heard its quorum it goes on. After the
/// lease each follower waits for a random time more, of half of `election_min` up to another
/// lease, and stands for election. With the defaults that is 275 to 400 ms of silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader lets itself be heard: at most a third of `election_min`.
    pub heartbeat: Duration,
    /// The lower end.
    pub election_min: Duration,
    /// The upper end.
    pub election_max: Duration,
}

impl Timing {
    /// How long a leader is safe after it was last heard.
    pub(crate) fn lease(&self) -> Duration {
        self.election_max * 2 / 3
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
        }
    }
}
