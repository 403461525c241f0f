//! What lives as long as the process, in a few named groups. A request is given all of it, and uses what it needs.

pub mod cache;
pub mod invalidation;
pub mod observation;
mod told;
pub mod upstream;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, InForce};
use crate::engine::clock::{self, Epoch};
use crate::engine::metrics::Metrics;
#[cfg(feature = "otlp")]
use crate::engine::otlp;
use crate::engine::rates::Rates;
use crate::engine::replicas::fleet::Fleet;
use crate::engine::replicas::tier::Tier;
use crate::engine::requests::Requests;
use crate::engine::spans::{Spans, TracingSettings};
use crate::engine::store::Entry;
use crate::engine::tls::{Renewal, Tls, TlsSettings};
use crate::engine::upstream::client::Upstream;
use crate::policy::coherence::causes::Cause;
use crate::policy::coherence::watermark::Events;
use crate::policy::http::freshness::{Freshness, Lifetimes, Use, judge, served_until, use_of};
use crate::policy::http::key::Key;
use crate::policy::http::via::Instance;
use cache::Cache;
use invalidation::Invalidation;
use observation::Observation;
use upstream::{Active, Protection};

/// Everything a request may need.
pub struct State {
    active: ArcSwap<Active>,
    /// The settings in force, one by one, as far as whoever read them has told.
    settings: ArcSwap<Vec<InForce>>,
    /// Answers in memory, and the fetches that bring them.
    pub cache: Cache,
    /// Which of them are out of date, and who tells.
    pub invalidation: Invalidation,
    /// What replicas fetch for each other, if they do.
    pub tier: Option<Arc<Tier>>,
    /// The requests of clients that are being answered.
    pub requests: Arc<Requests>,
    /// What keeps requests of our own from being too many for the upstream.
    pub upstream: Protection,
    /// What is told in the log and measured aside.
    pub observation: Observation,
    /// From the first request to the end of the drain.
    pub lifecycle: Lifecycle,
    /// Certificate and key of the public listener, if it speaks TLS.
    pub tls: Option<Tls>,
    /// What is traced, if anything is.
    pub spans: Option<Arc<Spans>>,
    /// Every metric.
    pub metrics: Arc<Metrics>,
}

/// From the first request to the end of the drain.
pub struct Lifecycle {
    /// Writes, tunnels and the measuring of staleness, which outlive the handler of their request.
    pub tasks: TaskTracker,
    /// What `/ready` says: false from the moment the program is told to stop.
    pub ready: AtomicBool,
    /// Cancelled when tunnels must end.
    pub drained: CancellationToken,
}

impl State {
    /// Puts everything together.
    ///
    /// # Errors
    /// In words, if the certificates cannot be used.
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Result<Arc<Self>, String> {
        let upstream = Upstream::new(config.upstream.clone(), metrics.clone())?;
        let tls = config.tls.as_ref().map(Tls::load).transpose()?;
        metrics.certificate_not_after.set(tls.as_ref().and_then(Tls::not_after).unwrap_or_default());
        Ok(Self::put_together(config, upstream, tls, metrics))
    }

    /// The same without TLS, with a client towards the upstream that is there already.
    pub fn with(config: Config, upstream: Upstream, metrics: Arc<Metrics>) -> Arc<Self> {
        Self::put_together(config, upstream, None, metrics)
    }

