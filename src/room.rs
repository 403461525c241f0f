//! Everything a request may need, put together once.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{HeaderValue, Method, Request};
use moka::sync::Cache;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::retry::budget::TpsBudget;

use crate::config::Config;
use crate::engine::body::Body;
use crate::engine::clock::{self, Epoch};
use crate::engine::flights::Flights;
use crate::engine::learned::Learned;
use crate::engine::memory::Memory;
use crate::engine::metrics::{Metrics, ToldBy};
use crate::engine::store::{Entry, Store};
use crate::engine::strangers::Strangers;
use crate::engine::upstream::{Upstream, UpstreamSettings};
use crate::landed::Landed;
use crate::outcome::Sampler;
use crate::policy::freshness::{Freshness, Lifetimes, judge};
use crate::policy::headers::{X_REQUEST_ID, append_via};
use crate::policy::key::Key;
use crate::policy::ledger::{Ledger, Moment, PLACES, Place, Scope};
use crate::policy::watermark::Watermark;
use crate::preflight::Preflights;
use crate::staleness::Staleness;

/// How many lists are remembered as not to be shared, and for how long.
const UNSHAREABLE: u64 = 10_000;
const UNSHAREABLE_FOR: Duration = Duration::from_secs(10);

/// Retries: a fifth of what succeeded within the window, and always so many a second.
const RETRY_WINDOW: Duration = Duration::from_secs(10);
const RETRIES_PER_SECOND: u32 = 5;
const RETRY_SHARE: f32 = 0.2;

/// Bodies being put into a coding at once: more readers get the plain body meanwhile.
const ENCODED_AT_ONCE: usize = 4;
/// Bytes of webhooks being read, all together.
const WEBHOOK_MEMORY: u64 = 16 * 1024 * 1024;
/// The most a webhook may say, in bytes.
pub(crate) const LONGEST_WEBHOOK: u64 = 1024 * 1024;
/// Milliseconds between two log lines that tell of violations.
const TELL_EVERY_MS: u64 = 10_000;

/// What a reload replaces, whole.
pub struct Live {
    /// The settings in force.
    pub config: Config,
    /// The client towards the upstream.
    pub upstream: Upstream,
    /// What shapes an answer: one made under other settings is unusable.
    pub fingerprint: u64,
}

/// Everything a request may need.
pub struct Room {
    live: ArcSwap<Live>,
    /// Answers in memory.
    pub store: Store,
    /// Which of them are out of date.
    pub ledger: Ledger,
    /// What the ledger's times count from.
    pub epoch: Epoch,
    /// Which contact is behind a source.
    pub learned: Learned,
    /// Fetches under way.
    pub flights: Flights<Landed>,
    /// Lists that could not be shared lately, and why: nobody waits for another's fetch of one.
    pub unshareable: Cache<Key, &'static str>,
    /// What the upstream said to preflights.
    pub preflights: Preflights,
    /// Bounds the bodies being put into a coding at once.
    pub encoding: Arc<Semaphore>,
    /// Bounds the fetches at once.
    pub in_flight: Arc<Semaphore>,
    /// How often a failing upstream is asked again for what there is an answer of, for all keys together.
    pub retries: TpsBudget,
    /// Memory for bodies.
    pub memory: Memory,
    /// Webhooks while they are read.
    pub strangers: Strangers,
    /// Whether the application's events arrive.
    pub watermark: Watermark,
    /// Whether it was told that they do not.
    pub told_of_silence: AtomicBool,
    /// Which hits get an access line.
    pub sampler: Sampler,
    /// What bounds the measuring of staleness.
    pub staleness: Staleness,
    /// Writes, tunnels and the measuring of staleness, which outlive the handler of their request.
    pub tasks: TaskTracker,
    /// What `/ready` says: false from the moment the program is told to stop.
    pub ready: AtomicBool,
    /// Cancelled when tunnels must end.
    pub drained: CancellationToken,
    /// Every metric.
    pub metrics: Arc<Metrics>,
    hasher: RandomState,
    request_ids: AtomicU64,
    told_of_violations: AtomicU64,
}

impl Room {
    /// Puts everything together.
    ///
    /// # Errors
    /// In words, if the certificates cannot be used.
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Result<Arc<Self>, String> {
        let upstream = Upstream::new(config.upstream.clone(), metrics.clone())?;
        Ok(Self::with(config, upstream, metrics))
    }

    /// The same with a client towards the upstream that is there already.
    pub fn with(config: Config, upstream: Upstream, metrics: Arc<Metrics>) -> Arc<Self> {
        let hasher = RandomState::new();
        tell_limits(&config, &metrics);
        Arc::new(Self {
            store: Store::new(config.store, config.lifetimes.longest(), &metrics),
            ledger: Ledger::new(PLACES, [hasher.hash_one(1), hasher.hash_one(2)]),
            epoch: Epoch::begin(),
            learned: Learned::new(hasher.clone()),
            flights: Flights::new(config.flights),
            unshareable: Cache::builder().max_capacity(UNSHAREABLE).time_to_live(UNSHAREABLE_FOR).build(),
            preflights: Preflights::default(),
            encoding: Arc::new(Semaphore::new(ENCODED_AT_ONCE)),
            in_flight: Arc::new(Semaphore::new(config.fetch.max_in_flight)),
            retries: TpsBudget::new(RETRY_WINDOW, RETRIES_PER_SECOND, RETRY_SHARE),
            memory: Memory::new(config.store.memory.saturating_add(config.fetch.memory)),
            strangers: Strangers::new(WEBHOOK_MEMORY, LONGEST_WEBHOOK),
            watermark: Watermark::default(),
            told_of_silence: AtomicBool::new(false),
            sampler: Sampler::default(),
            staleness: Staleness::new(config.fetch.max_in_flight),
            tasks: TaskTracker::new(),
            ready: AtomicBool::new(true),
            drained: CancellationToken::new(),
            live: ArcSwap::from_pointee(Live::new(config, upstream)),
            metrics,
            request_ids: AtomicU64::new(0),
            told_of_violations: AtomicU64::new(0),
            hasher,
        })
    }

