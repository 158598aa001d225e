//! The shapes of cuts: who no longer reaches whom.

use std::collections::BTreeSet;

/// Who no longer reaches whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nobody reaches it, nor it anybody; only clients do.
    Alone,
    /// What it sends does not arrive.
    Mute,
    /// What is sent to it does not arrive.
    Deaf,
    /// It and one more node on this side, the rest on the other.
    Minority,
    /// The others are two halves, and it alone reaches both.
    Bridge,
    /// Each reaches its two neighbours only.
    Ring,
    /// It and the workers without a vote do not reach each other.
    FromWorkers,
    /// Its peers are cut off, the workers and clients are not: a leader that nobody else hears.
    FromPeers,
    /// Clients do not reach it.
    FromClients,
}

/// A link, from one host to another.
pub(super) type Way = (u8, u8);

impl Shape {
    /// Those that a worker without a vote can be in the middle of.
    pub(super) const OF_A_WORKER: &[Self] = &[Self::Alone, Self::Mute, Self::Deaf];

    /// Every shape.
    pub(super) const ALL: &[Self] = &[
        Self::Alone,
        Self::Mute,
        Self::Deaf,
        Self::Minority,
        Self::Bridge,
        Self::Ring,
        Self::FromWorkers,
        Self::FromPeers,
        Self::FromClients,
    ];

    /// The links that a cut of this shape around a host takes away. Of the `hosts`, the first
    /// are the `nodes`, the others workers; clients are behind the last.
    pub(super) fn links(self, it: u8, nodes: u8, hosts: u8) -> BTreeSet<Way> {
        let clients = hosts;
        let ally = hosts - 1;
        let pairs = (0..=hosts).flat_map(|from| (0..=hosts).map(move |to| (from, to)));
        let gone = |(from, to): Way| {
            let either = |side: &dyn Fn(u8) -> bool| side(from) != side(to);
            let other = if from == it { to } else { from };
            let ends_at_it = from == it || to == it;
            let within = from < hosts && to < hosts;
            match self {
                Self::Alone => ends_at_it && within,
                Self::Mute => from == it && within,
                Self::Deaf => to == it && within,
                Self::Minority => within && either(&|host| host == it || host == ally),
                Self::Bridge => within && !ends_at_it && from % 2 != to % 2,
                Self::Ring => within && (from + 1) % hosts != to && (to + 1) % hosts != from,
                Self::FromWorkers => ends_at_it && within && other >= nodes,
                Self::FromPeers => ends_at_it && within && other < nodes,
                Self::FromClients => ends_at_it && other == clients,
            }
        };
        pairs.filter(|&(from, to)| from != to && gone((from, to))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three nodes, two workers, and the clients as number 5.
    fn links(shape: Shape) -> BTreeSet<Way> {
        shape.links(1, 3, 5)
    }

    #[test]
    fn only_some_shapes_have_a_direction() {
        for &shape in Shape::ALL {
            let links = links(shape);
            let both = links.iter().all(|&(from, to)| links.contains(&(to, from)));
            assert_eq!(both, !matches!(shape, Shape::Mute | Shape::Deaf), "{shape:?}");
            assert!(!links.is_empty(), "{shape:?}");
        }
    }

    #[test]
    fn clients_are_cut_off_by_their_own_shape_alone() {
        for &shape in Shape::ALL {
            let touched = links(shape).iter().any(|&(from, to)| from == 5 || to == 5);
            assert_eq!(touched, shape == Shape::FromClients, "{shape:?}");
        }
    }

    #[test]
    fn shapes_are_as_their_names_say() {
        let reaches = |shape, from, to| !links(shape).contains(&(from, to));
        assert!(!reaches(Shape::Mute, 1, 0) && reaches(Shape::Mute, 0, 1));
        assert!(!reaches(Shape::Deaf, 0, 1) && reaches(Shape::Deaf, 1, 0));
        assert!(reaches(Shape::Minority, 1, 4) && !reaches(Shape::Minority, 1, 0));
        assert!(reaches(Shape::Minority, 0, 2));
        assert!(reaches(Shape::Bridge, 1, 0) && reaches(Shape::Bridge, 1, 3));
        assert!(!reaches(Shape::Bridge, 0, 3) && reaches(Shape::Bridge, 0, 2));
        assert!(reaches(Shape::Ring, 0, 4) && !reaches(Shape::Ring, 0, 2));
        assert!(reaches(Shape::FromPeers, 1, 3) && !reaches(Shape::FromPeers, 1, 2));
        assert!(reaches(Shape::FromWorkers, 1, 2) && !reaches(Shape::FromWorkers, 1, 3));
    }
}
