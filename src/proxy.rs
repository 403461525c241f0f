//! The request path, top to bottom: what a request is, and each kind but the list, which has a room of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;

use crate::cable;
use crate::engine::body::{Body, Guard, Read, Watched, read_at_most};
use crate::engine::metrics::{Ending, Raised};
use crate::engine::tunnel;
use crate::engine::upstream::UpstreamError;
use crate::outcome::{Outcome, Record, problem};
use crate::policy::headers::{self, ClientSide, append_via, has_origin, is_json, remove_hop_by_hop, usable_request_id};
use crate::policy::ledger::Tick;
use crate::policy::route::{Refusal, Route, Rules, Source, Target, classify, has_body};
use crate::policy::shown;
use crate::room::{Live, Room};
use crate::write::Write;

/// Answers up to this size are read for the contact they show while they pass.
const LEARN_FROM: u64 = 64 * 1024;

/// An answer, and how the request ended.
pub(crate) type Answered = (Response<Body>, Outcome);

/// One request on its way.
pub(crate) struct Asked {
    pub(crate) room: Arc<Room>,
    pub(crate) live: Arc<Live>,
    pub(crate) head: Parts,
    /// Taken by whoever passes it on.
    pub(crate) body: Option<Body>,
    peer: SocketAddr,
    request_id: HeaderValue,
    /// Bytes of the request's body, counted as they come.
    pub(crate) received: Arc<std::sync::atomic::AtomicU64>,
}

/// Answers a request.
pub async fn handle(room: Arc<Room>, peer: SocketAddr, request: Request<Body>) -> Response<Body> {
    let live = room.live();
    let (head, body) = request.into_parts();
    let request_id = usable_request_id(&head.headers).unwrap_or_else(|| room.request_id());
    let mut record = Record::begin(room.metrics.clone(), head.method.clone(), request_id.clone());
    if let Some(trace_id) = headers::trace_id(&head.headers) {
        record.belongs_to(trace_id);
    }
    let config = &live.config;
    let webhooks = config.webhook.are_received().then_some(&*config.webhook.path);
    let rules = Rules { query: config.query, credentials: config.credentials, webhooks };
    let route = match refuse_host(&head) {
        Some(refusal) => Route::Refuse(refusal),
        None => classify(&head.method, &head.uri, &head.headers, rules),
    };
    if let Route::List(key) | Route::Bypass(key, _) = &route {
        record.about(room.pseudonym(key));
    }
    let received = record.received();
    let mut asked =
        Asked { room: room.clone(), live: live.clone(), head, body: Some(body), peer, request_id, received };
    let (response, outcome) = match route {
        Route::List(key) => asked.list(key).await,
        Route::Bypass(key, reason) => asked.bypass(&key, reason).await,
        Route::Write(targets) => asked.write(targets).await,
        Route::Webhook => asked.webhook().await,
        Route::Preflight => asked.preflight().await,
        Route::Tunnel => asked.tunnel().await,
        Route::Pass(source) => asked.pass(source).await,
        Route::Refuse(refusal) => asked.refuse(refusal),
    };
    let is_hit = matches!(outcome.ending, Ending::Hit | Ending::Stale);
    let logged = !is_hit || room.sampler.takes(live.config.log.hits);
    record.end(response, &outcome, logged)
}

/// RFC 9112 section 3.2: exactly one `Host`; before HTTP/1.1 it could be left out.
fn refuse_host(head: &Parts) -> Option<Refusal> {
    let hosts = head.headers.get_all(header::HOST).iter().count();
    let wrong = if head.version < http::Version::HTTP_11 { hosts > 1 } else { hosts != 1 };
    wrong.then_some(Refusal::Host)
}

impl Asked {
    /// A write: passed on under the guard that outdates what it may have changed.
    async fn write(mut self, targets: Vec<Target>) -> Answered {
        let Some(request) = self.forwarded() else { return self.unsendable() };
        let (room, live, peer) = (self.room.clone(), self.live.clone(), self.forwarded_for());
        match (Write { room, live, targets, request, peer }).run().await {
            Ok(response) => {
                let outcome = Outcome::forwarded(Ending::Write, "method").status(response.status());
                (self.as_passed(response), outcome)
            }
            Err(error) => self.failed(error),
        }
    }

    /// Anything that is not ours. If its answer shows the contact of a source, that is learned on the way.
    async fn pass(mut self, source: Option<Source>) -> Answered {
        match self.send_on(source).await {
            Ok(response) => {
                let outcome = Outcome::forwarded(Ending::Pass, "bypass").status(response.status());
                (self.as_passed(response), outcome)
            }
            Err(error) => self.failed(error),
        }
    }

