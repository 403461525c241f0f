//! What connections have in common, whatever they speak: who is at the other end, and who answers.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use crate::admin;
use crate::engine::body::Body;
use crate::engine::metrics::Limit;
use crate::engine::problem::problem;
use crate::policy::http::client::Side;
use crate::policy::http::plain_head::PlainHead;
use crate::proxy;
use crate::proxy::access_log::log_unread;
use crate::proxy::plain_hit::PlainHit;
use crate::state::State;

/// The listener that everybody may reach.
pub(super) const PUBLIC: &str = "public";
/// One connection, and what all connections of its listener have in common.
#[derive(Clone)]
pub(super) struct Conversation {
    /// The listener's name.
    pub(super) name: &'static str,
    pub(super) state: Arc<State>,
    /// `limits.head`.
    pub(super) head_limit: usize,
    /// `limits.idle_timeout`: how long the next request may be waited for.
    pub(super) idle_timeout: Duration,
    /// `limits.head_timeout`: from the first byte of a head, or of a handshake, to its end.
    pub(super) head_timeout: Duration,
    /// How far the conversation is.
    pub(super) progress: Arc<Progress>,
    /// Cancelled when connections finish the answer in flight and end.
    pub(super) closing: CancellationToken,
    pub(super) peer: SocketAddr,
    pub(super) side: Side,
}

impl Conversation {
    pub(super) fn is_public(&self) -> bool {
        self.name == PUBLIC
    }

    /// The answer to a request. A panic ends the request that met it, and nothing else.
    pub(super) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let answer = std::pin::pin!(async {
            if self.is_public() {
                return proxy::handle::handle(self.state.clone(), self.side, request).await;
            }
            let (head, body) = request.into_parts();
            admin::handle::handle(&self.state, self.peer, &head, body).await
        });
        let fault = || problem(StatusCode::INTERNAL_SERVER_ERROR, "this request met a fault of the proxy", false);
        caught(answer).await.unwrap_or_else(fault)
    }

    /// The answer to a plain request, if that is a hit; else it is to be asked for.
    pub(super) fn plain_hit(&self, asked: &PlainHead<'_>) -> Option<PlainHit> {
        let hit = || proxy::plain_hit::plain_hit(&self.state, self.side, asked);
        // Who asks is answered a second time, and told of the fault if it is met again.
        if self.goes_on() { catch_unwind(AssertUnwindSafe(hit)).ok().flatten() } else { None }
    }

    /// Whether the next request is welcome, too: not during the notice before the drain.
    pub(super) fn goes_on(&self) -> bool {
        !self.is_public() || self.state.lifecycle.ready.load(Ordering::Acquire)
    }

    /// Counts an error that ended the connection.
    pub(super) fn ended_by(&self, kind: &str) {
        self.state.metrics.connection_errors.with_label_values(&[kind]).inc();
    }

    /// Something was beyond a limit.
    pub(super) fn reached(&self, limit: Limit) {
        if self.is_public() {
            self.state.metrics.limits.reached(limit);
        }
    }

    /// Writes the line of what could not be read as a request.
    pub(super) fn log_unread(&self, status: StatusCode, kind: &'static str) {
        if self.is_public() {
            let settings = &self.state.active().config.log;
            log_unread(settings, &self.state.observation, self.side.peer, status, kind);
        }
    }
}

/// What a future gives, if it does not panic. It stays where it is: a long one costs time when it is moved.
async fn caught<T>(mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    std::future::poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        // The hook has told of it.
        polled.map_or(Poll::Ready(None), |polled| polled.map(Some))
    })
    .await
}
