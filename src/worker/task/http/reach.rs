//! Which addresses a request may go to.
//!
//! Whoever writes a workflow, or fills in its params, must not be able to make a worker talk to
//! what listens for the worker's machine alone, or to the service that hands out its
//! credentials. Judged is the address that is connected to, after names were looked up.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Services of clouds that hand out credentials and are not link-local.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// The addresses that share their first bits: `10.0.0.0/8`. One alone is `10.1.2.3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Network {
    address: IpAddr,
    bits: u8,
}

/// The addresses of this machine itself.
pub(crate) const LOOPBACK: [Network; 2] = [
    Network { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), bits: 8 },
    Network { address: IpAddr::V6(Ipv6Addr::LOCALHOST), bits: 128 },
];

impl Network {
    fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.bits);
                own.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.bits);
                own.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no address such as 10.1.2.3, and no network: 10.0.0.0/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(bits_max), str::parse).map_err(|_| bad())?;
        if bits > bits_max { Err(bad()) } else { Ok(Self { address, bits }) }
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Whether a request may go to an address: if a network that was allowed contains it, or else
/// if it is that of another machine, and not of a service for machines.
pub(super) fn admits(allowed: &[Network], address: IpAddr) -> bool {
    let address = plain(address);
    allowed.iter().any(|network| network.contains(address)) || !is_denied(address)
}

/// The address that is meant by one that another is wrapped in.
fn plain(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(wrapped) => match wrapped.segments() {
            // What a gateway to IPv4 (RFC 6052) makes of 64:ff9b::a.b.c.d.
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
            }
            _ => IpAddr::V6(wrapped),
        },
        plain @ IpAddr::V4(_) => plain,
    }
}

fn is_denied(address: IpAddr) -> bool {
    if METADATA.contains(&address) || address.is_loopback() || address.is_multicast() {
        return true;
    }
    match address {
        // All of 0.0.0.0/8: Linux takes 0.0.0.0 for this machine.
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn is_admitted(allowed: &[&str], address: &str) -> bool {
        admits(&networks(allowed), address.parse().unwrap())
    }

    #[test]
    fn denies_this_machine_and_services_for_machines_in_every_disguise() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "100.100.100.200",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
        ] {
            assert!(!is_admitted(&[], address), "{address}");
        }
        for address in ["10.0.0.1", "192.168.1.1", "1.1.1.1", "2606:4700::1111", "fd00::1"] {
            assert!(is_admitted(&[], address), "{address}");
        }
    }

    #[test]
    fn admits_what_was_allowed_and_nothing_beside() {
        assert!(is_admitted(&["127.0.0.1"], "127.0.0.1"));
        assert!(is_admitted(&["127.0.0.1"], "::ffff:127.0.0.1"));
        assert!(!is_admitted(&["127.0.0.1"], "127.0.0.2"));
        assert!(is_admitted(&["127.0.0.0/8"], "127.255.0.1"));
        assert!(!is_admitted(&["127.0.0.0/8"], "169.254.169.254"));
        assert!(is_admitted(&["fe80::/10"], "fe80::1"));
        assert!(is_admitted(&["0.0.0.0/0"], "169.254.169.254"));
        assert!(!is_admitted(&["0.0.0.0/0"], "::1"));
        assert!(LOOPBACK.iter().all(|network| network.to_string().parse() == Ok(*network)));
    }

    #[test]
    fn reads_addresses_and_networks() {
        for bad in ["", "localhost", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "/8"] {
            assert!(bad.parse::<Network>().is_err(), "{bad:?}");
        }
        assert_eq!("10.1.2.3".parse::<Network>().unwrap().to_string(), "10.1.2.3/32");
    }
}
