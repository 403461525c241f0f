//! Towards the upstream: the settings in force with the client made from them, and what bounds requests of our own.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request};
use tokio::sync::Semaphore;
use tower::retry::budget::TpsBudget;

use crate::config::{Config, FetchSettings};
use crate::engine::body::Body;
use crate::engine::identities::Whose;
use crate::engine::upstream::client::Upstream;
use crate::engine::upstream::settings::UpstreamSettings;
use crate::policy::http::headers::{X_REQUEST_ID, append_via};

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
}

/// What keeps requests of our own from being too many for the upstream.
pub struct Protection {
    /// Bounds the fetches at once.
    pub in_flight: Arc<Semaphore>,
    /// How often a failing upstream is asked again for what there is an answer of, for all keys together.
    pub retries: TpsBudget,
}

impl Protection {
    pub(super) fn new(settings: FetchSettings) -> Self {
        Self {
            in_flight: Arc::new(Semaphore::new(settings.max_in_flight)),
            retries: TpsBudget::new(RETRY_WINDOW, RETRIES_PER_SECOND, RETRY_SHARE),
        }
    }
}

impl Active {
    pub(super) fn new(config: Config, upstream: Upstream) -> Self {
        let Config { upstream: UpstreamSettings { base, .. }, credentials, query, payload, encoding, .. } = &config;
        let has_codings = !encoding.offer.is_empty();
        let shape = format!("{base:?} {credentials:?} {query:?} {payload:?} {has_codings}");
        let fingerprint = siphasher::sip::SipHasher13::new().hash(shape.as_bytes());
        Self { config, upstream, fingerprint }
    }

    /// A source as the upstream of these settings knows it.
    pub fn whose<'a>(&self, inbox: &'a str, source: &'a str) -> Whose<'a> {
        Whose { fingerprint: self.fingerprint, inbox, source }
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
