//! Events of the application: what they touch is out of date, and whether they arrive decides how long answers live.

use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use percent_encoding::percent_decode_str;

use crate::engine::body::Body;
use crate::engine::clock;
use crate::engine::metrics::{Ending, WebhookResult};
use super::outcome::Outcome;
use crate::policy::coherence::event::Event;
use crate::policy::coherence::webhook::{Claim, Untrusted, judge};
use super::request::{Answered, ClientRequest};
use crate::state::invalidation::LONGEST_WEBHOOK;

/// How long it may take to say it; the application itself gives up after 5 s (`api.md` section 7.2).
const READ_LIMIT: Duration = Duration::from_secs(10);
/// How long its answer waits until the other replicas know of it.
const TOLD_LIMIT: Duration = Duration::from_secs(3);

impl ClientRequest {
    /// A webhook. Answered 204 whatever is thought of it, since any other answer would mark a customer's message as
    /// failed (`api.md` section 7.1); the verdict is in the metric and the log.
    pub(crate) async fn webhook(mut self) -> Answered {
        let body = self.body.take().unwrap_or_else(Body::empty);
        let before = self.state.invalidation.ticket();
        let (event, result) = match tokio::time::timeout(READ_LIMIT, self.collect(body)).await {
            Ok(Ok(body)) => self.heed(&body),
            Ok(Err(why)) => (Event::Other, why),
            Err(_) => (Event::Other, WebhookResult::CutShort),
        };
        if result.is_genuine() {
            // The application gives up after 5 s, and would mark a customer's message as failed.
            let _ = tokio::time::timeout(TOLD_LIMIT, self.state.invalidation.told_since(before)).await;
        }
        self.state.metrics.webhook(event, result);
        self.state.observation.heard_webhook(result, clock::now());
        let outcome = Outcome::own(Ending::Webhook).quietly(result.label());
        if result == WebhookResult::TooLarge {
            return (self.problem(StatusCode::PAYLOAD_TOO_LARGE, "a webhook is at most 1 MiB"), outcome);
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        (response, outcome)
    }

    /// The body, within a memory of its own: strangers may send here, and lists need theirs. What had to make room is
    /// read on and forgotten: an answer before the last byte might break the connection instead of arriving.
    async fn collect(&self, mut body: Body) -> Result<Bytes, WebhookResult> {
        if http_body::Body::size_hint(&body).lower() > LONGEST_WEBHOOK {
            return Err(WebhookResult::TooLarge);
        }
        let mut read = Some(self.state.invalidation.webhook_bodies.enter());
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| WebhookResult::CutShort)?.into_data() else { continue };
            length += data.len() as u64;
            self.tally.received.store(length, Ordering::Relaxed);
            if length > LONGEST_WEBHOOK {
                return Err(WebhookResult::TooLarge);
            }
            if read.as_mut().is_some_and(|read| read.push(&data).is_err()) {
                read = None;
            }
        }
        read.and_then(|read| read.finish().ok()).ok_or(WebhookResult::Crowded)
    }

    /// Judges and obeys: neither locks nor waits.
    fn heed(&self, body: &[u8]) -> (Event, WebhookResult) {
        let field = |name| self.head.headers.get(name).map(http::HeaderValue::as_bytes);
        let mut pairs = self.head.uri.query().into_iter().flat_map(|query| query.split('&'));
        let token = pairs.find_map(|pair| pair.strip_prefix("token="));
        let token: Option<Vec<u8>> = token.map(|token| percent_decode_str(token).collect());
        let claim = Claim {
            timestamp: field("x-chatwoot-timestamp"),
            signature: field("x-chatwoot-signature"),
            token: token.as_deref(),
        };
        let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        match judge(&self.active.config.webhook, claim, body, now.as_secs()) {
            Ok(()) => self.state.invalidation.hear(body, now),
            Err(Untrusted::Unsigned) => (Event::Other, WebhookResult::Unsigned),
            Err(Untrusted::BadSignature) => (Event::Other, WebhookResult::BadSignature),
            Err(Untrusted::TooOld) => (Event::Other, WebhookResult::TooOld),
        }
    }
}
