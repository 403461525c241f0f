//! `POST /explain`: why a request is answered from memory, or is not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde_json::{Value, json};

use super::reply::{self, seconds};
use super::token;
use crate::engine::body::Body;
use crate::engine::clock;
use crate::engine::problem::problem;
use crate::policy::http::client::{Protocol, Side};
use crate::policy::http::encoding::Coding;
use crate::policy::http::freshness::Freshness;
use crate::policy::http::typed;
use crate::proxy::explain::{Change, Explained, Kept, explain as explain_request};
use crate::state::State;

/// The most a question may say, in bytes: as long as a head may be, and a little more.
const LONGEST: usize = 72 * 1024;
/// How long it may take to say it.
const LIMIT: Duration = Duration::from_secs(10);

/// A request that somebody wants explained.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    method: String,
    path: String,
    /// Lines such as `Cookie: a=b`.
    #[serde(default)]
    headers: Vec<String>,
}

/// Explains the request that is named.
pub(super) async fn explain(state: &Arc<State>, peer: SocketAddr, head: &Parts, body: Body) -> Response<Body> {
    if let Some(refused) = token::refuse(state, head, "explain") {
        return refused;
    }
    let reading = tokio::time::timeout(LIMIT, Limited::new(body, LONGEST).collect());
    let Ok(Ok(body)) = reading.await else {
        return problem(StatusCode::PAYLOAD_TOO_LARGE, "a question is at most 72 KiB, sent within 10 s", false);
    };
    let Ok(asked) = serde_json::from_slice::<Asked>(&body.to_bytes()) else {
        let detail = r#"say {"method": "GET", "path": "/...", "headers": ["Name: value"]}"#;
        return problem(StatusCode::BAD_REQUEST, detail, false);
    };
    match typed::head(&asked.method, &asked.path, &asked.headers) {
        Ok(asked) => {
            let side = Side { peer: peer.ip(), protocol: Protocol::Http };
            reply::text("application/json", document(state, &explain_request(state, side, asked)).to_string())
        }
        Err(what) => problem(StatusCode::BAD_REQUEST, what, false),
    }
}

fn document(state: &State, explained: &Explained) -> Value {
    let Explained { told, key, kept, changes, is_under_way, is_left_alone, outcome, why } = explained;
    let pseudonyms = &state.observation.pseudonyms;
    let key = key.as_ref().map(|key| {
        json!({
            "inbox": format!("{:016x}", pseudonyms.inbox(key.inbox())),
            "contact": format!("{:016x}", pseudonyms.contact(key.inbox(), key.contact())),
            "made_of": told.key,
        })
    });
    let forgotten = state.invalidation.causes.reach_back_to();
    let remembered = state.invalidation.epoch.time_since(forgotten, clock::now());
    json!({
        "kind": told.kind,
        "rule": told.rule,
        "key": key,
        "kept": kept.as_ref().map(of_kept),
        "changes": changes.iter().map(of_change).collect::<Vec<_>>(),
        "changes_remembered_s": seconds(remembered),
        "under_way": is_under_way,
        "upstream_left_alone": is_left_alone,
        "now": {
            "outcome": outcome.ending.label(),
            "cache_status": outcome.field().to_str().unwrap_or_default(),
            "why": why,
        },
    })
}

fn of_kept(kept: &Kept) -> Value {
    let form = |(coding, bytes): &(Coding, usize)| json!({ "coding": coding.name(), "bytes": bytes });
    let freshness = match kept.freshness {
        Freshness::Fresh => "fresh",
        Freshness::Stale => "stale",
        Freshness::OnlyOnError => "only_on_error",
        Freshness::TooOld => "too_old",
    };
    json!({
        "status": kept.status.as_u16(),
        "bytes": kept.bytes,
        "kept_as": kept.packed.as_ref().map(form),
        "forms": kept.forms.iter().map(form).collect::<Vec<_>>(),
        "age_s": seconds(kept.age),
        "age_from_upstream_s": seconds(kept.initial_age),
        "ttl_s": seconds(kept.ttl),
        "ttl_left_s": kept.ttl_left,
        "served_until_s": seconds(kept.served_until),
        "stands_in_until_s": seconds(kept.stands_in_until),
        "freshness": freshness,
        "fetched_soon_after_a_write": kept.is_unsettled,
        "refetch_failed": kept.refetch_failed,
        "current": kept.changes.is_empty(),
        "out_of_date_by": kept.changes.iter().map(of_change).collect::<Vec<_>>(),
    })
}

fn of_change(change: &Change) -> Value {
    json!({
        "what": change.what,
        "by": change.by.map(|(cause, _)| cause.label()),
        "words": change.by.map(|(cause, _)| cause.words()),
        "ago_s": change.by.map(|(_, ago)| seconds(ago)),
    })
}
