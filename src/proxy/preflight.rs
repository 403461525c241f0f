//! Preflights of reads: answered from what the upstream said to one like it, for as long as it said.
//!
//! What it says depends on the method and the fields that a page asks for, and on the page's origin unless it is the
//! same for all; never on the contact. So the upstream is told these and no more: what one client says beside them could
//! change what all others get.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};

use crate::engine::body::{Body, Read, read_at_most};
use crate::engine::clock;
use crate::engine::metrics::Ending;
use crate::engine::rates::Bucket;
use crate::engine::preflights::{LONGEST_LIFE, StoredPreflight};
use crate::engine::upstream::error::UpstreamError;
use super::outcome::Outcome;
use crate::policy::http::client::HostRule;
use crate::policy::http::representation::{Prepared, Received};
use super::request::{Answered, ClientRequest};
use crate::policy::http::headers::{has_directive, varies_beyond};
use crate::policy::http::path::canonical;
use crate::policy::resource::ReadKind;

/// The fields that the answer may depend on.
const DECIDE: [HeaderName; 3] =
    [header::ORIGIN, header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_REQUEST_HEADERS];
/// What is asked for in a preflight that is remembered, in bytes.
const LONGEST_QUESTION: usize = 1024;
/// The longest body of one that is remembered: they have none.
const LONGEST_BODY: usize = 1024;

impl ClientRequest {
    /// A preflight: from memory if one like it was answered a while ago, else passed on and remembered.
    pub(crate) async fn preflight(self) -> Answered {
        if self.active.config.forward.host == HostRule::Client {
            // What is said to one host is not for another.
            if let Some(refused) = self.asks_too_often(Bucket::Upstream) {
                return refused;
            }
            return self.pass(None).await;
        }
        let now = clock::now();
        if let Some((stored, outcome)) = self.answered_before(now) {
            if let Some(refused) = self.asks_too_often(Bucket::Hits) {
                return refused;
            }
            return (stored.answer.respond(&self.head.method, &self.head.headers, None).map(Body::from), outcome);
        }
        if let Some(refused) = self.asks_too_often(Bucket::Upstream) {
            return refused;
        }
        let Some(request) = self.shared_preflight() else { return self.unsendable() };
        match self.ask(request, now).await {
            Ok(response) => {
                let outcome = Outcome::forwarded(Ending::Pass, "uri-miss").status(response.status());
                (self.as_passed(response), outcome)
            }
            Err(error) => self.failed(error),
        }
    }

    /// What the upstream said to one like it, as long as that holds.
    fn answered_before(&self, now: Instant) -> Option<(Arc<StoredPreflight>, Outcome)> {
        let questions = [self.question("*"), self.question_of_origin()];
        let holds = |stored: &Arc<StoredPreflight>| now < stored.until && stored.fingerprint == self.active.fingerprint;
        let mut kept = questions.iter().flatten().filter_map(|question| self.state.cache.preflights.get(question));
        let stored = kept.find(holds)?;
        let left = stored.until.saturating_duration_since(now).as_secs();
        Some((stored, Outcome::from_memory(Ending::Hit, i64::try_from(left).unwrap_or(i64::MAX))))
    }

    /// What would become of it, and why.
    pub(super) fn foresee_preflight(&self, now: Instant) -> (Outcome, &'static str) {
        if self.active.config.forward.host == HostRule::Client {
            let why = "it is passed on: what is said to one host is not for another (upstream.host = \"client\")";
            return (Outcome::forwarded(Ending::Pass, "bypass"), why);
        }
        let asks = || {
            let why = "nothing is kept that the upstream said to one like it: it is asked";
            (Outcome::forwarded(Ending::Pass, "uri-miss"), why)
        };
        self.answered_before(now).map_or_else(asks, |(_, outcome)| (outcome, "what the upstream said to one like it is kept"))
    }

    /// The request, from what the answer may depend on.
    fn shared_preflight(&self) -> Option<Request<Body>> {
        let mut request = self.active.own_request(self.head.uri.path(), &self.request_id, &self.client())?;
        *request.method_mut() = Method::OPTIONS;
        let fields = request.headers_mut();
        for name in DECIDE {
            if let Some(value) = self.head.headers.get(&name) {
                fields.insert(name, value.clone());
            }
        }
        Some(request)
    }

    async fn ask(&self, request: Request<Body>, now: Instant) -> Result<Response<Body>, UpstreamError> {
        let exchange = self.active.upstream.exchange();
        let response = self.active.upstream.send(request).await?;
        self.remember(response.map(|body| self.active.upstream.watch(body, exchange)), now).await
    }

    /// What is asked of this read, for whom.
    fn question(&self, origin: &str) -> Option<String> {
        let (.., resource) = canonical(self.head.uri.path())?;
        question(resource.read(), &self.head.headers, origin)
    }

    fn question_of_origin(&self) -> Option<String> {
        let origin = self.head.headers.get(header::ORIGIN)?.to_str().ok()?;
        self.question(origin)
    }

    async fn remember(&self, response: Response<Body>, now: Instant) -> Result<Response<Body>, UpstreamError> {
        let (head, body) = response.into_parts();
        let said = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let lasts = said(header::ACCESS_CONTROL_MAX_AGE).and_then(|seconds| seconds.trim().parse().ok());
        let lasts = Duration::from_secs(lasts.unwrap_or(0)).min(LONGEST_LIFE);
        let for_all = said(header::ACCESS_CONTROL_ALLOW_ORIGIN) == Some("*")
            && said(header::ACCESS_CONTROL_ALLOW_CREDENTIALS).is_none();
        let allows = said(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_some();
        let good = matches!(head.status, StatusCode::OK | StatusCode::NO_CONTENT);
        let kept = good
            && !varies_beyond(&head.headers, &DECIDE.each_ref().map(HeaderName::as_str))
            && !["no-store", "no-cache", "private"].iter().any(|name| has_directive(&head.headers, name));
        let for_all = for_all && !head.headers.contains_key(header::VARY);
        let question = if for_all { self.question("*") } else { self.question_of_origin() };
        let Some(question) = question.filter(|_| allows && kept && !lasts.is_zero()) else {
            return Ok(Response::from_parts(head, body));
        };
        let body = match read_at_most(body, LONGEST_BODY).await {
            Ok(Read::Whole(body)) => body,
            Ok(Read::Longer(body)) => return Ok(Response::from_parts(head, body)),
            Err(_) => return Err(UpstreamError::Incomplete),
        };
        let answer = Prepared::new(Received {
            status: head.status,
            head: head.headers.clone(),
            body: body.clone().into(),
            version: head.version,
            date: clock::http_date(),
            for_one_origin: true,
            has_codings: false,
        });
        let stored = StoredPreflight { answer, until: now + lasts, fingerprint: self.active.fingerprint };
        self.state.cache.preflights.insert(question, stored);
        Ok(Response::from_parts(head, Body::from(body)))
    }
}

/// What a preflight asks, for whom; none if it is too long to be remembered.
fn question(read: ReadKind, asked: &HeaderMap, origin: &str) -> Option<String> {
    let method = asked.get(header::ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok()?;
    let fields = match asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        Some(fields) => fields.to_str().ok()?,
        None => "",
    };
    Some(format!("{}\n{method}\n{fields}\n{origin}", read.label())).filter(|question| question.len() <= LONGEST_QUESTION)
}
