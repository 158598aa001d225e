//! How a node is set up: flags over environment over file over defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_model::Containment;
use serde::Deserialize;

use crate::worker::{LOOPBACK, Network};

/// Where a node listens unless told otherwise: loopback, since whoever reaches it may run code.
pub(crate) const LISTEN_DEFAULT: &str = "127.0.0.1:8780";

/// A worker is given up when it was not heard for this long. Shorter finds dead workers
/// sooner; longer survives longer outages of the leader without killing tasks.
const LEASE_DEFAULT: Duration = Duration::from_secs(10);

/// Below this, ordinary pauses of a busy machine end leases.
const LEASE_MIN: Duration = Duration::from_millis(500);

/// The longest that a follower waits for its leader before it stands for election.
const ELECTION_TIMEOUT_DEFAULT: Duration = Duration::from_millis(300);

/// Below this, a slow disk deposes leaders.
const ELECTION_TIMEOUT_MIN: Duration = Duration::from_millis(100);

/// How one node is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// A cluster of one, founded at the first start.
    pub(crate) dev: bool,
    /// The folder that holds everything the node knows.
    pub(crate) data: PathBuf,
    /// Where it listens, for clients, nodes and workers alike: `HOST:PORT`.
    pub(crate) listen: String,
    /// Where others reach it, if not at the address it listens at: `HOST:PORT`.
    pub(crate) advertise: Option<String>,
    /// Nodes of the cluster to join, at the first start. Empty to found one.
    pub(crate) join: Vec<String>,
    /// The name of its worker. Unset: the host's name.
    pub(crate) name: Option<String>,
    /// The labels of its worker.
    pub(crate) labels: BTreeMap<String, String>,
    /// How many tasks its worker runs at once. Unset: by the number of cores.
    pub(crate) slots: Option<u32>,
    /// How its worker holds the processes of a task together, if that can be had.
    pub(crate) containment: Containment,
    /// Where its tasks of kind `http` may reach, besides the addresses of other machines that are
    /// not services of a cloud. `--dev` adds this machine.
    pub(crate) http_allow: Vec<Network>,
    /// Whether it runs tasks at all.
    pub(crate) worker: bool,
    /// How long a worker may go unheard before its tasks are given to others.
    pub(crate) lease: Duration,
    /// How long a follower waits for its leader, at most, before it stands for election.
    pub(crate) election_timeout: Duration,
}

/// The same, where only some of it is said. Also the form of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Overrides {
    /// See [`Config::dev`].
    pub(crate) dev: Option<bool>,
    /// See [`Config::data`].
    pub(crate) data: Option<PathBuf>,
    /// See [`Config::listen`].
    pub(crate) listen: Option<String>,
    /// See [`Config::advertise`].
    pub(crate) advertise: Option<String>,
    /// See [`Config::join`].
    pub(crate) join: Option<Vec<String>>,
    /// See [`Config::name`].
    pub(crate) name: Option<String>,
    /// See [`Config::labels`].
    pub(crate) labels: Option<BTreeMap<String, String>>,
    /// See [`Config::slots`].
    pub(crate) slots: Option<u32>,
    /// See [`Config::containment`].
    pub(crate) containment: Option<Containment>,
    /// See [`Config::http_allow`]: addresses, or networks such as `10.0.0.0/8`.
    pub(crate) http_allow: Option<Vec<Network>>,
    /// See [`Config::worker`].
    pub(crate) worker: Option<bool>,
    /// See [`Config::lease`]: a span with a unit, as `10s`.
    pub(crate) lease: Option<Span>,
    /// See [`Config::election_timeout`]: a span with a unit, as `300ms`.
    pub(crate) election_timeout: Option<Span>,
}

/// A span of time as people write it: `300ms`, `10s`, `1m 30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Span(pub Duration);

impl std::str::FromStr for Span {
    type Err = ConfigError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ConfigError::BadSpan { text: text.to_owned() };
        let span: jiff::SignedDuration = text.trim().parse().map_err(|_| bad())?;
        Duration::try_from(span).map(Self).map_err(|_| bad())
    }
}

impl TryFrom<String> for Span {
    type Error = ConfigError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("could not read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no such file.
    #[error("{path} is not a configuration: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A variable of the environment has a bad value.
    #[error("{name}={value}: {reason}")]
    Variable {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A span of time is not one.
    #[error("{text:?} is not a span of time; say for example 300ms, 10s or 5m")]
    BadSpan {
        /// As given.
        text: String,
    },
    /// A setting is out of its range.
    #[error("{0}")]
    Range(String),
}

impl Config {
    /// The configuration by `flags`, then the environment, then the file, then the defaults.
    ///
    /// # Errors
    ///
    /// If the file or a variable can't be understood, or a value is out of range.
    pub(crate) fn load(file: Option<&Path>, flags: Overrides) -> Result<Self, ConfigError> {
        let from_file = file.map(read).transpose()?.unwrap_or_default();
        let variables = std::env::vars().filter(|(name, _)| name.starts_with("QUORATE_"));
        let from_env = Overrides::from_env(variables)?;
        flags.or(from_env).or(from_file).complete()
    }
}

fn read(path: &Path) -> Result<Overrides, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|error| ConfigError::Parse { path: path.to_owned(), reason: error.to_string() })
}

