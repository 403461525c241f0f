//! A stand-in for the real service, in memory, to try the proxy out and to test it against.
//!
//! It answers the client API as the real one does, down to key order and header sets, and it can be slowed down,
//! broken, held still and asked what it has seen. `serve` is the way of a request; `data`, `writes`, `seed` and
//! `render` are the account; `events` says who is told of a change, `cable`, `outbox` and `webhooks` tell them; `acts`,
//! `log` and `faults` are what tests play with; `wire` is below HTTP.

mod acts;
mod cable;
mod data;
mod events;
mod faults;
mod handlers;
mod http;
mod log;
mod outbox;
mod params;
mod render;
mod routes;
mod seed;
mod serve;
#[cfg(test)]
mod tests;
mod webhooks;
mod wire;
mod writes;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use faults::{Fault, UnknownFault};
pub use log::{Gate, Matcher, Point, Seen};
pub use seed::Shape;
pub use webhooks::{Delivery, Fate, Trouble, Webhook, WebhookKind};

use data::World;
use faults::Faults;
use log::{Gates, Log};
use outbox::{Condition, Outbox};

/// The inbox whose contacts are seeded: `visitor-a` (typical), `visitor-b` (verified, every odd shape there is),
/// `visitor-c` and `phone:+15550100003` (no conversations).
pub const INBOX: &str = "hmUxdYZ7nFu4KqJ8sT2vWbXc";

/// A second inbox of the same account, in which `visitor-b` has a conversation.
pub const OTHER_INBOX: &str = "Qz3LpR9aVtE6wYs1NkGdMj5B";

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
    /// Faults from the beginning, as [`StandIn::fault`] switches them on.
    pub faults: Vec<Fault>,
    /// How much longer [`Fault::Slow`] takes.
    pub slow_by: Duration,
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

/// What all connections share.
struct Shared {
    world: Mutex<World>,
    outbox: Arc<Outbox>,
    log: Log<Seen>,
    gates: Gates<(Point, Matcher)>,
    deliveries: Log<Delivery>,
    delivery_gates: Gates<Condition>,
    faults: Mutex<Faults>,
    extra_headers: Mutex<HeaderMap>,
    /// Requests per client and minute: the window's number and what was counted in it.
    rate: Mutex<(u64, HashMap<String, u32>)>,
    requests_per_minute: Option<u32>,
    latency: Latency,
    threads: Option<Semaphore>,
    slow_by: Duration,
    identifier_hash: String,
    agent_token: String,
    connections: AtomicUsize,
    lists: AtomicUsize,
    /// Changes whenever idle connections are to be closed.
    close_idle: watch::Sender<()>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// A running stand-in. It ends, with all its connections, when this is dropped.
pub struct StandIn {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl StandIn {
    /// Binds and serves in the background of the current runtime.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.address).await?;
        let address = listener.local_addr()?;
        let mut world = World::new(format!("http://{address}"));
        seed::open(&mut world);
        let mut faults = Faults::default();
        for fault in options.faults {
            faults.add(fault, fault.usual(), None);
        }
        let parallel = options.latency.parallel;
        let shared = Arc::new(Shared {
            outbox: Arc::clone(&world.outbox),
            world: Mutex::new(world),
            log: Log::new(options.kept_requests),
            gates: Gates::default(),
            deliveries: Log::new(options.kept_requests),
            delivery_gates: Gates::default(),
            faults: Mutex::new(faults),
            extra_headers: Mutex::default(),
            rate: Mutex::default(),
            requests_per_minute: options.requests_per_minute,
            latency: options.latency,
            threads: (parallel > 0).then(|| Semaphore::new(parallel)),
            slow_by: options.slow_by,
            identifier_hash: options.identifier_hash,
            agent_token: options.agent_token,
            connections: AtomicUsize::new(0),
            lists: AtomicUsize::new(0),
            close_idle: watch::Sender::new(()),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(serve::accept(Arc::clone(&shared), listener));
        shared.tasks.spawn(outbox::send(Arc::clone(&shared)));
        Ok(Self { shared, address })
    }

    /// Ends everything and waits until it has ended: the port refuses connections after that.
    pub async fn stop(self) {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as a URL without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The path of a contact's conversation list in [`INBOX`].
    pub fn list_path(source_id: &str) -> String {
        format!("/public/api/v1/inboxes/{INBOX}/contacts/{source_id}/conversations")
    }

    /// Connections accepted so far.
    pub fn seen_connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Closes every connection on which no request is under way: the other side finds it dead.
    pub fn close_idle_connections(&self) {
        self.shared.close_idle.send_replace(());
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.log.read(<[Seen]>::to_vec)
    }

    /// How often the list of a contact was asked for.
    pub fn list_requests(&self, source_id: &str) -> usize {
        let list = Matcher::list_of(source_id);
        self.shared.log.read(|all| all.iter().filter(|seen| list.matches(seen)).count())
    }

    /// Waits until a condition on the requests so far holds. Fails the test after 20 s, naming `what`.
    pub async fn wait_for(&self, what: &str, condition: impl Fn(&[Seen]) -> bool) {
        self.shared.log.wait_for(what, condition).await;
    }

    /// Sets up a gate for the requests that match. It holds what the application answers; files, sockets, and what
    /// the rate limiter or a fault answers instead, do not come to it.
    pub fn hold(&self, point: Point, matcher: Matcher) -> Gate {
        self.shared.gates.hold(format!("requests at {point:?}"), (point, matcher))
    }

    /// Switches a fault on: for the conversation list, or for writes if it is about what comes after one.
    pub fn fault(&self, fault: Fault) {
        self.fault_on(fault, fault.usual());
    }

    /// Switches a fault on for the requests that match.
    pub fn fault_on(&self, fault: Fault, matcher: Matcher) {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).add(fault, matcher, None);
    }

    /// Lets the next `times` requests that match suffer a fault; after that all is well again.
    pub fn fault_times(&self, fault: Fault, matcher: Matcher, times: usize) {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).add(fault, matcher, Some(times));
    }

    /// Switches all faults off. Requests that hang already go on hanging.
    pub fn clear_faults(&self) {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Puts one more header on every answer from now on. Panics if it is not a valid header.
    pub fn set_response_header(&self, name: &str, value: &str) {
        let name = HeaderName::try_from(name).expect("a header name");
        let value = HeaderValue::try_from(value).expect("a header value");
        self.shared.extra_headers.lock().unwrap_or_else(PoisonError::into_inner).append(name, value);
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.stopping.cancel();
    }
}

impl fmt::Debug for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandIn").field("address", &self.address).finish_non_exhaustive()
    }
}
