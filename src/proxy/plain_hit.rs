//! A plain hit: the same answer that [`handle`](super::handle::handle) gives, without what only other requests need. No head
//! is taken apart into fields and none is put together from them.
//!
//! Whatever is in doubt is left to `handle`, before anything was counted.

use std::time::Instant;

use http::{HeaderValue, Method, StatusCode};

use super::access_log::{Contact, Record};
use super::handle::is_sampled;
use super::outcome::Outcome;
use super::respond::{Form, form_of, ttl_left};
use crate::engine::clock;
use crate::engine::metrics::Ending;
use crate::engine::rates::Bucket;
use crate::engine::replicas::fleet::Fleet;
use crate::engine::requests::InFlight;
use crate::policy::http::client::{HostRule, Side, limited_as_told};
use crate::policy::http::encoding::negotiate_of;
use crate::policy::http::freshness::Use;
use crate::policy::http::headers::is_usable_request_id;
use crate::policy::http::key::Key;
use crate::policy::http::pieces::Pieces;
use crate::policy::http::plain_head::PlainHead;
use crate::policy::http::stored_head;
use crate::policy::resource::ReadKind;
use crate::state::State;
use crate::state::upstream::Active;

/// Room for the head of most answers.
const HEAD: usize = 1024;

/// An answer as HTTP/1.1 sends it.
pub struct PlainHit {
    /// Its head, to the empty line.
    pub head: Vec<u8>,
    /// Its body.
    pub body: Pieces,
    /// When its request came.
    pub began: Instant,
    /// The request's place, until the client has all of it.
    pub until_taken: InFlight,
}

/// The answer to a plain request, if it is a hit that is ready in the form asked for. It is counted and logged.
pub fn plain_hit(state: &State, side: Side, asked: &PlainHead<'_>) -> Option<PlainHit> {
    let active = state.active();
    if !are_plain(state, &active) {
        return None;
    }
    let key = Key::new(asked.inbox, asked.contact, None);
    let now = clock::now();
    let entry = state.cache.stored(&key, active.fingerprint)?;
    let (usable, lifetimes) = state.use_of(&active, &entry, now);
    let is_for_him = entry.answer.is_for_all_origins() || !asked.has_origin;
    if usable != Use::Hit || !is_for_him {
        return None;
    }
    let answer = &entry.answer;
    let not_modified = asked.if_none_match.is_some_and(|list| answer.is_held_as(list));
    let accepted = negotiate_of(asked.accept_encoding, &active.config.encoding.offer);
    let (coding, body) = match form_of(&entry, accepted, active.config.encoding.min_size, |_| not_modified) {
        Form::AsKept => (answer.body.coding(), answer.body.kept().clone()),
        Form::Made(coding, body) => (coding, body),
        Form::ToBeMade(..) => return None,
    };
    let client = limited_as_told(asked.forwarded_for, side.peer, &active.config.forward.trusted);
    let until_taken = state.requests.begin(client).ok()?;
    active.rates.take(Bucket::Hits, || client).ok()?;

    let own_id = asked.request_id.filter(|id| is_usable_request_id(id)).and_then(|id| HeaderValue::from_bytes(id).ok());
    let request_id = own_id.unwrap_or_else(|| state.observation.request_id());
    let log = &active.config.log;
    let mut record = Record::begun(state, log, Method::GET, request_id.clone(), now);
    record.came_from(log.client, side.peer, &state.observation);
    record.asks_for(ReadKind::Conversations.label(), Some(Contact::Of(key)));
    let age = entry.age(now);
    state.metrics.answer_age.observe(age.as_secs_f64());
    let outcome = Outcome::from_memory(Ending::Hit, ttl_left(&entry, &lifetimes, now));

    let status = if not_modified { StatusCode::NOT_MODIFIED } else { answer.status };
    let body = if not_modified { Pieces::default() } else { body };
    let bytes = body.len();
    let cors = answer.is_for_all_origins() && asked.has_origin;
    let mut head = Vec::with_capacity(HEAD);
    begin_head(status, &mut head);
    answer.write_head(stored_head::Form { coding, cors, not_modified }, &mut head);
    let length = (!not_modified).then_some(bytes);
    end_head(age.as_secs(), &outcome, request_id.as_bytes(), length, &mut head);
    record.sent(status, &outcome, is_sampled(state, &active, &outcome), bytes);
    Some(PlainHit { head, body, began: now, until_taken })
}

fn begin_head(status: StatusCode, head: &mut Vec<u8>) {
    for part in ["HTTP/1.1 ", status.as_str(), " ", status.canonical_reason().unwrap_or_default(), "\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
}

/// What is said anew each time.
fn end_head(age: u64, outcome: &Outcome, request_id: &[u8], length: Option<usize>, head: &mut Vec<u8>) {
    head.extend_from_slice(b"age: ");
    head.extend_from_slice(itoa::Buffer::new().format(age).as_bytes());
    head.extend_from_slice(b"\r\ncache-status: ");
    outcome.tell(head);
    head.extend_from_slice(b"\r\nx-request-id: ");
    head.extend_from_slice(request_id);
    if let Some(length) = length {
        head.extend_from_slice(b"\r\ncontent-length: ");
        head.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    }
    head.extend_from_slice(b"\r\n\r\n");
}

/// Whether hits are but hits: nobody watches who asks, traces, or audits, and neither the answers nor the host that was
/// asked have a say in what is one.
fn are_plain(state: &State, active: &Active) -> bool {
    let config = &active.config;
    let takes_webhooks_here = config.webhook.are_received() && config.webhook.path.starts_with("/public/");
    config.origin.is_none()
        && config.forward.host != HostRule::Client
        && config.audit_share <= 0.0
        && !takes_webhooks_here
        && state.spans.is_none()
        && !state.observation.top.is_watched()
        // Before the store and the ledger are looked at; who has no lease may get one by asking for it.
        && state.invalidation.fleet.as_deref().is_none_or(Fleet::is_leased)
}
