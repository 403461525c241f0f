//! What replicas obey.

use std::path::PathBuf;
use std::time::Duration;

use crate::policy::secret::Secret;

/// `replicas`, where `replicas.redis` is set. Mode, lease, prefix and secret are the same in a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicasSettings {
    /// `replicas.redis`: where Redis is.
    pub redis: RedisAddress,
    /// `replicas.ca_file`: certificates trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// `replicas.password_file`: read at every connection.
    pub password_file: Option<PathBuf>,
    /// `replicas.secret`: 32 bytes or more.
    pub secret: Secret,
    /// `replicas.prefix`: what the keys begin with.
    pub prefix: String,
    /// `replicas.mode`.
    pub mode: Mode,
    /// `replicas.cut_off`.
    pub cut_off: CutOff,
    /// `replicas.lease`; zero: every read asks.
    pub lease: Duration,
    /// `replicas.timeout`: how long an exchange may take.
    pub timeout: Duration,
    /// `replicas.ask_within`: how long a reader waits for a lease.
    pub ask_within: Duration,
    /// `replicas.tell_within`: how long whoever tells of a change waits until it is in the log.
    pub tell_within: Duration,
    /// `replicas.alone_ttl`: with `async`, the age up to which answers are served without a lease.
    pub alone_ttl: Duration,
    /// `replicas.tier`: what one replica has fetched is there for the others; none: each fetches for itself.
    pub tier: Option<TierSettings>,
}

#[cfg(test)]
impl ReplicasSettings {
    /// For tests that speak with no Redis.
    pub(crate) fn of_nobody(secret: &str, prefix: &str) -> Self {
        Self {
            redis: RedisAddress { way: Way::Server(Door::Unix("/".into())), user: None, database: 0 },
            ca_file: None,
            password_file: None,
            secret: Secret::new(secret).expect("a secret"),
            prefix: prefix.to_owned(),
            mode: Mode::Strict,
            cut_off: CutOff::Pass,
            lease: Duration::ZERO,
            timeout: Duration::ZERO,
            ask_within: Duration::ZERO,
            tell_within: Duration::ZERO,
            alone_ttl: Duration::ZERO,
            tier: None,
        }
    }
}

/// What lies in Redis besides what has changed: answers, and who fetches one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierSettings {
    /// `replicas.read_timeout`: how long Redis may take to say what it has.
    pub read_timeout: Duration,
    /// `replicas.fetch_lease`: how long a fetch counts as under way after its replica was last heard of.
    pub fetch_lease: Duration,
    /// `replicas.fetch_wait`: how long the fetch of another replica is waited for.
    pub fetch_wait: Duration,
}

/// Where Redis is, and as whom to ask it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisAddress {
    /// Who has it.
    pub way: Way,
    /// As whom.
    pub user: Option<String>,
    /// Which of its databases.
    pub database: u16,
}

/// How the server that takes the writes is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is this one.
    Server(Door),
    /// These Sentinels know it by this name.
    Sentinels(Vec<Door>, String),
    /// These nodes of a cluster know which of them has the keys.
    Cluster(Vec<Door>),
}

impl Way {
    /// Whether all goes by TLS.
    pub fn is_tls(&self) -> bool {
        match self {
            Self::Server(door) => matches!(door, Door::Tls(..)),
            Self::Sentinels(doors, _) | Self::Cluster(doors) => doors.iter().all(|door| matches!(door, Door::Tls(..))),
        }
    }
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// The same, by TLS.
    Tls(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Door {
    /// Another server, reached as this one is.
    pub(super) fn beside(&self, host: &str, port: u16) -> Self {
        match self {
            Self::Tls(..) => Self::Tls(host.to_owned(), port),
            Self::Tcp(..) | Self::Unix(_) => Self::Tcp(host.to_owned(), port),
        }
    }

    pub(super) fn host(&self) -> Option<&str> {
        match self {
            Self::Tls(host, _) | Self::Tcp(host, _) => Some(host),
            Self::Unix(_) => None,
        }
    }
}

/// `replicas.mode`: when a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// When every replica that may serve from memory knows of it.
    Strict,
    /// When it is in the log.
    Async,
}

/// `replicas.cut_off`: what becomes of writes while Redis cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutOff {
    /// They pass; the other replicas are told when Redis is back.
    Pass,
    /// They are refused.
    Refuse,
}