    fn put_together(config: Config, upstream: Upstream, tls: Option<Tls>, metrics: Arc<Metrics>) -> Arc<Self> {
        let hasher = RandomState::new();
        let epoch = Epoch::begin();
        let instance = Instance::new(hasher.hash_one("via"));
        tell_limits(&config, &metrics);
        let (tasks, drained) = (TaskTracker::new(), CancellationToken::new());
        let spans = traced(&config.tracing, &metrics);
        let fleet = config.replicas.clone().map(|settings| Arc::new(Fleet::new(settings)));
        let tier = fleet.as_ref().and_then(|fleet| Tier::new(fleet, &metrics));
        Arc::new(Self {
            cache: Cache::new(&config, &metrics),
            invalidation: Invalidation::new(epoch, &hasher, fleet, metrics.clone()),
            tier,
            requests: Requests::new(config.requests.at_once, config.requests.per_address),
            upstream: Protection::new(config.fetch),
            observation: Observation::new(epoch, hasher, config.fetch.max_in_flight),
            lifecycle: Lifecycle { tasks, ready: AtomicBool::new(true), drained },
            active: ArcSwap::from_pointee(Active::new(config, upstream, instance, &Rates::default())),
            settings: ArcSwap::default(),
            tls,
            spans,
            metrics,
        })
    }

    /// Lets go of what was purged, and tells what that was: its key and the bytes of its body.
    pub fn forget_purged(&self, mut found: impl FnMut(&Key, usize)) {
        for (key, entry) in self.cache.store.all() {
            if self.invalidation.is_purged(&entry) && self.cache.store.forget(&key, entry.noted) {
                found(&key, entry.answer.body.kept().len());
            }
        }
        for (key, stored) in self.cache.responses.all() {
            if self.invalidation.has_purged(stored.noted, &stored.places) && self.cache.responses.forget(&key, &stored)
            {
                found(&key, stored.body.len());
            }
        }
        // What is removed is only let go of by this.
        let _ = (self.cache.store.size(), self.cache.responses.size());
    }

    /// The settings in force, for one request from its beginning to its end.
    pub fn active(&self) -> Arc<Active> {
        self.active.load_full()
    }

    /// The settings in force, one by one, to be shown.
    pub fn settings(&self) -> Arc<Vec<InForce>> {
        self.settings.load_full()
    }

    /// These settings are in force.
    pub fn tell_settings(&self, settings: Vec<InForce>) {
        self.settings.store(Arc::new(settings));
    }

    /// Replaces the settings. Those of listeners and of memory stay as they were.
    ///
    /// # Errors
    /// In words, if the new certificates cannot be used; then the old settings stay.
    pub fn reload(&self, config: Config) -> Result<(), String> {
        let upstream = Upstream::new(config.upstream.clone(), self.metrics.clone())?.after(&self.active().upstream);
        self.renew_certificate(config.tls.as_ref())?;
        self.reload_with(config, upstream);
        Ok(())
    }

    /// The same with a client towards the upstream that is there already.
    pub fn reload_with(&self, config: Config, upstream: Upstream) {
        let before = self.active();
        let mut active = Active::new(config, upstream, before.instance, &before.rates);
        let reshaped = active.fingerprint != before.fingerprint;
        active.reshaped = if reshaped { Some(clock::now()) } else { before.reshaped };
        let by_origin = active.config.origin.is_some();
        let other_store = by_origin != before.config.origin.is_some();
        self.active.store(Arc::new(active));
        if other_store {
            self.cache.empty(!by_origin);
        }
        if reshaped {
            // A flight under the old settings noted its tick before it took them: nobody joins it after this.
            self.invalidation.outdate_all(Cause::Settings);
        }
    }

    /// The contact behind a source, as far as it may be believed. Merges past the proxy are told by nobody, so what is
    /// believed is never older than what is served.
    pub fn believed(&self, active: &Active, inbox: &str, source: &str, now: Instant) -> Option<u64> {
        self.invalidation.believed(active.whose(inbox, source), now, self.bound_on_age(active, now))
    }

    /// Whose the source of this key was last shown to be, whether or not that is believed any more.
    pub fn last_shown(&self, active: &Active, key: &Key) -> Option<u64> {
        let whose = active.whose(key.inbox(), key.contact());
        self.invalidation.sources.belief(whose).map(|belief| belief.contact)
    }

    /// The age up to which what stays current is served while the upstream works.
    pub fn bound_on_age(&self, active: &Active, now: Instant) -> Duration {
        served_until(None, &self.lifetimes(active, now))
    }

