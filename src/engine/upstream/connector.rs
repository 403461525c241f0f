//! Connections to the upstream, and what has passed over them.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::Uri;
use hyper_util::client::legacy::connect::{self, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::addresses::{Addresses, Resolve};
use super::connect_failure::ConnectFailure;
use super::connections::Opened;
use super::race::race;
use super::settings::UpstreamSettings;
use super::ways::{Ways, Wire};
use crate::engine::body::{UPSTREAM_PART, poll_part};
use crate::engine::clock;
use crate::engine::metrics::Metrics;
use crate::policy::addresses::Target;

/// Makes connections to the upstream.
#[derive(Clone)]
pub struct Connector {
    ways: Arc<Ways>,
    /// Whether HTTP/2 is offered.
    http2: bool,
}

impl Connector {
    /// Reads the certificates to be trusted.
    pub fn new(settings: &UpstreamSettings, resolve: Resolve, metrics: Arc<Metrics>) -> Result<Self, String> {
        Ok(Self { ways: Arc::new(Ways::new(settings, resolve, metrics)?), http2: false })
    }

    /// The same ways, with HTTP/2 offered where there is TLS.
    pub(super) fn with_http2(&self) -> Self {
        Self { ways: self.ways.clone(), http2: true }
    }

    /// Where it leads.
    pub(super) fn addresses(&self) -> &Arc<Addresses> {
        &self.ways.addresses
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Connected>;
    type Error = ConnectFailure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    /// Where it leads is known from the settings.
    fn call(&mut self, _: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (stream, target) = race(&this.ways, this.http2).await?;
            let mut timed = TimeoutStream::new(stream);
            // Reading has its limits elsewhere: an idle connection is silent by right.
            timed.set_write_timeout(Some(this.ways.stall_timeout));
            Ok(TokioIo::new(Connected::new(timed, target)))
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
    /// What was written is not all on its way: TLS has a buffer of its own.
    unflushed: AtomicBool,
    /// Cancelled when the connection is dropped.
    gone: CancellationToken,
}

impl Traffic {
    fn new() -> Self {
        let [used, idle, sent, answered, blocked, unflushed] = [const { AtomicBool::new(false) }; 6];
        Self { opened: clock::now(), used, idle, sent, answered, blocked, unflushed, gone: CancellationToken::new() }
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

    /// Whether what was written is on its way.
    pub(super) fn is_flushed(&self) -> bool {
        !self.unflushed.load(Ordering::Acquire)
    }

    /// Whether it has given a byte since the request was taken up.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }
}

type Stream = TimeoutStream<Wire>;

/// A connection to the upstream.
pub struct Connected {
    io: Take<Pin<Box<Stream>>>,
    traffic: Arc<Traffic>,
    opened: Arc<Opened>,
    /// The upstream takes no more bytes.
    deaf: bool,
    /// Whether the next write may be thrown away: between two there is time to read.
    discard: bool,
}

impl Connected {
    fn new(stream: Stream, target: Target) -> Self {
        let (traffic, opened) = (Arc::new(Traffic::new()), Arc::new(Opened::new(target)));
        Self { io: Box::pin(stream).take(0), traffic, opened, deaf: false, discard: false }
    }

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
        self.opened.end();
    }
}

impl Connection for Connected {
    fn connected(&self) -> connect::Connected {
        let connected = connect::Connected::new().extra(self.opened.clone());
        let is_http2 = match self.io.get_ref().as_ref().get_ref().get_ref() {
            Wire::Left(_) => false,
            Wire::Right(tls) => tls.get_ref().1.alpn_protocol() == Some(b"h2"),
        };
        // What passes over a connection that several requests share belongs to none of them.
        if is_http2 { connected.negotiated_h2() } else { connected.extra(self.traffic.clone()) }
    }
}

impl AsyncRead for Connected {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(poll_part(&mut self.io, context, buffer, UPSTREAM_PART));
        if buffer.filled().len() > before {
            self.traffic.used.store(true, Ordering::Release);
            self.traffic.answered.store(true, Ordering::Release);
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Connected {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return self.throw_away(context, data.len());
        }
        let result = self.io.get_mut().as_mut().poll_write(context, data);
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
        let result = self.io.get_mut().as_mut().poll_write_vectored(context, data);
        self.wrote(result, context, length)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        let flushed = self.io.get_mut().as_mut().poll_flush(context);
        self.traffic.unflushed.store(flushed.is_pending(), Ordering::Release);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.get_mut().as_mut().poll_shutdown(context)
    }
}
