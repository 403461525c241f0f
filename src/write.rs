//! A write: passed on as a task of its own, and what it may have changed is out of date before its client hears of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use tokio::sync::oneshot;

use crate::engine::body::{Body, Read, read_at_most};
use crate::engine::clock;
use crate::engine::metrics::ToldBy;
use crate::engine::upstream::UpstreamError;
use crate::policy::headers::is_json;
use crate::policy::ledger::{Place, Scope, Tick};
use crate::policy::route::{Effect, Source, Target, effect_of};
use crate::policy::shown;
use crate::policy::watermark::must_cause_an_event;
use crate::room::{Live, Room};

/// How long a write's effects may go on after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettleSettings {
    /// `cache.settle`: after a 2xx, since bots and automations follow a write.
    pub settle: Duration,
    /// `cache.settle_unknown`: after anything unclear, since it may be committed later.
    pub settle_unknown: Duration,
}

/// Answers to writes up to this size are read for the ids in them before their head goes on.
const HELD_ANSWER: usize = 64 * 1024;
/// Requests that create a contact are read for its `source_id` up to this size.
const READ_CREATION: usize = 64 * 1024;

/// A write on its way.
pub struct Write {
    /// Everything.
    pub room: Arc<Room>,
    /// The settings it is made under.
    pub live: Arc<Live>,
    /// What it may change.
    pub targets: Vec<Target>,
    /// The request as the upstream gets it.
    pub request: Request<Body>,
    /// The address of the client.
    pub peer: HeaderValue,
}

impl Write {
    /// Passes the write on. A client that leaves does not end it: it is a task of its own.
    pub async fn run(self) -> Result<Response<Body>, UpstreamError> {
        let (tell, told) = oneshot::channel();
        let tasks = self.room.tasks.clone();
        tasks.spawn(async move {
            // Nobody may be there to hear it any more.
            let _ = tell.send(self.exchange().await);
        });
        told.await.unwrap_or(Err(UpstreamError::Reset))
    }

