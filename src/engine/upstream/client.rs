//! The client towards the upstream: TLS, pool, time limits; a tower stack over hyper-util's client.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::uri::Scheme;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{Connect, Connected, capture_connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::retry::budget::{Budget, TpsBudget};
use tower::retry::{Policy, RetryLayer};
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};
use tower_service::Service;

use super::addresses::{self, Addresses, Resolve};
use super::connect_failure::ConnectFailure;
use super::connector::Connector;
use super::error::UpstreamError;
use super::health::Health;
use super::outgoing::{Outgoing, Reached};
use super::settings::{BaseUrl, UpstreamSettings};
use crate::engine::body::{Body, BodyError, Guard, Watched};
use crate::engine::clock;
use crate::engine::metrics::{Metrics, Raised, class_label};
use crate::policy::http::framing::{Content, contradicts_itself, frame_request, is_plain};
use crate::policy::http::route::switches_to_websocket;

/// The longest head of an answer, and what one read takes of a body at most.
const BUFFER: usize = 64 * 1024;

/// What one answer over HTTP/2 may have on its way.
const STREAM_WINDOW: u32 = 256 * 1024;
/// What all answers of one connection may: of the fetches at once, none stands in another's way.
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;
/// [`BUFFER`], for HTTP/2.
const LONGEST_HEAD: u32 = 64 * 1024;
/// How often a connection of HTTP/2 with requests on it is asked whether it lives, and how soon it must say so.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Requests that are sent twice though the first may have been seen: at most this share of those that were answered
/// within the window, and always so many a second.
const RETRY_SHARE: f32 = 0.5;
const RETRY_WINDOW: Duration = Duration::from_secs(10);
const RETRIES_PER_SECOND: u32 = 10;

/// An error inside the stack: what it is, and the body if the request may be sent once more.
struct Failed {
    error: UpstreamError,
    again: Option<Body>,
    /// A byte of it was sent.
    may_be_seen: bool,
}

impl From<UpstreamError> for Failed {
    fn from(error: UpstreamError) -> Self {
        Self { error, again: None, may_be_seen: false }
    }
}

type Stack = BoxCloneSyncService<Request<Body>, Response<Incoming>, Failed>;

/// The client.
pub struct Upstream {
    stack: Stack,
    /// Over connections that carry one request each.
    switching: Stack,
    settings: UpstreamSettings,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl Upstream {
    /// A client; reads the system's certificates and `upstream.ca_file`.
    ///
    /// # Errors
    /// In words, if the certificates cannot be used.
    pub fn new(settings: UpstreamSettings, metrics: Arc<Metrics>) -> Result<Self, String> {
        Self::resolving(addresses::system(), settings, metrics)
    }

    /// The same with another resolver.
    ///
    /// # Errors
    /// The same.
    pub fn resolving(resolve: Resolve, settings: UpstreamSettings, metrics: Arc<Metrics>) -> Result<Self, String> {
        let connector = Connector::new(&settings, resolve, metrics.clone())?;
        let addresses = connector.addresses().clone();
        let sharing = (settings.http2 && settings.base.scheme == Scheme::HTTPS).then(|| connector.with_http2());
        Ok(Self::build(connector, sharing, Some(&addresses), settings, metrics))
    }

    /// A client over connections of another kind.
    pub fn over<C>(connector: C, settings: UpstreamSettings, metrics: Arc<Metrics>) -> Self
    where
        C: Connect + Clone + std::marker::Send + Sync + 'static,
    {
        Self::build(connector, None, None, settings, metrics)
    }

    fn build<C>(
        connector: C,
        sharing: Option<C>,
        addresses: Option<&Arc<Addresses>>,
        settings: UpstreamSettings,
        metrics: Arc<Metrics>,
    ) -> Self
    where
        C: Connect + Clone + std::marker::Send + Sync + 'static,
    {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_idle_timeout(settings.pool_idle)
            // Without a timer the idle limit does nothing.
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            // What one connection holds of heads and bodies, either way.
            .http1_max_buf_size(BUFFER)
            // A request that no connection has taken up yet goes to the next one.
            .retry_canceled_requests(true);
        let pooled = builder.build(connector.clone());
        let shared = sharing.map(|connector| {
            let mut builder = builder.clone();
            // However many answers stand still, the others go on; and a connection that died is noticed.
            builder
                .http2_initial_stream_window_size(STREAM_WINDOW)
                .http2_initial_connection_window_size(CONNECTION_WINDOW)
                .http2_max_header_list_size(LONGEST_HEAD)
                .http2_keep_alive_interval(PING_EVERY)
                .http2_keep_alive_timeout(PING_EVERY);
            builder.build(connector)
        });
        let fresh = builder.pool_max_idle_per_host(0).build(connector);
        let head_timeout = settings.head_timeout;
        let budget = Arc::new(TpsBudget::new(RETRY_WINDOW, RETRIES_PER_SECOND, RETRY_SHARE));
        let stack = |switches| {
            let retry = RetryLayer::new(OnceOnClosedConnection { tried: false, budget: budget.clone() });
            let (pooled, shared, fresh) = (pooled.clone(), shared.clone(), fresh.clone());
            let send = Send { pooled, shared, fresh, addresses: addresses.cloned(), head_timeout, switches };
            BoxCloneSyncService::new(ServiceBuilder::new().layer(retry).service(send))
        };
        let health = Arc::new(Health::new(&settings, metrics.clone()));
        Self { stack: stack(false), switching: stack(true), settings, health, metrics }
    }

    /// The one that takes another's place: what was sent before is not forgotten.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        if let Some(health) = Arc::into_inner(std::mem::replace(&mut self.health, before.health.clone())) {
            self.health = Arc::new(health.after(&before.health));
        }
        self
    }

    /// Where it is.
    pub fn base(&self) -> &BaseUrl {
        &self.settings.base
    }

    /// Who is told of answers and failures that are not known here.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// What it obeys.
    pub fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// Sends a request; gives the head and the body as it comes. A switch of protocols, which nobody asked for, is an
    /// error.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, UpstreamError> {
        self.health.admit(request.method())?;
        self.count(self.stack.clone().oneshot(request)).await
    }

    /// Sends a WebSocket handshake. Its connection is its own, before and after: whether both sides are of one mind about
    /// the switch cannot be known, so nobody else's request comes near it.
    pub async fn switch(&self, request: Request<Body>) -> Result<Response<Incoming>, UpstreamError> {
        self.health.admit(request.method())?;
        self.count(self.switching.clone().oneshot(request)).await
    }

    async fn count(
        &self,
        answer: impl Future<Output = Result<Response<Incoming>, Failed>>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let began = clock::now();
        let result = answer.await;
        let label = match &result {
            Ok(response) => class_label(response.status()),
            Err(failed) => failed.error.label(),
        };
        self.metrics.upstream_requests.with_label_values(&[label]).inc();
        let took = clock::now().saturating_duration_since(began);
        self.metrics.upstream_duration.with_label_values(&["head"]).observe(took.as_secs_f64());
        match &result {
            Ok(response) => self.health.answered(response.status(), response.headers()),
            Err(failed) => self.health.failed(failed.error),
        }
        result.map_err(|failed| failed.error)
    }

    /// Counts an exchange as under way until the guard goes; it goes with the answer's body.
    pub fn exchange(&self) -> Exchange {
        Exchange {
            _in_flight: Raised::new(&self.metrics.upstream_in_flight),
            began: clock::now(),
            health: self.health.clone(),
            metrics: self.metrics.clone(),
        }
    }

    /// A body of the upstream, watched for stalls.
    pub fn watch<G: Guard>(&self, body: Incoming, guard: G) -> Body {
        Body::stream(Watched::new(body, self.settings.stall_timeout, guard))
    }
}

