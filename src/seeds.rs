//! How the worker of this process finds the leader, and what it calls itself.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use quorate_model::Name;
use quorate_raft::ClusterId;
use quorate_raft::codec::{self, Service};

use crate::link;
use crate::worker::{Link, Profile, Servers, default_slots};

/// How long a connection may take before the next server is tried.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Servers that are known from the start. Any of them names the leader.
#[derive(Clone, Debug)]
pub(crate) struct Seeds {
    addresses: Vec<String>,
    /// [`ClusterId::NONE`] where the worker is told addresses only.
    cluster: ClusterId,
}

impl Seeds {
    /// These servers, of this cluster.
    pub(crate) fn new(addresses: Vec<String>, cluster: ClusterId) -> Self {
        Self { addresses, cluster }
    }
}

#[async_trait]
impl Servers for Seeds {
    fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    async fn connect(&self, address: &str) -> io::Result<Link> {
        let connection = codec::connect(address, self.cluster, Service::Worker, CONNECT_MAX)
            .await
            .map_err(io::Error::other)?;
        let link = link::over(connection);
        Ok(Link { to_leader: link.outgoing, from_leader: link.incoming })
    }
}

/// What a worker registers as, with defaults for what is not said: the host's name, and slots
/// by the number of cores.
///
/// # Errors
///
/// If the name or a label is no [`Name`].
pub(crate) fn profile(
    name: Option<&str>,
    labels: &BTreeMap<String, String>,
    slots: Option<u32>,
) -> Result<Profile, quorate_model::NameError> {
    let name = match name {
        Some(name) => name.parse()?,
        None => host_name(),
    };
    let label = |(name, value): (&String, &String)| Ok((name.parse::<Name>()?, value.clone()));
    let labels = labels.iter().map(label).collect::<Result<_, _>>()?;
    let slots = slots.unwrap_or_else(default_slots);
    Ok(Profile { name, labels, slots })
}

/// The host's name; `worker` if it has none that can be used.
fn host_name() -> Name {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let found = text.trim().parse().ok();
    found.unwrap_or_else(|| "worker".parse().expect("this is a name"))
}
