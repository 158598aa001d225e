//! What is to be done to a cluster, chosen from a seed: a pure function, so that a seed repeats it.

use std::fmt;
use std::time::Duration;

use super::shape::Shape;
use crate::harness::seed::Seed;
use crate::harness::switch::Link;

/// Whose turn it is. A role is looked up when the fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// The node that leads then.
    Leader,
    /// A node, by position.
    Node(usize),
    /// A worker without a vote, by position.
    Worker(usize),
}

/// Which process of a host is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The server or worker itself.
    Agent,
    /// The process that holds its tasks.
    Keeper,
    /// One of its tasks.
    Task,
}

/// Something that is done to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL to one, which is started again after a while. Its tasks wait for it.
    Kill(Who),
    /// SIGKILL to all that runs on its host.
    KillHost(Who),
    /// SIGKILL to all nodes and workers.
    KillAll,
    /// SIGSTOP, then SIGCONT.
    Pause(Who, Part),
    /// Links are cut; with a period, on and off again.
    Cut(Who, Shape, Option<Duration>),
    /// All links are late, lossy or slow.
    Weather(Link),
    /// The power of one node's disk fails.
    PowerCut(Who),
    /// The power of all nodes fails.
    PowerCutAll,
    /// A sync fails, the n-th from now.
    SyncError(Who, u32),
    /// The disk goes away under a node.
    DiskGone(Who),
    /// Every sync takes so long.
    SlowSync(Who, Duration),
    /// No room is left.
    DiskFull(Who),
    /// The wall clock is off by so many seconds.
    ClockJump(Who, i64),
    /// It gets this part of a core, in percent.
    CpuQuota(Who, u32),
    /// A node is removed for good, and a fresh one takes its place.
    Replace(usize),
    /// The leader hands over.
    Transfer,
    /// Every node is stopped and started, one after the other.
    RollingRestart,
}

impl Fault {
    /// One word, for counts and for choosing.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Kill(_) | Self::KillHost(_) => Kind::Kill,
            Self::KillAll => Kind::KillAll,
            Self::Pause(..) => Kind::Pause,
            Self::Cut(..) => Kind::Partition,
            Self::Weather(_) => Kind::Weather,
            Self::PowerCut(_) | Self::PowerCutAll => Kind::PowerCut,
            Self::SyncError(..) | Self::DiskGone(_) => Kind::DiskError,
            Self::SlowSync(..) => Kind::SlowSync,
            Self::DiskFull(_) => Kind::DiskFull,
            Self::ClockJump(..) => Kind::Clock,
            Self::CpuQuota(..) => Kind::CpuQuota,
            Self::Replace(_) => Kind::Replace,
            Self::Transfer => Kind::Transfer,
            Self::RollingRestart => Kind::Restart,
        }
    }

    /// How often it comes and goes, if it does.
    pub(super) fn period(&self) -> Option<Duration> {
        if let Self::Cut(_, _, period) = self { *period } else { None }
    }

    /// Whether it takes tasks away from a worker for longer than a keeper waits.
    pub(super) fn takes_tasks(&self) -> bool {
        matches!(self, Self::KillHost(_) | Self::PowerCut(_) | Self::PowerCutAll)
    }

    /// Whether a node that leads cannot go on leading.
    pub(super) fn unseats(&self) -> bool {
        match self {
            Self::Kill(_)
            | Self::KillHost(_)
            | Self::KillAll
            | Self::PowerCut(_)
            | Self::PowerCutAll
            | Self::SyncError(..)
            | Self::DiskGone(_)
            | Self::Transfer
            | Self::RollingRestart => true,
            Self::Pause(..)
            | Self::Cut(..)
            | Self::Weather(_)
            | Self::SlowSync(..)
            | Self::DiskFull(_)
            | Self::ClockJump(..)
            | Self::CpuQuota(..)
            | Self::Replace(_) => false,
        }
    }

    /// Whether nothing else may be done at the same time: it needs the cluster to be well, or
    /// touches every node.
    fn wants_to_be_alone(&self) -> bool {
        matches!(self, Self::KillAll | Self::PowerCutAll | Self::Replace(_) | Self::RollingRestart)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// The kinds of faults, as counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Kill,
    KillAll,
    Pause,
    Partition,
    Weather,
    PowerCut,
    DiskError,
    SlowSync,
    DiskFull,
    Clock,
    CpuQuota,
    Replace,
    Transfer,
    Restart,
}

impl Kind {
    /// Every kind, each as often as it is to be chosen.
    const MENU: &[(Self, &str, usize)] = &[
        (Self::Kill, "kill", 6),
        (Self::KillAll, "kill-all", 1),
        (Self::Pause, "pause", 4),
        (Self::Partition, "partition", 6),
        (Self::Weather, "weather", 2),
        (Self::PowerCut, "power-cut", 2),
        (Self::DiskError, "disk-error", 1),
        (Self::SlowSync, "slow-sync", 1),
        (Self::DiskFull, "disk-full", 1),
        (Self::Clock, "clock", 1),
        (Self::CpuQuota, "cpu-quota", 1),
        (Self::Replace, "replace", 1),
        (Self::Transfer, "transfer", 1),
        (Self::Restart, "restart", 1),
    ];

