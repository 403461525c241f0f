//! One request of a connection that speaks HTTP/2, and its answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::conversation::Conversation;
use crate::engine::body::{Body, BodyError};
use crate::engine::clock;
use crate::engine::metrics::Limit;
use crate::engine::problem::problem;
use crate::engine::requests::WithoutPlace;
use crate::policy::http::headers::remove_hop_by_hop;
use crate::policy::http::http2::{as_http1, has_too_many_fields};

/// The longest part of an answer's body that is asked room for at once.
const PART: usize = 16 * 1024;

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Answered,
    /// The client gave its request up.
    GivenUp,
    /// The answer could not be sent to its end.
    CutShort,
    /// The client took nothing of it for too long.
    Stalled,
}

/// Answers one request.
pub(super) async fn exchange(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    conversation: Arc<Conversation>,
) -> Ended {
    let stall = conversation.state.active().upstream.settings().stall_timeout;
    let (mut head, mut stream) = request.into_parts();
    let says_none = head.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0");
    // It goes on as a request without a body, whole: not before it is known to be one.
    if says_none && !stream.is_end_stream() && !ends_at_once(&mut stream, stall).await {
        return Ended::GivenUp;
    }
    let has_body = !says_none && !stream.is_end_stream();
    let expects =
        head.headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    as_http1(&mut head, has_body);
    let is_refused = has_too_many_fields(&head);
    let asked_for = Arc::new(Notify::new());
    let body = if has_body {
        // h2 sees to it that the body is as long as that.
        let left = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Body::stream(Received { stream, left, first: Some(asked_for.clone()) })
    } else {
        Body::empty()
    };
    let answer = if is_refused {
        conversation.reached(Limit::Head);
        conversation.log_unread(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_large");
        problem(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the head has too many fields", false)
    } else {
        let mut answer = std::pin::pin!(conversation.answer(Request::from_parts(head, body)));
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => break answer,
                _ = std::future::poll_fn(|context| respond.poll_reset(context)) => return Ended::GivenUp,
                () = asked_for.notified(), if expects => {
                    let mut go_on = Response::new(());
                    *go_on.status_mut() = StatusCode::CONTINUE;
                    // A client that has left is told nothing.
                    let _ = respond.send_informational(go_on);
                }
            }
        }
    };
    let is_without_place = answer.extensions().get::<WithoutPlace>().is_some();
    let (head, body) = framed(answer).into_parts();
    let is_empty = body.is_empty();
    let Ok(sending) = respond.send_response(Response::from_parts(head, ()), is_empty) else { return Ended::CutShort };
    if is_empty {
        return Ended::Answered;
    }
    // Refusals are not counted, so they may not pile up at a client who opens no window for them.
    let stall = if is_without_place { Duration::ZERO } else { stall };
    let ended = send(body, sending, stall).await;
    if ended == Ended::Stalled && !is_without_place {
        conversation.reached(Limit::StallTimeout);
    }
    ended
}

/// Whether a body of which no byte was announced has none. h2 resets the stream of one that has some.
async fn ends_at_once(stream: &mut RecvStream, stall: Duration) -> bool {
    let end = async {
        loop {
            match stream.data().await {
                None => return true,
                Some(Ok(data)) if data.is_empty() => {}
                Some(_) => return false,
            }
        }
    };
    timeout(stall, end).await.unwrap_or(false)
}

/// The answer as HTTP/2 has it: without the fields of a connection, with a date, and with a length if that is known.
fn framed(mut response: Response<Body>) -> Response<Body> {
    remove_hop_by_hop(response.headers_mut());
    let length = http_body::Body::size_hint(response.body()).exact().filter(|_| !response.body().is_empty());
    let headers = response.headers_mut();
    if let Some(length) = length {
        headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    headers.entry(header::DATE).or_insert_with(clock::http_date);
    response
}

/// Sends a body as the client has room for it. A client that gives none for `stall` loses this answer, not the others.
async fn send(mut body: Body, mut sending: SendStream<Bytes>, stall: Duration) -> Ended {
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _ = std::future::poll_fn(|context| sending.poll_reset(context)) => return Ended::GivenUp,
        };
        let sent = match frame {
            None => return ended(&sending.send_data(Bytes::new(), true)),
            Some(Err(_)) => {
                sending.send_reset(Reason::INTERNAL_ERROR);
                return Ended::CutShort;
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => send_data(data, http_body::Body::is_end_stream(&body), &mut sending, stall).await,
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => return ended(&sending.send_trailers(trailers)),
                    Err(_) => continue,
                },
            },
        };
        match sent {
            Ok(()) if http_body::Body::is_end_stream(&body) => return Ended::Answered,
            Ok(()) => {}
            Err(ended) => return ended,
        }
    }
}

fn ended(sent: &Result<(), h2::Error>) -> Ended {
    if sent.is_ok() { Ended::Answered } else { Ended::CutShort }
}

/// Sends a part of a body. What is handed over has room at the client: nothing of it waits for anything but the socket.
async fn send_data(
    mut data: Bytes,
    is_last: bool,
    sending: &mut SendStream<Bytes>,
    stall: Duration,
) -> Result<(), Ended> {
    while !data.is_empty() {
        let Ok(room) = timeout(stall, room(sending, data.len().min(PART))).await else {
            sending.send_reset(Reason::CANCEL);
            return Err(Ended::Stalled);
        };
        let room = room?;
        let part = data.split_to(room.min(data.len()));
        let is_last = is_last && data.is_empty();
        sending.send_data(part, is_last).map_err(|_| Ended::CutShort)?;
    }
    Ok(())
}

/// Waits for room for at least one byte.
async fn room(sending: &mut SendStream<Bytes>, wanted: usize) -> Result<usize, Ended> {
    sending.reserve_capacity(wanted);
    loop {
        let room = sending.capacity();
        if room > 0 {
            return Ok(room);
        }
        match std::future::poll_fn(|context| sending.poll_capacity(context)).await {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(Ended::GivenUp),
        }
    }
}

/// A request's body. The client may send more when a part was taken: so no more than a window of it waits here.
struct Received {
    stream: RecvStream,
    /// What is still to come, if that is known.
    left: Option<u64>,
    /// Told when the body is first asked for.
    first: Option<Arc<Notify>>,
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(first) = self.first.take() {
            first.notify_one();
        }
        match ready!(self.stream.poll_data(context)) {
            Some(Ok(data)) => {
                // It fails if the stream is gone, which the next question tells.
                let _ = self.stream.flow_control().release_capacity(data.len());
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            None => {
                let trailers = ready!(self.stream.poll_trailers(context))?;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
