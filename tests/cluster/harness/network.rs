//! Hosts of their own: a network namespace each, on one switch of ours.
//!
//! Needs `ip`, the device `/dev/net/tun` and the right to make namespaces. The test has a port
//! of its own, so that its clients can be cut off like everybody else.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use super::seed::Seed;
use super::switch::{Link, Switch, Traffic, mac};
use super::sys;

/// Addresses of one network: an eighth of what its process has.
const ADDRESSES: u8 = 32;

/// Networks that one process can have at a time.
const NETWORKS_MAX: u8 = 8;

/// The numbers of those there are, a bit each. A number is part of names and addresses.
static TAKEN: Mutex<u8> = Mutex::new(0);

/// Some hosts and their switch.
#[derive(Debug)]
pub(crate) struct Network {
    /// Begins the names of everything made here. Names of cards have 15 characters at most.
    prefix: String,
    /// The first three numbers of every address.
    subnet: [u8; 3],
    number: u8,
    hosts: u8,
    switch: Option<Switch>,
}

impl Network {
    /// Makes `hosts` hosts on a switch; the first is number 0.
    ///
    /// # Errors
    ///
    /// If that cannot be had here, and why.
    pub(crate) fn create(hosts: u8) -> Result<Self, String> {
        let number = take_number()?;
        let process = std::process::id();
        // Two processes side by side differ in their ids, and so in their addresses.
        let [.., high, low] = process.to_be_bytes();
        let subnet = [10, 64 + high % 128, low];
        let prefix = format!("q{process}x{number}");
        let mut network = Self { prefix, subnet, number, hosts, switch: None };
        let cards = (0..=hosts).map(|port| network.plug_in(port)).collect::<Result<_, _>>()?;
        network.switch = Some(Switch::start(cards, Seed::new(u64::from(process))));
        Ok(network)
    }

    /// Makes a host with a card, or the test's own card.
    fn plug_in(&self, port: u8) -> Result<std::fs::File, String> {
        let name = self.card(port);
        let card = sys::make_card(&name).map_err(|error| format!("/dev/net/tun: {error}"))?;
        ip(&format!("link set {name} address {}", mac(usize::from(port))))?;
        if port == self.tester() {
            ip(&format!("addr add {}/27 dev {name}", self.address(port)))?;
            ip(&format!("link set {name} up"))?;
            return Ok(card);
        }
        let namespace = self.namespace(port);
        ip(&format!("netns add {namespace}"))?;
        ip(&format!("link set {name} netns {namespace} name eth0"))?;
        ip(&format!("-n {namespace} addr add {}/27 dev eth0", self.address(port)))?;
        ip(&format!("-n {namespace} link set eth0 up"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        Ok(card)
    }

    fn card(&self, port: u8) -> String {
        format!("{}p{port}", self.prefix)
    }

    /// The namespace that a host is.
    pub(crate) fn namespace(&self, host: u8) -> String {
        format!("{}n{host}", self.prefix)
    }

    /// Its address; the test reaches it from outside, too.
    pub(crate) fn address(&self, host: u8) -> Ipv4Addr {
        let [first, second, third] = self.subnet;
        Ipv4Addr::new(first, second, third, self.number * ADDRESSES + host + 1)
    }

    /// The test itself, as if it were a host.
    pub(crate) fn tester(&self) -> u8 {
        self.hosts
    }

    /// Cuts two hosts off from each other, both ways.
    pub(crate) fn cut(&self, one: u8, other: u8) {
        self.set(one, other, Link::CUT);
        self.set(other, one, Link::CUT);
    }

    /// Lets them reach each other again.
    pub(crate) fn heal(&self, one: u8, other: u8) {
        self.set(one, other, Link::default());
        self.set(other, one, Link::default());
    }

    /// Changes what happens to what one host sends to another.
    pub(crate) fn set(&self, from: u8, to: u8, link: Link) {
        self.switch().set(usize::from(from), usize::from(to), link);
    }

    /// Frames so far, and what became of them.
    pub(crate) fn traffic(&self) -> Traffic {
        self.switch().traffic()
    }

    fn switch(&self) -> &Switch {
        self.switch.as_ref().expect("it runs from the creation of the network on")
    }
}

/// The processes that run on the host that a namespace is.
pub(crate) fn processes_in(namespace: &str) -> Vec<u32> {
    let listed = Command::new("ip").args(["netns", "pids", namespace]).output();
    let text = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.iter().flat_map(|text| text.lines()).filter_map(|pid| pid.parse().ok()).collect()
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 0..self.hosts {
            // The card first: whoever reads from it is woken.
            drop(ip(&format!("-n {} link del eth0", self.namespace(host))));
            drop(ip(&format!("netns del {}", self.namespace(host))));
        }
        drop(ip(&format!("link del {}", self.card(self.tester()))));
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) &= !(1 << self.number);
    }
}

