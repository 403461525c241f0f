//! How a stand-in is started.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::faults::Fault;

/// How long answers take, and how many are made at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// For every request.
    pub base: Duration,
    /// For every message that the answer was made from.
    pub per_message: Duration,
    /// Requests worked on at once, the rest queue; 0 is any number.
    pub parallel: usize,
}

impl Latency {
    /// Answers at once: for tests, which wait for facts and not for time.
    pub const NONE: Self = Self { base: Duration::ZERO, per_message: Duration::ZERO, parallel: 0 };

    /// A quick installation with the default number of threads.
    pub const TYPICAL: Self =
        Self { base: Duration::from_millis(30), per_message: Duration::from_millis(2), parallel: 5 };
}

/// How a stand-in is started.
#[derive(Clone)]
pub struct Options {
    /// Where to listen; port 0 is any free one.
    pub address: SocketAddr,
    /// How long answers take.
    pub latency: Latency,
    /// Faults from the beginning, as [`StandIn::fault`](super::StandIn::fault) switches them on.
    pub faults: Vec<Fault>,
    /// How much longer [`Fault::Slow`] takes.
    pub slow_by: Duration,
    /// How far the times in payloads are behind the time of day.
    pub behind: Duration,
    /// The identifier hash that counts as right, for every contact.
    pub identifier_hash: String,
    /// The `api_access_token` of the agent.
    pub agent_token: String,
    /// Requests of one client address in one minute, as the real rate limiter counts them.
    pub requests_per_minute: Option<u32>,
    /// How many requests the log keeps, the newest, and how many deliveries. Tests want all of them.
    pub kept_requests: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            latency: Latency::NONE,
            faults: Vec::new(),
            slow_by: Duration::from_secs(5),
            behind: Duration::ZERO,
            identifier_hash: "valid-hash".to_owned(),
            agent_token: "agent-token".to_owned(),
            requests_per_minute: None,
            kept_requests: usize::MAX,
        }
    }
}

impl Options {
    /// As `anteroom demo` starts it.
    pub fn demo(faults: Vec<Fault>) -> Self {
        Self { latency: Latency::TYPICAL, faults, kept_requests: 1000, ..Self::default() }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Options");
        shown.field("address", &self.address).field("latency", &self.latency).field("faults", &self.faults);
        shown.finish_non_exhaustive()
    }
}
