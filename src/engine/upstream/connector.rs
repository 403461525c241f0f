//! Connections to the upstream: TCP and TLS within one limit, and what has passed over them.

use std::io::{self, ErrorKind, IoSlice};
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::Uri;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::dns::GaiResolver;
use hyper_util::client::legacy::connect::{self, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::connect_failure::{ConnectFailure, Stage};
use super::settings::UpstreamSettings;
use crate::engine::body::poll_part;
use crate::engine::clock;

/// Makes connections to the upstream.
#[derive(Clone)]
pub struct Connector {
    tls: Arc<ClientConfig>,
    /// What the certificate must be for, if that is not the host of the URL.
    server_name: Option<ServerName<'static>>,
    connect_timeout: Duration,
    stall_timeout: Duration,
}

impl Connector {
    /// Reads the system's certificates, or those that came with the program if there are none, and `ca_file`.
    pub fn new(settings: &UpstreamSettings) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .with_root_certificates(roots(settings)?)
            .with_no_client_auth();
        let server_name = settings.server_name.clone().map(ServerName::try_from).transpose();
        let server_name = server_name.map_err(|error| format!("upstream.host: {error}"))?;
        let UpstreamSettings { connect_timeout, stall_timeout, .. } = settings;
        Ok(Self { tls: Arc::new(tls), server_name, connect_timeout: *connect_timeout, stall_timeout: *stall_timeout })
    }
}

fn roots(settings: &UpstreamSettings) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(file) = &settings.ca_file {
        add_certificates(&mut roots, file).map_err(|what| format!("upstream.ca_file: {what}"))?;
    }
    Ok(roots)
}

/// Whether a file can be `upstream.ca_file`.
///
/// # Errors
/// In words, and what to do.
pub fn check_certificates(file: &Path) -> Result<(), String> {
    add_certificates(&mut RootCertStore::empty(), file)
}

fn add_certificates(roots: &mut RootCertStore, file: &Path) -> Result<(), String> {
    let shown = file.display();
    let text = std::fs::read(file)
        .map_err(|error| format!("{shown} cannot be read ({error}); see that it is there and may be read"))?;
    let unfit = |what: &dyn std::fmt::Display| format!("{shown} {what}; write certificates in PEM into it");
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| unfit(&format!("is not PEM ({error})")))?;
    if certificates.is_empty() {
        return Err(unfit(&"holds no certificate"));
    }
    for certificate in certificates {
        roots.add(certificate).map_err(|error| unfit(&format!("holds a certificate that cannot be used ({error})")))?;
    }
    Ok(())
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Connected>;
    type Error = ConnectFailure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let stall_timeout = self.stall_timeout;
        let reached = Reached::from_the_start(&uri);
        let mut http = HttpConnector::new_with_resolver(Staged { inner: GaiResolver::new(), then: Stage::Address, reached: reached.clone() });
        http.enforce_http(false);
        http.set_nodelay(true);
        let tcp = Staged { inner: http, then: Stage::Tls, reached: reached.clone() };
        let mut connector = match self.server_name.clone() {
            Some(name) => {
                HttpsConnector::new(tcp, self.tls.clone(), false, Arc::new(FixedServerNameResolver::new(name)))
            }
            None => HttpsConnector::from((tcp, self.tls.clone())),
        };
        let connecting = tokio::time::timeout(self.connect_timeout, connector.call(uri));
        Box::pin(async move {
            let stream = match connecting.await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return Err(ConnectFailure::of(&*error, reached.get())),
                Err(_) => return Err(ConnectFailure::too_late(reached.get())),
            };
            let mut timed = TimeoutStream::new(TokioIo::new(stream));
            // Reading has its limits elsewhere: an idle connection is silent by right.
            timed.set_write_timeout(Some(stall_timeout));
            Ok(TokioIo::new(Connected { io: Box::pin(timed), traffic: Arc::new(Traffic::new()), deaf: false, discard: false }))
        })
    }
}

/// How far one attempt has come.
#[derive(Clone)]
struct Reached(Arc<Mutex<Stage>>);

impl Reached {
    /// A name is looked up first; an address is not.
    fn from_the_start(uri: &Uri) -> Self {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_address = host.parse::<IpAddr>().is_ok();
        Self(Arc::new(Mutex::new(if is_address { Stage::Address } else { Stage::Name })))
    }

