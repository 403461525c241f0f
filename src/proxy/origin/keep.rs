//! What becomes of an answer: stored with what it was made from, or passed on as it comes.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::response::Parts;
use http::StatusCode;

use super::combine::Combined;
use super::fetch::{Fetch, Times};
use crate::engine::body::Body;
use crate::engine::clock;
use crate::engine::fetch_result::Private;
use crate::engine::responses::{Fetched, Stored};
use crate::engine::store::Failure;
use crate::engine::upstream::error::UpstreamError;
use crate::policy::coherence::ledger::{Place, Scope};
use crate::policy::http::framing::has_known_end;
use crate::policy::http::freshness::unsettled_expiry;
use crate::policy::http::headers::{CACHE_STATUS, X_REQUEST_ID, append_via, expose, is_json};
use crate::policy::http::stored_head::compact;
use crate::policy::payload::Validate;
use crate::policy::rfc9111::dates::made;
use crate::policy::rfc9111::fields;
use crate::policy::rfc9111::freshness::{Arrival, Control, initial_age};
use crate::policy::rfc9111::part::Extent;
use crate::policy::rfc9111::cache_control::RequestDirectives;
use crate::policy::rfc9111::reuse::{Reuse, Terms, is_error, reuse};
use crate::policy::rfc9111::storable::{NotStorable, storable};
use crate::policy::rfc9111::validate::{HeadSays, head_says};
use crate::policy::rfc9111::vary::Chosen;
use crate::proxy::admission::Admission;
use crate::proxy::collect::{Collected, decoded, read};

/// What is stored of an answer besides its fields.
struct Content {
    status: StatusCode,
    part: Option<Extent>,
    body: Bytes,
}

impl Content {
    /// The status by which it is judged: a part is what the whole would be.
    fn judged_as(&self) -> StatusCode {
        if self.part.is_some() { StatusCode::OK } else { self.status }
    }
}

/// Which part of a whole an answer is, if it is one that says so.
fn part_of(head: &Parts) -> Option<Extent> {
    Extent::of(&head.headers).filter(|_| head.status == StatusCode::PARTIAL_CONTENT)
}

/// Whether an answer is of JSON, whatever it is called.
fn speaks_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.to_ascii_lowercase().contains("json")
}

/// What an answer was made from.
struct MadeFrom {
    places: Vec<Place>,
    /// It names no contact.
    nameless: bool,
    /// Everything of it is known, so it may be stored.
    known: bool,
}

impl Fetch {
    /// An answer that is no 304 to a question of ours.
    pub(super) async fn received(&self, head: Parts, body: Body, times: Times) -> Result<Fetched, UpstreamError> {
        self.learn_from_head(&head, times);
        let control = Control::of(&head.headers);
        let why = match self.may_be_stored(&head, &control, times) {
            Ok(chosen) => {
                self.let_go_of_others(&head, &control, times);
                return self.store(head, body, times, (control, chosen)).await;
            }
            Err(why) => why,
        };
        // What others are given is older than what this one has been shown.
        if self.storing.is_some_and(|asked| !asked.has_credentials) && head.status.is_success() && head.status != StatusCode::PARTIAL_CONTENT {
            self.forget();
        }
        Ok(self.for_one(head, body, why))
    }

    /// Who waits for an answer that may be used without asking only by whoever asked for it, waits for nothing: he is let go
    /// before its body comes.
    fn let_go_of_others(&self, head: &Parts, control: &Control, times: Times) {
        let status = if part_of(head).is_some() { StatusCode::OK } else { head.status };
        let terms = Terms::of(status, &head.headers, control, times.arrival);
        let Some(interest) = &self.interest else { return };
        if reuse(&terms, terms.initial_age, &RequestDirectives::default()) != Reuse::Fresh {
            self.state.cache.unshareable.insert(self.key.clone(), "not-fresh");
            interest.is_for_its_leader();
        }
    }

