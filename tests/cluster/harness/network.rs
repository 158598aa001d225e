//! Hosts of their own: a network namespace each, on one bridge, with links that can be cut.
//!
//! Needs `ip` and the right to make namespaces. A cut is a wrong hardware address for the peer,
//! at both ends: packets, those of open connections too, are sent to nobody and swallowed
//! without a word, as by a switch that has lost its power.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

/// Addresses of one network: an eighth of what its process has.
const ADDRESSES: u8 = 32;

/// Networks that one process can have.
const NETWORKS_MAX: u8 = 8;

/// A hardware address that no host has.
const NOBODY: &str = "02:00:00:00:00:01";

/// Networks made by this process so far; part of their names.
static MADE: AtomicU8 = AtomicU8::new(0);

/// Some hosts and their bridge.
#[derive(Debug)]
pub(crate) struct Network {
    /// Begins the names of everything made here. Names of links have 15 characters at most.
    prefix: String,
    /// The first three numbers of every address.
    subnet: [u8; 3],
    /// The first of the 32 addresses of this network.
    base: u8,
    hosts: u8,
}

impl Network {
    /// Makes a bridge and `hosts` hosts on it; the first is number 0.
    ///
    /// # Errors
    ///
    /// If that cannot be had here, and why.
    pub(crate) fn create(hosts: u8) -> Result<Self, String> {
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        if made >= NETWORKS_MAX {
            return Err(format!("a test process has {NETWORKS_MAX} networks at the most"));
        }
        let process = std::process::id();
        // Two processes side by side differ in their ids, and so in their addresses.
        let [.., high, low] = process.to_be_bytes();
        let subnet = [10, 64 + high % 128, low];
        let (prefix, base) = (format!("q{process}x{made}"), made * ADDRESSES);
        let network = Self { prefix, subnet, base, hosts };
        network.set_up()?;
        Ok(network)
    }

    fn set_up(&self) -> Result<(), String> {
        let bridge = self.bridge();
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {}/27 dev {bridge}", self.number(30)))?;
        ip(&format!("link set {bridge} up"))?;
        for host in 0..self.hosts {
            let (namespace, link) = (self.namespace(host), self.link(host));
            ip(&format!("netns add {namespace}"))?;
            ip(&format!("link add {link} type veth peer name eth0 netns {namespace}"))?;
            ip(&format!("link set {link} master {bridge}"))?;
            ip(&format!("link set {link} up"))?;
            ip(&format!("-n {namespace} addr add {}/27 dev eth0", self.address(host)))?;
            ip(&format!("-n {namespace} link set eth0 up"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
        }
        Ok(())
    }

    fn bridge(&self) -> String {
        format!("{}b", self.prefix)
    }

    fn link(&self, host: u8) -> String {
        format!("{}v{host}", self.prefix)
    }

    /// The namespace that a host is.
    pub(crate) fn namespace(&self, host: u8) -> String {
        format!("{}n{host}", self.prefix)
    }

    /// Its address; the test reaches it from outside, too.
    pub(crate) fn address(&self, host: u8) -> Ipv4Addr {
        self.number(host + 1)
    }

    fn number(&self, last: u8) -> Ipv4Addr {
        let [first, second, third] = self.subnet;
        Ipv4Addr::new(first, second, third, self.base + last)
    }

    /// Cuts two hosts off from each other, both ways.
    #[track_caller]
    pub(crate) fn cut(&self, one: u8, other: u8) {
        self.both_ways(one, other, "replace", &format!("lladdr {NOBODY} nud permanent "));
    }

    /// Lets them reach each other again.
    #[track_caller]
    pub(crate) fn heal(&self, one: u8, other: u8) {
        self.both_ways(one, other, "del", "");
    }

    #[track_caller]
    fn both_ways(&self, one: u8, other: u8, change: &str, how: &str) {
        for (from, to) in [(one, other), (other, one)] {
            let (namespace, to) = (self.namespace(from), self.address(to));
            ip(&format!("-n {namespace} neigh {change} {to} {how}dev eth0"))
                .unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 0..self.hosts {
            drop(ip(&format!("netns del {}", self.namespace(host))));
            drop(ip(&format!("link del {}", self.link(host))));
        }
        drop(ip(&format!("link del {}", self.bridge())));
    }
}

fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.map_err(|error| format!("ip (Debian: iproute2): {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

#[test]
fn a_cut_is_silent_and_heals() {
    let network = match Network::create(3) {
        Ok(network) => network,
        Err(reason) => return super::skip(&reason),
    };
    // Refused means reached: nobody listens there.
    let reached = |from: u8, to: u8| {
        let connect = format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{}/9'", network.address(to));
        let namespace = network.namespace(from);
        let output = Command::new("ip")
            .args(["netns", "exec", &namespace, "bash", "-c", &connect])
            .output()
            .expect("ip runs");
        output.status.code() != Some(124)
    };
    assert!(reached(0, 1) && reached(1, 0) && reached(0, 2));
    network.cut(0, 1);
    assert!(!reached(0, 1) && !reached(1, 0));
    assert!(reached(0, 2) && reached(2, 1));
    network.heal(0, 1);
    assert!(reached(0, 1) && reached(1, 0));
}