    /// As it is written on a command line.
    pub(super) fn word(self) -> &'static str {
        let found = Self::MENU.iter().find(|(kind, ..)| *kind == self);
        found.map_or("", |(_, word, _)| word)
    }

    /// The kinds in a list with commas, each with how often it is to be chosen, if `:` and a
    /// number say so; none if one of them is none.
    pub(super) fn list(text: &str) -> Option<Vec<Choice>> {
        let choice = |item: &str| {
            let (word, often) = item.split_once(':').map_or((item, None), |(w, n)| (w, Some(n)));
            let (kind, _, usual) = Self::MENU.iter().find(|(_, name, _)| *name == word)?;
            let often = often.map_or(Some(*usual), |often| often.parse().ok())?;
            (often > 0).then_some(Choice { kind: *kind, often })
        };
        text.split(',').map(choice).collect()
    }

    /// All of them.
    pub(super) fn all() -> Vec<Choice> {
        Self::MENU.iter().map(|&(kind, _, often)| Choice { kind, often }).collect()
    }
}

/// A kind that may be chosen, and how often against the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) kind: Kind,
    pub(super) often: usize,
}

/// A fault, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) fault: Fault,
    pub(super) lasts: Duration,
}

/// Faults that begin together, and how long the cluster is left alone afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) faults: Vec<Planned>,
    pub(super) rest: Duration,
}

/// Chooses rounds, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    seed: Seed,
    menu: Vec<Kind>,
    nodes: usize,
    workers: usize,
    rounds: usize,
}

impl Plan {
    /// A plan for a cluster of that size, with faults of these kinds only.
    pub(super) fn new(seed: Seed, choices: &[Choice], nodes: usize, workers: usize) -> Self {
        let repeated = |choice: &Choice| std::iter::repeat_n(choice.kind, choice.often);
        let menu = choices.iter().flat_map(repeated).collect();
        Self { seed, menu, nodes, workers, rounds: 0 }
    }

    /// One to three faults, at most one of a kind and one for a victim.
    pub(super) fn next(&mut self) -> Round {
        self.rounds += 1;
        let count = 1 + [0, 0, 1, 1, 2][self.seed.below(5)];
        let mut faults: Vec<Planned> = Vec::new();
        for _ in 0..count {
            let fault = self.fault();
            let alone = faults.iter().any(|planned| planned.fault.wants_to_be_alone())
                || fault.wants_to_be_alone() && !faults.is_empty();
            let again = faults.iter().any(|planned| planned.fault.kind() == fault.kind());
            if !alone && !again {
                let lasts = self.lasts(&fault);
                faults.push(Planned { fault, lasts });
            }
        }
        let rest = self.span(1_000, 3_000);
        Round { faults, rest }
    }

    fn fault(&mut self) -> Fault {
        match self.menu[self.seed.below(self.menu.len())] {
            Kind::Kill => match self.seed.below(3) {
                0 => Fault::KillHost(self.anyone()),
                _ => Fault::Kill(self.anyone()),
            },
            Kind::KillAll => Fault::KillAll,
            Kind::Pause => {
                let part = [Part::Agent, Part::Agent, Part::Keeper, Part::Task];
                Fault::Pause(self.anyone(), part[self.seed.below(4)])
            }
            Kind::Partition => self.cut(),
            Kind::Weather => self.weather(),
            Kind::PowerCut => match self.seed.below(4) {
                0 => Fault::PowerCutAll,
                _ => Fault::PowerCut(self.node()),
            },
            Kind::DiskError => match self.seed.below(3) {
                0 => Fault::DiskGone(self.node()),
                nth => Fault::SyncError(self.node(), u32::try_from(nth * 3).unwrap_or(1)),
            },
            Kind::SlowSync => Fault::SlowSync(self.node(), self.span(200, 2_000)),
            Kind::DiskFull => Fault::DiskFull(self.node()),
            Kind::Clock => {
                let seconds = [3_600, -3_600, 60, -60, 86_400][self.seed.below(5)];
                Fault::ClockJump(self.node(), seconds)
            }
            Kind::CpuQuota => Fault::CpuQuota(self.anyone(), [5, 10, 20][self.seed.below(3)]),
            Kind::Replace => Fault::Replace(self.seed.below(self.nodes)),
            Kind::Transfer => Fault::Transfer,
            Kind::Restart => Fault::RollingRestart,
        }
    }

    /// Every third at least is a leader: chance alone can pass it by.
    fn node(&mut self) -> Who {
        match self.rounds % 3 {
            1 => Who::Leader,
            _ => Who::Node(self.seed.below(self.nodes)),
        }
    }

