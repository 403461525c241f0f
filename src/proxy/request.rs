//! What is known of one request of a client, and how it and its answer cross the proxy.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};

use super::access_log::Tally;
use super::outcome::Outcome;
use crate::engine::body::{Body, Guard, Watched};
use crate::engine::metrics::{Ending, Limit};
use crate::engine::problem::problem;
use crate::engine::spans::Traced;
use crate::engine::upstream::error::{Spared, UpstreamError};
use crate::policy::coherence::ledger::Tick;
use crate::policy::http::client::{Client, HostRule, Side, network_of};
use crate::policy::http::headers::{PROXY_STATUS, append_via, expose, has_origin, remove_hop_by_hop};
use crate::policy::http::framing;
use crate::policy::http::key::Key;
use crate::policy::http::onward::{Hop, onward};
use crate::policy::http::route::has_body;
use crate::policy::http::target;
use crate::state::State;
use crate::state::upstream::Active;

/// The least speed of a request's body, in bytes a second, once its sender has used up `upstream.stall_timeout` by being
/// silent now and then. Far below what any connection in use gives.
const SLOWEST_BODY: u32 = 256;

/// An answer, and how the request ended.
pub(crate) type Answered = (Response<Body>, Outcome);

/// One request on its way.
pub(crate) struct ClientRequest {
    pub(crate) state: Arc<State>,
    pub(crate) active: Arc<Active>,
    pub(crate) head: Parts,
    /// Taken by whoever passes it on.
    pub(crate) body: Option<Body>,
    /// The connection it came on.
    pub(crate) side: Side,
    pub(crate) request_id: HeaderValue,
    /// What is counted of it on its way.
    pub(crate) tally: Arc<Tally>,
    /// Its span, if it gets one.
    pub(crate) traced: Option<Arc<Traced>>,
    /// Its own tick, if it came while nobody knew what the other replicas have acknowledged: only what is asked for after it
    /// came is good for it.
    pub(crate) alone: Option<Tick>,
}

impl ClientRequest {
    /// The request as the upstream gets it.
    pub(crate) fn forwarded(&mut self) -> Option<Request<Body>> {
        let base = self.active.upstream.base();
        let uri = match self.head.uri.path_and_query() {
            Some(path) => base.at(path),
            None => base.join("/"),
        };
        let head = self.head_onward(uri.ok()?);
        Some(head.map(|()| self.body_onward()))
    }

    /// The same without a body, for another place.
    pub(crate) fn head_onward(&self, uri: Uri) -> Request<()> {
        let base = self.active.upstream.base();
        let mut request = Request::new(());
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = onward(
            &self.head.headers,
            &self.client(),
            Hop {
                base: &base.authority,
                host: &self.active.config.forward.host,
                request_id: &self.request_id,
                instance: self.active.instance,
                version: self.head.version,
            },
        );
        request
    }

    /// The body, watched and counted, once; empty if there is none.
    pub(crate) fn body_onward(&mut self) -> Body {
        if !has_body(&self.head.headers) {
            return Body::empty();
        }
        let Some(body) = self.body.take() else { return Body::empty() };
        let limit = self.active.upstream.settings().stall_timeout;
        let counting = Counting(self.tally.clone());
        let body = Watched::new(body, limit, counting).at_least(SLOWEST_BODY);
        Body::stream(body.at_most(self.active.config.requests.body))
    }

    /// An answer of the upstream as the client gets it.
    pub(crate) fn as_passed(&self, mut response: Response<Body>) -> Response<Body> {
        let version = response.version();
        remove_hop_by_hop(response.headers_mut());
        append_via(response.headers_mut(), version);
        expose(response.headers_mut());
        *response.version_mut() = http::Version::HTTP_11;
        let (status, length) = (response.status(), http_body::Body::size_hint(response.body()).exact());
        framing::frame_answer(&self.head.method, status, response.headers_mut(), length);
        if self.head.method == Method::HEAD {
            return response.map(|_| Body::empty());
        }
        response
    }