    /// The settings in force, for one request from its beginning to its end.
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Replaces the settings. Those of listeners and of memory stay as they were.
    ///
    /// # Errors
    /// In words, if the new certificates cannot be used; then the old settings stay.
    pub fn reload(&self, config: Config) -> Result<(), String> {
        let upstream = Upstream::new(config.upstream.clone(), self.metrics.clone())?;
        let live = Live::new(config, upstream);
        let reshaped = live.fingerprint != self.live().fingerprint;
        self.live.store(Arc::new(live));
        if reshaped {
            // A flight under the old settings noted its tick before it took them: nobody joins it after this.
            self.ledger.outdate_everything();
        }
        Ok(())
    }

    /// Whether a log line may tell of violations: at most one in a while, the metric has them all.
    pub fn may_tell_of_violations(&self, now: Instant) -> bool {
        let Moment(now) = self.epoch.moment(now);
        let last = self.told_of_violations.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= TELL_EVERY_MS;
        due && self.told_of_violations.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// A keyed hash of a contact, for the log.
    pub fn pseudonym(&self, key: &Key) -> u64 {
        self.hasher.hash_one((key.inbox(), key.contact()))
    }

    /// A request id that no other request of this process has.
    pub fn request_id(&self) -> HeaderValue {
        let count = self.request_ids.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:016x}{count:016x}", self.hasher.hash_one(0));
        HeaderValue::try_from(id).expect("hex digits are a header value")
    }

    /// The places every list of this key has from its path.
    pub fn path_places(&self, key: &Key) -> [Place; 3] {
        [Scope::Source(key.contact()), Scope::Inbox(key.inbox()), Scope::List(key.text_of_list())]
            .map(|scope| self.ledger.place(&scope))
    }

    /// This one list is out of date from here on.
    pub fn outdate_list(&self, key: &Key, told_by: ToldBy) {
        self.ledger.outdate(self.ledger.place(&Scope::List(key.text_of_list())));
        self.metrics.outdated(told_by);
    }

    /// Whether nothing that this answer was made from has changed since its fetch began.
    pub fn is_current(&self, entry: &Entry) -> bool {
        self.ledger.is_current(entry.noted, &entry.places)
    }

    /// How long answers live, now.
    pub fn lifetimes(&self, live: &Live, now: Instant) -> Lifetimes {
        live.config.lifetimes.while_events_are(self.events(live, now))
    }

    /// What may stand in for a failed fetch: the last good answer, if it is current.
    pub fn stand_in(&self, live: &Live, key: &Key, now: Instant) -> Option<Arc<Entry>> {
        let entry = self.store.get(key).filter(|entry| entry.fingerprint == live.fingerprint)?;
        let current = live.config.serve_outdated_on_error || self.is_current(&entry);
        (current && judge(entry.aging(now), &self.lifetimes(live, now)) != Freshness::TooOld).then_some(entry)
    }
}

/// What the settings allow stands beside what is used. A reload leaves these as they were.
fn tell_limits(config: &Config, metrics: &Metrics) {
    let tell = |of: &str, limit: u64| {
        metrics.limits.with_label_values(&[of]).set(i64::try_from(limit).unwrap_or(i64::MAX));
    };
    tell("cache_bytes", config.store.memory);
    tell("body_bytes", config.store.memory.saturating_add(config.fetch.memory));
    tell("upstream_in_flight", config.fetch.max_in_flight as u64);
    tell("waiters", config.flights.max_waiters as u64);
}

impl Live {
    fn new(config: Config, upstream: Upstream) -> Self {
        let Config { upstream: UpstreamSettings { base, .. }, credentials, query, payload, encoding, .. } = &config;
        let has_codings = !encoding.offer.is_empty();
        let shape = format!("{base:?} {credentials:?} {query:?} {payload:?} {has_codings}");
        let fingerprint = siphasher::sip::SipHasher13::new().hash(shape.as_bytes());
        Self { config, upstream, fingerprint }
    }

    /// A `GET` of our own: built from a path and an allow-list, never from a reader's headers.
    pub fn own_request(&self, path_and_query: &str, request_id: &HeaderValue) -> Option<Request<Body>> {
        let base = self.upstream.base();
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = base.join(path_and_query).ok()?;
        let headers = request.headers_mut();
        headers.insert(http::header::HOST, HeaderValue::try_from(base.authority.as_str()).ok()?);
        headers.insert(http::header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(http::header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
        headers.insert(X_REQUEST_ID, request_id.clone());
        append_via(headers, http::Version::HTTP_11);
        Some(request)
    }
}

/// How long an answer was under way.
pub fn since(began: Instant) -> Duration {
    clock::now().saturating_duration_since(began)
}
