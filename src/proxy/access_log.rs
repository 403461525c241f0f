//! A request from its head to the end of its answer: counted and logged once, on every way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::{HeaderValue, Method, Response, StatusCode};

use super::outcome::Outcome;
use crate::engine::body::{Body, Guard, Watched};
use crate::engine::clock;
use crate::engine::metrics::{Ending, Metrics, Raised, method_label};
use crate::policy::http::headers::{CACHE_STATUS, X_REQUEST_ID};

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
                method = method_label(&self.method),
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
