//! The request path, from the top: what a request is, and which room answers it.

use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, header};

use super::access_log::Record;
use super::outcome::Outcome;
use super::request::{Answered, ClientRequest};
use crate::engine::body::Body;
use crate::engine::metrics::Ending;
use crate::policy::http::headers::{self, usable_request_id};
use crate::policy::http::route::{Refusal, Route, Rules, classify};
use crate::state::State;

/// Answers a request.
pub async fn handle(state: Arc<State>, peer: SocketAddr, request: Request<Body>) -> Response<Body> {
    let active = state.active();
    let (head, body) = request.into_parts();
    let request_id = usable_request_id(&head.headers).unwrap_or_else(|| state.observation.request_id());
    let mut record = Record::begin(state.metrics.clone(), head.method.clone(), request_id.clone());
    if let Some(trace_id) = headers::trace_id(&head.headers) {
        record.belongs_to(trace_id);
    }
    let config = &active.config;
    let webhooks = config.webhook.are_received().then_some(&*config.webhook.path);
    let rules = Rules { query: config.query, credentials: config.credentials, webhooks };
    let goes_round = || active.instance.has_passed(&head.headers).then_some(Refusal::Loop);
    let route = match refuse_host(&head).or_else(goes_round) {
        Some(refusal) => Route::Refuse(refusal),
        None => classify(&head.method, &head.uri, &head.headers, rules),
    };
    if let Route::List(key) | Route::Bypass(key, _) = &route {
        record.about(state.observation.pseudonym(key));
    }
    let received = record.received();
    let mut request =
        ClientRequest { state: state.clone(), active: active.clone(), head, body: Some(body), peer, request_id, received };
    let (response, outcome) = match route {
        Route::List(key) => request.list(key).await,
        Route::Bypass(key, reason) => request.bypass(&key, reason).await,
        Route::Write(targets) => request.write(targets).await,
        Route::Webhook => request.webhook().await,
        Route::Preflight => request.preflight().await,
        Route::Tunnel => request.tunnel().await,
        Route::Pass(source) => request.pass(source).await,
        Route::Refuse(refusal) => request.refuse(refusal),
    };
    let is_hit = matches!(outcome.ending, Ending::Hit | Ending::Stale);
    let logged = !is_hit || state.observation.sampler.takes(active.config.log.hits);
    record.end(response, &outcome, logged)
}

/// RFC 9112 section 3.2: exactly one `Host`; before HTTP/1.1 it could be left out.
fn refuse_host(head: &Parts) -> Option<Refusal> {
    let hosts = head.headers.get_all(header::HOST).iter().count();
    let wrong = if head.version < http::Version::HTTP_11 { hosts > 1 } else { hosts != 1 };
    wrong.then_some(Refusal::Host)
}

impl ClientRequest {
    fn refuse(&self, refusal: Refusal) -> Answered {
        let (status, detail, word) = match refusal {
            Refusal::Method => (StatusCode::METHOD_NOT_ALLOWED, "CONNECT and TRACE are not served", "method"),
            Refusal::Host => (StatusCode::BAD_REQUEST, "a request has exactly one Host field", "host"),
            Refusal::NoWebhook => (StatusCode::METHOD_NOT_ALLOWED, "webhooks are sent here with POST", "method"),
            Refusal::Loop => (StatusCode::LOOP_DETECTED, "upstream.url leads back to this proxy", "loop"),
        };
        let mut response = self.problem(status, detail);
        let allowed = match refusal {
            Refusal::Method => Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            Refusal::NoWebhook => Some("POST"),
            Refusal::Host | Refusal::Loop => None,
        };
        if let Some(allowed) = allowed {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        (response, Outcome::own(Ending::Refused).detail(word))
    }
}
