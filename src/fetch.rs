//! A shared fetch: one request to the upstream whose answer may be kept and given to anyone who asks for its key.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use crate::engine::body::{Body, BodyError, Guard, Read, Resumed, read_at_most};
use crate::engine::clock;
use crate::engine::store::Entry;
use crate::engine::upstream::{Exchange, UpstreamError};
use crate::landed::{Failure, Landed, Private};
use crate::policy::encoding::{Coding, coding_of, decode, plain_at_most};
use crate::policy::freshness::unsettled_expiry;
use crate::policy::headers::{has_directive, initial_age, is_json, is_shareable};
use crate::policy::key::Key;
use crate::policy::ledger::{Place, Scope, Tick};
use crate::policy::payload::{self, BodyScopes, INLINE_LIMIT, NotAList, Validate};
use crate::policy::representation::{Prepared, Received, is_made_from_body, own_etag};
use crate::room::{Live, Room, since};

/// What a shared fetch obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchSettings {
    /// `upstream.fetch_timeout`: the whole fetch, from the first byte sent to the last one read.
    pub timeout: Duration,
    /// `upstream.max_in_flight`: shared fetches at once.
    pub max_in_flight: usize,
    /// `cache.max_body`, in bytes: a larger list passes through, unkept.
    pub max_body: u64,
    /// `cache.fetch_memory`, in bytes: bodies being collected, all together.
    pub memory: u64,
}

/// An answer that holds more conversations than this names none of them, but shares one scope with all such answers.
const NAMED_CONVERSATIONS: usize = 32;
/// How many violations a log line or an error names.
const NAMED_VIOLATIONS: usize = 5;
/// The most of an error's body that is kept to be shared.
const ERROR_BODY: usize = 64 * 1024;

/// One fetch of one key, and what was known when it was decided on.
pub struct Fetch {
    /// Everything.
    pub room: Arc<Room>,
    /// The settings it is made under.
    pub live: Arc<Live>,
    /// What is fetched.
    pub key: Key,
    /// The tick noted before anything is sent.
    pub noted: Tick,
    /// What was kept then: revalidated, if it has a validator that may be trusted.
    pub captured: Option<Arc<Entry>>,
    /// The address of the reader who led; the upstream may limit rates by it.
    pub peer: HeaderValue,
    /// Its place among the fetches at once, if it was begun only because there was one; else it waits for one.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// An exchange under way, with its place among the fetches at once: both end with the answer's body.
struct UnderWay {
    exchange: Exchange,
    _permit: OwnedSemaphorePermit,
}

impl Guard for UnderWay {
    fn passed(&mut self, bytes: usize) {
        self.exchange.passed(bytes);
    }

    fn whole(&mut self) {
        self.exchange.whole();
    }
}

impl Fetch {
    /// Fetches, within the deadline. Stores what may be stored.
    pub async fn run(mut self) -> Landed {
        let permit = self.permit.take();
        match tokio::time::timeout(self.live.config.fetch.timeout, self.run_without_deadline(permit)).await {
            Ok(Ok(landed)) => landed,
            Ok(Err(error)) => Landed::Failed(Failure::Upstream(error)),
            Err(_) => Landed::Failed(Failure::Upstream(UpstreamError::Timeout)),
        }
    }

    async fn run_without_deadline(&self, permit: Option<OwnedSemaphorePermit>) -> Result<Landed, UpstreamError> {
        let permit = match permit {
            Some(permit) => permit,
            None => self.room.in_flight.clone().acquire_owned().await.expect("never closed"),
        };
        let began = clock::now();
        let request_id = self.room.request_id();
        let mut request =
            self.live.own_request(&self.key.path_and_query(), &request_id).ok_or(UpstreamError::Malformed)?;
        // An origin, so that the answer shows what readers with one may get: the upstream's own, which tells nothing,
        // unless it tells origins apart.
        let base = self.live.upstream.base();
        let origin = self.key.origin().map_or_else(|| format!("{}://{}", base.scheme, base.authority), str::to_owned);
        let origin = HeaderValue::try_from(origin);
        request.headers_mut().insert(header::ORIGIN, origin.map_err(|_| UpstreamError::Malformed)?);
        request.headers_mut().insert("x-forwarded-for", self.peer.clone());
        let asked_if = self.condition();
        if let Some(etag) = &asked_if {
            request.headers_mut().insert(header::IF_NONE_MATCH, etag.clone());
        }
        let under_way = UnderWay { exchange: self.live.upstream.exchange(), _permit: permit };
        let response = self.live.upstream.send(request).await?;
        let (head, body) = response.into_parts();
        match head.status {
            StatusCode::NOT_MODIFIED if asked_if.is_some() => {
                let captured = self.captured.as_ref().ok_or(UpstreamError::Malformed)?;
                Ok(self.refreshed(captured, head, began))
            }
            status if status.is_informational() || status == StatusCode::NOT_MODIFIED => Err(UpstreamError::Malformed),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                self.failed(head, self.live.upstream.watch(body, under_way)).await
            }
            _ => self.answered(head, body, under_way, began).await,
        }
    }

