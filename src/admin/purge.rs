//! `POST /purge`: answers are forgotten on demand.

use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;

use crate::engine::body::Body;
use crate::engine::metrics::InvalidationSource;
use crate::engine::problem::problem;
use crate::policy::coherence::ledger::Scope;
use crate::state::State;

/// The most a purge may say, in bytes.
const PURGE_BODY: usize = 16 * 1024;

/// How long it may take to say it.
const PURGE_LIMIT: Duration = Duration::from_secs(10);

/// What is to be purged: one of the three.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    contact: Option<String>,
    inbox: Option<String>,
    #[serde(default)]
    all: bool,
}

/// Outdates what is named. A million answers take as long as one: nothing is looked for or removed.
pub(super) async fn purge(state: &State, head: &Parts, body: UnsyncBoxBody<Bytes, hyper::Error>) -> Response<Body> {
    let active = state.active();
    let Some(token) = &active.config.admin.token else {
        return problem(StatusCode::FORBIDDEN, "purge is off: set admin.token", false);
    };
    let given = head.headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    let is_bearer = given.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
    if !is_bearer || !token.verify(given[7..].trim_ascii()) {
        let mut response = problem(StatusCode::UNAUTHORIZED, "purge needs the bearer token of admin.token", false);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    let reading = tokio::time::timeout(PURGE_LIMIT, Limited::new(body, PURGE_BODY).collect());
    let Ok(Ok(body)) = reading.await else {
        return problem(StatusCode::PAYLOAD_TOO_LARGE, "a purge is at most 16 KiB, sent within 10 s", false);
    };
    match serde_json::from_slice(&body.to_bytes()) {
        Ok(Purge { contact: Some(contact), inbox: None, all: false }) => {
            state.invalidation.ledger.invalidate(state.invalidation.ledger.place(&Scope::Source(&contact)));
        }
        Ok(Purge { contact: None, inbox: Some(inbox), all: false }) => {
            state.invalidation.ledger.invalidate(state.invalidation.ledger.place(&Scope::Inbox(&inbox)));
        }
        Ok(Purge { contact: None, inbox: None, all: true }) => {
            state.invalidation.ledger.invalidate_all();
        }
        _ => {
            let detail = r#"say one of {"contact": "..."}, {"inbox": "..."}, {"all": true}"#;
            return problem(StatusCode::BAD_REQUEST, detail, false);
        }
    }
    state.metrics.invalidated(InvalidationSource::Purge);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
