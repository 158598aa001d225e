//! Agreement: whether the nodes have made one state of one log.
//!
//! Raft keeps the logs equal; that equal logs make equal states is for us to see to, and for
//! memory that does not err. A node whose state differs answers what is not so, and if it comes
//! to lead, decides by what nobody else has. So each node digests its state after every so many
//! entries, and asks the other voters for theirs after the same entry. Each judges itself alone:
//!
//! - Where a quorum of the voters has one digest and this node another, it is wrong, and stops.
//! - Where others differ and no quorum is against it, nobody can tell who is right. It says so,
//!   in its log, its status and the metrics, and goes on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use quorate_model::{LogIndex, State};
use tokio::time::Instant;

use crate::codec;
use crate::forward::{Forwarder, Told, What};
use crate::identity::WAY_OUT;
use crate::machine;
use crate::node::Inner;

/// Digests that are kept to be asked for: nodes are not at the same entry at the same time.
const DIGESTS_KEPT: usize = 8;

/// Between two looks whether there is a new digest to compare.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a voter may take to say its digest.
const ASK_DEADLINE: Duration = Duration::from_millis(500);

/// What came of comparing states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// The last entry after which a quorum of the voters had the state of this node; 0 if none.
    pub index: u64,
    /// Where voters had another, if the last comparison found that.
    pub difference: Option<Difference>,
}

/// States that differ after one and the same entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The entry.
    pub index: u64,
    /// The voters whose state is not that of this node.
    pub nodes: Vec<u64>,
}

