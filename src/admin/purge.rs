//! `POST /purge`: answers are forgotten on demand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;

use super::purging::{self, Purge, Purged};
use super::{reply, token};
use crate::engine::body::Body;
use crate::engine::problem::problem;
use crate::policy::http::key::is_identifier;
use crate::state::State;

/// The most a purge may say, in bytes.
const PURGE_BODY: usize = 16 * 1024;

/// How long it may take to say it.
const PURGE_LIMIT: Duration = Duration::from_secs(10);

/// The most contacts that a log line or an answer names by their hashes.
const NAMED: usize = 16;

/// What is to be purged: one of the three.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    contact: Option<String>,
    inbox: Option<String>,
    #[serde(default)]
    all: bool,
}

impl Asked {
    /// The word for it, and what it is; `None` if it is not one of the three.
    fn what(&self) -> Option<(&'static str, Purge<'_>)> {
        match (&self.contact, &self.inbox, self.all) {
            (Some(contact), None, false) => Some(("contact", Purge::Contact(contact))),
            (None, Some(inbox), false) => Some(("inbox", Purge::Inbox(inbox))),
            (None, None, true) => Some(("all", Purge::All)),
            _ => None,
        }
    }
}

/// Forgets what is named, and tells what that was.
pub(super) async fn purge(
    state: &Arc<State>,
    peer: SocketAddr,
    head: &Parts,
    body: Body,
) -> Response<Body> {
    if let Some(refused) = token::refuse(state, head, "purge") {
        return refused;
    }
    let reading = tokio::time::timeout(PURGE_LIMIT, Limited::new(body, PURGE_BODY).collect());
    let Ok(Ok(body)) = reading.await else {
        return problem(StatusCode::PAYLOAD_TOO_LARGE, "a purge is at most 16 KiB, sent within 10 s", false);
    };
    let asked: Option<Asked> = serde_json::from_slice(&body.to_bytes()).ok();
    let Some((asked, word)) = asked.and_then(|asked| asked.what().map(|(word, _)| word).map(|word| (asked, word))) else {
        let detail = r#"say one of {"contact": "..."}, {"inbox": "..."}, {"all": true}"#;
        return problem(StatusCode::BAD_REQUEST, detail, false);
    };
    if [&asked.contact, &asked.inbox].into_iter().flatten().any(|name| !is_identifier(name)) {
        let detail = "that is no identifier: it is one step of a path, decoded, such as what follows /contacts/";
        return problem(StatusCode::BAD_REQUEST, detail, false);
    }
    // It looks at everything that is kept: not by a thread that serves others.
    let (everything, before) = (state.clone(), state.invalidation.ticket());
    let purging = tokio::task::spawn_blocking(move || asked.what().map(|(_, what)| purging::purge(&everything, what)));
    let Ok(Some(purged)) = purging.await else {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "the purge did not end", false);
    };
    let told = state.invalidation.told_since(before).await;
    tell(word, peer, &purged, told)
}

/// What was found is logged and answered: by hashes, never by name.
fn tell(what: &'static str, peer: SocketAddr, purged: &Purged, told: bool) -> Response<Body> {
    let Purged { lists, bytes, fetches, contacts } = purged;
    let hashes: Vec<String> = contacts.iter().take(NAMED).map(|hash| format!("{hash:016x}")).collect();
    let (by, count) = (peer.ip(), contacts.len());
    tracing::info!(what, %by, lists, bytes, fetches, contacts = count, contact = hashes.join(" "), "purged");
    if what != "all" && purged.is_nothing() {
        let detail = format!("nothing is known of this {what} here: neither a list nor a fetch under way");
        return problem(StatusCode::NOT_FOUND, &detail, false);
    }
    let mut answer = serde_json::json!({
        "purged": what, "lists": lists, "bytes": bytes, "fetches": fetches, "contacts": count, "contact": hashes,
    });
    if !told {
        // The other replicas hear of it as soon as Redis answers.
        answer["told"] = false.into();
    }
    reply::text("application/json", answer.to_string())
}
