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
    let reads = head.method == Method::GET || head.method == Method::HEAD;
    let path = head.uri.path();
    let mut response = match path {
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
    };
    let headers = response.headers_mut();
    // What is told here concerns this moment, and nobody's pages but our own.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, THERE, false);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}
