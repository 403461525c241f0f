//! A write: passed on as a task of its own, and what it may have changed is out of date before its client hears of it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, Response};
use tokio::sync::oneshot;

use super::contact::Who;
use super::guard::{Asking, Does, InvalidationGuard};
use super::outcome::Outcome;
use super::request::{Answered, ClientRequest};
use crate::engine::body::{Body, Read, read_at_most};
use crate::engine::clock;
use crate::engine::metrics::Ending;
use crate::engine::upstream::error::UpstreamError;
use crate::policy::http::client::Client;
use crate::policy::http::headers::is_json;
use crate::policy::coherence::ledger::Tick;
use crate::policy::coherence::reach::{Happening, of_write};
use crate::policy::http::key::decode_segment;
use crate::policy::http::path::parted;
use crate::policy::http::route::{Effect, Source, Target, effect_of, is_itself};
use crate::policy::coherence::answer_ids::{self, AnswerIds, Named};
use crate::policy::coherence::watermark::must_cause_an_event;
use crate::policy::rfc9111::invalidate::effect_on_target;
use crate::state::State;
use crate::state::invalidation::Shown;
use crate::state::upstream::Active;

/// Answers to writes up to this size are read for the ids in them before their head goes on.
const HELD_ANSWER: usize = 64 * 1024;
/// Requests that name in their body what they change are read for it up to this size.
const READ_REQUEST: usize = 64 * 1024;

impl ClientRequest {
    /// A write: passed on under the guard that outdates what it may have changed.
    pub(crate) async fn write(mut self, targets: Vec<Target>) -> Answered {
        if !targets.is_empty() && self.refuses_writes() {
            return self.cut_off();
        }
        let Some(request) = self.forwarded() else { return self.unsendable() };
        let (state, active, peer) = (self.state.clone(), self.active.clone(), self.client());
        let (is_to_the_list, does) = (self.is_to_a_kept_list(), self.does());
        let write = Write { state, active, targets, does, request, peer, is_to_the_list };
        let before = self.state.invalidation.ticket();
        let tally = self.tally.clone();
        match tally.waiting(write.run()).await {
            Ok(None) => self.cut_off(),
            Ok(Some(response)) => {
                self.invalidate_named(&response);
                if !tally.waiting(self.state.invalidation.told_since(before)).await && self.refuses_untold() {
                    return self.untold();
                }
                let outcome = Outcome::forwarded(Ending::Write, "method").status(response.status());
                (self.as_passed(response), outcome)
            }
            Err(error) => self.failed(error),
        }
    }
}

impl ClientRequest {
    /// What a write does, and in which conversation. What may be taken for another than it says may do anything.
    fn does(&self) -> Does {
        let is_itself = is_itself(&self.head.headers);
        match parted(self.head.uri.path()).filter(|_| is_itself) {
            Some((inbox, contact, below)) if decode_segment(inbox).is_some() && decode_segment(contact).is_some() => {
                of_write(&self.head.method, below)
            }
            _ => (Happening::Writes, None),
        }
    }
}

/// A write on its way.
pub struct Write {
    /// Everything.
    pub state: Arc<State>,
    /// The settings it is made under.
    pub active: Arc<Active>,
    /// What it may change.
    pub targets: Vec<Target>,
    /// What it does, as far as that is plain.
    does: Does,
    /// The request as the upstream gets it.
    pub request: Request<Body>,
    /// Whose it is.
    pub peer: Client,
    /// Its target is a list under `cache.ttl = "origin"`.
    pub is_to_the_list: bool,
}

impl Write {
    /// Passes the write on. A client that leaves does not end it: it is a task of its own. None if it was not passed on, since
    /// the other replicas could not be told that it begins.
    pub async fn run(self) -> Result<Option<Response<Body>>, UpstreamError> {
        let (tell, told) = oneshot::channel();
        let tasks = self.state.lifecycle.tasks.clone();
        tasks.spawn(async move {
            // Nobody may be there to hear it any more.
            let _ = tell.send(self.exchange().await);
        });
        told.await.unwrap_or(Err(UpstreamError::Reset))
    }

    async fn exchange(mut self) -> Result<Option<Response<Body>>, UpstreamError> {
        let verifying = self.verifying();
        if let Some((source, request)) = &verifying
            && self.has_verified(source, request)
        {
            self.targets.clear();
        }
        let merges = self.merges();
        let (named, is_whole) = self.read_request(merges).await;
        let guard = InvalidationGuard::begin(self.asking(), &self.targets, &named, self.does).await;
        let Some(mut guard) = guard else { return Ok(None) };
        // One that is sent slowly keeps nobody waiting.
        if merges && is_whole {
            guard.goes_to_unknown();
        }
        // From here on the first byte may reach the upstream. What was verified already changes nothing.
        guard.armed = !self.targets.is_empty();
        let (began, method, path) = (clock::now(), self.request.method().clone(), self.request.uri().path().to_owned());
        let is_itself = is_itself(self.request.headers());
        let noted = self.state.invalidation.ledger.now();
        let exchange = self.active.upstream.exchange();
        let request = std::mem::replace(&mut self.request, Request::new(Body::empty()));
        let response = match self.active.upstream.send(request).await {
            Ok(response) => response,
            Err(error) => {
                guard.armed &= !matches!(error, UpstreamError::Connect(_));
                guard.armed &= !matches!(error, UpstreamError::Spared(_));
                // Of a request that is not whole the upstream does nothing that anybody is told of.
                let is_whole = !error.is_of_client();
                if guard.armed && is_whole {
                    guard.answered(Effect::Unclear);
                    self.attribute(&mut guard, noted, began, AnswerIds::default(), &named).await;
                }
                return Err(error);
            }
        };
        // What is overridden may be a reading: whoever likes could say that webhooks are silent.
        if is_itself && must_cause_an_event(&method, &path, response.status()) {
            let [began, answered] = [began, clock::now()].map(|at| self.state.invalidation.epoch.moment(at));
            self.state.invalidation.watermark.owed(began, answered);
        }
        let effect = if self.is_to_the_list { effect_on_target } else { effect_of };
        guard.answered(effect(response.status()));
        let (head, body) = response.into_parts();
        let mut body = self.active.upstream.watch(body, exchange);
        if guard.armed {
            let mut ids = AnswerIds::default();
            if is_json(&head.headers) {
                match read_at_most(body, HELD_ANSWER).await {
                    Ok(Read::Whole(read)) => {
                        ids = answer_ids::of_answer(&read);
                        body = Body::from(read);
                    }
                    Ok(Read::Longer(rest)) => body = rest,
                    Err(_) => {
                        self.attribute(&mut guard, noted, began, ids, &named).await;
                        return Err(UpstreamError::Incomplete);
                    }
                }
            }
            self.attribute(&mut guard, noted, began, ids, &named).await;
            if let Some((source, request)) = verifying.filter(|_| head.status.is_success()) {
                let whose = self.active.whose(&source.inbox, &source.contact);
                self.state.invalidation.identities.verify(whose, &request, noted, began);
            }
        }
        // Before anybody hears of the answer.
        drop(guard);
        Ok(Some(Response::from_parts(head, body)))
    }

