//! Where the upstream is: its names looked up, again and again, by threads of their own; which addresses work.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper_util::client::legacy::connect::CaptureConnection;
use tokio::sync::{Semaphore, oneshot, watch};

use super::connections::{Connections, Opened};
use super::settings::UpstreamSettings;
use crate::engine::clock;
use crate::engine::metrics::Metrics;
use crate::policy::addresses::{self as policy, Order, Target};

/// How a name becomes addresses. It may take its time: a thread of its own waits for it.
pub type Resolve = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// The system's resolver, as every other program on this machine uses it.
pub fn system() -> Resolve {
    Arc::new(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
}

/// After so long another thread may ask.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// Threads that wait for the resolver at once. If it hangs, that is all that hangs.
const THREADS: usize = 4;

/// The addresses of the upstream, and the connections to them.
pub(super) struct Addresses {
    /// By URL.
    hosts: Vec<Host>,
    resolve: Resolve,
    interval: Duration,
    threads: Arc<Semaphore>,
    state: Mutex<State>,
    /// Told of the end of each look-up.
    ended: watch::Sender<()>,
    connections: Connections,
    metrics: Arc<Metrics>,
}

enum Host {
    Address(SocketAddr),
    Name(String, u16),
}

struct State {
    addresses: policy::Addresses,
    /// By URL.
    look_ups: Vec<LookUp>,
}

#[derive(Clone, Default)]
struct LookUp {
    began: Option<Instant>,
    under_way: bool,
    /// How many have ended.
    ended: u64,
}

/// None of the upstream's names has an address.
pub(super) struct NoAddress;

impl Addresses {
    /// Those of the settings' URLs. Nothing is looked up yet.
    pub(super) fn new(settings: &UpstreamSettings, resolve: Resolve, metrics: Arc<Metrics>) -> Self {
        let hosts: Vec<Host> = settings
            .urls()
            .map(|url| {
                let host = url.host();
                match host.parse::<IpAddr>() {
                    Ok(ip) => Host::Address(SocketAddr::new(ip, url.port())),
                    Err(_) => Host::Name(host.to_owned(), url.port()),
                }
            })
            .collect();
        let mut addresses = policy::Addresses::default();
        for (url, host) in hosts.iter().enumerate() {
            if let Host::Address(address) = host {
                addresses.replace(url, &[*address]);
            }
        }
        let state = State { addresses, look_ups: vec![LookUp::default(); hosts.len()] };
        Self {
            hosts,
            resolve,
            interval: settings.lookup_interval,
            threads: Arc::new(Semaphore::new(THREADS)),
            state: Mutex::new(state),
            ended: watch::Sender::new(()),
            connections: Connections::new(settings.connection_max_age),
            metrics,
        }
    }

    /// A request is about to be sent: what is due is looked up behind, and what is too old is not used for it.
    pub(super) fn before_request(self: &Arc<Self>) {
        let now = clock::now();
        self.connections.sweep(now);
        self.look_up(|look_up| look_up.began.is_none_or(|began| now.saturating_duration_since(began) >= self.interval));
    }

    /// This connection carries a request.
    pub(super) fn note(&self, connection: &CaptureConnection) {
        self.connections.note(connection);
    }

    /// The same of one of our own pool, when it is made.
    pub(super) fn note_own(&self, opened: &Arc<Opened>) {
        self.connections.note_own(opened);
    }

    /// What a connection is tried with. Waits only if no address is known.
    pub(super) async fn order(self: &Arc<Self>) -> Result<Order, NoAddress> {
        let mut ended = self.ended.subscribe();
        let before: Vec<u64> = self.lock().look_ups.iter().map(|look_up| look_up.ended).collect();
        let mut has_asked = false;
        loop {
            let order = self.lock().addresses.order(clock::now());
            if !order.targets.is_empty() {
                return Ok(order);
            }
            if !has_asked {
                self.look_up(|_| true);
                has_asked = true;
            }
            let all_ended = |state: &State| {
                let mut look_ups = self.hosts.iter().zip(&state.look_ups).zip(&before);
                look_ups.all(|((host, look_up), before)| matches!(host, Host::Address(_)) || look_up.ended > *before)
            };
            if all_ended(&self.lock()) {
                return Err(NoAddress);
            }
            if ended.changed().await.is_err() {
                return Err(NoAddress);
            }
        }
    }

    /// It was connected to.
    pub(super) fn succeeded(&self, target: Target) {
        if self.lock().addresses.succeeded(target) {
            tracing::info!("the upstream's address {} is used again", target.address);
        }
        self.tell_counts();
    }

    /// It could not be connected to, or another was faster.
    pub(super) fn failed(&self, target: Target) {
        let (is_news, used) = {
            let mut state = self.lock();
            (state.addresses.failed(target, clock::now()), state.addresses.counts().0)
        };
        if is_news && used > 0 {
            tracing::warn!(
                "the upstream's address {} is left out: it cannot be connected to, or is slow",
                target.address
            );
        }
        self.tell_counts();
    }

    /// Begins the look-ups that are wanted, but none twice.
    fn look_up(self: &Arc<Self>, is_wanted: impl Fn(&LookUp) -> bool) {
        for (url, host) in self.hosts.iter().enumerate() {
            let Host::Name(name, port) = host else { continue };
            {
                let mut state = self.lock();
                let look_up = &mut state.look_ups[url];
                if look_up.under_way || !is_wanted(look_up) {
                    continue;
                }
                (look_up.began, look_up.under_way) = (Some(clock::now()), true);
            }
            self.begin(url, name.clone(), *port);
        }
    }

    fn begin(self: &Arc<Self>, url: usize, name: String, port: u16) {
        let (resolve, threads, this) = (self.resolve.clone(), self.threads.clone(), self.clone());
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let asking = async {
                let permit = threads.acquire_owned().await;
                let thread = std::thread::Builder::new().name("anteroom-names".to_owned());
                // Not one of tokio's: those that do other work are not to wait for a resolver that hangs.
                thread.spawn(move || {
                    let _permit = permit;
                    let _ = tell.send(resolve(&name, port));
                })?;
                told.await.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
            };
            let result = tokio::time::timeout(ANSWERED_WITHIN, asking).await;
            this.looked_up(url, result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())));
        });
    }

    /// What came of a look-up. If it failed, the upstream is where it was as far as is known.
    fn looked_up(&self, url: usize, found: io::Result<Vec<SocketAddr>>) {
        let label = match &found {
            Ok(found) if !found.is_empty() => "found",
            Err(error) if error.kind() == io::ErrorKind::TimedOut => "late",
            _ => "failed",
        };
        self.metrics.ways.lookups.with_label_values(&[label]).inc();
        let gone = {
            let mut state = self.lock();
            let look_up = &mut state.look_ups[url];
            look_up.under_way = false;
            look_up.ended += 1;
            match found {
                Ok(found) if !found.is_empty() => state.addresses.replace(url, &found),
                _ => Vec::new(),
            }
        };
        if !gone.is_empty() {
            tracing::info!(
                addresses = gone.len(),
                "the upstream's name has moved: connections to where it was carry no further request"
            );
            self.connections.leave(&gone);
        }
        self.tell_counts();
        self.ended.send_replace(());
    }

    fn tell_counts(&self) {
        let (used, left_out) = self.lock().addresses.counts();
        for (state, count) in [("used", used), ("left_out", left_out)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.metrics.ways.addresses.with_label_values(&[state]).set(count);
        }
    }

    /// Held briefly, never across an await; a panic while it is held leaves it whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