/// Which digests can be compared: those of one version on one kind of processor, for both say
/// what a state looks like in memory. While nodes are upgraded, one after the other, those that
/// differ do not count as having answered.
pub(crate) fn kind_of_digests() -> String {
    let (version, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    format!("{version}, protocol {}, {arch}", codec::PROTOCOL)
}

/// Digests of the state of this node.
#[derive(Debug)]
pub(crate) struct Digests {
    /// In entries.
    every: u64,
    /// By entry, the oldest first.
    kept: Mutex<VecDeque<(LogIndex, u64)>>,
    /// One is being made.
    is_busy: AtomicBool,
}

impl Digests {
    pub(crate) fn new(every: u64) -> Self {
        Self { every: every.max(1), kept: Mutex::default(), is_busy: AtomicBool::new(false) }
    }

    /// Whether the state after `index` is to be digested.
    pub(crate) fn is_due(&self, index: LogIndex) -> bool {
        index.0.is_multiple_of(self.every)
    }

    /// Digests a copy of the state after `index`, while apply goes on; not if the last is still
    /// being digested.
    pub(crate) fn make(self: &Arc<Self>, index: LogIndex, state: State) {
        if self.is_busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let digests = Arc::clone(self);
        tokio::spawn(async move {
            if let Ok(digest) = machine::blocking(move || state.hash()).await {
                digests.note(index, digest);
            }
            digests.is_busy.store(false, Ordering::Release);
        });
    }

    /// The first for an entry stands.
    fn note(&self, index: LogIndex, digest: u64) {
        let mut kept = self.kept();
        if kept.iter().all(|&(known, _)| known != index) {
            kept.push_back((index, digest));
        }
        while kept.len() > DIGESTS_KEPT {
            kept.pop_front();
        }
    }

    /// The digest after `index`, if it was made here and is kept still.
    pub(crate) fn of(&self, index: LogIndex) -> Option<u64> {
        self.kept().iter().find(|&&(known, _)| known == index).map(|&(_, digest)| digest)
    }

    fn newest(&self) -> Option<(LogIndex, u64)> {
        self.kept().iter().max().copied()
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(LogIndex, u64)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the digests of the voters after one entry say of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// Too few have said theirs.
    Open,
    /// A quorum has the same, and nobody another.
    Agreed,
    /// These have another, and are no quorum that has one and the same.
    Differ(Vec<u64>),
    /// A quorum has one and the same, and this node another.
    Outvoted,
}

/// Judges the node with the digest `own`, which `votes` or does not, by what the other voters
/// say of theirs, if they do.
fn judge(own: u64, votes: bool, told: &[(u64, Option<u64>)]) -> Verdict {
    let quorum = (told.len() + usize::from(votes)) / 2 + 1;
    let have = |digest: u64| told.iter().filter(|(_, said)| *said == Some(digest)).count();
    let others = told.iter().filter_map(|&(voter, said)| Some((voter, said?)));
    let others: Vec<(u64, u64)> = others.filter(|&(_, digest)| digest != own).collect();
    if others.iter().any(|&(_, digest)| have(digest) >= quorum) {
        Verdict::Outvoted
    } else if !others.is_empty() {
        Verdict::Differ(others.into_iter().map(|(voter, _)| voter).collect())
    } else if have(own) + usize::from(votes) >= quorum {
        Verdict::Agreed
    } else {
        Verdict::Open
    }
}

/// Compares the newest digest of this node with those of the other voters, as long as the node
/// is there.
pub(crate) async fn watch_agreement(node: Weak<Inner>) {
    let mut compared = LogIndex(0);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(inner) = node.upgrade() else { return };
        let newest = inner.replica.digests.newest();
        if let Some((index, own)) = newest.filter(|&(index, _)| index > compared)
            && inner.compare(index, own).await
        {
            compared = index;
        }
    }
}

impl Inner {
    /// Compares states after one entry. `false` if that has to be done again, for not all of
    /// the voters said theirs.
    async fn compare(self: &Arc<Self>, index: LogIndex, own: u64) -> bool {
        let votes = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.voter_ids().any(|voter| voter == self.id)
        };
        let mut told = Vec::new();
        for (voter, address) in self.voters_to_follow() {
            told.push((voter, self.ask_digest(&address, index).await));
        }
        let difference = match judge(own, votes, &told) {
            Verdict::Open => return false,
            Verdict::Agreed => None,
            Verdict::Differ(nodes) => Some(Difference { index: index.0, nodes }),
            Verdict::Outvoted => {
                let reason = format!(
                    "after entry {index} the state of this node is not that of a quorum, which \
                     has one and the same; start it again, and if it stops again, {WAY_OUT}"
                );
                tracing::error!(reason, "the node stops");
                self.stop(reason).await;
                return true;
            }
        };
        let mut agreement = self.agreement.lock().unwrap_or_else(PoisonError::into_inner);
        match &difference {
            Some(Difference { nodes, .. }) if agreement.difference != difference => {
                tracing::error!(%index, ?nodes, "voters have another state after the same entry");
            }
            Some(_) => {}
            None => agreement.index = index.0,
        }
        agreement.difference = difference;
        told.iter().all(|(_, said)| said.is_some())
    }

    async fn ask_digest(&self, address: &str, index: LogIndex) -> Option<u64> {
        let until = Instant::now() + ASK_DEADLINE;
        let what = What::Digest { index, kind: kind_of_digests() };
        let told = Forwarder::default().ask(self.cluster, address, &what, until).await;
        if let Ok(Told::Digest(digest)) = told { digest } else { None }
    }
}

#[cfg(test)]
mod tests {
    use quorate_model::Command;
    use quorate_model::command::AdvanceClock;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::{Node, Options, Start, ask_to_join};

    const SOON: Duration = Duration::from_secs(20);
    const EVERY: u64 = 16;

    #[test]
    fn a_node_is_judged_by_a_quorum_of_the_voters() {
        let judge = |others: &[Option<u64>]| {
            let told: Vec<_> = (2..).zip(others.iter().copied()).collect();
            judge(7, true, &told)
        };
        assert_eq!(judge(&[]), Verdict::Agreed, "alone it is the quorum");
        assert_eq!(judge(&[Some(7), Some(7)]), Verdict::Agreed);
        assert_eq!(judge(&[Some(7), None]), Verdict::Agreed);
        assert_eq!(judge(&[None, None]), Verdict::Open);
        assert_eq!(judge(&[Some(8), None]), Verdict::Differ(vec![2]));
        assert_eq!(judge(&[Some(7), Some(8)]), Verdict::Differ(vec![3]));
        assert_eq!(judge(&[Some(8), Some(9)]), Verdict::Differ(vec![2, 3]), "no quorum has one");
        assert_eq!(judge(&[Some(8), Some(8)]), Verdict::Outvoted);
        assert_eq!(judge(&[Some(8)]), Verdict::Differ(vec![2]), "one of two is no quorum");
    }