/// An exchange with the upstream that is under way.
pub struct Exchange {
    _in_flight: Raised,
    began: Instant,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl Guard for Exchange {
    fn whole(&mut self) {
        let took = clock::now().saturating_duration_since(self.began);
        self.metrics.upstream_duration.with_label_values(&["whole"]).observe(took.as_secs_f64());
    }

    fn broken(&mut self) {
        self.health.failed(UpstreamError::Incomplete);
    }
}

/// One request, with the limit on its head.
#[derive(Clone)]
struct Send<C> {
    pooled: Client<C, Outgoing>,
    /// Over HTTP/2 where the upstream offers it: for shared fetches, which no reader can make stand still.
    shared: Option<Client<C, Outgoing>>,
    /// Every request has a connection of its own.
    fresh: Client<C, Outgoing>,
    /// Unless connections are of another kind.
    addresses: Option<Arc<Addresses>>,
    head_timeout: Duration,
    /// Its requests ask for a switch of protocols.
    switches: bool,
}

/// Marks a request that is the proxy's own: it may go over a connection with others, and its answer is read at once.
#[derive(Clone)]
pub struct MayShareConnection;

/// Marks a request that met a closed connection and must not meet another one.
#[derive(Clone)]
struct OnFreshConnection;

impl<C> Service<Request<Body>> for Send<C>
where
    C: Connect + Clone + std::marker::Send + Sync + 'static,
{
    type Response = Response<Incoming>;
    type Error = Failed;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Failed>> + std::marker::Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let fresh = self.switches || request.extensions_mut().remove::<OnFreshConnection>().is_some();
        let may_share = request.extensions_mut().remove::<MayShareConnection>().is_some() && request.body().is_empty();
        let client = match &self.shared {
            _ if fresh => &self.fresh,
            Some(shared) if may_share => shared,
            _ => &self.pooled,
        };
        let (client, head_timeout, switches) = (client.clone(), self.head_timeout, self.switches);
        let addresses = self.addresses.clone();
        Box::pin(async move {
            if let Some(addresses) = &addresses {
                addresses.before_request();
            }
            let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
            let is_repeatable = is_safe && request.body().is_empty();
            let (mut parts, body) = request.into_parts();
            frame_request(&parts.method, &mut parts.headers, content_of(&body));
            let (body, sending, given) = Outgoing::new(body);
            let mut request = Request::from_parts(parts, body);
            let connection = capture_connection(&mut request);
            sending.goes_over(connection.clone());
            let mut response = std::pin::pin!(client.request(request));
            let late = async {
                let _ = given.await;
                tokio::time::sleep(head_timeout).await;
            };
            let result = tokio::select! {
                result = &mut response => result,
                // The limit on the head counts from the last byte of the request. Until then the limits on stalls
                // hold: the client's for giving no byte, the connection's for taking none.
                () = late => {
                    // Others are not to wait for what may be dead.
                    if let Some(connected) = connection.connection_metadata().as_ref() {
                        connected.poison();
                    }
                    return Err(UpstreamError::Timeout.into());
                }
                () = sending.stranded() => {
                    let again = Some(sending.take_back());
                    return Err(Failed { error: UpstreamError::Reset, again, may_be_seen: false });
                }
            };
            if let Some(addresses) = &addresses {
                addresses.note(&connection);
            }
            let response = result.map_err(|error| {
                let error = kind(&error);
                let reached = sending.reached();
                let is_http2 = connection.connection_metadata().as_ref().is_some_and(Connected::is_negotiated_h2);
                let may_go_again = error == UpstreamError::Reset
                    && match reached {
                        Reached::Nothing => true,
                        Reached::IdleConnection => is_repeatable,
                        // What becomes of a shared connection says nothing of one request on it.
                        Reached::Upstream => is_http2 && is_repeatable,
                    };
                let again = may_go_again.then(|| sending.take_back());
                Failed { error, again, may_be_seen: reached != Reached::Nothing }
            })?;
            if leaves_a_doubt(&response)
                && let Some(connected) = connection.connection_metadata().as_ref()
            {
                connected.poison();
            }
            if is_answer(&response, switches) { Ok(response) } else { Err(UpstreamError::Malformed.into()) }
        })
    }
}

