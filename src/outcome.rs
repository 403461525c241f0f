//! How a request ended: the `Cache-Status` field, the metric labels and the log line are all made from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};

use crate::engine::body::{Body, Guard, Watched};
use crate::engine::clock;
use crate::engine::metrics::{Ending, Metrics, Raised};
use crate::policy::headers::{CACHE_STATUS, X_REQUEST_ID, stock_cors};

/// How the program logs.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    /// `log.format`.
    pub format: LogFormat,
    /// `log.level`: a level or a filter such as `info,anteroom=debug`.
    pub level: String,
    /// `log.hits`: share of hits that get an access line, 0 to 1.
    pub hits: f64,
}

/// `log.format`: the form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `pretty` on a terminal, else `json`.
    Auto,
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

/// How a request ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which of the ten.
    pub ending: Ending,
    /// The parameters of `Cache-Status` (RFC 9211), each with its `; `.
    cache_status: String,
    /// Why, from a closed set: in `Cache-Status` and in the log.
    detail: Option<&'static str>,
    /// Why is for the log alone.
    quiet: bool,
}

impl Outcome {
    /// From memory, with the seconds it stays fresh: negative if it is stale.
    pub fn from_memory(ending: Ending, ttl: i64) -> Self {
        Self { ending, cache_status: format!("; hit; ttl={ttl}"), detail: None, quiet: false }
    }

    /// Forwarded, for this reason of RFC 9211 section 2.2.
    pub fn forwarded(ending: Ending, reason: &str) -> Self {
        Self { ending, cache_status: format!("; fwd={reason}"), detail: None, quiet: false }
    }

    /// Answered here.
    pub fn own(ending: Ending) -> Self {
        Self { ending, cache_status: String::new(), detail: None, quiet: false }
    }

    /// The upstream answered with this status.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.cache_status.push_str("; fwd-status=");
        self.cache_status.push_str(status.as_str());
        self
    }

    /// The answer was stored.
    #[must_use]
    pub fn stored(mut self, stored: bool) -> Self {
        if stored {
            self.cache_status.push_str("; stored");
        }
        self
    }

    /// It waited for another's fetch.
    #[must_use]
    pub fn collapsed(mut self, collapsed: bool) -> Self {
        if collapsed {
            self.cache_status.push_str("; collapsed");
        }
        self
    }

    /// Why.
    #[must_use]
    pub fn detail(mut self, detail: &'static str) -> Self {
        self.detail = Some(detail);
        self
    }

    /// Why, for the log alone.
    #[must_use]
    pub fn quietly(mut self, detail: &'static str) -> Self {
        (self.detail, self.quiet) = (Some(detail), true);
        self
    }

    fn field(&self) -> HeaderValue {
        let detail =
            self.detail.filter(|_| !self.quiet).map_or_else(String::new, |detail| format!("; detail={detail}"));
        HeaderValue::try_from(format!("anteroom{}{detail}", self.cache_status)).expect("made of tokens")
    }
}