    async fn exchange(mut self) -> Result<Response<Body>, UpstreamError> {
        let verifying = self.verifying();
        if let Some((source, request)) = &verifying
            && self.room.learned.has_verified(&source.inbox, &source.contact, request)
        {
            self.targets.clear();
        }
        let mut guard = Outdating::new(&self);
        self.read_creation(&mut guard).await;
        let merges = self.may_merge();
        if merges {
            // Afterwards nobody could say whose the source was before.
            for target in &self.targets {
                let Target::Contact(Source { inbox, contact }) = target else { continue };
                let before = self.room.contact_of(&self.live, inbox, contact, &self.peer).await;
                guard.places.extend(before.map(|id| self.room.ledger.place(&Scope::Contact(id))));
            }
        }
        // From here on the first byte may reach the upstream. What was verified already changes nothing.
        guard.armed = !self.targets.is_empty();
        let (began, method, path) = (clock::now(), self.request.method().clone(), self.request.uri().path().to_owned());
        let is_itself = !self.request.headers().contains_key("x-http-method-override");
        let noted = self.room.ledger.now();
        let exchange = self.live.upstream.exchange();
        let request = std::mem::replace(&mut self.request, Request::new(Body::empty()));
        let response = match self.live.upstream.send(request).await {
            Ok(response) => response,
            Err(error) => {
                // Without a connection nothing was sent.
                guard.armed &= error != UpstreamError::Connect;
                if guard.armed {
                    self.attribute(&mut guard, noted, shown::Shown::default(), merges).await;
                }
                return Err(error);
            }
        };
        // What is overridden may be a reading: whoever likes could say that webhooks are silent.
        if is_itself && must_cause_an_event(&method, &path, response.status()) {
            let [began, answered] = [began, clock::now()].map(|at| self.room.epoch.moment(at));
            self.room.watermark.owed(began, answered);
        }
        let effect = effect_of(response.status());
        if effect == Effect::Nothing {
            guard.armed = false;
        }
        guard.settle = match effect {
            Effect::Committed => self.live.config.settle.settle,
            _ => self.live.config.settle.settle_unknown,
        };
        let (head, body) = response.into_parts();
        let mut body = self.live.upstream.watch(body, exchange);
        if guard.armed {
            let mut shown = shown::Shown::default();
            if is_json(&head.headers) {
                match read_at_most(body, HELD_ANSWER).await {
                    Ok(Read::Whole(read)) => {
                        shown = shown::of_answer(&read);
                        body = Body::from(read);
                    }
                    Ok(Read::Longer(rest)) => body = rest,
                    Err(_) => {
                        self.attribute(&mut guard, noted, shown, merges).await;
                        return Err(UpstreamError::Reset);
                    }
                }
            }
            self.attribute(&mut guard, noted, shown, merges).await;
            if let Some((source, request)) = verifying.filter(|_| head.status.is_success()) {
                self.room.learned.verified(&source.inbox, &source.contact, &request);
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
    async fn read_creation(&mut self, guard: &mut Outdating) {
        if !self.targets.iter().any(|target| matches!(target, Target::Creation { .. })) {
            return;
        }
        let body = std::mem::replace(self.request.body_mut(), Body::empty());
        *self.request.body_mut() = match read_at_most(body, READ_CREATION).await {
            Ok(Read::Whole(body)) => {
                guard.source = shown::of_creation(&body);
                Body::from(body)
            }
            Ok(Read::Longer(body)) => body,
            // The client broke off: the upstream shall see a broken body too, not a shorter one.
            Err(error) => Body::stream(Broken(Some(error))),
        };
    }

    /// Adds to the guard whom the write was about: by its answer, by what was learned, or by asking once.
    /// `noted` is from before it was sent: its answer may have been made before another write's that came first.
    async fn attribute(&self, guard: &mut Outdating, noted: Tick, shown: shown::Shown, merges: bool) {
        let mut contacts: Vec<u64> = shown.contact.into_iter().collect();
        let mut unknown = false;
        for target in &self.targets {
            match target {
                Target::Contact(Source { inbox, contact }) => {
                    let known = contacts.first().copied();
                    if let Some(known) = known {
                        // Of a spelling that can be read in two ways it is not known which one was meant.
                        if self.targets.len() == 1 {
                            self.room.learn(noted, inbox, contact, known);
                        }
                    } else {
                        if merges {
                            // What was known of it may have been true until now only.
                            self.room.learned.forget(inbox, contact);
                        }
                        let asked = self.room.contact_of(&self.live, inbox, contact, &self.peer).await;
                        unknown |= asked.is_none();
                        contacts.extend(asked);
                    }
                }
                Target::Creation { inbox } => {
                    if let (Some(source), Some(contact)) = (&shown.source, shown.contact) {
                        self.room.learn(noted, inbox, source, contact);
                    } else if let Some(source) = &guard.source {
                        self.room.learned.forget(inbox, source);
                        let asked = self.room.contact_of(&self.live, inbox, source, &self.peer).await;
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
        self.room.learn_token(&shown);
        if let Some(source) = shown.source {
            guard.places.push(self.room.ledger.place(&Scope::Source(&source)));
            // The answer says what the request only asked for.
            guard.source = None;
        }
        if let Some(uuid) = &shown.uuid {
            guard.places.push(self.room.ledger.place(&Scope::Conversation(uuid)));
        }
        guard.places.extend(contacts.into_iter().map(|contact| self.room.ledger.place(&Scope::Contact(contact))));
        if unknown {
            self.room.metrics.writes_unattributed.inc();
        }
    }
}

/// What a write may have changed: out of date on every way out, once a byte may have reached the upstream.
struct Outdating {
    room: Arc<Room>,
    places: Vec<Place>,
    source: Option<String>,
    settle: Duration,
    armed: bool,
}

impl Outdating {
    fn new(write: &Write) -> Self {
        let ledger = &write.room.ledger;
        let mut places = Vec::with_capacity(8);
        for target in &write.targets {
            match target {
                Target::Contact(Source { inbox, contact }) => {
                    places.push(ledger.place(&Scope::Source(contact)));
                    let learned = write.room.learned.contact(inbox, contact);
                    places.extend(learned.map(|id| ledger.place(&Scope::Contact(id))));
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
        let settle = write.live.config.settle.settle_unknown;
        Self { room: write.room.clone(), places, source: None, settle, armed: false }
    }
}

impl Drop for Outdating {
    fn drop(&mut self) {
        if !self.armed || self.places.is_empty() {
            return;
        }
        let ledger = &self.room.ledger;
        self.places.extend(self.source.take().map(|source| ledger.place(&Scope::Source(&source))));
        self.places.sort_unstable();
        self.places.dedup();
        let until = self.room.epoch.moment_after(clock::now(), self.settle);
        for place in &self.places {
            if !self.settle.is_zero() {
                // Unsettled first: a fetch that sees the new tick sees this too.
                ledger.unsettle(*place, until);
            }
            ledger.outdate(*place);
        }
        self.room.metrics.outdated(ToldBy::Write);
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
