//! A connection that speaks HTTP/1.1.

use std::io;
use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::conversation::Conversation;
use super::progress::{Paced, Progress, Reading};
use super::stream::ClientStream;
use crate::engine::body::{Body, Watched};
use crate::engine::metrics::Limit;

/// hyper's least buffer.
const LEAST_BUFFER: usize = 8 * 1024;

/// Serves a connection to its end.
pub(super) async fn serve<S>(io: S, conversation: Conversation)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let conversation = Arc::new(conversation);
    let (head_limit, progress) = (conversation.head_limit, &conversation.progress);
    let stream = ClientStream::new(io, progress.clone(), conversation.head_timeout, conversation.idle_timeout);
    let stream = if conversation.is_public() { stream.with_hits(conversation.clone()) } else { stream };
    let with = conversation.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let conversation = with.clone();
        let progress = &conversation.progress;
        let has_body = !http_body::Body::is_end_stream(request.body());
        // What is sent to the private listener is short, and read.
        progress.begin(has_body && conversation.is_public());
        async move {
            let progress = &conversation.progress;
            let request = request.map(|body| {
                if http_body::Body::is_end_stream(&body) {
                    return Body::empty();
                }
                Body::stream(Watched::guarded(body, Reading(progress.clone())))
            });
            let response = conversation.answer(request).await;
            progress.answered();
            Ok::<_, std::convert::Infallible>(paced(response, progress, conversation.goes_on()))
        }
    });
    let connection = http1::Builder::new()
        // The stream has limits of its own.
        .header_read_timeout(None)
        .max_header_size(head_limit)
        .max_buf_size(head_limit.max(LEAST_BUFFER))
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = conversation.closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // Half a head is no request: the drain does not wait for the rest of it.
            if progress.is_done() {
                return;
            }
            connection.await
        }
    };
    if progress.was_quiet_for_too_long() {
        return conversation.reached(Limit::IdleTimeout);
    }
    let error = result.err();
    let Some((kind, limit)) = progress.ended_by().or_else(|| error.as_ref().map(kind)) else { return };
    conversation.ended_by(kind);
    if let Some(limit) = limit {
        conversation.reached(limit);
    }
    if limit != Some(Limit::StallTimeout)
        && let Some(status) = error.as_ref().and_then(|error| status_unread(kind, error))
    {
        conversation.log_unread(status, kind);
    }
    tracing::debug!(error = error.map(tracing::field::display), kind, listener = conversation.name, "a connection ended by an error");
}

/// The answer as the connection sends it.
fn paced(mut response: Response<Body>, progress: &Arc<Progress>, goes_on: bool) -> Response<Body> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        progress.switch();
    } else if !goes_on {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(|body| match body {
        whole @ (Body::Whole(_) | Body::Kept(_)) => whole,
        body => Body::stream(Paced::new(body, progress.clone())),
    })
}

/// The status of what could not be read as a request: hyper has sent it, but for 408, which says why nothing was.
fn status_unread(kind: &str, error: &hyper::Error) -> Option<StatusCode> {
    if kind == "timeout" {
        Some(StatusCode::REQUEST_TIMEOUT)
    } else if kind == "too_large" {
        // Both are too large to hyper; only its words tell which.
        let of_target = error.to_string().contains("URI");
        Some(if of_target { StatusCode::URI_TOO_LONG } else { StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE })
    } else {
        error.is_parse().then_some(StatusCode::BAD_REQUEST)
    }
}

/// The metric label of a connection's error, and the limit that was reached, if one was.
fn kind(error: &hyper::Error) -> (&'static str, Option<Limit>) {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    if error.is_timeout() {
        ("timeout", Some(Limit::HeadTimeout))
    } else if error.is_parse_too_large() {
        ("too_large", Some(Limit::Head))
    } else if error.is_parse() {
        ("parse", None)
    } else if error.is_incomplete_message() {
        ("incomplete", None)
    } else if error.is_user() {
        ("answer_broken", None)
    } else if cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut) {
        // The client took nothing.
        ("timeout", Some(Limit::StallTimeout))
    } else {
        ("io", None)
    }
}
