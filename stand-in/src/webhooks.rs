//! Webhooks: who is told over HTTP, and one delivery on its way.
//!
//! A delivery is sent once. Nothing is tried again, as in the real service. What waits is in `outbox`.

use std::error::Error;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::account::INBOX_ID;
use super::stamps::{hex, wall_clock};

/// The service gives a receiver up after this long.
const LIMIT: Duration = Duration::from_secs(5);

/// What is read of an answer at most. Nobody looks at it.
const MAX_ANSWER: usize = 64 * 1024;

const DELIVERY: HeaderName = HeaderName::from_static("x-chatwoot-delivery");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-chatwoot-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("x-chatwoot-signature");

/// The two kinds of webhooks of the real service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookKind {
    /// Of the account: messages, conversations and contacts of every inbox. Nobody minds a failure.
    Account,
    /// Of [`INBOX`](super::INBOX): its messages, conversations and typing, never contacts. If a message cannot be
    /// delivered, the message counts as failed and its `external_error` says why, for its readers too.
    ApiInbox,
}

/// What goes wrong between an event and its receiver. The default is nothing.
///
/// A delay that varies changes the order of deliveries by chance; [`hold_deliveries_when`] does it deliberately.
///
/// [`hold_deliveries_when`]: super::StandIn::hold_deliveries_when
#[derive(Debug, Clone)]
pub struct Trouble {
    /// How long a delivery waits in the queue.
    pub delay: RangeInclusive<Duration>,
    /// Which part of the deliveries is lost, from 0.0 to 1.0. The log of deliveries says which.
    pub lost: f64,
    /// Which part is sent twice, from 0.0 to 1.0: the event was queued twice, so each has an id and a delay of its own.
    pub twice: f64,
    /// Where chance begins: the same events suffer the same under the same seed.
    pub seed: u64,
}

impl Default for Trouble {
    fn default() -> Self {
        Self { delay: Duration::ZERO..=Duration::ZERO, lost: 0.0, twice: 0.0, seed: 0 }
    }
}

/// A receiver of webhooks.
#[derive(Clone)]
pub struct Webhook {
    /// Where it listens: `http` only. Without a secret it may hold a token, such as `?token=...`.
    pub url: String,
    /// What it is told, and what its failure does.
    pub kind: WebhookKind,
    /// What deliveries are signed with. Older servers have none and send neither timestamp nor signature.
    pub secret: Option<String>,
    /// The events it wants, such as `message_created`; `None` is all of its kind.
    pub events: Option<Vec<String>>,
    /// What goes wrong on the way.
    pub trouble: Trouble,
}

impl Webhook {
    /// A webhook of the account for all events, unsigned and without trouble.
    pub fn account(url: impl Into<String>) -> Self {
        let (url, kind) = (url.into(), WebhookKind::Account);
        Self { url, kind, secret: None, events: None, trouble: Trouble::default() }
    }

    /// The webhook of the inbox, unsigned and without trouble.
    pub fn api_inbox(url: impl Into<String>) -> Self {
        Self { kind: WebhookKind::ApiInbox, ..Self::account(url) }
    }

    /// The same, signed.
    #[must_use]
    pub fn signed_with(self, secret: impl Into<String>) -> Self {
        Self { secret: Some(secret.into()), ..self }
    }

    /// The same, for these events only.
    #[must_use]
    pub fn only(self, events: &[&str]) -> Self {
        Self { events: Some(events.iter().map(|it| (*it).to_owned()).collect()), ..self }
    }

    /// The same, with trouble on the way.
    #[must_use]
    pub fn with(self, trouble: Trouble) -> Self {
        Self { trouble, ..self }
    }

    /// Whether this event is for this receiver.
    pub(super) fn wants(&self, event: &str, inbox_id: Option<i64>) -> bool {
        let concerns = match self.kind {
            WebhookKind::Account => true,
            WebhookKind::ApiInbox => inbox_id == Some(INBOX_ID),
        };
        concerns && self.events.as_ref().is_none_or(|events| events.iter().any(|it| it == event))
    }

    /// What is sent besides the body: made at the moment of sending, since the timestamp is signed too.
    fn headers(&self, id: &str, body: &[u8]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).expect("digits, hex and dashes");
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(DELIVERY, value(id));
        if let Some(secret) = &self.secret {
            let timestamp = wall_clock().as_secs().to_string();
            headers.insert(SIGNATURE, value(&sign(secret, &timestamp, body)));
            headers.insert(TIMESTAMP, value(&timestamp));
        }
        headers
    }
}

