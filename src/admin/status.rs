//! `/status`: what the status page shows, as JSON. `docs/status.md` explains each name.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Instant, UNIX_EPOCH};

use http::request::Parts;
use http::Response;
use serde_json::{Value, json};

use super::health::read_sizes;
use super::reply::{self, seconds};
use crate::config::InForce;
use crate::engine::body::Body;
use crate::engine::build_info::{COMMIT, VERSION};
use crate::engine::clock;
use crate::engine::metrics::{Figures, WebhookResult};
use crate::policy::coherence::watermark::Events;
use crate::state::State;

/// The form of this document. A name that goes, or means something else, makes it the next one; names may come.
const FORMAT: u32 = 1;

/// The document.
pub(super) fn status(state: &State, head: &Parts) -> Response<Body> {
    reply::long_text(head, "application/json", document(state, clock::now()).to_string())
}

fn document(state: &State, now: Instant) -> Value {
    read_sizes(state);
    let figures = &state.metrics.figures();
    let uptime = state.observation.uptime(now);
    let started = clock::wall().checked_sub(uptime).and_then(|started| started.duration_since(UNIX_EPOCH).ok());
    json!({
        "format": FORMAT,
        "version": VERSION,
        "commit": COMMIT,
        "started": started.unwrap_or_default().as_secs(),
        "uptime_s": seconds(uptime),
        "ready": state.lifecycle.ready.load(Ordering::Acquire),
        "requests": figures.by("anteroom_requests_total", "outcome"),
        "latency": latency(figures, "anteroom_request_duration_seconds", "outcome"),
        "in_flight": in_flight(figures),
        "limits_reached": not_zero(figures.by("anteroom_limit_reached_total", "limit")),
        "cache": cache(figures),
        "not_shared": figures.by("anteroom_cache_bypass_total", "reason"),
        "fetches": fetches(figures),
        "out_of_date_by": figures.by("anteroom_invalidations_total", "source"),
        "upstream": upstream(state, figures, now),
        "webhooks": webhooks(state, figures, now),
        "replicas": replicas(state, figures),
        "contract": contract(figures),
        "log_lines_lost": figures.sum("anteroom_log_lines_dropped_total"),
        "panics": figures.sum("anteroom_panics_total"),
        "settings": settings(state),
    })
}

