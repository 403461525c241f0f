//! What all connections and tasks of one stand-in share.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::data::World;
use super::faults::Faults;
use super::log::{Gates, Log, Matcher, Point, Seen};
use super::options::{Latency, Options};
use super::outbox::Outbox;
use super::webhooks::{Condition, Delivery};

/// What all connections share.
pub(super) struct Shared {
    pub(super) world: Mutex<World>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) log: Log<Seen>,
    pub(super) gates: Gates<(Point, Matcher)>,
    pub(super) deliveries: Log<Delivery>,
    pub(super) delivery_gates: Gates<Condition>,
    pub(super) faults: Mutex<Faults>,
    pub(super) extra_headers: Mutex<HeaderMap>,
    /// Requests per client and minute: the window's number and what was counted in it.
    pub(super) rate: Mutex<(u64, HashMap<String, u32>)>,
    pub(super) requests_per_minute: Option<u32>,
    pub(super) latency: Latency,
    pub(super) threads: Option<Semaphore>,
    pub(super) slow_by: Duration,
    pub(super) identifier_hash: String,
    pub(super) agent_token: String,
    pub(super) connections: AtomicUsize,
    pub(super) lists: AtomicUsize,
    /// Changes whenever idle connections are to be closed.
    pub(super) close_idle: watch::Sender<()>,
    pub(super) stopping: CancellationToken,
    /// Cancelled when the stand-in goes down; another one when it comes back.
    up: Mutex<CancellationToken>,
    pub(super) tasks: TaskTracker,
}

impl Shared {
    /// Of a stand-in that is about to start.
    pub(super) fn new(world: World, options: Options) -> Self {
        let mut faults = Faults::default();
        for fault in options.faults {
            faults.add(fault, fault.usual(), None);
        }
        let parallel = options.latency.parallel;
        let stopping = CancellationToken::new();
        Self {
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
            up: Mutex::new(stopping.child_token()),
            stopping,
            tasks: TaskTracker::new(),
        }
    }

    /// Ends what cannot outlive the process that the stand-in stands for: its connections.
    pub(super) fn up(&self) -> CancellationToken {
        self.up.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on connections live until it goes down again.
    pub(super) fn rise(&self) {
        *self.up.lock().unwrap_or_else(PoisonError::into_inner) = self.stopping.child_token();
    }
}
