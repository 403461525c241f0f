//! Opens listeners, serves connections, drains on the way out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tokio_util::io::{InspectReader, InspectWriter};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin;
use crate::engine::body::Body;
use crate::engine::metrics::Raised;
use crate::proxy;
use crate::room::Room;

/// What the listeners and the drain obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// `listen.address`: the public listener.
    pub listen: SocketAddr,
    /// `admin.address`: the private listener.
    pub admin: SocketAddr,
    /// `drain.notice`: how long `/ready` says 503 while requests are still taken.
    pub drain_notice: Duration,
    /// `drain.deadline`: how long answers in flight may take after that.
    pub drain_deadline: Duration,
}

/// How long a client may take to send a head, counted from when the connection is idle.
const HEAD_LIMIT: Duration = Duration::from_secs(60);
/// How long a failed accept waits (no file descriptor is free): neither spinning nor giving up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Both listeners, bound and not yet served.
pub struct Server {
    room: Arc<Room>,
    public: TcpListener,
    admin: TcpListener,
    settings: ServerSettings,
}

/// How the drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every answer in flight arrived whole.
    Whole,
    /// The deadline came first.
    CutShort,
}

impl Server {
    /// Binds both listeners.
    ///
    /// # Errors
    /// Which address could not be bound, and why.
    pub async fn bind(room: Arc<Room>, settings: ServerSettings) -> io::Result<Self> {
        let bind = async |address: SocketAddr| {
            TcpListener::bind(address)
                .await
                .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
        };
        Ok(Self { public: bind(settings.listen).await?, admin: bind(settings.admin).await?, room, settings })
    }

    /// The addresses in fact: public, admin.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.public.local_addr()?, self.admin.local_addr()?))
    }

    /// Serves until `stop`, then drains: notice, answers in flight, tunnels, deadline.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Drained {
        let Self { room, public, admin, settings } = self;
        let (closing, quit) = (CancellationToken::new(), CancellationToken::new());
        let connections = TaskTracker::new();
        let accepting = tokio::spawn(accept(public, "public", room.clone(), connections.clone(), closing.clone()));
        let administering = tokio::spawn(accept(admin, "admin", room.clone(), TaskTracker::new(), quit.clone()));
        stop.await;
        room.ready.store(false, Ordering::Release);
        tracing::info!(notice = ?settings.drain_notice, "draining");
        tokio::time::sleep(settings.drain_notice).await;
        closing.cancel();
        room.drained.cancel();
        connections.close();
        room.tasks.close();
        let all = async { tokio::join!(connections.wait(), room.tasks.wait()) };
        let drained = match tokio::time::timeout(settings.drain_deadline, all).await {
            Ok(_) => Drained::Whole,
            Err(_) => Drained::CutShort,
        };
        accepting.abort();
        quit.cancel();
        administering.abort();
        drained
    }
}

/// Takes connections until `closing`; each is a task of the tracker.
async fn accept(
    listener: TcpListener,
    name: &'static str,
    room: Arc<Room>,
    connections: TaskTracker,
    closing: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(serve(stream, peer, name, room.clone(), closing.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, listener = name, "a connection could not be accepted");
                room.metrics.connection_errors.with_label_values(&["accept"]).inc();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection; on `closing` it finishes the answer in flight and ends.
async fn serve(stream: TcpStream, peer: SocketAddr, name: &'static str, room: Arc<Room>, closing: CancellationToken) {
    let _open = Raised::new(&room.metrics.connections.with_label_values(&[name]));
    // Small answers leave at once.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    // A client that takes no byte for so long is gone.
    stream.set_write_timeout(Some(room.live().upstream.settings().stall_timeout));
    // Whether bytes came that nothing was said to yet: at the limit on heads that is half a head, else an idle client.
    let unanswered = Arc::new(AtomicBool::new(false));
    let (on_read, on_write) = (unanswered.clone(), unanswered.clone());
    let stream = InspectWriter::new(stream, move |_| on_write.store(false, Ordering::Relaxed));
    let stream = InspectReader::new(stream, move |read: &[u8]| {
        on_read.fetch_or(!read.is_empty(), Ordering::Relaxed);
    });
    let public = name == "public";
    let metrics = room.metrics.clone();
    let asked = Arc::new(AtomicBool::new(false));
    let on_request = asked.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (room, asked) = (room.clone(), on_request.clone());
        asked.store(true, Ordering::Relaxed);
        async move {
            let response = if public {
                proxy::handle(room, peer, request.map(Body::from)).await
            } else {
                let (head, body) = request.into_parts();
                admin::handle(&room, &head, body.boxed_unsync()).await
            };
            asked.store(false, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // Half a head is no request: the drain does not wait for the rest of it.
            if unanswered.load(Ordering::Relaxed) && !asked.load(Ordering::Relaxed) {
                return;
            }
            connection.await
        }
    };
    if let Err(error) = result
        && (unanswered.load(Ordering::Relaxed) || !error.is_timeout())
    {
        metrics.connection_errors.with_label_values(&[kind(&error)]).inc();
        tracing::debug!(%error, listener = name, "a connection ended by an error");
    }
}

/// The metric label of a connection's error.
fn kind(error: &hyper::Error) -> &'static str {
    if error.is_timeout() {
        "timeout"
    } else if error.is_parse_too_large() {
        "too_large"
    } else if error.is_parse() {
        "parse"
    } else if error.is_incomplete_message() {
        "incomplete"
    } else if error.is_user() {
        "answer_broken"
    } else {
        "io"
    }
}
