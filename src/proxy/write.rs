//! A write: passed on as a task of its own, and what it may have changed is out of date before its client hears of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use tokio::sync::oneshot;

use super::contact::contact_of;
use super::outcome::Outcome;
use super::request::{Answered, ClientRequest};
use crate::engine::body::{Body, Read, read_at_most};
use crate::engine::clock;
use crate::engine::metrics::{Ending, InvalidationSource};
use crate::engine::upstream::error::UpstreamError;
use crate::policy::http::client::Client;
use crate::policy::http::headers::is_json;
use crate::policy::coherence::ledger::{Place, Scope, Tick};
use crate::policy::http::route::{Effect, Source, Target, effect_of};
use crate::policy::coherence::answer_ids;
use crate::policy::coherence::watermark::must_cause_an_event;
use crate::state::State;
use crate::state::upstream::Active;

/// Answers to writes up to this size are read for the ids in them before their head goes on.
const HELD_ANSWER: usize = 64 * 1024;
/// Requests that create a contact are read for its `source_id` up to this size.
const READ_CREATION: usize = 64 * 1024;

impl ClientRequest {
    /// A write: passed on under the guard that outdates what it may have changed.
    pub(crate) async fn write(mut self, targets: Vec<Target>) -> Answered {
        let Some(request) = self.forwarded() else { return self.unsendable() };
        let (state, active, peer) = (self.state.clone(), self.active.clone(), self.client());
        let write = Write { state, active, targets, request, peer };
        match self.tally.waiting(write.run()).await {
            Ok(response) => {
                let outcome = Outcome::forwarded(Ending::Write, "method").status(response.status());
                (self.as_passed(response), outcome)
            }
            Err(error) => self.failed(error),
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
    /// The request as the upstream gets it.
    pub request: Request<Body>,
    /// Whose it is.
    pub peer: Client,
}

impl Write {
    /// Passes the write on. A client that leaves does not end it: it is a task of its own.
    pub async fn run(self) -> Result<Response<Body>, UpstreamError> {
        let (tell, told) = oneshot::channel();
        let tasks = self.state.lifecycle.tasks.clone();
        tasks.spawn(async move {
            // Nobody may be there to hear it any more.
            let _ = tell.send(self.exchange().await);
        });
        told.await.unwrap_or(Err(UpstreamError::Reset))
    }

    async fn exchange(mut self) -> Result<Response<Body>, UpstreamError> {
        let verifying = self.verifying();
        if let Some((source, request)) = &verifying
            && self.state.invalidation.identities.has_verified(&source.inbox, &source.contact, request)
        {
            self.targets.clear();
        }
        let mut guard = InvalidationGuard::new(&self);
        self.read_creation(&mut guard).await;
        let merges = self.may_merge();
        if merges {
            // Afterwards nobody could say whose the source was before.
            for target in &self.targets {
                let Target::Contact(Source { inbox, contact }) = target else { continue };
                let before = contact_of(&self.state, &self.active, inbox, contact, &self.peer).await;
                guard.places.extend(before.map(|id| self.state.invalidation.ledger.place(&Scope::Contact(id))));
            }
        }
        // From here on the first byte may reach the upstream. What was verified already changes nothing.
        guard.armed = !self.targets.is_empty();
        let (began, method, path) = (clock::now(), self.request.method().clone(), self.request.uri().path().to_owned());
        let is_itself = !self.request.headers().contains_key("x-http-method-override");
        let noted = self.state.invalidation.ledger.now();
        let exchange = self.active.upstream.exchange();
        let request = std::mem::replace(&mut self.request, Request::new(Body::empty()));
        let response = match self.active.upstream.send(request).await {
            Ok(response) => response,
            Err(error) => {
                // Without a connection nothing was sent.
                guard.armed &= !matches!(error, UpstreamError::Connect(_));
                if guard.armed {
                    self.attribute(&mut guard, noted, answer_ids::AnswerIds::default(), merges).await;
                }
                return Err(error);
            }
        };
        // What is overridden may be a reading: whoever likes could say that webhooks are silent.
        if is_itself && must_cause_an_event(&method, &path, response.status()) {
            let [began, answered] = [began, clock::now()].map(|at| self.state.invalidation.epoch.moment(at));
            self.state.invalidation.watermark.owed(began, answered);
        }
        let effect = effect_of(response.status());
        if effect == Effect::Nothing {
            guard.armed = false;
        }
        guard.settle = match effect {
            Effect::Committed => self.active.config.settle.settle,
            _ => self.active.config.settle.settle_unknown,
        };
        let (head, body) = response.into_parts();
        let mut body = self.active.upstream.watch(body, exchange);
        if guard.armed {
            let mut ids = answer_ids::AnswerIds::default();
            if is_json(&head.headers) {
                match read_at_most(body, HELD_ANSWER).await {
                    Ok(Read::Whole(read)) => {
                        ids = answer_ids::of_answer(&read);
                        body = Body::from(read);
                    }
                    Ok(Read::Longer(rest)) => body = rest,
                    Err(_) => {
                        self.attribute(&mut guard, noted, ids, merges).await;
                        return Err(UpstreamError::Incomplete);
                    }
                }
            }
            self.attribute(&mut guard, noted, ids, merges).await;
            if let Some((source, request)) = verifying.filter(|_| head.status.is_success()) {
                self.state.invalidation.identities.verified(&source.inbox, &source.contact, &request);
            }
        }
        // Before anybody hears of the answer.
        drop(guard);
        Ok(Response::from_parts(head, body))
    }

    /// Whether it may give its source to another contact, or take it from everyone: what is not a `POST` to something
    /// below the contact.
    fn may_merge(&self) -> bool {
        let request = &self.request;
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let posts = *request.method() == Method::POST && !request.headers().contains_key("x-http-method-override");
        let below_the_contact = request.uri().path().contains("/conversations");
        !(reads || posts && below_the_contact)
    }

    /// A `GET` with an identifier's hash in its query, and the source it verifies.
    fn verifying(&self) -> Option<(Source, String)> {
        let reads = matches!(*self.request.method(), Method::GET | Method::HEAD) && self.request.body().is_empty();
        match &self.targets[..] {
            [Target::Contact(source)] if reads => Some((source.clone(), self.request.uri().to_string())),
            _ => None,
        }
    }

    /// A creation whose answer never comes is known by its request alone.
    async fn read_creation(&mut self, guard: &mut InvalidationGuard) {
        if !self.targets.iter().any(|target| matches!(target, Target::Creation { .. })) {
            return;
        }
        let body = std::mem::replace(self.request.body_mut(), Body::empty());
        *self.request.body_mut() = match read_at_most(body, READ_CREATION).await {
            Ok(Read::Whole(body)) => {
                guard.source = answer_ids::of_creation(&body);
                Body::from(body)
            }
            Ok(Read::Longer(body)) => body,
            // The client broke off: the upstream shall see a broken body too, not a shorter one.
            Err(error) => Body::stream(Broken(Some(error))),
        };
    }

    /// Adds to the guard whom the write was about: by its answer, by what was learned, or by asking once.
    /// `noted` is from before it was sent: its answer may have been made before another write's that came first.
    async fn attribute(&self, guard: &mut InvalidationGuard, noted: Tick, ids: answer_ids::AnswerIds, merges: bool) {
        let mut contacts: Vec<u64> = ids.contact.into_iter().collect();
        let mut unknown = false;
        for target in &self.targets {
            match target {
                Target::Contact(Source { inbox, contact }) => {
                    let known = contacts.first().copied();
                    if let Some(known) = known {
                        // Of a spelling that can be read in two ways it is not known which one was meant.
                        if self.targets.len() == 1 {
                            self.state.invalidation.learn(noted, inbox, contact, known);
                        }
                    } else {
                        if merges {
                            // What was known of it may have been true until now only.
                            self.state.invalidation.identities.forget(inbox, contact);
                        }
                        let asked = contact_of(&self.state, &self.active, inbox, contact, &self.peer).await;
                        unknown |= asked.is_none();
                        contacts.extend(asked);
                    }
                }
                Target::Creation { inbox } => {
                    if let (Some(source), Some(contact)) = (&ids.source, ids.contact) {
                        self.state.invalidation.learn(noted, inbox, source, contact);
                    } else if let Some(source) = &guard.source {
                        self.state.invalidation.identities.forget(inbox, source);
                        let asked = contact_of(&self.state, &self.active, inbox, source, &self.peer).await;
                        unknown |= asked.is_none();
                        contacts.extend(asked);
                    } else {
                        unknown = true;
                    }
                }
                Target::Csat { .. } | Target::AccountConversation { .. } | Target::AccountContact { .. } => {}
            }
        }
        // After the rest: that a source has another contact now makes forget whose every token was.
        self.state.invalidation.learn_token(&ids, self.active.config.observe_cable);
        if let Some(source) = ids.source {
            guard.places.push(self.state.invalidation.ledger.place(&Scope::Source(&source)));
            // The answer says what the request only asked for.
            guard.source = None;
        }
        if let Some(uuid) = &ids.uuid {
            guard.places.push(self.state.invalidation.ledger.place(&Scope::Conversation(uuid)));
        }
        guard.places.extend(contacts.into_iter().map(|contact| self.state.invalidation.ledger.place(&Scope::Contact(contact))));
        if unknown {
            self.state.metrics.writes_unattributed.inc();
        }
    }
}

/// What a write may have changed: out of date on every way out, once a byte may have reached the upstream.
struct InvalidationGuard {
    state: Arc<State>,
    places: Vec<Place>,
    source: Option<String>,
    settle: Duration,
    armed: bool,
}

impl InvalidationGuard {
    fn new(write: &Write) -> Self {
        let ledger = &write.state.invalidation.ledger;
        let mut places = Vec::with_capacity(8);
        for target in &write.targets {
            match target {
                Target::Contact(Source { inbox, contact }) => {
                    places.push(ledger.place(&Scope::Source(contact)));
                    let identities = write.state.invalidation.identities.contact(inbox, contact);
                    places.extend(identities.map(|id| ledger.place(&Scope::Contact(id))));
                }
                Target::Creation { inbox } => places.push(ledger.place(&Scope::Missing(inbox))),
                Target::Csat { uuid } => {
                    places.push(ledger.place(&Scope::Conversation(uuid)));
                    places.push(ledger.place(&Scope::AnyConversation));
                }
                Target::AccountConversation { account, display } => {
                    places.push(ledger.place(&Scope::AccountConversation(*account, *display)));
                    places.push(ledger.place(&Scope::AnyConversation));
                }
                Target::AccountContact { id } => places.push(ledger.place(&Scope::Contact(*id))),
            }
        }
        let settle = write.active.config.settle.settle_unknown;
        Self { state: write.state.clone(), places, source: None, settle, armed: false }
    }
}

impl Drop for InvalidationGuard {
    fn drop(&mut self) {
        if !self.armed || self.places.is_empty() {
            return;
        }
        let ledger = &self.state.invalidation.ledger;
        self.places.extend(self.source.take().map(|source| ledger.place(&Scope::Source(&source))));
        self.places.sort_unstable();
        self.places.dedup();
        let until = self.state.invalidation.epoch.moment_after(clock::now(), self.settle);
        for place in &self.places {
            if !self.settle.is_zero() {
                // Unsettled first: a fetch that sees the new tick sees this too.
                ledger.unsettle(*place, until);
            }
            ledger.invalidate(*place);
        }
        self.state.metrics.invalidated(InvalidationSource::Write);
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