    #[test]
    fn a_node_without_a_vote_does_not_count_itself() {
        assert_eq!(judge(7, false, &[(1, Some(7)), (2, None), (3, None)]), Verdict::Open);
        assert_eq!(judge(7, false, &[(1, Some(7)), (2, Some(7)), (3, None)]), Verdict::Agreed);
        assert_eq!(judge(7, false, &[(1, Some(8))]), Verdict::Outvoted);
    }

    #[test]
    fn only_the_last_digests_are_kept() {
        let digests = Digests::new(EVERY);
        for round in 1..=DIGESTS_KEPT as u64 + 1 {
            digests.note(LogIndex(round * EVERY), round);
        }
        assert_eq!(digests.of(LogIndex(EVERY)), None);
        assert_eq!(digests.of(LogIndex(2 * EVERY)), Some(2));
        assert!(digests.is_due(LogIndex(3 * EVERY)) && !digests.is_due(LogIndex(3 * EVERY + 1)));
    }

    /// A node that founds a cluster, or joins one.
    async fn node(dir: &std::path::Path, seed: Option<&str>) -> (Node, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let start = match seed {
            None => Start::Bootstrap,
            Some(seed) => {
                let joined = ask_to_join(seed, &address, true, SOON).await.unwrap();
                Start::Join { node_id: joined.node, cluster_id: joined.cluster }
            }
        };
        let options = Options { digest_every: EVERY, ..Options::new(dir, address.clone(), start) };
        let node = Node::open(options).await.unwrap();
        let served = node.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(served.clone(), stream));
            }
        });
        (node, address)
    }

    async fn serve(node: Node, stream: TcpStream) {
        if let Ok((connection, hello)) = codec::accept(stream, node.cluster(), SOON).await {
            node.serve(connection, hello).await;
        }
    }

    async fn wait_until(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + SOON;
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A cluster of so many voters.
    async fn cluster(dir: &std::path::Path, voters: usize) -> Vec<Node> {
        let (first, seed) = node(&dir.join("0"), None).await;
        first.leadership().wait_for(|known| known.leads).await.unwrap();
        let mut nodes = vec![first];
        while nodes.len() < voters {
            nodes.push(node(&dir.join(nodes.len().to_string()), Some(&seed)).await.0);
        }
        let count = || nodes[0].status().members.iter().filter(|member| member.voter).count();
        wait_until("all have a vote", || count() == voters).await;
        nodes
    }

    /// The next entry after which states are compared.
    fn next(node: &Node) -> u64 {
        (node.applied().borrow().0 / EVERY + 1) * EVERY
    }

    async fn go_to(node: &Node, index: u64) {
        let advance = || Command::AdvanceClock(AdvanceClock {}).into();
        while node.propose(advance(), SOON).await.unwrap().index.0 < index {}
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_whose_state_is_not_that_of_a_quorum_stops() {
        let dir = tempfile::tempdir().unwrap();
        let nodes = cluster(dir.path(), 3).await;
        let index = next(&nodes[0]);
        go_to(&nodes[0], index).await;
        let agrees = |node: &Node| node.status().agreement.index >= index;
        wait_until("all agree", || nodes.iter().all(agrees)).await;

        let index = next(&nodes[0]);
        nodes[2].inner.replica.digests.note(LogIndex(index), 4711);
        go_to(&nodes[0], index).await;
        let reason = tokio::time::timeout(SOON, nodes[2].stopped()).await.unwrap();
        assert!(reason.contains("not that of a quorum"), "{reason}");
        go_to(&nodes[0], index + 1).await;
        for node in nodes {
            node.shutdown().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn where_nobody_can_tell_who_is_right_all_say_so_and_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let nodes = cluster(dir.path(), 2).await;
        let index = next(&nodes[0]);
        nodes[1].inner.replica.digests.note(LogIndex(index), 4711);
        go_to(&nodes[0], index).await;
        for (node, other) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
            let expected = Some(Difference { index, nodes: vec![other.id()] });
            wait_until("it is said", || node.status().agreement.difference == expected).await;
        }
        go_to(&nodes[1], index + 1).await;
        for node in nodes {
            node.shutdown().await;
        }
    }
}