    /// The validator to ask with. An outdated answer is only revalidated with one made from its body: with another,
    /// the upstream might not know that it has changed.
    fn condition(&self) -> Option<HeaderValue> {
        let captured = self.captured.as_ref().filter(|captured| {
            captured.answer.status == StatusCode::OK && captured.fingerprint == self.live.fingerprint
        })?;
        let etag = captured.answer.upstream_etag()?;
        (self.room.is_current(captured) || is_made_from_body(etag)).then(|| etag.clone())
    }

    /// The captured answer is still what the upstream has (RFC 9111 section 4.3.4): body, validators and fields of the
    /// captured one, not of whatever is stored by now.
    fn refreshed(&self, captured: &Entry, head: Parts, began: Instant) -> Landed {
        let mut places = captured.places.to_vec();
        places.extend(self.room.path_places(&self.key));
        // An empty list names nobody: it may be as empty as before, and another contact's.
        let learned = self.room.learned.contact(self.key.inbox(), self.key.contact());
        places.extend(learned.map(|contact| self.room.ledger.place(&Scope::Contact(contact))));
        let initial_age = initial_age(&head.headers);
        let wants_no_store = has_directive(&head.headers, "no-store");
        let answer = captured.answer.refreshed(head.headers, head.version, clock::http_date());
        let entry = self.entry(answer, places, began, initial_age);
        self.keep_or_forget(entry, head.status, !wants_no_store, false)
    }

    /// Makes an answer ready to be sent any number of times.
    fn prepared(&self, head: Parts, body: Bytes) -> Prepared {
        Prepared::new(Received {
            status: head.status,
            head: head.headers,
            body,
            version: head.version,
            date: clock::http_date(),
            for_one_origin: self.key.origin().is_some(),
            has_codings: !self.live.config.encoding.offer.is_empty(),
        })
    }

    async fn failed(&self, head: Parts, body: Body) -> Result<Landed, UpstreamError> {
        let body = match read_at_most(body, ERROR_BODY).await.map_err(|error| body_error(&error))? {
            Read::Whole(body) => plain_at_most(&head.headers, body, ERROR_BODY).unwrap_or_default(),
            Read::Longer(_) => Bytes::new(),
        };
        let prepared = self.prepared(head, body);
        Ok(Landed::Failed(Failure::Answered(Arc::new(prepared))))
    }

