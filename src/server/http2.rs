//! A connection that speaks HTTP/2 (RFC 9113), by the h2 crate itself: hyper's server has no limit for the single stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection};
use h2::{Ping, PingPong, Reason};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval_at, sleep, timeout};

use super::conversation::Conversation;
use super::exchange::{Ended, exchange};
use super::frames::Counted;
use crate::engine::metrics::Limit;
use crate::policy::http::http2::Resets;

/// Requests at once on one connection.
const STREAMS: u32 = 100;
/// Bytes of one request's body that may wait to be read. An upload gets that much in one round trip.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The same for all requests of a connection together.
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Bytes of one answer that wait for the socket.
const SEND_BUFFER: usize = 32 * 1024;
/// Requests that were given up before they were looked at.
const RESET_UNSEEN: usize = 20;
/// Requests that were refused for their form.
const MALFORMED: usize = 100;
/// The table of fields that both sides keep: the default of RFC 7541.
const FIELD_TABLE: u32 = 4096;
/// A client with an open request is asked so often whether it is there, and has as long to show it.
const PING_EVERY: Duration = Duration::from_secs(20);
/// The bytes of that question.
const PING_FRAME: u64 = 17;
/// How long a connection that is about to end waits for the client to agree.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves a connection to its end.
pub(super) async fn serve<S>(io: S, conversation: Conversation)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let moved = Arc::new(AtomicU64::new(0));
    let io = Counted::new(io, moved.clone(), conversation.progress.clone(), conversation.head_timeout);
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(conversation.head_limit).unwrap_or(u32::MAX))
        .header_table_size(FIELD_TABLE)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESET_UNSEEN)
        .max_local_error_reset_streams(Some(MALFORMED));
    let begun = tokio::select! {
        begun = timeout(conversation.head_timeout, builder.handshake::<_, Bytes>(io)) => begun,
        () = conversation.closing.cancelled() => return,
    };
    let ending = match begun {
        Ok(Ok(connection)) => Talk::new(connection, conversation.clone(), moved).run().await,
        Ok(Err(error)) => Ending::Broken(error),
        Err(_) => Ending::TooSlow,
    };
    let (kind, status, limit) = match &ending {
        Ending::Well => return,
        Ending::TooSlow => ("timeout", None, Some(Limit::HeadTimeout)),
        Ending::Silent => ("timeout", None, None),
        Ending::Flood => ("flood", Some(StatusCode::TOO_MANY_REQUESTS), None),
        Ending::Broken(error) => match conversation.progress.ended_by() {
            Some((kind, Some(Limit::HeadTimeout))) => (kind, Some(StatusCode::REQUEST_TIMEOUT), Some(Limit::HeadTimeout)),
            Some((kind, limit)) => (kind, Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE), limit),
            None => kind(error),
        },
    };
    conversation.ended_by(kind);
    if let Some(limit) = limit {
        conversation.reached(limit);
    }
    if let Some(status) = status {
        conversation.log_unread(status, kind);
    }
    tracing::debug!(kind, listener = conversation.name, "a connection ended by an error");
}

/// How a connection ended.
enum Ending {
    Well,
    /// It did not begin.
    TooSlow,
    /// Nothing came, and nothing was taken.
    Silent,
    /// It only made work.
    Flood,
    Broken(h2::Error),
}

/// The metric label of a connection's error, the status that tells it in the log, and the limit that was reached.
fn kind(error: &h2::Error) -> (&'static str, Option<StatusCode>, Option<Limit>) {
    match error.reason() {
        Some(Reason::ENHANCE_YOUR_CALM) => ("flood", Some(StatusCode::TOO_MANY_REQUESTS), None),
        Some(Reason::NO_ERROR | Reason::CANCEL) => ("incomplete", None, None),
        Some(_) => ("parse", Some(StatusCode::BAD_REQUEST), None),
        // The client took nothing.
        None if error.get_io().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) => {
            ("timeout", None, Some(Limit::StallTimeout))
        }
        None => ("io", None, None),
    }
}

