//! One connection of a client, from its first byte to its last.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use super::connections::{Connections, Full};
use super::heads::Heads;
use super::proxy_protocol;
use super::sockets::Socket;
use super::stream::{ClientStream, Paced, Progress, Reading};
use crate::admin;
use crate::engine::body::{Body, Watched};
use crate::engine::metrics::Raised;
use crate::engine::problem::problem;
use crate::proxy;
use crate::proxy::access_log::log_unread;
use crate::state::State;

/// How long a proxy may take to say whose connection this is.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// hyper's least buffer.
const LEAST_BUFFER: usize = 8 * 1024;

/// What all connections of a listener have in common.
#[derive(Clone)]
pub(super) struct Door {
    /// The listener's name.
    pub(super) name: &'static str,
    pub(super) state: Arc<State>,
    /// Heads that have not ended, of all connections.
    pub(super) heads: Arc<Heads>,
    /// `limits.head`.
    pub(super) head_limit: usize,
    /// `limits.idle_timeout`: from when the connection is idle to the end of the next head.
    pub(super) idle_timeout: Duration,
    /// `listen.proxy_protocol`.
    pub(super) proxy_protocol: bool,
    /// Who is connected.
    pub(super) connections: Arc<Connections>,
    /// Cancelled when connections finish the answer in flight and end.
    pub(super) closing: CancellationToken,
}

/// Serves one connection.
pub(super) async fn serve(mut stream: Socket, mut peer: SocketAddr, door: Door) {
    let progress = Arc::new(Progress::new(door.heads.clone()));
    let leave = door.closing.child_token();
    let is_trusted = door.state.active().config.forward.trusted.contain(peer.ip());
    let is_local = matches!(stream, Socket::Right(_));
    let limited = (door.name == "public" && !is_trusted && !is_local).then_some(peer.ip());
    let errors = &door.state.metrics.connection_errors;
    let _held = match door.connections.take(limited, progress.clone(), leave.clone()) {
        Ok(held) => held,
        // It is closed: there is no place for saying so.
        Err(Full::InAll) => return errors.with_label_values(&["too_many"]).inc(),
        Err(Full::OfAddress) => return errors.with_label_values(&["too_many_of_address"]).inc(),
    };
    if door.proxy_protocol && is_trusted {
        let told = tokio::time::timeout(PROXY_HEADER_TIMEOUT, proxy_protocol::read(&mut stream));
        let told = tokio::select! {
            told = told => told,
            () = leave.cancelled() => return,
        };
        match told {
            Ok(Ok(told)) => peer = told.client.unwrap_or(peer),
            _ => return errors.with_label_values(&["proxy_protocol"]).inc(),
        }
    }
    converse(stream, peer, door, progress, leave).await;
}

/// Requests and answers, until one of the two sides has had enough.
async fn converse(stream: Socket, peer: SocketAddr, door: Door, progress: Arc<Progress>, closing: CancellationToken) {
    let Door { name, state, head_limit, idle_timeout, .. } = door;
    let metrics = state.metrics.clone();
    let _open = Raised::new(&metrics.connections.with_label_values(&[name]));
    let mut stream = TimeoutStream::new(stream);
    // A client that takes no byte for so long is gone.
    stream.set_write_timeout(Some(state.active().upstream.settings().stall_timeout));
    let stream = ClientStream::new(stream, progress.clone());
    let (with, logging) = (progress.clone(), state.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (state, progress) = (state.clone(), with.clone());
        let has_body = !http_body::Body::is_end_stream(request.body());
        // What is sent to the private listener is short, and read.
        progress.begin(has_body && name == "public");
        async move {
            let lifecycle = state.clone();
            let answer = caught(answer(name, state, peer, request, &progress)).await;
            let response = answer.unwrap_or_else(|| {
                problem(StatusCode::INTERNAL_SERVER_ERROR, "this request met a fault of the proxy", false)
            });
            progress.answered();
            // Who asks during the notice finds the next one elsewhere.
            let stays = name != "public" || lifecycle.lifecycle.ready.load(Ordering::Acquire);
            Ok::<_, std::convert::Infallible>(paced(response, progress, stays))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle_timeout)
        .max_header_size(head_limit)
        .max_buf_size(head_limit.max(LEAST_BUFFER))
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // Half a head is no request: the drain does not wait for the rest of it.
            if progress.is_done() {
                return;
            }
            connection.await
        }
    };
    if let Err(error) = result
        && (progress.has_half_a_head() || !error.is_timeout())
    {
        let kind = if progress.has_refused() { "too_large" } else { kind(&error) };
        metrics.connection_errors.with_label_values(&[kind]).inc();
        if name == "public"
            && let Some(status) = status_unread(kind, &error)
        {
            log_unread(&logging.active().config.log, &logging.observation, peer.ip(), status, kind);
        }
        tracing::debug!(%error, listener = name, "a connection ended by an error");
    }
}

async fn answer(
    name: &'static str,
    state: Arc<State>,
    peer: SocketAddr,
    request: Request<Incoming>,
    progress: &Arc<Progress>,
) -> Response<Body> {
    if name != "public" {
        let (head, body) = request.into_parts();
        return admin::handle::handle(&state, peer, &head, body.boxed_unsync()).await;
    }
    let request = request.map(|body| {
        if http_body::Body::is_end_stream(&body) {
            return Body::empty();
        }
        Body::stream(Watched::guarded(body, Reading(progress.clone())))
    });
    proxy::handle::handle(state, peer, request).await
}

/// The answer as the connection sends it.
fn paced(mut response: Response<Body>, progress: Arc<Progress>, stays: bool) -> Response<Body> {
    if !stays && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        progress.switch();
    }
    response.map(|body| match body {
        whole @ Body::Whole(_) => whole,
        body => Body::stream(Paced::new(body, progress)),
    })
}

/// A panic ends the request that met it, and nothing else.
async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        // The hook has told of it.
        polled.map_or(Poll::Ready(None), |polled| polled.map(Some))
    })
    .await
}

/// The status of what could not be read as a request: hyper has sent it, but for 408, which says why nothing was.
fn status_unread(kind: &str, error: &hyper::Error) -> Option<StatusCode> {
    if error.is_timeout() {
        Some(StatusCode::REQUEST_TIMEOUT)
    } else if kind == "too_large" {
        // Both are too large to hyper; only its words tell which.
        let of_target = error.to_string().contains("URI");
        Some(if of_target { StatusCode::URI_TOO_LONG } else { StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE })
    } else {
        error.is_parse().then_some(StatusCode::BAD_REQUEST)
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