    /// Reads certificate and key again, where TLS was on from the start; connections keep what they began with.
    ///
    /// # Errors
    /// In words, if the files hold no pair; then the one before stays.
    pub fn renew_certificate(&self, settings: Option<&TlsSettings>) -> Result<Renewal, String> {
        let (Some(tls), Some(settings)) = (&self.tls, settings) else { return Ok(Renewal::Same) };
        let renewal = tls.renew(settings);
        if let Some(result) = match renewal {
            Ok(Renewal::Same) => None,
            Ok(Renewal::Renewed) => Some("ok"),
            Err(_) => Some("failed"),
        } {
            self.metrics.certificate_renewals.with_label_values(&[result]).inc();
        }
        self.metrics.certificate_not_after.set(tls.not_after().unwrap_or_default());
        renewal
    }

    /// How long answers live, now.
    pub fn lifetimes(&self, active: &Active, now: Instant) -> Lifetimes {
        active.config.lifetimes.while_events_are(self.events(active, now))
    }

    /// What a stored answer is used for now, and how long answers live.
    pub fn use_of(&self, active: &Active, entry: &Entry, now: Instant) -> (Use, Lifetimes) {
        let lifetimes = self.lifetimes(active, now);
        let is_current = self.invalidation.is_current(entry);
        let freshness = judge(entry.aging(now), &lifetimes);
        (use_of(freshness, is_current, active.config.serve_outdated_on_error), lifetimes)
    }

    /// Whether the application's events arrive; `None` if none are set up.
    pub fn events(&self, active: &Active, now: Instant) -> Option<Events> {
        let settings = &active.config.webhook;
        settings.are_received().then(|| self.invalidation.events(settings.silent_after, now))
    }

    /// For how long an event has been due, if events are silent.
    pub fn silent_for(&self, now: Instant) -> Option<Duration> {
        let Some(Events::Silent { since }) = self.events(&self.active(), now) else { return None };
        Some(self.invalidation.epoch.time_since(since, now))
    }

    /// What may be served instead of a failed fetch (stale-if-error): the last good answer, if it is current.
    pub fn stale_if_error(&self, active: &Active, key: &Key, now: Instant) -> Option<Arc<Entry>> {
        let entry = self.cache.stored(key, active.fingerprint)?;
        let current = active.config.serve_outdated_on_error || self.invalidation.is_current(&entry);
        let kept = current && !self.invalidation.is_purged(&entry);
        (kept && judge(entry.aging(now), &self.lifetimes(active, now)) != Freshness::TooOld).then_some(entry)
    }
}

/// Begins to trace, if the settings name a collector and the program was built for it.
#[cfg(feature = "otlp")]
fn traced(settings: &TracingSettings, metrics: &Metrics) -> Option<Arc<Spans>> {
    let collector =
        otlp::Collector::new(settings.endpoint.as_ref()?).expect("the settings have a URL that can be asked");
    let (spans, queue) = Spans::new(settings.sample, &metrics.telling.spans);
    // It ends with the last that may put something into the queue.
    tokio::spawn(otlp::export(collector, queue, metrics.telling.spans.clone()));
    Some(spans)
}

/// The settings name no collector where nothing could be sent to it.
#[cfg(not(feature = "otlp"))]
fn traced(_: &TracingSettings, _: &Metrics) -> Option<Arc<Spans>> {
    None
}

/// What the settings allow stands beside what is used. A reload leaves these as they were.
fn tell_limits(config: &Config, metrics: &Metrics) {
    let tell = |of: &str, limit: u64| metrics.limits.allow(of, limit);
    tell("cache_bytes", config.store.memory);
    tell("body_bytes", config.store.memory.saturating_add(config.fetch.memory));
    tell("upstream_in_flight", config.fetch.max_in_flight as u64);
    tell("waiters", config.flights.max_waiters as u64);
    tell("requests", config.requests.at_once as u64);
}