/// A connection whose preface was exchanged.
struct Talk<S> {
    connection: Connection<S, Bytes>,
    conversation: Arc<Conversation>,
    requests: JoinSet<Ended>,
    resets: Resets,
    pulse: Pulse,
    /// Until when the client has to do something: ask, or, if the connection is about to end, agree to that.
    patience: Pin<Box<Sleep>>,
    is_ending: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    fn new(mut connection: Connection<S, Bytes>, conversation: Conversation, moved: Arc<AtomicU64>) -> Self {
        let pulse = Pulse::new(connection.ping_pong(), moved);
        let patience = Box::pin(sleep(conversation.idle_timeout));
        let (conversation, requests) = (Arc::new(conversation), JoinSet::new());
        let resets = Resets::new(Instant::now().into_std());
        Self { connection, conversation, requests, resets, pulse, patience, is_ending: false }
    }

    async fn run(mut self) -> Ending {
        let closing = self.conversation.closing.clone();
        let mut flooded = false;
        loop {
            let is_idle = self.requests.is_empty();
            tokio::select! {
                accepted = self.connection.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        self.conversation.progress.accepted();
                        self.requests.spawn(exchange(request, respond, self.conversation.clone()));
                        if !self.is_ending && !self.conversation.goes_on() {
                            // Answered, and told to go elsewhere with the next.
                            self.connection.graceful_shutdown();
                            self.end();
                        }
                    }
                    Some(Err(_)) | None if flooded => return Ending::Flood,
                    Some(Err(error)) => return Ending::Broken(error),
                    None => return Ending::Well,
                },
                Some(ended) = self.requests.join_next() => {
                    if self.requests.is_empty() {
                        self.conversation.progress.answered();
                    }
                    self.be_patient();
                    let given_up = matches!(ended, Ok(Ended::GivenUp));
                    if given_up && !flooded && !self.resets.allow(Instant::now().into_std()) {
                        flooded = true;
                        self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                        self.end();
                    }
                }
                () = &mut self.patience, if is_idle || flooded => match (flooded, self.is_ending) {
                    (true, _) => return Ending::Flood,
                    (false, true) => return Ending::Well,
                    (false, false) => {
                        self.conversation.reached(Limit::IdleTimeout);
                        self.connection.graceful_shutdown();
                        self.end();
                    }
                },
                () = self.pulse.stops(), if !is_idle => return Ending::Silent,
                () = closing.cancelled(), if !self.is_ending => {
                    self.connection.graceful_shutdown();
                    self.end();
                }
            }
        }
    }

    /// From here on nobody waits for long.
    fn end(&mut self) {
        self.is_ending = true;
        self.be_patient();
    }

    fn be_patient(&mut self) {
        let limit = if self.is_ending { FAREWELL } else { self.conversation.idle_timeout };
        self.patience.as_mut().reset(Instant::now() + limit);
    }
}

/// Whether the client is still there while it waits for an answer.
struct Pulse {
    pings: Option<PingPong>,
    ticks: Interval,
    is_asked: bool,
    /// Bytes that have passed, now and when it was asked.
    moved: Arc<AtomicU64>,
    moved_then: u64,
}

impl Pulse {
    fn new(pings: Option<PingPong>, moved: Arc<AtomicU64>) -> Self {
        let mut ticks = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { pings, ticks, is_asked: false, moved, moved_then: 0 }
    }

    /// Returns when the client has not answered, and nothing has passed either way: an answer may stand behind much else
    /// at a slow one.
    async fn stops(&mut self) {
        let Some(pings) = &mut self.pings else { return std::future::pending().await };
        loop {
            tokio::select! {
                pong = std::future::poll_fn(|context| pings.poll_pong(context)), if self.is_asked => {
                    self.is_asked = false;
                    if pong.is_err() {
                        // The connection has ended, and says so itself.
                        return std::future::pending().await;
                    }
                }
                _ = self.ticks.tick() => {
                    let moved = self.moved.load(Ordering::Relaxed);
                    if self.is_asked && moved - self.moved_then <= PING_FRAME {
                        return;
                    }
                    self.moved_then = moved;
                    self.is_asked |= pings.send_ping(Ping::opaque()).is_ok();
                }
            }
        }
    }
}
