//! `/metrics`, `/live` and `/ready`.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};

use super::reply;
use crate::engine::body::Body;
use crate::engine::clock;
use crate::engine::replicas::fleet::{Fleet, Standing};
use crate::policy::http::exposition::Exposition;
use crate::state::State;

/// The process answers.
pub(super) fn live() -> Response<Body> {
    text(StatusCode::OK, "live\n")
}

/// Whether requests are to be sent here.
pub(super) fn ready(state: &State) -> Response<Body> {
    if state.lifecycle.ready.load(Ordering::Acquire) {
        let fleet = state.invalidation.fleet.as_deref();
        if fleet.is_some_and(Fleet::is_joining) {
            return text(StatusCode::SERVICE_UNAVAILABLE, "joining the other replicas\n");
        }
        if fleet.is_some_and(Fleet::refuses_writes) {
            return text(StatusCode::SERVICE_UNAVAILABLE, "Redis gives no answer: writes are refused\n");
        }
        let replicas = fleet.map_or_else(String::new, |fleet| match fleet.standing() {
            Standing::Alone => "replicas: Redis gives no answer, every list is fetched\n".to_owned(),
            Standing::Disagrees => "replicas: the others have another replicas.secret, mode or lease\n".to_owned(),
            standing => format!("replicas: {}, {} of them\n", standing.label(), fleet.members()),
        });
        // Without events lists are only fetched more often: no reason to take no requests.
        match state.silent_for(clock::now()) {
            Some(silent) => {
                let silent = format!("ready\n{replicas}webhooks are silent: one was due {} s ago\n", silent.as_secs());
                text(StatusCode::OK, silent)
            }
            None => text(StatusCode::OK, format!("ready\n{replicas}")),
        }
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    }
}

/// The metrics, in the format that is asked for.
pub(super) fn metrics(state: &State, head: &Parts) -> Response<Body> {
    read_sizes(state);
    let format = Exposition::asked_for(&head.headers);
    reply::long_text(head, format.content_type(), state.metrics.render(format))
}

/// Sizes are read when they are asked for, not kept up on the request path.
pub(super) fn read_sizes(state: &State) {
    let metrics = &state.metrics;
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let ((lists, of_lists), (others, of_others)) = (state.cache.store.size(), state.cache.responses.size());
    metrics.cache_entries.set(signed(lists + others));
    metrics.cache_bytes.set(signed(of_lists + of_others));
    metrics.body_bytes.set(signed(state.cache.memory.held()));
    metrics.flights.set(signed((state.cache.flights.under_way() + state.cache.fetches.under_way()) as u64));
    metrics.limits.requests_in_flight.set(signed(state.requests.under_way() as u64));
    metrics.webhooks_silent.set(i64::from(state.silent_for(clock::now()).is_some()));
    metrics.ready.set(i64::from(state.lifecycle.ready.load(Ordering::Acquire)));
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = reply::text("text/plain; charset=utf-8", text);
    *response.status_mut() = status;
    response
}
