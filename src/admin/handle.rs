//! The private listener: which room answers.

use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};

use super::explain::explain;
use super::health::{live, metrics, ready};
use super::page;
use super::purge::purge;
use super::status::status;
use super::top::top;
use crate::engine::body::Body;
use crate::engine::problem::problem;
use crate::policy::http::private::{Foreign, foreign};
use crate::state::State;

/// What is there, for whoever asks for something else.
const THERE: &str = "GET /, /status, /top, /metrics, /live, /ready, /docs/operating.md; POST /purge, /explain";

/// Answers a request on the private listener.
pub async fn handle(
    state: &Arc<State>,
    peer: SocketAddr,
    head: &Parts,
    body: Body,
) -> Response<Body> {
    let path = head.uri.path();
    // Prometheus and probes ask by any name; whoever purges and explains has the token.
    let is_for_programs = matches!(path, "/metrics" | "/live" | "/ready" | "/purge" | "/explain");
    let mut response = match foreign(head).filter(|_| !is_for_programs) {
        Some(why) => refuse(why),
        None => answer(state, peer, head, body).await,
    };
    let headers = response.headers_mut();
    // What is told here concerns this moment, and nobody's pages but our own.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

async fn answer(state: &Arc<State>, peer: SocketAddr, head: &Parts, body: Body) -> Response<Body> {
    let reads = head.method == Method::GET || head.method == Method::HEAD;
    let path = head.uri.path();
    match path {
        "/status" if reads => status(state, head),
        "/top" if head.method == Method::GET => top(state, head).await,
        "/metrics" if reads => metrics(state, head),
        "/live" if reads => live(),
        "/ready" if reads => ready(state),
        "/purge" if head.method == Method::POST => purge(state, peer, head, body).await,
        "/explain" if head.method == Method::POST => explain(state, peer, head, body).await,
        "/status" | "/metrics" | "/live" | "/ready" => not_allowed("GET, HEAD"),
        "/top" => not_allowed("GET"),
        "/purge" | "/explain" => not_allowed("POST"),
        _ => match page::file(path) {
            Some(file) if reads => page::answer(file, head),
            Some(_) => not_allowed("GET, HEAD"),
            None => problem(StatusCode::NOT_FOUND, &format!("there are {THERE}"), false),
        },
    }
}

/// The answer to whoever may be a page of another site.
fn refuse(why: Foreign) -> Response<Body> {
    match why {
        Foreign::Name => {
            let detail = "that name may be anybody's: ask by an address, or as localhost; a proxy in between sends Host: localhost";
            problem(StatusCode::MISDIRECTED_REQUEST, detail, false)
        }
        Foreign::Site => problem(StatusCode::FORBIDDEN, "a page of another site asks for this", false),
    }
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, THERE, false);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}