    /// A WebSocket: if the upstream agrees, both connections are tied together until one ends.
    async fn tunnel(mut self) -> Answered {
        let Some(upgraded_client) = self.head.extensions.remove::<OnUpgrade>() else { return self.unsendable() };
        let Some(mut request) = self.forwarded() else { return self.unsendable() };
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        *request.body_mut() = Body::empty();
        let observes = self.live.config.observe_cable;
        if observes {
            // What is compressed cannot be read.
            request.headers_mut().remove(header::SEC_WEBSOCKET_EXTENSIONS);
        }
        let exchange = self.live.upstream.exchange();
        let mut response = match self.live.upstream.send(request).await {
            Ok(response) => response,
            Err(error) => return self.failed(error),
        };
        let outcome = Outcome::forwarded(Ending::Pass, "bypass").status(response.status());
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let response = response.map(|body| self.live.upstream.watch(body, exchange));
            return (self.as_passed(response), outcome);
        }
        let upgraded_upstream = hyper::upgrade::on(&mut response);
        let (silence, drained) = (self.live.upstream.settings().stall_timeout, self.room.drained.clone());
        let gauge = self.room.metrics.tunnels.clone();
        let hear = cable::observer(self.room.clone(), observes);
        self.room.tasks.spawn(async move {
            let _open = Raised::new(&gauge);
            let _exchange = exchange;
            if let (Ok(client), Ok(upstream)) = tokio::join!(upgraded_client, upgraded_upstream) {
                let (client, upstream) = (hyper_util::rt::TokioIo::new(client), hyper_util::rt::TokioIo::new(upstream));
                // A tunnel may break at any time: that is its normal end.
                let _ = tunnel::copy(client, upstream, silence, drained, hear).await;
            }
        });
        let mut switched = self.as_passed(response.map(|_| Body::empty()));
        switched.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        switched.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        (switched, outcome)
    }

    fn refuse(&self, refusal: Refusal) -> Answered {
        let (status, detail, word) = match refusal {
            Refusal::Method => (StatusCode::METHOD_NOT_ALLOWED, "CONNECT and TRACE are not served", "method"),
            Refusal::Host => (StatusCode::BAD_REQUEST, "a request has exactly one Host field", "host"),
            Refusal::NoWebhook => (StatusCode::METHOD_NOT_ALLOWED, "webhooks are sent here with POST", "method"),
        };
        let mut response = self.problem(status, detail);
        let allowed = match refusal {
            Refusal::Method => Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            Refusal::NoWebhook => Some("POST"),
            Refusal::Host => None,
        };
        if let Some(allowed) = allowed {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        (response, Outcome::own(Ending::Refused).detail(word))
    }

    /// Sends the request on as it is and gives the answer as it comes.
    pub(crate) async fn send_on(&mut self, learn: Option<Source>) -> Result<Response<Body>, UpstreamError> {
        let Some(request) = self.forwarded() else { return Err(UpstreamError::Malformed) };
        let noted = self.room.ledger.now();
        let exchange = self.live.upstream.exchange();
        let response = self.live.upstream.send(request).await?;
        if response.status().is_informational() {
            return Err(UpstreamError::Malformed);
        }
        let response = response.map(|body| self.live.upstream.watch(body, exchange));
        match learn {
            Some(source) => self.learn(noted, &source, response).await,
            None => Ok(response),
        }
    }

    /// Reads a short answer on its way for the contact it shows.
    async fn learn(
        &self,
        noted: Tick,
        source: &Source,
        response: Response<Body>,
    ) -> Result<Response<Body>, UpstreamError> {
        let length = http_body::Body::size_hint(response.body()).exact();
        let is_json = is_json(response.headers());
        if response.status() != StatusCode::OK || !is_json || length.is_none_or(|length| length > LEARN_FROM) {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let body = match read_at_most(body, usize::MAX).await {
            Ok(Read::Whole(read)) => {
                let shown = shown::of_answer(&read);
                if let Some(contact) = shown.contact {
                    self.room.learn(noted, &source.inbox, &source.contact, contact);
                }
                self.room.learn_token(&shown);
                Body::from(read)
            }
            Ok(Read::Longer(body)) => body,
            Err(_) => return Err(UpstreamError::Reset),
        };
        Ok(Response::from_parts(head, body))
    }

    /// The request as the upstream gets it.
    fn forwarded(&mut self) -> Option<Request<Body>> {
        let path = self.head.uri.path_and_query().map_or("/", |path| path.as_str());
        let base = self.live.upstream.base();
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
            let limit = self.live.upstream.settings().stall_timeout;
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

    fn unsendable(&self) -> Answered {
        (
            self.problem(StatusCode::BAD_REQUEST, "this path cannot be sent on"),
            Outcome::own(Ending::Refused).detail("path"),
        )
    }

    pub(crate) fn problem(&self, status: StatusCode, detail: &str) -> Response<Body> {
        problem(status, detail, has_origin(&self.head.headers))
    }

    /// For whom: the addresses that the client's side named, and the client's own.
    pub(crate) fn forwarded_for(&self) -> HeaderValue {
        headers::forwarded_for(&self.head.headers, self.peer.ip())
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
struct Counting(Arc<std::sync::atomic::AtomicU64>);

impl Guard for Counting {
    fn passed(&mut self, bytes: usize) {
        self.0.fetch_add(bytes as u64, std::sync::atomic::Ordering::Relaxed);
    }
}
