//! What the rooms above obey; those of the policy and the engine have their settings beside them.

use std::net::SocketAddr;
use std::time::Duration;

use super::listen::ListenAddress;
use crate::engine::rates::RateSettings;
use crate::policy::secret::Secret;

/// What the listeners and the drain obey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// `listen.address`: the public listener.
    pub listen: Vec<ListenAddress>,
    /// `listen.proxy_protocol`: whether connections from trusted proxies begin with the PROXY protocol.
    pub proxy_protocol: bool,
    /// `limits.connections`: of clients, at once.
    pub connections: usize,
    /// `limits.connections_per_address`: the same for one address.
    pub connections_per_address: usize,
    /// `limits.head_timeout`: from the first byte of a head, or of a handshake, to its end.
    pub head_timeout: Duration,
    /// `limits.idle_timeout`: how long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// `admin.address`: the private listener.
    pub admin: SocketAddr,
    /// `limits.head`, in bytes: the longest head of a request.
    pub head: u64,
    /// `limits.head_memory`, in bytes: heads that have not ended, beyond 8 KiB each, all together.
    pub head_memory: u64,
    /// `drain.notice`: how long `/ready` says 503 while requests are still taken.
    pub drain_notice: Duration,
    /// `drain.deadline`: how long answers in flight may take after that.
    pub drain_deadline: Duration,
}

/// What the private listener obeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// `admin.token`: the bearer token of `POST /purge` and `POST /explain`; without it they are off.
    pub token: Option<Secret>,
}

/// What requests of clients obey, whatever they ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestSettings {
    /// `limits.requests`: so many at once, until their answers are handed over.
    pub at_once: usize,
    /// `limits.requests_per_address`: the same for one client address.
    pub per_address: usize,
    /// `limits.body`, in bytes: the longest body.
    pub body: u64,
    /// `limits.rate` and its kin: how often one client address may ask.
    pub rates: RateSettings,
}

/// What a shared fetch obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchSettings {
    /// `upstream.fetch_timeout`: the whole fetch, from the first byte sent to the last one read.
    pub timeout: Duration,
    /// `upstream.max_in_flight`: shared fetches at once.
    pub max_in_flight: usize,
    /// `upstream.max_queued`: so many fetches wait for their place at most.
    pub max_queued: usize,
    /// `cache.max_body`, in bytes: a larger list passes through, unkept.
    pub max_body: u64,
    /// `cache.fetch_memory`, in bytes: bodies being collected, all together.
    pub memory: u64,
}

/// What is obeyed where the answers themselves say how they may be cached (`cache.ttl = "origin"`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginSettings {
    /// `cache.client_directives`: whether `Cache-Control` of requests is obeyed.
    pub obeys_clients: bool,
    /// `cache.stale_if_error`: how long after it became stale an answer may stand in for an error, if it does not say itself.
    pub stale_if_error: Duration,
}

/// How long a write's effects may go on after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettleSettings {
    /// `cache.settle`: after a 2xx, since bots and automations follow a write.
    pub settle: Duration,
    /// `cache.settle_unknown`: after anything unclear, since it may be committed later.
    pub settle_unknown: Duration,
}

/// How the program logs.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    /// `log.format`.
    pub format: LogFormat,
    /// `log.level`: a level or a filter such as `info,anteroom=debug`.
    pub level: String,
    /// `log.hits`: share of hits that get an access line, 0 to 1.
    pub hits: f64,
    /// `log.only`: which requests get one at all.
    pub only: LogOnly,
    /// `log.slow`: what takes so long gets one in any case; zero: nothing is slow.
    pub slow: Duration,
    /// `log.client`: how a client's address is told.
    pub client: LogClient,
}

/// `log.only`: which requests get an access line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOnly {
    /// All but hits, of which `log.hits` get one.
    All,
    /// Those that failed, or took as long as `log.slow`.
    Trouble,
}

/// `log.client`: how a client's address stands in its access line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogClient {
    /// As a hash that is the same within one run of the program.
    Hash,
    /// As it is.
    Whole,
    /// Not at all.
    Off,
}

/// `log.format`: the form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `pretty` on a terminal, else `json`.
    Auto,
    /// For people.
    Pretty,
    /// For machines.
    Json,
}