fn content_of(body: &Body) -> Content {
    match http_body::Body::size_hint(body).exact() {
        _ if body.is_empty() => Content::Nothing,
        Some(length) => Content::Sized(length),
        None => Content::Unsized,
    }
}

/// Whether the connection may not be used again, though the answer is whole: of HTTP/1.0 hyper would send no chunks, and
/// lose the body; after an answer that contradicts itself nobody knows what comes.
fn leaves_a_doubt<B>(response: &Response<B>) -> bool {
    response.version() < Version::HTTP_11 || contradicts_itself(response.status(), response.headers())
}

/// Whether this is an answer to what was asked: in no coding that would stay in it, and a switch only if one was asked
/// for, to what was asked for. What is none is dropped, and its connection with it.
fn is_answer<B>(response: &Response<B>, switches: bool) -> bool {
    let well_switched = || switches && switches_to_websocket(response.headers());
    is_plain(response.headers()) && (response.status() != StatusCode::SWITCHING_PROTOCOLS || well_switched())
}

/// What went wrong, by the causes of hyper's error.
fn kind(error: &legacy::Error) -> UpstreamError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(failure) = error.downcast_ref::<ConnectFailure>() {
            return UpstreamError::Connect(*failure);
        }
        match error.downcast_ref::<BodyError>() {
            Some(BodyError::Stalled) => return UpstreamError::ClientStalled,
            Some(BodyError::TooLong) => return UpstreamError::ClientTooLong,
            Some(BodyError::Broken(_)) => return UpstreamError::ClientBroke,
            None => {}
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && (error.is_parse() || error.is_parse_status())
        {
            return UpstreamError::Malformed;
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::TimedOut
        {
            return UpstreamError::Timeout;
        }
        cause = error.source();
    }
    UpstreamError::Reset
}

/// One more try, on a connection made for it, if the one from the pool turned out to be closed: for any request of which
/// no byte was sent, and for a safe one without a body that got no byte.
#[derive(Clone)]
struct OnceOnClosedConnection {
    tried: bool,
    /// For what may have been seen: all requests share it.
    budget: Arc<TpsBudget>,
}

impl<R> Policy<Request<Body>, R, Failed> for OnceOnClosedConnection {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, request: &mut Request<Body>, result: &mut Result<R, Failed>) -> Option<Self::Future> {
        let Err(Failed { again, may_be_seen, .. }) = result else {
            self.budget.deposit();
            return None;
        };
        if again.is_none() || *may_be_seen && !self.budget.withdraw() {
            return None;
        }
        *request.body_mut() = again.take()?;
        request.extensions_mut().insert(OnFreshConnection);
        self.tried = true;
        Some(std::future::ready(()))
    }

    /// Without its body, which comes back with the error.
    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        if self.tried {
            return None;
        }
        let mut copy = Request::new(Body::empty());
        copy.method_mut().clone_from(request.method());
        copy.uri_mut().clone_from(request.uri());
        copy.headers_mut().clone_from(request.headers());
        Some(copy)
    }
}