    async fn answered(
        &self,
        head: Parts,
        body: Incoming,
        under_way: UnderWay,
        began: Instant,
    ) -> Result<Landed, UpstreamError> {
        let upstream = &self.live.upstream;
        if !is_shareable(head.status, &head.headers) {
            let body = upstream.watch(body, under_way);
            return Ok(self.private(head, body, "not_storable"));
        }
        let body = match self.collect(upstream.watch(body, under_way)).await? {
            Collected::Whole(body) => body,
            Collected::TooLarge(body) => return Ok(self.private(head, body, "too_large")),
        };
        self.room.metrics.payload_bytes.with_label_values(&["received"]).inc_by(body.len() as u64);
        let body = match coding_of(&head.headers) {
            Ok(Some(coding)) => match self.decoded(body.clone(), coding).await? {
                Some(body) => body,
                None => return Ok(self.private(head, Body::from(body), "too_large")),
            },
            _ => body,
        };
        let wants_no_store = has_directive(&head.headers, "no-store");
        let initial_age = initial_age(&head.headers);
        let mut places = self.room.path_places(&self.key).to_vec();
        match head.status {
            StatusCode::OK => {
                let is_json = is_json(&head.headers);
                let checked = if is_json { self.check(body.clone()).await } else { Err(NotAList::HTML) };
                self.count_list(checked.as_ref().map(|(list, _)| list));
                if let Err(why) = &checked
                    && self.room.may_tell_of_violations(clock::now())
                {
                    tracing::warn!(%why, "a 200 of the upstream is not a list");
                }
                let (mut list, own_etag) = match checked {
                    Ok(checked) => checked,
                    Err(why) if self.live.config.payload.validate == Validate::Enforce => {
                        return Ok(Landed::Failed(Failure::BreaksContract(why.to_string().into())));
                    }
                    Err(_) => {
                        // A maintenance page says nothing of the list: what is kept stays.
                        let answer = self.prepared(head, body);
                        let entry = self.entry(answer, places, began, initial_age);
                        return Ok(Landed::Answer { entry, status: StatusCode::OK, kept: false, only_early: true });
                    }
                };
                if self.live.config.payload.validate == Validate::Enforce && !list.violations.is_empty() {
                    let first = list.violations.first(NAMED_VIOLATIONS).join("; ");
                    return Ok(Landed::Failed(Failure::BreaksContract(first.into())));
                }
                let (inbox, contact) = (self.key.inbox(), self.key.contact());
                match list.scopes.contacts[..] {
                    [] => {
                        let asked = self.room.contact_of(&self.live, inbox, contact, &self.peer).await;
                        list.scopes.contacts.extend(asked);
                    }
                    [only] => self.room.learn(self.noted, inbox, contact, only),
                    _ => {}
                }
                places.extend(self.body_places(&list.scopes));
                let counted = if list.changed {
                    let beside = self.room.memory.adopt(list.body.clone());
                    // The upstream's body goes; if there was no room beside it, there may be now.
                    drop(body);
                    beside.or_else(|_| self.room.memory.adopt(list.body.clone()))
                } else {
                    Ok(list.body.clone())
                };
                let has_room = counted.is_ok();
                let answer = self.prepared(head, counted.unwrap_or(list.body));
                let answer = match own_etag {
                    Some(etag) => answer.made_anew(etag),
                    None => answer,
                };
                let known = !list.scopes.contacts.is_empty() && !list.scopes.too_many_contacts;
                let entry = self.entry(answer, places, began, initial_age);
                Ok(self.keep_or_forget(entry, StatusCode::OK, known && has_room && !wants_no_store, !known))
            }
            StatusCode::NOT_FOUND => {
                places.push(self.room.ledger.place(&Scope::Missing(self.key.inbox())));
                let keep = !self.live.config.lifetimes.negative_ttl.is_zero() && !wants_no_store;
                let answer = self.prepared(head, body);
                let entry = self.entry(answer, places, began, initial_age);
                Ok(self.keep_or_forget(entry, StatusCode::NOT_FOUND, keep, false))
            }
            status => {
                let answer = self.prepared(head, body);
                Ok(self.keep_or_forget(self.entry(answer, places, began, initial_age), status, false, true))
            }
        }
    }

    /// A body out of the coding that the upstream put it in, though it was not asked to; `None` if it is too large.
    async fn decoded(&self, body: Bytes, coding: Coding) -> Result<Option<Bytes>, UpstreamError> {
        let Ok(mut decoded) = self.room.memory.room_now(self.live.config.fetch.max_body) else { return Ok(None) };
        let aside = tokio::task::spawn_blocking(move || {
            let whole = decode(&body, coding, |piece| decoded.push(piece).is_ok())?;
            Ok::<_, std::io::Error>(whole.then(|| decoded.finish()))
        });
        aside.await.expect("decoding does not panic").map_err(|_| UpstreamError::Malformed)
    }

    fn count_list(&self, checked: Result<&payload::Outcome, &NotAList>) {
        let result = match checked {
            Err(_) => "not_a_list",
            Ok(_) if self.live.config.payload.validate == Validate::Off => "unchecked",
            Ok(list) if list.violations.is_empty() => "keeps_contract",
            Ok(_) => "differs",
        };
        self.room.metrics.payload_lists.with_label_values(&[result]).inc();
    }

