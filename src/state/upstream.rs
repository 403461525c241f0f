//! Towards the upstream: the settings in force with the client made from them, and what bounds requests of our own.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderValue, Method, Request};
use tower::retry::budget::{Budget, TpsBudget};

use crate::config::{Config, FetchSettings};
use crate::engine::body::Body;
use crate::engine::places::Places;
use crate::engine::rates::Rates;
use crate::engine::refusals::Refusals;
use crate::engine::sources::Whose;
use crate::engine::upstream::client::{MayShareConnection, Upstream};
use crate::engine::upstream::settings::UpstreamSettings;
use crate::policy::coherence::ledger::Moment;
use crate::policy::http::attempts::{Attempt, Failed, Health};
use crate::policy::http::client::Client;
use crate::policy::http::headers::X_REQUEST_ID;
use crate::policy::http::route::{Refusal, Route, Rules, classify};
use crate::policy::http::via::Instance;
use crate::policy::http::{framing, target};

/// Retries: a fifth of what succeeded within the window, and always so many a second.
const RETRY_WINDOW: Duration = Duration::from_secs(10);
const RETRIES_PER_SECOND: u32 = 5;
const RETRY_SHARE: f32 = 0.2;

/// The settings in force, and what is made from them: a reload replaces it whole.
pub struct Active {
    /// The settings in force.
    pub config: Config,
    /// The client towards the upstream.
    pub upstream: Upstream,
    /// What shapes an answer: one made under other settings is unusable.
    pub fingerprint: u64,
    /// Since when answers are shaped so, if a reload has changed that.
    pub reshaped: Option<Instant>,
    /// Which of all Anterooms this is: the same after a reload.
    pub instance: Instance,
    /// How often each client may ask.
    pub rates: Rates,
}

/// What keeps requests of our own from being too many for the upstream.
pub struct Protection {
    /// Bounds the fetches at once.
    pub in_flight: Places,
    /// What the upstream said when it asked to be left alone.
    pub refusals: Refusals,
    /// How often a failing upstream is asked again for what there is an answer of, for all keys together.
    retries: TpsBudget,
    health: Mutex<Health>,
}

impl Protection {
    pub(super) fn new(settings: FetchSettings) -> Self {
        Self {
            in_flight: Places::new(settings.max_in_flight, settings.max_queued),
            refusals: Refusals::default(),
            retries: TpsBudget::new(RETRY_WINDOW, RETRIES_PER_SECOND, RETRY_SHARE),
            health: Mutex::default(),
        }
    }

    /// A shared fetch brought an answer.
    pub fn succeeded(&self) {
        self.health().succeeded();
        self.retries.deposit();
    }

    /// A shared fetch failed; `earlier` is how that of the same list failed before, if it did.
    pub fn failed(&self, earlier: Option<Failed>, now: Moment, until: Moment) -> Failed {
        self.health().failed(earlier, now, until)
    }

    /// Whether the upstream may be asked for a list whose last fetch failed like this.
    pub fn attempt(&self, last: Option<Failed>, now: Moment) -> Attempt {
        // Nearly all have not failed: no lock for them.
        if last.is_none() { Attempt::AsUsual } else { self.health().attempt(last, now) }
    }

    /// Takes one of the attempts that a failing upstream is asked with, if one is left.
    pub fn may_probe(&self) -> bool {
        self.retries.withdraw()
    }

    /// Whether nothing has come from the upstream for a while but failures.
    pub fn is_down(&self, now: Moment) -> bool {
        self.health().is_down(now)
    }

    /// Held briefly, never across an await; a panic while it is held leaves it whole.
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Active {
    /// What a request is under these settings, by its head alone.
    pub fn route(&self, head: &Parts) -> Route {
        let goes_round = || self.instance.has_passed(&head.headers).then_some(Refusal::Loop);
        match target::refuse(head).or_else(|| framing::refuse(&head.headers)).or_else(goes_round) {
            Some(refusal) => Route::Refuse(refusal),
            None => classify(&head.method, &head.uri, &head.headers, self.rules()),
        }
    }

    /// The settings that say what a request is.
    pub fn rules(&self) -> Rules<'_> {
        let Config { routes, query, credentials, webhook, origin, .. } = &self.config;
        let webhooks = webhook.are_received().then_some(&*webhook.path);
        Rules { query: *query, credentials: *credentials, webhooks, by_origin: origin.is_some(), routes: *routes }
    }

    pub(super) fn new(config: Config, upstream: Upstream, instance: Instance, before: &Rates) -> Self {
        let Config {
            upstream: UpstreamSettings { base, .. },
            forward,
            routes,
            credentials,
            query,
            payload,
            encoding,
            origin,
            ..
        } = &config;
        let has_codings = !encoding.offer.is_empty();
        let host = &forward.host;
        let by_origin = origin.is_some();
        let shape =
            format!("{base:?} {host:?} {routes:?} {credentials:?} {query:?} {payload:?} {has_codings} {by_origin}");
        let fingerprint = siphasher::sip::SipHasher13::new().hash(shape.as_bytes());
        let rates = Rates::after(before, config.requests.rates);
        Self { config, upstream, fingerprint, reshaped: None, instance, rates }
    }

    /// A source as the upstream of these settings knows it.
    pub fn whose<'a>(&self, inbox: &'a str, source: &'a str) -> Whose<'a> {
        Whose { fingerprint: self.fingerprint, inbox, source }
    }

    /// A `GET` of our own: built from a path and an allow-list, never from a reader's headers.
    pub fn own_request(
        &self,
        path_and_query: &str,
        request_id: &HeaderValue,
        client: &Client,
    ) -> Option<Request<Body>> {
        let base = self.upstream.base();
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = base.join(path_and_query).ok()?;
        let headers = request.headers_mut();
        client.lead(headers, &base.authority, &self.config.forward.host);
        headers.insert(http::header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(http::header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(X_REQUEST_ID, request_id.clone());
        self.instance.append_to(headers, http::Version::HTTP_11);
        request.extensions_mut().insert(MayShareConnection);
        Some(request)
    }
}