fn not_zero(counts: BTreeMap<&str, u64>) -> BTreeMap<&str, u64> {
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// A histogram by label: the bounds once, then the counts of each.
fn latency(figures: &Figures, name: &str, label: &str) -> Value {
    let of_each = figures.distributions(name, label);
    let bounds = of_each.values().next().map(|first| first.bounds.clone()).unwrap_or_default();
    let counts: BTreeMap<&str, &[u64]> = of_each.iter().map(|(value, told)| (*value, &*told.counts)).collect();
    json!({ "bounds_s": bounds, "counts": counts })
}

fn in_flight(figures: &Figures) -> Value {
    json!({
        "requests": figures.sum("anteroom_requests_in_flight"),
        "connections": figures.by("anteroom_connections", "listener").get("public"),
        "tunnels": figures.sum("anteroom_tunnels"),
        "waiters": figures.sum("anteroom_waiters"),
        "limits": figures.by("anteroom_limit", "of"),
    })
}

fn cache(figures: &Figures) -> Value {
    let limits = figures.by("anteroom_limit", "of");
    json!({
        "entries": figures.sum("anteroom_cache_entries"),
        "bytes": figures.sum("anteroom_cache_bytes"),
        "limit_bytes": limits.get("cache_bytes"),
        "body_bytes": figures.sum("anteroom_body_bytes"),
        "body_limit_bytes": limits.get("body_bytes"),
        "evictions": figures.by("anteroom_cache_evictions_total", "cause"),
        "stale_if_error": figures.sum("anteroom_stale_if_error_total"),
    })
}

fn fetches(figures: &Figures) -> Value {
    json!({
        "under_way": figures.sum("anteroom_flights"),
        "ends": figures.by("anteroom_flight_ends_total", "end"),
        "no_lists": not_zero(figures.by("anteroom_no_lists_total", "likely")),
    })
}

fn upstream(state: &State, figures: &Figures, now: Instant) -> Value {
    let active = state.active();
    let (base, health) = (active.upstream.base(), active.upstream.health());
    let trouble = health.trouble();
    let since = |at: Instant| seconds(now.saturating_duration_since(at));
    json!({
        // What is below its host is nobody's business who looks at pages.
        "address": format!("{}://{}", base.scheme, base.authority),
        "requests": figures.by("anteroom_upstream_requests_total", "result"),
        "latency": latency(figures, "anteroom_upstream_duration_seconds", "phase"),
        "in_flight": figures.sum("anteroom_upstream_in_flight"),
        "errors": not_zero(figures.by("anteroom_upstream_errors_total", "class")),
        "spared": figures.by("anteroom_upstream_spared_total", "why"),
        "addresses": figures.by("anteroom_upstream_addresses", "state"),
        "left_alone": figures.sum("anteroom_upstream_breaker_open") > 0,
        "failing_for_s": trouble.as_ref().and_then(|trouble| trouble.failing_since).map(since),
        "last_error": trouble.map(|trouble| json!({
            "words": trouble.words,
            "class": trouble.class,
            "status": trouble.status.map(|status| status.as_u16()),
            "ago_s": since(trouble.at),
        })),
    })
}

fn webhooks(state: &State, figures: &Figures, now: Instant) -> Value {
    let events = match state.events(&state.active(), now) {
        None => "off",
        Some(Events::Unknown) => "none_yet",
        Some(Events::Arriving) => "arriving",
        Some(Events::Silent { .. }) => "silent",
    };
    let counts = figures.by("anteroom_webhooks_total", "result");
    let since = |result: WebhookResult| state.observation.since_webhook(result, now);
    let results: BTreeMap<&str, Value> = WebhookResult::ALL
        .iter()
        .map(|&result| {
            let (word, ago) = (result.label(), since(result).map(seconds));
            (word, json!({ "count": counts.get(word).copied().unwrap_or_default(), "ago_s": ago }))
        })
        .collect();
    let genuine = WebhookResult::ALL.iter().copied().filter(|result| result.is_genuine()).filter_map(since).min();
    json!({
        "state": events,
        "silent_for_s": state.silent_for(now).map(seconds),
        "last_ago_s": genuine.map(seconds),
        "results": results,
        "events": not_zero(figures.by("anteroom_webhooks_total", "event")),
        "overheard": figures.by("anteroom_cable_messages_total", "result"),
    })
}

fn replicas(state: &State, figures: &Figures) -> Option<Value> {
    let fleet = state.invalidation.fleet.as_deref()?;
    Some(json!({
        "state": fleet.standing().label(),
        "members": fleet.members(),
        "failures": not_zero(figures.by("anteroom_replicas_exchange_failures_total", "reason")),
        "untold": figures.sum("anteroom_writes_untold_total"),
        "began_anew": not_zero(figures.by("anteroom_epochs_total", "cause")),
        "alone_reads": figures.sum("anteroom_alone_reads_total"),
    }))
}

fn contract(figures: &Figures) -> Value {
    let violations = figures.by_both("anteroom_payload_violations_total", ["field", "kind"]);
    let violations = violations.into_iter().map(|([field, kind], count)| {
        json!({ "field": field, "kind": kind, "count": count })
    });
    json!({
        "lists": figures.by("anteroom_payload_lists_total", "result"),
        "violations": violations.collect::<Vec<_>>(),
        "unknown_keys": figures.sum("anteroom_payload_unknown_keys_total"),
    })
}

fn settings(state: &State) -> Vec<Value> {
    let told = |setting: &InForce| {
        json!({
            "name": setting.name,
            "value": setting.value,
            "origin": setting.origin,
            "after_restart": setting.after_restart,
        })
    };
    state.settings().iter().map(told).collect()
}