    pub(crate) fn failed(&self, error: UpstreamError) -> Answered {
        (self.upstream_problem(error), Outcome::forwarded(Ending::Failed, "bypass").failed(error))
    }

    /// What a client is told of an error of the upstream: the cause in words, and for programs (RFC 9209).
    pub(crate) fn upstream_problem(&self, error: UpstreamError) -> Response<Body> {
        let told = error.told_of(self.active.upstream.base());
        let mut response = self.problem(status_of(error), &told);
        if let Some(kind) = error.proxy_error()
            && let Ok(field) = HeaderValue::try_from(format!("anteroom; error={kind}; details=\"{told}\""))
        {
            response.headers_mut().insert(PROXY_STATUS, field);
        }
        if let UpstreamError::Spared(Spared { seconds, .. }) = error {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    pub(crate) fn unsendable(&self) -> Answered {
        (
            self.problem(StatusCode::BAD_REQUEST, "this path cannot be sent on"),
            Outcome::own(Ending::Refused).detail("path"),
        )
    }

    pub(crate) fn problem(&self, status: StatusCode, detail: &str) -> Response<Body> {
        problem(status, detail, has_origin(&self.head.headers))
    }

    /// Who the client is.
    pub(crate) fn client(&self) -> Client {
        Client::of(&self.head.headers, self.side, target::host(&self.head), &self.active.config.forward)
    }

    /// The key, for the host he asked if the upstream gets that.
    pub(crate) fn key_of_host(&self, key: Key) -> Key {
        if self.active.config.forward.host != HostRule::Client {
            return key;
        }
        let host = self.client().host;
        host.and_then(|host| host.to_str().map(|host| key.for_host(host)).ok()).unwrap_or(key)
    }

    /// It is not the upstream's trouble but ours, and soon over.
    pub(crate) fn busy(&self, detail: &str) -> Response<Body> {
        let mut response = self.problem(StatusCode::SERVICE_UNAVAILABLE, detail);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        response
    }

    /// The answer to whoever finds no room among those who wait for fetches, or among the fetches at once.
    pub(crate) fn crowded(&self, what: &str, limit: Limit) -> Answered {
        let detail = match limit {
            Limit::MaxWaiters => "too-many-waiters",
            Limit::MaxQueued => "queue-full",
            _ => "too-many-in-flight",
        };
        let outcome = Outcome::own(Ending::Failed).detail(detail).beyond(limit);
        (self.busy(&format!("too many {what} are being fetched; try again")), outcome)
    }

    /// Who this is where clients take turns.
    pub(crate) fn client_network(&self) -> IpAddr {
        network_of(self.client().address)
    }

    /// For whom: the addresses that the client's side named, and the client's own.
    pub(crate) fn forwarded_for(&self) -> HeaderValue {
        self.client().forwarded_for
    }

    /// The key of this reader's origin; none if it is not one that can be compared.
    pub(crate) fn key_of_origin(&self, key: &Key) -> Option<Key> {
        let origin = self.head.headers.get(header::ORIGIN)?.to_str().ok()?;
        (!origin.is_empty() && key.origin().is_none()).then(|| key.for_origin(origin))
    }
}

/// The one place where an error of the upstream becomes a status.
pub(crate) fn status_of(error: UpstreamError) -> StatusCode {
    match error {
        UpstreamError::Connect(_)
        | UpstreamError::Reset
        | UpstreamError::Incomplete
        | UpstreamError::Malformed => StatusCode::BAD_GATEWAY,
        UpstreamError::Spared(_) => StatusCode::SERVICE_UNAVAILABLE,
        UpstreamError::Timeout => StatusCode::GATEWAY_TIMEOUT,
        UpstreamError::ClientStalled => StatusCode::REQUEST_TIMEOUT,
        UpstreamError::ClientBroke => StatusCode::BAD_REQUEST,
        UpstreamError::ClientTooLong => StatusCode::PAYLOAD_TOO_LARGE,
    }
}

/// Counts the bytes of a request's body.
struct Counting(Arc<Tally>);

impl Guard for Counting {
    fn passed(&mut self, bytes: usize) {
        self.0.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