impl Overrides {
    /// What `QUORATE_*` variables say. Those of the client and of tasks are passed over.
    fn from_env(variables: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut said = Self::default();
        for (name, value) in variables {
            said.set(&name, &value).map_err(|reason| ConfigError::Variable {
                name: name.clone(),
                value: value.clone(),
                reason,
            })?;
        }
        Ok(said)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let list = || value.split(',').map(str::trim).filter(|item| !item.is_empty());
        match name {
            "QUORATE_DEV" => self.dev = Some(parse(value)?),
            "QUORATE_DATA" => self.data = Some(value.into()),
            "QUORATE_LISTEN" => self.listen = Some(value.to_owned()),
            "QUORATE_ADVERTISE" => self.advertise = Some(value.to_owned()),
            "QUORATE_JOIN" => self.join = Some(list().map(str::to_owned).collect()),
            "QUORATE_NAME" => self.name = Some(value.to_owned()),
            "QUORATE_LABELS" => self.labels = Some(list().map(label).collect::<Result<_, _>>()?),
            "QUORATE_SLOTS" => self.slots = Some(parse(value)?),
            "QUORATE_CONTAINMENT" => self.containment = Some(parse(value)?),
            "QUORATE_HTTP_ALLOW" => {
                self.http_allow = Some(list().map(parse).collect::<Result<_, _>>()?);
            }
            "QUORATE_WORKER" => self.worker = Some(parse(value)?),
            "QUORATE_LEASE" => self.lease = Some(parse(value)?),
            "QUORATE_ELECTION_TIMEOUT" => self.election_timeout = Some(parse(value)?),
            _ => {}
        }
        Ok(())
    }

    /// These settings, and where they say nothing, `other`.
    fn or(self, other: Self) -> Self {
        Self {
            dev: self.dev.or(other.dev),
            data: self.data.or(other.data),
            listen: self.listen.or(other.listen),
            advertise: self.advertise.or(other.advertise),
            join: self.join.or(other.join),
            name: self.name.or(other.name),
            labels: self.labels.or(other.labels),
            slots: self.slots.or(other.slots),
            containment: self.containment.or(other.containment),
            http_allow: self.http_allow.or(other.http_allow),
            worker: self.worker.or(other.worker),
            lease: self.lease.or(other.lease),
            election_timeout: self.election_timeout.or(other.election_timeout),
        }
    }

    /// Fills in the defaults and checks ranges.
    ///
    /// # Errors
    ///
    /// If a value is out of its range.
    pub(crate) fn complete(self) -> Result<Config, ConfigError> {
        let is_dev = self.dev.unwrap_or(false);
        // Whoever tries things out has what they try on their own machine.
        let http_allow = self.http_allow.into_iter().flatten();
        let http_allow = http_allow.chain(LOOPBACK.into_iter().filter(|_| is_dev)).collect();
        let config = Config {
            dev: is_dev,
            data: self.data.unwrap_or_else(|| "quorate-data".into()),
            listen: self.listen.unwrap_or_else(|| LISTEN_DEFAULT.to_owned()),
            advertise: self.advertise,
            join: self.join.unwrap_or_default(),
            name: self.name,
            labels: self.labels.unwrap_or_default(),
            slots: self.slots,
            containment: self.containment.unwrap_or(Containment::Pidns),
            http_allow,
            worker: self.worker.unwrap_or(true),
            lease: self.lease.map_or(LEASE_DEFAULT, |span| span.0),
            election_timeout: self.election_timeout.map_or(ELECTION_TIMEOUT_DEFAULT, |span| span.0),
        };
        if config.lease < LEASE_MIN {
            let text =
                format!("a lease of {:?} is too short; {LEASE_MIN:?} is the least", config.lease);
            return Err(ConfigError::Range(text));
        }
        if config.election_timeout < ELECTION_TIMEOUT_MIN {
            let text = format!(
                "an election timeout of {:?} is too short; {ELECTION_TIMEOUT_MIN:?} is the least",
                config.election_timeout
            );
            return Err(ConfigError::Range(text));
        }
        if config.dev && !config.join.is_empty() {
            let text = "--dev founds a cluster of one and --join joins another; leave one out";
            return Err(ConfigError::Range(text.to_owned()));
        }
        Ok(config)
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: T::Err| error.to_string())
}

/// Splits `name=value`.
///
/// # Errors
///
/// If there is no `=`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not name=value"))?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_environment_over_file() {
        let file: Overrides =
            toml::from_str("listen = 'file:1'\nslots = 1\nlease = '4s'").expect("it is TOML");
        let variables = [("QUORATE_LISTEN", "env:1"), ("QUORATE_SLOTS", "2")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let env = Overrides::from_env(variables.into_iter()).expect("the values are good");
        let flags = Overrides { listen: Some("flag:1".to_owned()), ..Overrides::default() };
        let config = flags.or(env).or(file).complete().expect("it is in range");
        assert_eq!(config.listen, "flag:1");
        assert_eq!(config.slots, Some(2));
        assert_eq!(config.lease, Duration::from_secs(4));
    }

    #[test]
    fn refuses_unknown_keys_and_spans_without_a_unit() {
        assert!(toml::from_str::<Overrides>("liste = 'a'").is_err());
        let error = toml::from_str::<Overrides>("lease = '10'").expect_err("no unit");
        assert!(error.to_string().contains("10s"), "{error}");
    }

    #[test]
    fn refuses_a_lease_that_pauses_would_end() {
        let short =
            Overrides { lease: Some(Span(Duration::from_millis(10))), ..Overrides::default() };
        assert!(short.complete().is_err());
    }
}
