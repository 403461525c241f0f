//! One connection of a client, from its first byte to its last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutStream;
use tokio_util::io::{InspectReader, InspectWriter};
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::engine::body::Body;
use crate::engine::metrics::Raised;
use crate::proxy;
use crate::proxy::access_log::log_unread;
use crate::state::State;

/// How long a client may take to send a head, counted from when the connection is idle.
const HEAD_LIMIT: Duration = Duration::from_secs(60);

/// Serves one connection; on `closing` it finishes the answer in flight and ends.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, name: &'static str, state: Arc<State>, closing: CancellationToken) {
    let _open = Raised::new(&state.metrics.connections.with_label_values(&[name]));
    // Small answers leave at once.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    // A client that takes no byte for so long is gone.
    stream.set_write_timeout(Some(state.active().upstream.settings().stall_timeout));
    // Whether bytes came that nothing was said to yet: at the limit on heads that is half a head, else an idle client.
    let unanswered = Arc::new(AtomicBool::new(false));
    let (on_read, on_write) = (unanswered.clone(), unanswered.clone());
    let stream = InspectWriter::new(stream, move |_| on_write.store(false, Ordering::Relaxed));
    let stream = InspectReader::new(stream, move |read: &[u8]| {
        on_read.fetch_or(!read.is_empty(), Ordering::Relaxed);
    });
    let public = name == "public";
    let (metrics, logging) = (state.metrics.clone(), state.clone());
    let asked = Arc::new(AtomicBool::new(false));
    let on_request = asked.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (state, asked) = (state.clone(), on_request.clone());
        asked.store(true, Ordering::Relaxed);
        async move {
            let response = if public {
                proxy::handle::handle(state, peer, request.map(Body::from)).await
            } else {
                let (head, body) = request.into_parts();
                admin::handle::handle(&state, peer, &head, body.boxed_unsync()).await
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
        if public && let Some(status) = status_unread(&error) {
            log_unread(&logging.active().config.log, &logging.observation, peer.ip(), status, kind(&error));
        }
        tracing::debug!(%error, listener = name, "a connection ended by an error");
    }
}

/// The status of what could not be read as a request: hyper has sent it, but for 408, which says why nothing was.
fn status_unread(error: &hyper::Error) -> Option<StatusCode> {
    if error.is_timeout() {
        Some(StatusCode::REQUEST_TIMEOUT)
    } else if error.is_parse_too_large() {
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