fn take_number() -> Result<u8, String> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let free = (0..NETWORKS_MAX).find(|number| *taken & (1 << number) == 0);
    let number =
        free.ok_or_else(|| format!("a process has {NETWORKS_MAX} networks at the most"))?;
    *taken |= 1 << number;
    Ok(number)
}

fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.map_err(|error| format!("ip (Debian: iproute2): {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::net::UdpSocket;
    use std::process::{Child, Stdio};
    use std::time::{Duration, Instant};

    use super::super::{skip, until};
    use super::*;

    /// Where the test listens; the answers of [`Echo`] come there.
    const PORT: u16 = 7;

    /// A process on a host that reaches another when told, by a single datagram.
    #[derive(Debug)]
    struct Echo(Child);

    impl Drop for Echo {
        fn drop(&mut self) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }

    /// Whether `from` reaches `to`: refused means reached, for nobody listens there.
    fn reached(network: &Network, from: u8, to: u8) -> bool {
        let connect = format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{}/9'", network.address(to));
        let namespace = network.namespace(from);
        let output = Command::new("ip")
            .args(["netns", "exec", &namespace, "bash", "-c", &connect])
            .output()
            .expect("ip runs");
        output.status.code() != Some(124)
    }

    /// Sends `count` datagrams from the first host to the test; answers those that came within
    /// a second of quiet, with how long the first took.
    fn datagrams(network: &Network, count: usize) -> (usize, Duration) {
        let here = network.address(network.tester());
        let socket = UdpSocket::bind((here, PORT)).expect("the test has an address there");
        // Bash would connect first, and that says nothing on the wire.
        let send = format!(
            "exec 3>/dev/udp/{here}/{PORT}; echo ready; read -r; \
             for ((n = 0; n < {count}; n++)); do printf '%s' \"$n\" >&3; done; read -r"
        );
        let mut echo = Echo(
            Command::new("ip")
                .args(["netns", "exec", &network.namespace(0), "bash", "-c", &send])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("ip runs"),
        );
        let mut line = String::new();
        let stdout = echo.0.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says when it is ready");
        let began = Instant::now();
        let stdin = echo.0.stdin.as_mut().expect("it is piped");
        std::io::Write::write_all(stdin, b"\n").expect("it listens");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("it is not zero");
        let (mut came, mut first, mut buffer) = (0, Duration::MAX, [0; 16]);
        while socket.recv(&mut buffer).is_ok() {
            first = first.min(began.elapsed());
            came += 1;
        }
        (came, first)
    }

    fn create(hosts: u8) -> Option<Network> {
        Network::create(hosts).map_err(|reason| skip(&reason)).ok()
    }

    #[test]
    fn a_cut_is_silent_and_heals() {
        let Some(network) = create(3) else { return };
        assert!(reached(&network, 0, 1) && reached(&network, 1, 0) && reached(&network, 0, 2));
        network.cut(0, 1);
        assert!(!reached(&network, 0, 1) && !reached(&network, 1, 0));
        assert!(reached(&network, 0, 2) && reached(&network, 2, 1));
        network.heal(0, 1);
        assert!(reached(&network, 0, 1) && reached(&network, 1, 0));
    }

    #[test]
    fn what_is_done_to_one_direction_spares_the_other() {
        let Some(network) = create(1) else { return };
        let tester = network.tester();
        // The addresses are known from here on, so that nothing but datagrams is on the way.
        until(Duration::from_secs(5), "the first datagram arrives", || {
            (datagrams(&network, 1).0 == 1).then_some(())
        });
        network.set(tester, 0, Link::CUT);
        assert_eq!(datagrams(&network, 10).0, 10, "only the way back is cut");
        network.set(0, tester, Link::CUT);
        assert_eq!(datagrams(&network, 10).0, 0);
        network.heal(0, tester);
        assert_eq!(datagrams(&network, 10).0, 10);
    }

    #[test]
    fn a_link_delays_loses_and_doubles() {
        let Some(network) = create(1) else { return };
        let tester = network.tester();
        until(Duration::from_secs(5), "the first datagram arrives", || {
            (datagrams(&network, 1).0 == 1).then_some(())
        });
        let delay = Duration::from_millis(150);
        network.set(0, tester, Link { delay, jitter: delay / 3, ..Link::default() });
        let (came, first) = datagrams(&network, 10);
        assert_eq!(came, 10);
        assert!((delay..4 * delay).contains(&first), "{first:?}");
        network.set(0, tester, Link { doubled: 500, ..Link::default() });
        let (came, _) = datagrams(&network, 100);
        assert!((120..180).contains(&came), "{came} of 100, half of them doubled");
        network.set(0, tester, Link { lost: 500, ..Link::default() });
        let (came, _) = datagrams(&network, 100);
        assert!((20..80).contains(&came), "{came} of 100, half of them lost");
        let traffic = network.traffic();
        assert!(traffic.delayed >= 10 && traffic.doubled >= 20 && traffic.dropped >= 20);
    }
}