    fn get(&self) -> Stage {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A step of one attempt; when it is done, the next stage is reached.
#[derive(Clone)]
struct Staged<S> {
    inner: S,
    then: Stage,
    reached: Reached,
}

impl<S, R> Service<R> for Staged<S>
where
    S: Service<R, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (step, then, reached) = (self.inner.call(request), self.then, self.reached.clone());
        Box::pin(async move {
            let done = step.await?;
            *reached.0.lock().unwrap_or_else(PoisonError::into_inner) = then;
            Ok(done)
        })
    }
}

/// A connection that waited for its first request for so long may have been closed meanwhile, as one from the pool may.
const LAIN_IDLE: Duration = Duration::from_millis(100);

/// What has passed over a connection, for the request that it took up last.
#[derive(Debug)]
pub struct Traffic {
    opened: Instant,
    /// It has ever given a byte: an earlier answer.
    used: AtomicBool,
    /// It had lain idle when it took the request up.
    idle: AtomicBool,
    /// A byte of the request was sent.
    sent: AtomicBool,
    /// It has given a byte since.
    answered: AtomicBool,
    /// The upstream takes no byte at the moment.
    blocked: AtomicBool,
    /// Cancelled when the connection is dropped.
    gone: CancellationToken,
}

impl Traffic {
    fn new() -> Self {
        let [used, idle, sent, answered, blocked] = [const { AtomicBool::new(false) }; 5];
        Self { opened: clock::now(), used, idle, sent, answered, blocked, gone: CancellationToken::new() }
    }

    /// The connection takes a request up.
    pub(super) fn begin(&self) {
        let waited = clock::now().saturating_duration_since(self.opened) >= LAIN_IDLE;
        self.idle.store(waited || self.used.load(Ordering::Acquire), Ordering::Release);
        self.sent.store(false, Ordering::Release);
        self.answered.store(false, Ordering::Release);
    }

    /// Whether the upstream may have closed it before the request came.
    pub(super) fn was_idle(&self) -> bool {
        self.idle.load(Ordering::Acquire)
    }

    /// Whether a byte of the request was sent.
    pub(super) fn was_sent(&self) -> bool {
        self.sent.load(Ordering::Acquire)
    }

    /// Waits for the connection's end.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Whether the upstream takes no byte at the moment.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire)
    }

    /// Whether it has given a byte since the request was taken up.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }
}

type Stream = TimeoutStream<TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>>;

/// A connection to the upstream.
pub struct Connected {
    io: Pin<Box<Stream>>,
    traffic: Arc<Traffic>,
    /// The upstream takes no more bytes.
    deaf: bool,
    /// Whether the next write may be thrown away: between two there is time to read.
    discard: bool,
}

impl Connected {
    /// What a write came to. If the upstream has closed the connection, it may have said why before: the rest of the
    /// request goes nowhere, and reading finds the answer, or the end.
    fn wrote(
        &mut self,
        result: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        self.traffic.blocked.store(result.is_pending(), Ordering::Release);
        match ready!(result) {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                self.deaf = true;
                self.throw_away(context, length)
            }
            Ok(written) => {
                self.traffic.sent.fetch_or(written > 0, Ordering::AcqRel);
                Poll::Ready(Ok(written))
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn throw_away(&mut self, context: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        self.discard = !self.discard;
        if self.discard {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(length))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.traffic.gone.cancel();
    }
}

impl Connection for Connected {
    fn connected(&self) -> connect::Connected {
        self.io.as_ref().get_ref().get_ref().inner().connected().extra(self.traffic.clone())
    }
}

impl AsyncRead for Connected {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(poll_part(self.io.as_mut(), context, buffer));
        if buffer.filled().len() > before {
            self.traffic.used.store(true, Ordering::Release);
            self.traffic.answered.store(true, Ordering::Release);
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Connected {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.deaf {
            return self.throw_away(context, data.len());
        }
        let result = self.io.as_mut().poll_write(context, data);
        self.wrote(result, context, data.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = data.iter().map(|slice| slice.len()).sum();
        if self.deaf {
            return self.throw_away(context, length);
        }
        let result = self.io.as_mut().poll_write_vectored(context, data);
        self.wrote(result, context, length)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        self.io.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_shutdown(context)
    }
}
