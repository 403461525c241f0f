//! The private listener: which room answers.

use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::health::{live, metrics, ready};
use super::purge::purge;
use crate::engine::body::Body;
use crate::engine::problem::problem;
use crate::state::State;

/// Answers a request on the private listener.
pub async fn handle(
    state: &Arc<State>,
    peer: SocketAddr,
    head: &Parts,
    body: Body,
) -> Response<Body> {
    let reads = head.method == Method::GET || head.method == Method::HEAD;
    match head.uri.path() {
        "/metrics" if reads => metrics(state),
        "/live" if reads => live(),
        "/ready" if reads => ready(state),
        "/purge" if head.method == Method::POST => purge(state, peer, head, body).await,
        "/metrics" | "/live" | "/ready" | "/purge" => {
            problem(StatusCode::METHOD_NOT_ALLOWED, "GET /metrics, /live, /ready; POST /purge", false)
        }
        _ => problem(StatusCode::NOT_FOUND, "there are /metrics, /live, /ready and /purge", false),
    }
}