    /// The contract pass: checked, trimmed, its scopes read; with a validator of our own if the upstream's does not fit.
    /// Counts and tells what differs.
    async fn check(&self, body: Bytes) -> Result<(payload::Outcome, Option<HeaderValue>), NotAList> {
        let live = self.live.clone();
        let is_short = body.len() < INLINE_LIMIT;
        let work = move || {
            let list = payload::apply(&body, &live.config.payload)?;
            // Sorted lists are alike in whatever order they came: so is their validator.
            let is_ours = list.changed || live.config.payload.trim.sorts();
            let etag = is_ours.then(|| own_etag(&list.body));
            Ok((list, etag))
        };
        let (list, etag) = if is_short {
            work()?
        } else {
            tokio::task::spawn_blocking(work).await.expect("the pass does not panic")?
        };
        let metrics = &self.room.metrics;
        for violation in list.violations.iter() {
            let labels = [violation.field, violation.kind.as_str()];
            metrics.payload_violations.with_label_values(&labels).inc_by(violation.count);
        }
        metrics.payload_unknown_keys.inc_by(list.unknown_keys.total);
        if !list.violations.is_empty() && self.room.may_tell_of_violations(clock::now()) {
            let first = list.violations.first(NAMED_VIOLATIONS).join("; ");
            tracing::warn!(count = list.violations.total(), first, "a list differs from the contract");
        }
        Ok((list, etag))
    }

    /// Where the last changes of what a body was made from are written.
    fn body_places(&self, scopes: &BodyScopes) -> Vec<Place> {
        let ledger = &self.room.ledger;
        let mut places: Vec<Place> = scopes.contacts.iter().map(|id| ledger.place(&Scope::Contact(*id))).collect();
        let unnamed = scopes.accounts.is_empty() && !scopes.display_ids.is_empty();
        let many = unnamed
            || scopes.too_many_uuids
            || scopes.too_many_conversations
            || scopes.uuids.len().max(scopes.display_ids.len()) > NAMED_CONVERSATIONS;
        if many {
            places.push(ledger.place(&Scope::AnyConversation));
        } else {
            places.extend(scopes.uuids.iter().map(|uuid| ledger.place(&Scope::Conversation(uuid))));
            let named = scopes.conversations().map(|(account, display)| Scope::AccountConversation(account, display));
            places.extend(named.map(|scope| ledger.place(&scope)));
        }
        places
    }

    fn entry(&self, answer: Prepared, places: Vec<Place>, began: Instant, initial_age: Duration) -> Arc<Entry> {
        let mut places = places;
        places.sort_unstable();
        places.dedup();
        let unsettled_until = self.room.ledger.unsettled_until(&places);
        let mut entry = Entry::new(answer, began, self.noted, places.into(), self.live.fingerprint);
        entry.initial_age = initial_age;
        if self.room.epoch.moment(began) < unsettled_until {
            entry.unsettled_expiry = Some(unsettled_expiry(since(began)));
        }
        Arc::new(entry)
    }

    /// An authoritative answer that is not kept removes the older one.
    fn keep_or_forget(&self, entry: Arc<Entry>, status: StatusCode, keep: bool, only_early: bool) -> Landed {
        if keep {
            let kept = entry.answer.body.len() as u64;
            self.room.metrics.payload_bytes.with_label_values(&["kept"]).inc_by(kept);
            self.room.store.put(self.key.clone(), entry.clone());
        } else {
            self.room.store.forget(&self.key, self.noted);
        }
        Landed::Answer { entry, status, kept: keep, only_early }
    }

    fn private(&self, head: Parts, body: Body, why: &'static str) -> Landed {
        self.room.store.forget(&self.key, self.noted);
        self.room.unshareable.insert(self.key.clone(), why);
        Landed::Private(Private::new(head, body, why))
    }

    /// Collects a body, counted before it is read.
    async fn collect(&self, mut body: Body) -> Result<Collected, UpstreamError> {
        let max = self.live.config.fetch.max_body;
        let length = http_body::Body::size_hint(&body).exact();
        if length.is_some_and(|length| length > max) {
            return Ok(Collected::TooLarge(body));
        }
        let mut collecting = self.room.memory.room(length, max).await;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| body_error(&error))?;
            let Ok(data) = frame.into_data() else { continue };
            if collecting.push(&data).is_err() {
                let read = Resumed::new(collecting.finish(), Resumed::new(data, body));
                return Ok(Collected::TooLarge(Body::stream(read)));
            }
        }
        Ok(Collected::Whole(collecting.finish()))
    }
}

enum Collected {
    Whole(Bytes),
    TooLarge(Body),
}

fn body_error(error: &BodyError) -> UpstreamError {
    match error {
        BodyError::Stalled => UpstreamError::Timeout,
        BodyError::Broken(_) => UpstreamError::Reset,
    }
}
