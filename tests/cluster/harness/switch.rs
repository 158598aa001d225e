//! A switch in user space: every frame between two hosts passes through here, and may be late,
//! lost, doubled or held back, in each direction by itself.
//!
//! The kernels that tests run on seldom have `netem`. What is drawn by lot comes from a seed;
//! which frame it hits depends on the traffic, so a seed repeats the weather and not the storm.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::seed::Seed;

/// The largest frame of a card with an MTU of 1500 bytes, with room for a tag.
const FRAME_BYTES_MAX: usize = 2048;

/// Frames that may be under way at once. Beyond it they are dropped, as by any switch.
const FRAMES_QUEUED_MAX: usize = 20_000;

/// How far a slow link may lag before it drops: what a switch of some buffer would hold.
const BACKLOG_MAX: Duration = Duration::from_secs(2);

/// Begins the hardware address of every port; the last byte is its number.
const MAC: [u8; 5] = [0x02, 0x51, 0, 0, 0];

/// The kind of frames that tests have no use for.
const IPV6: [u8; 2] = [0x86, 0xdd];

/// What happens to frames in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Nothing arrives.
    pub(crate) cut: bool,
    /// How late everything is.
    pub(crate) delay: Duration,
    /// How much later than that, at most. Frames overtake each other.
    pub(crate) jitter: Duration,
    /// Of a thousand frames, those that are lost.
    pub(crate) lost: u32,
    /// Of a thousand frames, those that arrive twice.
    pub(crate) doubled: u32,
    /// Bytes a second; none for as many as there are.
    pub(crate) rate: Option<u32>,
}

impl Link {
    /// A link that carries nothing.
    pub(crate) const CUT: Self = Self {
        cut: true,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        lost: 0,
        doubled: 0,
        rate: None,
    };
}

/// Frames so far, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// All that came in, times the ports they were for.
    pub(crate) sent: usize,
    /// Swallowed by a cut, or lost.
    pub(crate) dropped: usize,
    /// Held back for some time.
    pub(crate) delayed: usize,
    /// Delivered twice.
    pub(crate) doubled: usize,
}

/// A running switch. It ends when the cards of all ports are gone.
#[derive(Debug)]
pub(crate) struct Switch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ports: Vec<File>,
    table: Mutex<Table>,
    /// Told when a frame is to be delivered later, and when all is over.
    queued: Condvar,
}

#[derive(Debug)]
struct Table {
    /// By the port that sends, then the one that receives.
    links: Vec<Vec<Link>>,
    /// Until when a link with a rate is busy; as above.
    busy: Vec<Vec<Instant>>,
    chance: Seed,
    /// Soonest first.
    late: BinaryHeap<Reverse<Late>>,
    traffic: Traffic,
    over: bool,
}

/// A frame on its way. The number keeps those in order that are due at once.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    due: Instant,
    number: usize,
    to: usize,
    frame: Vec<u8>,
}

/// The hardware address of a port, for its card.
pub(super) fn mac(port: usize) -> String {
    let [a, b, c, d, e] = MAC;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{port:02x}")
}

