//! The client towards the upstream: TLS, pool, time limits; a tower stack over hyper-util's client.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::uri::Scheme;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, Connected, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::retry::budget::{Budget, TpsBudget};
use tower::retry::{Policy, RetryLayer};
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};
use tower_service::Service;

use super::account::Account;
pub use super::account::Exchange;
use super::addresses::{self, Addresses, Resolve};
use super::answers::{is_answer, kind, leaves_a_doubt};
use super::carrier::{self, BUFFER};
use super::connector::Connector;
use super::direct::{Arriving, Direct, Unanswered};
use super::error::UpstreamError;
use super::health::Health;
use super::outgoing::{Outgoing, Reached, Sending};
use super::settings::{BaseUrl, UpstreamSettings};
use crate::engine::body::{Body, BodyError, Guard, Watched};
use crate::engine::clock;
use crate::engine::metrics::Metrics;
use crate::policy::http::framing::{Content, frame_request};

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
    direct: Direct,
    /// Over HTTP/2 where the upstream offers it: for shared fetches, which no reader can make stand still.
    sharing: Option<Stack>,
    /// Over connections that carry one request each.
    switching: Stack,
    addresses: Option<Arc<Addresses>>,
    budget: Arc<TpsBudget>,
    settings: UpstreamSettings,
    health: Arc<Health>,
    account: Arc<Account>,
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
        C: carrier::Connector,
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
        C: carrier::Connector,
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
        let fresh = builder.pool_max_idle_per_host(0).build(connector.clone());
        let head_timeout = settings.head_timeout;
        let budget = Arc::new(TpsBudget::new(RETRY_WINDOW, RETRIES_PER_SECOND, RETRY_SHARE));
        let stack = |pooled: Option<Client<C, Outgoing>>, switches| {
            let retry = RetryLayer::new(OnceOnClosedConnection { tried: false, budget: budget.clone() });
            let send = Send { pooled, fresh: fresh.clone(), addresses: addresses.cloned(), head_timeout, switches };
            BoxCloneSyncService::new(ServiceBuilder::new().layer(retry).service(send))
        };
        let (sharing, switching) = (shared.map(|shared| stack(Some(shared), false)), stack(None, true));
        let direct = Direct::new(connector, addresses.cloned(), settings.pool_idle);
        let (health, account) = (Arc::new(Health::new(&settings, metrics.clone())), Arc::new(Account::new(metrics)));
        Self { direct, sharing, switching, addresses: addresses.cloned(), budget, settings, health, account }
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
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Arriving>, UpstreamError> {
        self.health.admit(request.method())?;
        let may_share = request.extensions_mut().remove::<MayShareConnection>().is_some() && request.body().is_empty();
        if may_share && let Some(sharing) = &self.sharing {
            let response = self.count(sharing.clone().oneshot(request)).await?;
            return Ok(response.map(Arriving::Apart));
        }
        // In a box: futures that contain this one are moved several times, and shall be short.
        self.count(Box::pin(self.directly(request))).await
    }

    /// Sends a WebSocket handshake. Its connection is its own, before and after: whether both sides are of one mind about
    /// the switch cannot be known, so nobody else's request comes near it.
    pub async fn switch(&self, request: Request<Body>) -> Result<Response<Incoming>, UpstreamError> {
        self.health.admit(request.method())?;
        self.count(self.switching.clone().oneshot(request)).await
    }

    /// Over a connection of the pool, and once more over another one if that turned out to be closed: see
    /// [`OnceOnClosedConnection`].
    async fn directly(&self, request: Request<Body>) -> Result<Response<Arriving>, Failed> {
        if let Some(addresses) = &self.addresses {
            addresses.before_request();
        }
        let (mut parts, body) = request.into_parts();
        frame_request(&parts.method, &mut parts.headers, content_of(&body));
        let (method, uri, headers) = (parts.method.clone(), parts.uri.clone(), parts.headers.clone());
        match self.once(parts, body, false).await {
            Err(Failed { again: Some(body), may_be_seen, .. }) if !may_be_seen || self.budget.withdraw() => {
                let (mut parts, ()) = Request::new(()).into_parts();
                (parts.method, parts.uri, parts.headers) = (method, uri, headers);
                self.once(parts, body, true).await
            }
            Ok(response) => {
                self.budget.deposit();
                Ok(response)
            }
            failed => failed,
        }
    }

    /// One try.
    async fn once(&self, parts: Parts, body: Body, is_fresh: bool) -> Result<Response<Arriving>, Failed> {
        let is_repeatable = is_safe(&parts.method) && body.is_empty();
        let (body, kept) = if body.is_empty() {
            (Outgoing::none(), None)
        } else {
            let (body, sending, given) = Outgoing::new(body);
            (body, Some((sending, given)))
        };
        let (sending, given) = kept.unzip();
        // From the last byte of the request; until then the limits on stalls hold: the client's for giving no byte, the
        // connection's for taking none.
        let late = async {
            if let Some(given) = given {
                let _ = given.await;
            }
            tokio::time::sleep(self.settings.head_timeout).await;
        };
        let answered = tokio::select! {
            biased;
            answered = self.direct.send(Request::from_parts(parts, body), is_fresh) => answered,
            // The connection is dropped: others are not to wait for what may be dead.
            () = late => return Err(UpstreamError::Timeout.into()),
        };
        answered.map_err(|Unanswered { error, reached }| {
            let may_go_again = error == UpstreamError::Reset
                && (reached == Reached::Nothing || reached == Reached::IdleConnection && is_repeatable);
            let again = may_go_again.then(|| sending.map_or_else(Body::empty, Sending::take_back));
            Failed { error, again, may_be_seen: reached != Reached::Nothing }
        })
    }

    async fn count<B>(
        &self,
        answer: impl Future<Output = Result<Response<B>, Failed>>,
    ) -> Result<Response<B>, UpstreamError> {
        let began = clock::now();
        let result = answer.await;
        let took = clock::now().saturating_duration_since(began);
        match &result {
            Ok(response) => self.account.answered(response.status(), took),
            Err(failed) => self.account.failed(failed.error, took),
        }
        match &result {
            Ok(response) => self.health.answered(response.status(), response.headers()),
            Err(failed) => self.health.failed(failed.error),
        }
        result.map_err(|failed| failed.error)
    }

    /// Counts an exchange as under way until the guard goes; it goes with the answer's body.
    pub fn exchange(&self) -> Exchange {
        Exchange::begin(&self.health, &self.account)
    }

    /// A body of the upstream, watched for stalls.
    pub fn watch<B, G: Guard>(&self, body: B, guard: G) -> Body
    where
        B: http_body::Body<Data = Bytes, Error: Into<BodyError>> + std::marker::Send + Sync + Unpin + 'static,
    {
        Body::stream(Watched::new(body, self.settings.stall_timeout, guard))
    }
}

/// One request, with the limit on its head.
#[derive(Clone)]
struct Send<C> {
    /// None: every request has a connection of its own.
    pooled: Option<Client<C, Outgoing>>,
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
        let is_fresh = request.extensions_mut().remove::<OnFreshConnection>().is_some();
        let client = self.pooled.as_ref().filter(|_| !is_fresh).unwrap_or(&self.fresh);
        let (client, head_timeout, switches) = (client.clone(), self.head_timeout, self.switches);
        let addresses = self.addresses.clone();
        Box::pin(async move {
            if let Some(addresses) = &addresses {
                addresses.before_request();
            }
            let is_repeatable = is_safe(request.method()) && request.body().is_empty();
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

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn content_of(body: &Body) -> Content {
    match http_body::Body::size_hint(body).exact() {
        _ if body.is_empty() => Content::Nothing,
        Some(length) => Content::Sized(length),
        None => Content::Unsized,
    }
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
