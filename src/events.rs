//! Events of the application: what they touch is out of date, and whether they arrive decides how long answers live.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use percent_encoding::percent_decode_str;

use crate::engine::body::Body;
use crate::engine::clock;
use crate::engine::metrics::{Ending, WebhookResult};
use crate::outcome::Outcome;
use crate::policy::event::{self, Event, Touched};
use crate::policy::ledger::Moment;
use crate::policy::watermark::Events;
use crate::policy::webhook::{Claim, Untrusted, judge};
use crate::proxy::{Answered, Asked};
use crate::room::{LONGEST_WEBHOOK, Live, Room};

/// How long it may take to say it; the application itself gives up after 5 s (`api.md` section 7.2).
const READ_LIMIT: Duration = Duration::from_secs(10);

impl Asked {
    /// A webhook. Answered 204 whatever is thought of it, since any other answer would mark a customer's message as
    /// failed (`api.md` section 7.1); the verdict is in the metric and the log.
    pub(crate) async fn webhook(mut self) -> Answered {
        let body = self.body.take().unwrap_or_else(Body::empty);
        let (event, result) = match tokio::time::timeout(READ_LIMIT, self.collect(body)).await {
            Ok(Ok(body)) => self.heed(&body),
            Ok(Err(why)) => (Event::Other, why),
            Err(_) => (Event::Other, WebhookResult::CutShort),
        };
        self.room.metrics.webhook(event, result);
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
        let mut read = Some(self.room.strangers.enter());
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| WebhookResult::CutShort)?.into_data() else { continue };
            length += data.len() as u64;
            self.received.store(length, Ordering::Relaxed);
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
        match judge(&self.live.config.webhook, claim, body, now.as_secs()) {
            Ok(()) => self.room.hear(body, now),
            Err(Untrusted::Unsigned) => (Event::Other, WebhookResult::Unsigned),
            Err(Untrusted::BadSignature) => (Event::Other, WebhookResult::BadSignature),
            Err(Untrusted::TooOld) => (Event::Other, WebhookResult::TooOld),
        }
    }
}

impl Room {
    /// Hears a genuine webhook: what it touches is out of date. `now` is the wall clock since 1970. A second one, or a
    /// late one, costs a needless fetch.
    pub fn hear(&self, body: &[u8], now: Duration) -> (Event, WebhookResult) {
        self.watermark.heard(self.epoch.moment(clock::now()));
        let Some(heard) = event::of_webhook(body) else { return (Event::Other, WebhookResult::Malformed) };
        if !heard.changes_lists {
            return (heard.event, WebhookResult::NoChange);
        }
        if heard.touched.is_empty() {
            return (heard.event, WebhookResult::Unattributed);
        }
        self.changed(&heard.touched, "webhook");
        if let Some(happened) = heard.happened {
            let delay = now.saturating_sub(Duration::from_millis(happened));
            self.metrics.webhook_delay.observe(delay.as_secs_f64());
        }
        (heard.event, WebhookResult::Outdated)
    }

    /// An event says that these lists have changed: they are out of date from here on. `source` says who told.
    pub fn changed(&self, touched: &Touched, source: &'static str) {
        for scope in touched.scopes() {
            self.ledger.outdate(self.ledger.place(&scope));
        }
        self.metrics.invalidations.with_label_values(&[source]).inc();
    }

    /// Whether the application's events arrive; `None` if none are set up. Tells once when they cease and once when
    /// they are back.
    pub fn events(&self, live: &Live, now: Instant) -> Option<Events> {
        let settings = &live.config.webhook;
        if !settings.are_received() {
            return None;
        }
        let events = self.watermark.events(self.epoch.moment(now), settings.silent_after);
        let silent = matches!(events, Events::Silent { .. });
        if silent != self.told_of_silence.load(Ordering::Relaxed)
            && silent != self.told_of_silence.swap(silent, Ordering::Relaxed)
        {
            if silent {
                tracing::warn!(after = ?settings.silent_after, "webhooks are silent: a message must have caused one");
            } else {
                tracing::info!("webhooks arrive again");
            }
        }
        Some(events)
    }

    /// For how long an event has been due, if events are silent.
    pub fn silent_for(&self, now: Instant) -> Option<Duration> {
        let Some(Events::Silent { since: Moment(since) }) = self.events(&self.live(), now) else { return None };
        let Moment(now) = self.epoch.moment(now);
        Some(Duration::from_millis(now.saturating_sub(since)))
    }
}