impl Switch {
    /// Begins to carry frames between the cards of `ports`, which have the addresses of
    /// [`mac`].
    pub(super) fn start(ports: Vec<File>, chance: Seed) -> Self {
        let count = ports.len();
        let table = Table {
            links: vec![vec![Link::default(); count]; count],
            busy: vec![vec![Instant::now(); count]; count],
            chance,
            late: BinaryHeap::new(),
            traffic: Traffic::default(),
            over: false,
        };
        let (table, queued) = (Mutex::new(table), Condvar::new());
        let shared = Arc::new(Shared { ports, table, queued });
        for port in 0..count {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.read(port));
        }
        let postman = Arc::clone(&shared);
        thread::spawn(move || postman.deliver());
        Self { shared }
    }

    /// Changes what happens to frames from one port to another.
    pub(super) fn set(&self, from: usize, to: usize, link: Link) {
        self.shared.table().links[from][to] = link;
    }

    /// Frames so far.
    pub(super) fn traffic(&self) -> Traffic {
        self.shared.table().traffic
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.shared.table().over = true;
        self.shared.queued.notify_all();
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the host at a port sends, until its card is gone.
    fn read(&self, port: usize) {
        let mut buffer = [0; FRAME_BYTES_MAX];
        while let Ok(length) = (&self.ports[port]).read(&mut buffer) {
            let frame = &buffer[..length];
            if length < 14 || frame[12..14] == IPV6 {
                continue;
            }
            let (now, later) = self.table().forward(port, frame);
            now.into_iter().for_each(|to| self.write(to, frame));
            if later {
                self.queued.notify_one();
            }
        }
    }

    fn write(&self, to: usize, frame: &[u8]) {
        // A card that is not up yet, or no more, loses what comes.
        drop((&self.ports[to]).write_all(frame));
    }

    /// Delivers what was held back, each frame at its time.
    fn deliver(&self) {
        let mut table = self.table();
        while !table.over {
            let now = Instant::now();
            let due = table.late.peek().map(|Reverse(late)| late.due);
            table = match due {
                Some(due) if due <= now => {
                    let Some(Reverse(late)) = table.late.pop() else { continue };
                    drop(table);
                    self.write(late.to, &late.frame);
                    self.table()
                }
                Some(due) => {
                    let waited = self.queued.wait_timeout(table, due - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.queued.wait(table).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl Table {
    /// Decides about a frame: the ports that get it at once, and whether some get it later.
    fn forward(&mut self, from: usize, frame: &[u8]) -> (Vec<usize>, bool) {
        let mut now = Vec::new();
        let mut later = false;
        for to in self.receivers(from, frame) {
            self.traffic.sent += 1;
            let link = self.links[from][to];
            if link.cut || self.hit(link.lost) {
                self.traffic.dropped += 1;
                continue;
            }
            let copies = if self.hit(link.doubled) { 2 } else { 1 };
            self.traffic.doubled += copies - 1;
            for _ in 0..copies {
                match self.due(from, to, frame.len()) {
                    Ok(None) => now.push(to),
                    Ok(Some(due)) if self.late.len() < FRAMES_QUEUED_MAX => {
                        self.traffic.delayed += 1;
                        let number = self.traffic.delayed;
                        self.late.push(Reverse(Late { due, number, to, frame: frame.to_vec() }));
                        later = true;
                    }
                    Ok(Some(_)) | Err(Full) => self.traffic.dropped += 1,
                }
            }
        }
        (now, later)
    }

    /// The port that a frame is for; all others, if it is for everybody.
    fn receivers(&self, from: usize, frame: &[u8]) -> Vec<usize> {
        let ports = 0..self.links.len();
        let to = usize::from(frame[5]);
        if frame[..5] == MAC && ports.contains(&to) {
            vec![to]
        } else {
            ports.filter(|&port| port != from).collect()
        }
    }

    /// When a frame arrives; none for at once.
    fn due(&mut self, from: usize, to: usize, bytes: usize) -> Result<Option<Instant>, Full> {
        let link = self.links[from][to];
        if link.delay.is_zero() && link.jitter.is_zero() && link.rate.is_none() {
            return Ok(None);
        }
        let now = Instant::now();
        let mut sent = now;
        if let Some(rate) = link.rate {
            let busy = &mut self.busy[from][to];
            let takes = Duration::from_secs(bytes as u64) / rate.max(1);
            sent = (*busy).max(now) + takes;
            if sent > now + BACKLOG_MAX {
                return Err(Full);
            }
            *busy = sent;
        }
        let jitter_us = usize::try_from(link.jitter.as_micros()).unwrap_or(usize::MAX);
        let jitter = Duration::from_micros(self.chance.below(jitter_us.saturating_add(1)) as u64);
        Ok(Some(sent + link.delay + jitter))
    }

    fn hit(&mut self, of_a_thousand: u32) -> bool {
        of_a_thousand > 0 && self.chance.below(1_000) < of_a_thousand as usize
    }
}

/// The buffer of a slow link is full.
struct Full;