    /// What chooses the answer, if it may be stored; else why not.
    fn may_be_stored(&self, head: &Parts, control: &Control, times: Times) -> Result<Chosen, &'static str> {
        let asked = self.storing.ok_or("method")?;
        // A part is stored as the whole would be, if it says which one it is.
        let status = if part_of(head).is_some() { StatusCode::OK } else { head.status };
        storable(asked, status, &head.headers, control, times.arrival.received).map_err(NotStorable::label)?;
        let chosen = Chosen::of(&head.headers, &self.chosen_by).ok_or("vary")?;
        // Whether it is whole could not be told (RFC 9111 section 3.3).
        let is_whole = has_known_end(head.version, &head.headers) || head.status == StatusCode::NO_CONTENT;
        // The one that is stored may stand in for it.
        let is_worse = is_error(head.status) && self.stored.as_ref().is_some_and(|stored| !stored.terms.forbids_stale);
        if !is_whole {
            Err("no-end")
        } else if is_worse {
            Err("error")
        } else {
            Ok(chosen)
        }
    }

    async fn store(&self, head: Parts, body: Body, times: Times, terms: (Control, Chosen)) -> Result<Fetched, UpstreamError> {
        let (memory, max) = (&self.state.cache.memory, self.active.config.fetch.max_body);
        let body = match read(body, memory, max).await? {
            Collected::Whole(body) => body,
            Collected::TooLarge(body) => {
                self.forget();
                return Ok(self.for_one(head, body, "too_large"));
            }
        };
        let part = part_of(&head);
        if part.is_some_and(|part| part.length() != body.len() as u64) {
            return Ok(self.for_one(head, Body::from(body), "not-whole"));
        }
        self.state.metrics.payload_bytes.with_label_values(&["received"]).inc_by(body.len() as u64);
        let made_from = match self.made_from(&head, &body, times).await {
            Ok(made_from) => made_from,
            Err(breaks) => return Ok(Fetched::BreaksContract(breaks)),
        };
        let (control, chosen) = terms;
        let mut stored = fields::stored(&head.headers, &control);
        append_via(&mut stored, head.version);
        expose(&mut stored);
        stored.entry(header::DATE).or_insert_with(clock::http_date);
        let (status, known) = (head.status, made_from.known);
        let mut content = Content { status, part, body: body.clone() };
        if let Some(Combined { extent, body, fields }) = part.and_then(|part| self.combined(&head.headers, part, &body)) {
            stored = fields::combined(&fields, &stored);
            let is_whole = extent.is_whole();
            let status = if is_whole { StatusCode::OK } else { status };
            content = Content { status, part: Some(extent).filter(|_| !is_whole), body };
        }
        let terms = Terms::of(content.judged_as(), &head.headers, &control, times.arrival);
        let stored = Arc::new(self.entry(content, &stored, (chosen, terms), made_from, times));
        // Why it is nobody else's, if it is not: nobody could say what puts it out of date.
        let first = Private::new(head, Body::from(body), "unattributed");
        let kept = known && self.keep(&stored);
        let stored = known.then_some(stored);
        Ok(Fetched::Answer { first: Some(first), stored, status, kept, asked_otherwise: self.asks_otherwise })
    }

    /// The stored answer still holds: what came with the 304 is new, and so is its age (section 4.3.4).
    pub(super) async fn still_holds(&self, before: &Arc<Stored>, head: Parts, times: Times) -> Fetched {
        let admission = self.admission(times);
        let mut places = before.places.to_vec();
        places.extend(admission.path_places());
        let known = !before.nameless || admission.own_up(&mut places).await;
        admission.still_holds();
        let made_from = MadeFrom { places, nameless: before.nameless, known };
        let (stored, may_be_stored) = self.updated(before, &head, made_from, times);
        let stored = Arc::new(stored);
        let kept = known && may_be_stored && self.keep(&stored);
        // What one client does not want stored is no less true for others.
        if !kept && self.storing.is_some_and(|asked| !asked.no_store) {
            self.forget();
        }
        let (stored, status) = (Some(stored), StatusCode::NOT_MODIFIED);
        Fetched::Answer { first: None, stored, status, kept, asked_otherwise: self.asks_otherwise }
    }

    /// A stored answer with the fields of a later head; and whether it may still be stored.
    fn updated(&self, before: &Stored, head: &Parts, made_from: MadeFrom, times: Times) -> (Stored, bool) {
        let mut update = head.headers.clone();
        update.entry(header::DATE).or_insert_with(clock::http_date);
        append_via(&mut update, head.version);
        let fields = fields::updated(&before.fields, &update, &Control::of(&update));
        let control = Control::of(&fields);
        // What either of them says is for one alone goes, wherever it came from.
        let fields = fields::stored(&fields, &control);
        // How old it is, the update says; how long it is fresh, all of it.
        let initial_age = initial_age(&update, times.arrival);
        let content = Content { status: before.status, part: before.part, body: before.body.clone() };
        let status = content.judged_as();
        let terms = Terms { initial_age, ..Terms::of(status, &fields, &control, times.arrival) };
        let asked = self.storing.unwrap_or_default();
        let is_storable = storable(asked, status, &fields, &control, times.arrival.received).is_ok();
        let chosen = Chosen::of(&fields, &self.chosen_by);
        let may_be_stored = is_storable && chosen.is_some();
        let chosen = (chosen.unwrap_or_default(), terms);
        (self.entry(content, &fields, chosen, made_from, times), may_be_stored)
    }

    /// An answer to `HEAD` updates what is stored of `GET`, or makes it stale (section 4.3.5).
    fn learn_from_head(&self, head: &Parts, times: Times) {
        let Some(stored) = &self.told_of else { return };
        match head_says(head.status, &head.headers, &stored.fields, stored.body.len() as u64) {
            HeadSays::Nothing => {}
            HeadSays::Another => self.forget(),
            HeadSays::Same => {
                let made_from = MadeFrom { places: stored.places.to_vec(), nameless: stored.nameless, known: true };
                let (updated, may_be_stored) = self.updated(stored, head, made_from, times);
                // Its body was asked for when it was, whatever is said of it now: a change since then still counts.
                let (noted, unsettled) = (stored.noted, stored.unsettled);
                let updated = Arc::new(Stored { noted, unsettled, ..updated });
                if !(may_be_stored && self.keep(&updated)) {
                    self.forget();
                }
            }
        }
    }

    fn entry(
        &self,
        content: Content,
        fields: &HeaderMap,
        (chosen, terms): (Chosen, Terms),
        made_from: MadeFrom,
        times: Times,
    ) -> Stored {
        let Content { status, part, body } = content;
        let MadeFrom { mut places, nameless, .. } = made_from;
        places.sort_unstable();
        places.dedup();
        let Times { arrival: Arrival { received, .. }, received_at, began } = times;
        let invalidation = &self.state.invalidation;
        let unsettled_until = invalidation.ledger.unsettled_until(&places);
        let is_unsettled = invalidation.epoch.moment(began) < unsettled_until;
        let mut fields = compact(fields);
        // Places for what is made for each reader: a head that has room for it need not grow then.
        for name in [header::AGE, X_REQUEST_ID] {
            fields.insert(name, HeaderValue::from_static(""));
        }
        fields.entry(CACHE_STATUS).or_insert(HeaderValue::from_static(""));
        let made = made(&fields, received);
        Stored {
            status,
            fields,
            body,
            part,
            chosen,
            terms,
            made,
            received: (received_at, received),
            noted: self.noted,
            places: places.into(),
            nameless,
            unsettled: is_unsettled.then(|| began + unsettled_expiry(clock::since(began))),
            fingerprint: self.active.fingerprint,
            failure: Failure::default(),
        }
    }

    /// Puts it into the store; whether it may stay there.
    fn keep(&self, stored: &Arc<Stored>) -> bool {
        let responses = &self.state.cache.responses;
        self.state.metrics.payload_bytes.with_label_values(&["kept"]).inc_by(stored.body.len() as u64);
        let is_kept = responses.put(self.key.clone(), stored, &self.chosen_by);
        // In this order: a purge looks through the store after it has been noted.
        let is_purged = self.state.invalidation.has_purged(stored.noted, &stored.places);
        if is_purged {
            responses.forget(&self.key, stored);
        }
        is_kept && !is_purged
    }

    fn forget(&self) {
        if let Some(stored) = &self.stored {
            self.state.cache.responses.forget(&self.key, stored);
        }
    }

    /// An answer that is passed on as it comes; nobody waits for another's of this key for a while.
    fn for_one(&self, head: Parts, body: Body, why: &'static str) -> Fetched {
        if self.interest.is_some() && !is_error(head.status) {
            self.state.cache.unshareable.insert(self.key.clone(), why);
        }
        let status = head.status;
        let first = Some(Private::new(head, body, why));
        Fetched::Answer { first, stored: None, status, kept: false, asked_otherwise: self.asks_otherwise }
    }

    /// What an answer was made from: a list by what it names, anything else by its path, and by whatever may change it. The
    /// error is how a list breaks the contract, if that is enforced.
    async fn made_from(&self, head: &Parts, body: &Bytes, times: Times) -> Result<MadeFrom, Arc<str>> {
        let admission = self.admission(times);
        let validate = self.active.config.payload.validate;
        let plain = if head.status == StatusCode::OK && is_json(&head.headers) {
            let (memory, max) = (&self.state.cache.memory, self.active.config.fetch.max_body);
            decoded(&head.headers, body, memory, max).await
        } else {
            None
        };
        let is_looked_into = plain.is_some();
        if let Some(plain) = plain
            && let Some((places, nameless, known)) = admission.scopes_of(plain).await?
        {
            return Ok(MadeFrom { places, nameless, known });
        }
        let ledger = &self.state.invalidation.ledger;
        let mut places = admission.path_places();
        let (inbox, source) = (self.key.inbox(), self.key.contact());
        // Where lists are not looked into, nobody says that it is about a contact at all: its path is what it is made from.
        let nameless = (validate != Validate::Off).then_some(Scope::Nameless);
        let is_missing = head.status == StatusCode::NOT_FOUND;
        let missing = [Scope::Missing(inbox), Scope::Absent(source)].into_iter().filter(|_| is_missing);
        // What is under the source as a whole: a conversation that was missing may be there after any change to it.
        let scopes = [Scope::IdentityOfSource(source), Scope::Source(source)].into_iter().chain(nameless).chain(missing);
        places.extend(scopes.map(|scope| ledger.place(&scope)));
        let contact = self.state.believed(&self.active, inbox, source, clock::now());
        places.extend(contact.map(|contact| ledger.place(&Scope::Contact(contact))));
        // Where lists are checked, what comes in the place of one and is none is nobody else's.
        let in_place_of_list = head.status.is_success();
        // It may be a list that could not be looked into: a part of one, or one that did not come out of its coding.
        let may_be_list = in_place_of_list && speaks_json(&head.headers) && !is_looked_into;
        let known = !in_place_of_list || (validate == Validate::Off && !may_be_list);
        Ok(MadeFrom { places, nameless: false, known })
    }

    fn admission(&self, times: Times) -> Admission<'_> {
        let Self { state, active, key, noted, before, peer, .. } = self;
        Admission { state, active, key, noted: *noted, before: *before, peer, began: times.began }
    }
}