    fn anyone(&mut self) -> Who {
        if self.workers > 0 && self.seed.below(4) == 0 {
            Who::Worker(self.seed.below(self.workers))
        } else {
            self.node()
        }
    }

    fn cut(&mut self) -> Fault {
        let who = self.anyone();
        let shape = match who {
            Who::Worker(_) => Shape::OF_A_WORKER[self.seed.below(Shape::OF_A_WORKER.len())],
            Who::Leader | Who::Node(_) => Shape::ALL[self.seed.below(Shape::ALL.len())],
        };
        let period = (self.seed.below(4) == 0).then(|| self.span(300, 3_000));
        Fault::Cut(who, shape, period)
    }

    fn weather(&mut self) -> Fault {
        let fair = Link::default();
        let delay = self.span(5, 400);
        Fault::Weather(match self.seed.below(4) {
            0 => Link { delay, ..fair },
            1 => Link { delay: delay / 4, jitter: delay, doubled: 50, ..fair },
            2 => Link { lost: 50 + self.per_mille(350), ..fair },
            _ => Link { rate: Some(8_000 + 100 * self.per_mille(500)), ..fair },
        })
    }

    fn per_mille(&mut self, end: usize) -> u32 {
        u32::try_from(self.seed.below(end)).unwrap_or(0)
    }

    /// A span of this many milliseconds, with as many short ones as long ones: what is special
    /// about a length is its order of magnitude.
    fn span(&mut self, from_ms: u32, to_ms: u32) -> Duration {
        let share = self.seed.below(1_000) as f64 / 1_000.0;
        let (from, to) = (f64::from(from_ms).ln(), f64::from(to_ms).ln());
        Duration::from_secs_f64((from + (to - from) * share).exp() / 1_000.0)
    }

    fn lasts(&mut self, fault: &Fault) -> Duration {
        match fault {
            Fault::Kill(_)
            | Fault::KillHost(_)
            | Fault::KillAll
            | Fault::PowerCut(_)
            | Fault::PowerCutAll => self.span(20, 3_000),
            Fault::Pause(..) => self.span(100, 30_000),
            Fault::Cut(..) => self.span(500, 8_000),
            Fault::Weather(_) | Fault::SlowSync(..) | Fault::CpuQuota(..) => {
                self.span(1_000, 6_000)
            }
            Fault::SyncError(..) | Fault::DiskGone(_) | Fault::DiskFull(_) => {
                self.span(1_000, 4_000)
            }
            Fault::ClockJump(..) => self.span(1_000, 8_000),
            Fault::Replace(_) | Fault::Transfer | Fault::RollingRestart => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn rounds(seed: u64, count: usize) -> Vec<Round> {
        let mut plan = Plan::new(Seed::new(seed), &Kind::all(), 3, 2);
        (0..count).map(|_| plan.next()).collect()
    }

    #[test]
    fn a_seed_repeats_its_plan() {
        assert_eq!(rounds(7, 50), rounds(7, 50));
        assert_ne!(rounds(7, 50), rounds(8, 50));
    }

    #[test]
    fn every_kind_comes_up_and_none_twice_at_once() {
        let rounds = rounds(1, 300);
        let all = || rounds.iter().flat_map(|round| &round.faults);
        let kinds: BTreeSet<Kind> = all().map(|planned| planned.fault.kind()).collect();
        assert_eq!(kinds.len(), Kind::all().len());
        for round in &rounds {
            assert!((1..=3).contains(&round.faults.len()));
            let kinds: BTreeSet<Kind> =
                round.faults.iter().map(|planned| planned.fault.kind()).collect();
            assert_eq!(kinds.len(), round.faults.len(), "{round:?}");
        }
        assert!(rounds.iter().any(|round| round.faults.len() == 3));
    }

    #[test]
    fn kinds_can_be_chosen_by_their_words() {
        let words: Vec<&str> = Kind::all().iter().map(|choice| choice.kind.word()).collect();
        assert_eq!(Kind::list(&words.join(",")), Some(Kind::all()));
        assert_eq!(Kind::list("kill,flood"), None);
        assert_eq!(Kind::list("kill:often"), None);
        assert_eq!(Kind::list("kill:0"), None);
        let kinds = Kind::list("kill:10,pause:1").unwrap();
        let mut plan = Plan::new(Seed::new(1), &kinds, 3, 0);
        let faults: Vec<Planned> = (0..50).flat_map(|_| plan.next().faults).collect();
        let of = |kind| faults.iter().filter(|planned| planned.fault.kind() == kind).count();
        assert_eq!(of(Kind::Kill) + of(Kind::Pause), faults.len());
        assert!(of(Kind::Pause) > 0 && of(Kind::Kill) > 3 * of(Kind::Pause));
    }
}
