//! What is known of one request of a client, and how it and its answer cross the proxy.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use super::outcome::Outcome;
use crate::engine::body::{Body, Guard, Watched};
use crate::engine::metrics::Ending;
use crate::engine::problem::problem;
use crate::engine::upstream::error::UpstreamError;
use crate::policy::http::headers::{self, ClientSide, append_via, has_origin, remove_hop_by_hop};
use crate::policy::http::key::Key;
use crate::policy::http::route::has_body;
use crate::state::State;
use crate::state::upstream::Active;

/// An answer, and how the request ended.
pub(crate) type Answered = (Response<Body>, Outcome);

/// One request on its way.
pub(crate) struct ClientRequest {
    pub(crate) state: Arc<State>,
    pub(crate) active: Arc<Active>,
    pub(crate) head: Parts,
    /// Taken by whoever passes it on.
    pub(crate) body: Option<Body>,
    /// The client's address.
    pub(crate) peer: SocketAddr,
    pub(crate) request_id: HeaderValue,
    /// Bytes of the request's body, counted as they come.
    pub(crate) received: Arc<AtomicU64>,
}

impl ClientRequest {
    /// The request as the upstream gets it.
    pub(crate) fn forwarded(&mut self) -> Option<Request<Body>> {
        let path = self.head.uri.path_and_query().map_or("/", |path| path.as_str());
        let base = self.active.upstream.base();
        let mut request = Request::new(Body::empty());
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = base.join(path).ok()?;
        let fields = request.headers_mut();
        fields.clone_from(&self.head.headers);
        remove_hop_by_hop(fields);
        // This side has answered it already, when the body was first asked for.
        fields.remove(header::EXPECT);
        let host = self.head.headers.get(header::HOST).cloned();
        let client =
            ClientSide { peer: self.peer.ip(), host, version: self.head.version, request_id: &self.request_id };
        headers::forward(fields, &base.authority, &client);
        if has_body(&self.head.headers)
            && let Some(body) = self.body.take()
        {
            let limit = self.active.upstream.settings().stall_timeout;
            *request.body_mut() = Body::stream(Watched::new(body, limit, Counting(self.received.clone())));
        }
        Some(request)
    }

    /// An answer of the upstream as the client gets it.
    pub(crate) fn as_passed(&self, mut response: Response<Body>) -> Response<Body> {
        let version = response.version();
        remove_hop_by_hop(response.headers_mut());
        append_via(response.headers_mut(), version);
        *response.version_mut() = http::Version::HTTP_11;
        if self.head.method == Method::HEAD {
            return response.map(|_| Body::empty());
        }
        response
    }

    pub(crate) fn failed(&self, error: UpstreamError) -> Answered {
        let outcome = Outcome::forwarded(Ending::Failed, "bypass").detail(error.label());
        (self.problem(status_of(error), &error.to_string()), outcome)
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

    /// It is not the upstream's trouble but ours, and soon over.
    pub(crate) fn busy(&self, detail: &str) -> Response<Body> {
        let mut response = self.problem(StatusCode::SERVICE_UNAVAILABLE, detail);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        response
    }

    /// Who this is where clients take turns.
    pub(crate) fn client(&self) -> IpAddr {
        headers::client_of(&self.head.headers, self.peer.ip())
    }

    /// For whom: the addresses that the client's side named, and the client's own.
    pub(crate) fn forwarded_for(&self) -> HeaderValue {
        headers::forwarded_for(&self.head.headers, self.peer.ip())
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
        UpstreamError::Connect | UpstreamError::Reset | UpstreamError::Malformed => StatusCode::BAD_GATEWAY,
        UpstreamError::Timeout => StatusCode::GATEWAY_TIMEOUT,
        UpstreamError::ClientStalled => StatusCode::REQUEST_TIMEOUT,
        UpstreamError::ClientBroke => StatusCode::BAD_REQUEST,
    }
}

/// Counts the bytes of a request's body.
struct Counting(Arc<AtomicU64>);

impl Guard for Counting {
    fn passed(&mut self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