/// An error of our own: a problem document (RFC 9457), with the CORS fields of the route, since a browser could not
/// read it without them.
pub fn problem(status: StatusCode, detail: &str, with_origin: bool) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or("Error");
    let body =
        serde_json::json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    let mut response = Response::new(Body::from(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if with_origin {
        stock_cors(headers);
    }
    response
}

/// Decides which hits get an access line: a fixed share of them, evenly.
#[derive(Debug, Default)]
pub struct Sampler(AtomicU64);

impl Sampler {
    /// Whether this one is in the share.
    #[expect(clippy::cast_precision_loss, reason = "a share needs no 64 bits")]
    pub fn takes(&self, share: f64) -> bool {
        if share <= 0.0 {
            return false;
        }
        let before = self.0.fetch_add(1, Ordering::Relaxed) as f64;
        ((before + 1.0) * share).floor() > (before * share).floor()
    }
}

/// A request from its head to the end of its answer. Counts and logs it exactly once, on every way out.
pub struct Record {
    metrics: Arc<Metrics>,
    began: Instant,
    method: Method,
    request_id: HeaderValue,
    /// A keyed hash: the identifier itself is a credential.
    contact: Option<u64>,
    /// Of the client's trace; in its closed form.
    trace_id: Option<Box<str>>,
    received: Arc<AtomicU64>,
    sent: u64,
    /// What is told if nobody says otherwise: the client left before there was an answer.
    ending: Ending,
    detail: Option<&'static str>,
    status: StatusCode,
    logged: bool,
    _in_flight: Raised,
}

impl Record {
    /// Begins with a request's head.
    pub fn begin(metrics: Arc<Metrics>, method: Method, request_id: HeaderValue) -> Self {
        Self {
            began: clock::now(),
            method,
            request_id,
            contact: None,
            trace_id: None,
            received: Arc::default(),
            sent: 0,
            ending: Ending::Failed,
            detail: Some("client-left"),
            status: StatusCode::from_u16(499).expect("a status has three digits"),
            logged: true,
            _in_flight: Raised::new(&metrics.requests_in_flight),
            metrics,
        }
    }

    /// Whom it is about, as a keyed hash.
    pub fn about(&mut self, contact: u64) {
        self.contact = Some(contact);
    }

    /// Which trace of the client's it belongs to.
    pub fn belongs_to(&mut self, trace_id: &str) {
        self.trace_id = Some(trace_id.into());
    }

    /// Where the bytes of the request's body are counted.
    pub fn received(&self) -> Arc<AtomicU64> {
        self.received.clone()
    }

    /// The request's id.
    pub fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// The answer is ready: marks it, and tells of it when its body has ended.
    pub fn end(mut self, mut response: Response<Body>, outcome: &Outcome, logged: bool) -> Response<Body> {
        self.ending = outcome.ending;
        self.detail = outcome.detail;
        self.status = response.status();
        self.logged = logged;
        let headers = response.headers_mut();
        // Ours comes last, after those of caches nearer to the origin (RFC 9211 section 2); a kept answer's is empty.
        if headers.get(CACHE_STATUS).is_some_and(|field| !field.is_empty()) {
            headers.append(CACHE_STATUS, outcome.field());
        } else {
            headers.insert(CACHE_STATUS, outcome.field());
        }
        headers.insert(X_REQUEST_ID, self.request_id.clone());
        if let Body::Whole(bytes) = response.body() {
            self.sent = bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        }
        // A body without a byte is not polled: it is whole.
        if matches!(response.body(), Body::Whole(_)) || response.body().is_empty() {
            return response;
        }
        // Until the body has ended, its client may leave.
        let detail = self.detail.replace("client-left");
        response.map(|body| Body::stream(Watched::guarded(body, Streamed { record: self, detail })))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = clock::now().saturating_duration_since(self.began);
        self.metrics.request_ended(self.ending, &self.method, self.status, took);
        if matches!(self.ending, Ending::Hit | Ending::Stale | Ending::Miss | Ending::Joined) {
            self.metrics.payload_bytes_sent.inc_by(self.sent);
        }
        if self.logged {
            tracing::info!(
                target: "anteroom::access",
                outcome = self.ending.label(),
                method = crate::engine::metrics::method_label(&self.method),
                status = self.status.as_u16(),
                detail = self.detail,
                duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3,
                received = self.received.load(Ordering::Relaxed),
                sent = self.sent,
                contact = self.contact.map(|hash| format!("{hash:016x}")),
                request_id = self.request_id.to_str().unwrap_or_default(),
                trace_id = self.trace_id.as_deref(),
            );
        }
    }
}

/// The record of a streamed answer, which ends with it.
struct Streamed {
    record: Record,
    /// What is told if it was whole.
    detail: Option<&'static str>,
}

impl Guard for Streamed {
    fn passed(&mut self, bytes: usize) {
        self.record.sent += bytes as u64;
    }

    fn whole(&mut self) {
        self.record.detail = self.detail;
    }

    fn broken(&mut self) {
        self.record.detail = Some("cut-short");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_hits_is_logged_evenly() {
        for (share, expected) in [(0.0, 0), (0.25, 25), (1.0, 100)] {
            let sampler = Sampler::default();
            assert_eq!((0..100).filter(|_| sampler.takes(share)).count(), expected, "{share}");
        }
    }

    #[test]
    fn cache_status_is_as_rfc_9211_wants_it() {
        for (outcome, expected) in [
            (Outcome::from_memory(Ending::Hit, 12), "anteroom; hit; ttl=12"),
            (Outcome::from_memory(Ending::Stale, -3).detail("failing"), "anteroom; hit; ttl=-3; detail=failing"),
            (
                Outcome::forwarded(Ending::Joined, "uri-miss").status(StatusCode::OK).stored(true).collapsed(true),
                "anteroom; fwd=uri-miss; fwd-status=200; stored; collapsed",
            ),
            (Outcome::forwarded(Ending::Bypass, "bypass").detail("cookie"), "anteroom; fwd=bypass; detail=cookie"),
            (Outcome::own(Ending::Refused), "anteroom"),
        ] {
            assert_eq!(outcome.field(), expected);
        }
    }
}