/// The secret is one, and the URL may hold a token.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Webhook");
        shown.field("kind", &self.kind).field("signed", &self.secret.is_some()).field("events", &self.events);
        shown.field("trouble", &self.trouble).finish_non_exhaustive()
    }
}

/// The signature of a delivery: over the timestamp as well, so that an old one cannot pass for a new one.
fn sign(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("sha256={}", hex(&mac.finalize().into_bytes()))
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The receiver answered with this status.
    Answered(StatusCode),
    /// No answer within five seconds.
    TimedOut,
    /// No connection, or one that broke.
    Failed,
    /// Never sent, because [`Trouble::lost`] said so.
    Lost,
}

impl Fate {
    /// The status of the answer, if there was one.
    pub fn status(self) -> Option<StatusCode> {
        if let Self::Answered(status) = self { Some(status) } else { None }
    }

    /// Why the service takes a message for failed, in words like its own.
    fn complaint(self) -> Option<String> {
        match self {
            Self::Answered(status) => (!status.is_success()).then(|| status.to_string()),
            Self::TimedOut => Some("Timed out reading data from server".to_owned()),
            Self::Failed => Some("Failed to open TCP connection".to_owned()),
            Self::Lost => None,
        }
    }
}

/// One delivery to one receiver, as it was sent.
#[derive(Clone)]
pub struct Delivery {
    /// What happened, such as `message_created`.
    pub event: String,
    /// Its `X-Chatwoot-Delivery`.
    pub id: String,
    /// The headers, as sent; empty as long as nothing was sent.
    pub headers: HeaderMap,
    /// The body, as sent.
    pub body: Bytes,
    /// What became of it.
    pub fate: Fate,
    webhook: Arc<Webhook>,
}

impl Delivery {
    /// One that was not sent yet.
    pub(super) fn new(webhook: Arc<Webhook>, event: &str, id: String, body: Bytes) -> Self {
        Self { event: event.to_owned(), id, headers: HeaderMap::new(), body, fate: Fate::Lost, webhook }
    }

    /// Why its message counts as failed now, if its receiver is one whose failures matter.
    pub(super) fn complaint(&self) -> Option<String> {
        self.fate.complaint().filter(|_| self.webhook.kind == WebhookKind::ApiInbox)
    }

    /// The body.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the stand-in sends JSON")
    }

    /// Sends it now, once, under a timestamp of now.
    pub(super) async fn send(&mut self) {
        self.headers = self.webhook.headers(&self.id, &self.body);
        self.send_as_it_is().await;
    }

    /// Sends it now, with the headers it has.
    pub(super) async fn send_as_it_is(&mut self) {
        let exchange = exchange(&self.webhook.url, self.headers.clone(), self.body.clone());
        self.fate = match timeout(LIMIT, exchange).await {
            Ok(Ok(status)) => Fate::Answered(status),
            Ok(Err(_)) => Fate::Failed,
            Err(_) => Fate::TimedOut,
        };
    }
}

/// Bodies hold source ids and tokens, URLs and signatures are secret: only what is not is shown.
impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Delivery");
        shown.field("event", &self.event).field("id", &self.id).field("fate", &self.fate);
        shown.finish_non_exhaustive()
    }
}

/// A POST on a connection of its own, as the real service makes them. Redirects are not followed.
async fn exchange(url: &str, headers: HeaderMap, body: Bytes) -> Result<StatusCode, Box<dyn Error + Send + Sync>> {
    let url: Uri = url.parse()?;
    let authority = url.authority().ok_or("a URL without a host")?;
    let host = authority.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = url.path_and_query().map_or("/", |it| it.as_str());
    let request = Request::builder().method(Method::POST).uri(path);
    let request = request.header(header::HOST, authority.as_str()).header(header::CONNECTION, "close");
    let mut request = request.body(Full::new(body))?;
    request.headers_mut().extend(headers);
    let answer = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        // How a body ends changes nothing any more.
        let _ = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        Ok(status)
    };
    let (answer, _) = tokio::join!(answer, connection);
    answer
}

/// What says which deliveries a gate concerns.
pub(super) type Condition = Box<dyn Fn(&Delivery) -> bool + Send + Sync>;
