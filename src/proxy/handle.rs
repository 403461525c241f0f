//! The request path, from the top: what a request is, and which room answers it.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, header};

use super::access_log::{Contact, Record};
use super::outcome::Outcome;
use super::request::{Answered, ClientRequest};
use crate::engine::body::Body;
use crate::engine::clock;
use crate::engine::metrics::Ending;
use crate::policy::http::client::Side;
use crate::policy::http::headers::{self, usable_request_id};
use crate::policy::http::route::{Refusal, Route, Target};
use crate::policy::http::route_name;
use crate::policy::http::route_words::{Refused, refused};
use crate::state::State;
use crate::state::observation::Pseudonyms;
use crate::state::upstream::Active;

/// Answers a request.
pub async fn handle(state: Arc<State>, side: impl Into<Side>, request: Request<Body>) -> Response<Body> {
    let side = side.into();
    let active = state.active();
    let (mut head, body) = request.into_parts();
    let request_id = usable_request_id(&head.headers).unwrap_or_else(|| state.observation.request_id());
    let log = &active.config.log;
    let mut record = Record::begin(&state, log, head.method.clone(), request_id.clone());
    record.came_from(log.client, side.peer, &state.observation);
    // What goes on names the span of this request, if it gets one.
    let traced = state.spans.as_ref().and_then(|spans| spans.begin(&mut head.headers));
    if traced.is_some() {
        record.is_traced(traced.clone());
    }
    if let Some(trace_id) = headers::trace_id(&head.headers) {
        record.belongs_to(trace_id);
    }
    let route = active.route(&head);
    record.asks_for(name_of(&route, head.uri.path()), contact_of(&route, &state.observation.pseudonyms));
    if state.observation.top.is_watched()
        && let Some(source) = source_of(&route)
    {
        record.is_watched_as(&state.observation, source);
    }
    let tally = record.tally();
    let request =
        ClientRequest { state: state.clone(), active: active.clone(), head, body: Some(body), side, request_id, tally, traced, alone: None };
    let begun = state.requests.begin(request.limited_as());
    let full = begun.as_ref().err().copied();
    let (response, outcome) = match (request.beyond_limits(&route, full), route) {
        (Some(refused), _) => refused,
        (None, Route::Read(key)) => request.list(key, record.began()).await,
        (None, Route::Cached(key)) => request.cached(key, record.began()).await,
        (None, route) => request.answer(route, &record).await,
    };
    let sampled = is_sampled(&state, &active, &outcome);
    if let Some(limit) = outcome.limit {
        state.metrics.limits.reached(limit);
    }
    let response = record.end(response, &outcome, sampled);
    match begun {
        Ok(begun) => response.map(|body| body.with_end_of(begun)),
        Err(_) => response,
    }
}

/// Whether a request gets its access line: it is in the share of its kind.
pub(super) fn is_sampled(state: &State, active: &Active, outcome: &Outcome) -> bool {
    let (hits, observation) = (active.config.log.hits, &state.observation);
    match outcome.ending {
        // That the upstream is in trouble, or clients ask for too much, shall be seen, but not fill the log.
        Ending::Stale if outcome.detail.is_some() => observation.may_tell_of_stand_in(clock::now(), hits),
        Ending::Refused if outcome.limit.is_some() => observation.may_tell_of_refusal(clock::now()),
        Ending::Hit | Ending::Stale => observation.sampler.takes(hits),
        _ => true,
    }
}

/// What is asked for, as the log has it.
fn name_of(route: &Route, path: &str) -> &'static str {
    match route {
        Route::Read(key) | Route::Cached(key) | Route::Bypass(key, _) => key.read().label(),
        Route::Webhook | Route::Refuse(Refusal::NoWebhook) => route_name::WEBHOOK,
        _ => route_name::route_name(path),
    }
}

/// Whom a request is about.
fn contact_of(route: &Route, pseudonyms: &Pseudonyms) -> Option<Contact> {
    if let Route::Read(key) | Route::Cached(key) | Route::Bypass(key, _) = route {
        return Some(Contact::Of(key.clone()));
    }
    source_of(route).map(|(inbox, contact)| Contact::Hash(pseudonyms.contact(inbox, contact)))
}

/// The same as it is known to the API: an inbox, and a contact in it.
fn source_of(route: &Route) -> Option<(&str, &str)> {
    let source = match route {
        Route::Read(key) | Route::Cached(key) | Route::Bypass(key, _) => return Some((key.inbox(), key.contact())),
        Route::Write(targets) => targets.iter().find_map(|target| match target {
            Target::Contact(source) => Some(source),
            _ => None,
        }),
        Route::Pass(source) => source.as_ref(),
        _ => None,
    }?;
    Some((&source.inbox, &source.contact))
}

impl ClientRequest {
    /// The answer to what is no hit. Each in a box of its own, as whatever else is none: futures are moved several times,
    /// and shall be short.
    async fn answer(mut self, route: Route, record: &Record) -> Answered {
        match route {
            Route::Read(key) => Box::pin(self.list(key, record.began())).await,
            Route::Cached(key) => Box::pin(self.cached(key, record.began())).await,
            Route::Bypass(key, reason) => {
                let key = self.key_of_host(key);
                Box::pin(self.bypass(&key, reason)).await
            }
            Route::Write(targets) => Box::pin(self.write(targets)).await,
            Route::Webhook => Box::pin(self.webhook()).await,
            Route::Preflight => Box::pin(self.preflight()).await,
            Route::Tunnel => Box::pin(self.tunnel(record.about())).await,
            Route::Pass(source) => Box::pin(self.pass(source)).await,
            Route::Refuse(refusal) => self.refuse(refusal),
        }
    }

    fn refuse(&self, refusal: Refusal) -> Answered {
        let Refused { status, detail, word, allow } = refused(refusal);
        let mut response = self.problem(status, detail);
        if let Some(methods) = allow {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        (response, Outcome::own(Ending::Refused).detail(word))
    }
}
