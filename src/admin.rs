//! Private listener: `/metrics`, `/live`, `/ready`, and `POST /purge`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;

use crate::engine::body::Body;
use crate::engine::clock;
use crate::engine::metrics::ToldBy;
use crate::outcome::problem;
use crate::policy::ledger::Scope;
use crate::policy::secret::Secret;
use crate::room::Room;

/// What the private listener obeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// `admin.token`: the bearer token of `POST /purge`; without it purge is off.
    pub token: Option<Secret>,
}

/// The most a purge may say, in bytes.
const PURGE_BODY: usize = 16 * 1024;

/// How long it may take to say it.
const PURGE_LIMIT: Duration = Duration::from_secs(10);

/// Answers a request on the private listener.
pub async fn handle(room: &Room, head: &Parts, body: UnsyncBoxBody<Bytes, hyper::Error>) -> Response<Body> {
    let reads = head.method == Method::GET || head.method == Method::HEAD;
    match head.uri.path() {
        "/metrics" if reads => metrics(room),
        "/live" if reads => text(StatusCode::OK, "live\n"),
        "/ready" if reads => ready(room),
        "/purge" if head.method == Method::POST => purge(room, head, body).await,
        "/metrics" | "/live" | "/ready" | "/purge" => {
            problem(StatusCode::METHOD_NOT_ALLOWED, "GET /metrics, /live, /ready; POST /purge", false)
        }
        _ => problem(StatusCode::NOT_FOUND, "there are /metrics, /live, /ready and /purge", false),
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn ready(room: &Room) -> Response<Body> {
    if room.ready.load(Ordering::Acquire) {
        // Without events lists are only fetched more often: no reason to take no requests.
        match room.silent_for(clock::now()) {
            Some(silent) => {
                let silent = format!("ready\nwebhooks are silent: one was due {} s ago\n", silent.as_secs());
                text(StatusCode::OK, silent)
            }
            None => text(StatusCode::OK, "ready\n"),
        }
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    }
}

/// Sizes are read when they are asked for, not kept up on the request path.
fn metrics(room: &Room) -> Response<Body> {
    let metrics = &room.metrics;
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let (entries, bytes) = room.store.size();
    metrics.cache_entries.set(signed(entries));
    metrics.cache_bytes.set(signed(bytes));
    metrics.body_bytes.set(signed(room.memory.held()));
    metrics.flights.set(signed(room.flights.under_way() as u64));
    metrics.webhooks_silent.set(i64::from(room.silent_for(clock::now()).is_some()));
    metrics.ready.set(i64::from(room.ready.load(Ordering::Acquire)));
    let mut response = Response::new(Body::from(Bytes::from(metrics.render())));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

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
async fn purge(room: &Room, head: &Parts, body: UnsyncBoxBody<Bytes, hyper::Error>) -> Response<Body> {
    let live = room.live();
    let Some(token) = &live.config.admin.token else {
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
            room.ledger.outdate(room.ledger.place(&Scope::Source(&contact)));
        }
        Ok(Purge { contact: None, inbox: Some(inbox), all: false }) => {
            room.ledger.outdate(room.ledger.place(&Scope::Inbox(&inbox)));
        }
        Ok(Purge { contact: None, inbox: None, all: true }) => {
            room.ledger.outdate_everything();
        }
        _ => {
            let detail = r#"say one of {"contact": "..."}, {"inbox": "..."}, {"all": true}"#;
            return problem(StatusCode::BAD_REQUEST, detail, false);
        }
    }
    room.metrics.outdated(ToldBy::Purge);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