    fn asking(&self) -> Asking<'_> {
        Asking { state: &self.state, active: &self.active, peer: &self.peer }
    }

    /// A `GET` with an identifier's hash in its query, and the source it verifies.
    fn verifying(&self) -> Option<(Source, String)> {
        let reads = matches!(*self.request.method(), Method::GET | Method::HEAD) && self.request.body().is_empty();
        match &self.targets[..] {
            [Target::Contact(source)] if reads => Some((source.clone(), self.request.uri().to_string())),
            _ => None,
        }
    }

    fn has_verified(&self, source: &Source, request: &str) -> bool {
        let (whose, now) = (self.active.whose(&source.inbox, &source.contact), clock::now());
        let at_most = self.state.bound_on_age(&self.active, now);
        self.state.invalidation.has_verified(whose, request, now, at_most)
    }

    /// Whether it may make one contact of two.
    fn merges(&self) -> bool {
        let edits = matches!(*self.request.method(), Method::PATCH | Method::PUT);
        edits && self.targets.iter().any(|target| matches!(target, Target::Identity(_)))
    }

    /// What the request itself names: a creation whose answer never comes is known by it alone. And whether all of it is
    /// there.
    async fn read_request(&mut self, merges: bool) -> (Named, bool) {
        let of_account = self.targets.iter().any(|target| matches!(target, Target::Account { .. }));
        let creates = self.targets.iter().any(|target| matches!(target, Target::Creation { .. }));
        if !of_account && !creates && !merges {
            return (Named::default(), false);
        }
        let body = std::mem::replace(self.request.body_mut(), Body::empty());
        let (mut named, mut is_whole) = (Named::default(), false);
        *self.request.body_mut() = match read_at_most(body, READ_REQUEST).await {
            Ok(Read::Whole(body)) => {
                named = if of_account {
                    answer_ids::of_account_request(&body)
                } else {
                    let source = creates.then(|| answer_ids::of_creation(&body)).flatten();
                    Named { source, ..Named::default() }
                };
                is_whole = true;
                Body::from(body)
            }
            Ok(Read::Longer(body)) => body,
            // The client broke off: the upstream shall see a broken body too, not a shorter one.
            Err(error) => Body::stream(Broken(Some(error))),
        };
        (named, is_whole)
    }

    /// Adds to the guard whom the write was about: by its answer, by what is believed, or by asking once.
    /// `noted` and `began` are from before it was sent: its answer may have been made before another write's that came
    /// first.
    async fn attribute(
        &self,
        guard: &mut InvalidationGuard,
        noted: Tick,
        began: Instant,
        ids: AnswerIds,
        named: &Named,
    ) {
        guard.shown(&ids, &self.targets);
        let mut unknown = guard.merges_unknown;
        let mut sources = Vec::new();
        for target in &self.targets {
            match target {
                Target::Contact(source) | Target::Identity(source) => sources.push(source.clone()),
                Target::Creation { inbox } if ids.source.is_none() || ids.contact.is_none() => match &named.source {
                    Some(source) => sources.push(Source { inbox: inbox.clone(), contact: source.clone() }),
                    None => unknown = true,
                },
                Target::Account { .. } if named.is_empty() && ids.contact.is_none() && ids.source.is_none() => {
                    unknown = true;
                    guard.everything();
                }
                _ => {}
            }
        }
        match (ids.contact, &sources[..], &self.targets[..]) {
            (None, sources, _) => {
                for Source { inbox, contact } in sources {
                    match self.asking().about(inbox, contact).contact().await {
                        Who::Contact(contact) => guard.asked(contact),
                        Who::Nobody => {}
                        Who::Unknown => unknown = true,
                    }
                }
            }
            // Of a spelling that can be read in two ways it is not known which one was meant.
            (Some(known), [Source { inbox, contact }], [Target::Contact(_), ..]) => {
                self.state.invalidation.learn(Shown { whose: self.active.whose(inbox, contact), noted, began }, known);
            }
            (Some(_), ..) => {}
        }
        self.state.invalidation.learn_token(&ids, self.active.config.observe_cable);
        unknown |= !guard.is_of_known().await;
        if unknown {
            guard.nobody_knows();
        }
    }
}

/// A body that breaks off where the client's did.
struct Broken(Option<crate::engine::body::BodyError>);

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = crate::engine::body::BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.take().map(Err))
    }
}
