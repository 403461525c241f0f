//! What becomes of a fetched answer: checked, made ready, stored or not, and for whom it is.

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderValue, StatusCode};

use super::collect::{Collected, body_error, collect};
use super::no_list;
use crate::engine::aside::aside_if;
use crate::engine::body::{Body, Read, read_at_most};
use crate::engine::clock;
use crate::engine::fetch_result::{ErrorAnswer, Failure, FetchResult, Private};
use crate::engine::store::Entry;
use crate::engine::upstream::error::UpstreamError;
use crate::policy::coherence::causes::Cause;
use crate::policy::coherence::ledger::{Place, Scope, Tick};
use crate::policy::http::client::Client;
use crate::policy::http::attempts::{is_about_the_asker, retry_after};
use crate::policy::http::encoding::{Coding, encode, plain_at_most};
use crate::policy::http::freshness::unsettled_expiry;
use crate::policy::http::headers::{has_directive, initial_age, is_json, is_shareable};
use crate::policy::http::kept_body::{Compress, KeptBody};
use crate::policy::http::key::Key;
use crate::policy::http::no_list::NoList;
use crate::policy::http::representation::{Prepared, Received, own_etag};
use crate::policy::resource::ReadKind;
use crate::policy::payload::{self, INLINE_LIMIT, NotAList, Validate};
use crate::state::State;
use crate::state::cache::Variant;
use crate::state::upstream::Active;

/// How many violations a log line or an error names.
const NAMED_VIOLATIONS: usize = 5;
/// The most of an error's body that is kept to be shared.
const ERROR_BODY: usize = 64 * 1024;

/// A fetch whose answer has come.
pub(super) struct Admission<'f> {
    pub(super) state: &'f State,
    /// The settings it was made under.
    pub(super) active: &'f Arc<Active>,
    pub(super) key: &'f Key,
    /// The tick noted before anything was sent.
    pub(super) noted: Tick,
    /// Whose its source was known to be then.
    pub(super) before: Option<u64>,
    /// For whom the upstream was asked.
    pub(super) peer: &'f Client,
    /// When the fetch began: its answer's age counts from there.
    pub(super) began: Instant,
}

/// A list, and the validator of our own if the upstream's does not fit.
type Checked = (payload::Outcome, Option<HeaderValue>);

impl Admission<'_> {
    /// The captured answer is still what the upstream has (RFC 9111 section 4.3.4): body, validators and fields of the
    /// captured one, not of whatever is stored by now.
    pub(super) async fn refreshed(&self, captured: &Entry, head: Parts) -> FetchResult {
        let mut places = captured.places.to_vec();
        places.extend(self.path_places());
        // An empty list may be as empty as before, and another contact's.
        let known = !captured.nameless() || self.own_up(&mut places).await;
        self.still_holds();
        let initial_age = initial_age(&head.headers);
        let wants_no_store = has_directive(&head.headers, "no-store");
        let answer = captured.answer.refreshed(head.headers, head.version, clock::http_date());
        let entry = self.entry_of(answer, places, initial_age, captured.nameless());
        self.store_or_forget(entry, head.status, known && !wants_no_store, !known)
    }

    /// An error of the upstream, or a refusal: nothing that is kept changes by it.
    pub(super) async fn failed(&self, head: Parts, body: Body) -> Result<FetchResult, UpstreamError> {
        self.active.upstream.health().refused(head.status);
        let body = match read_at_most(body, ERROR_BODY).await.map_err(|error| body_error(&error))? {
            Read::Whole(body) => plain_at_most(&head.headers, body, ERROR_BODY).unwrap_or_default(),
            Read::Longer(_) => Bytes::new(),
        };
        let retry_after = retry_after(&head.headers, clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default());
        let asker = is_about_the_asker(head.status).then(|| self.peer.forwarded_for.clone());
        let answer = Arc::new(self.prepared(head, body.into()));
        Ok(FetchResult::Failed(Failure::Answered(ErrorAnswer { answer, retry_after, asker })))
    }

    /// An answer that is not an error of the upstream: stored if it may be, and who may have it.
    pub(super) async fn answered(&self, head: Parts, body: Body) -> Result<FetchResult, UpstreamError> {
        if let Some(what) = self.no_list(&head) {
            no_list::tell(self.state, head.status, what, None);
            if head.status.is_redirection() {
                // Where it leads may depend on how this one reader asked; and it says nothing of what is kept.
                return Ok(self.for_one(head, body, "not_storable"));
            }
        }
        if !is_shareable(head.status, head.version, &head.headers) {
            return Ok(self.private(head, body, "not_storable"));
        }
        let (memory, max) = (&self.state.cache.memory, self.active.config.fetch.max_body);
        let received = |bytes| self.state.metrics.payload_bytes.with_label_values(&["received"]).inc_by(bytes);
        let body = match collect(&head.headers, body, memory, max, received).await? {
            Collected::Whole(body) => body,
            Collected::TooLarge(body) => return Ok(self.private(head, body, "too_large")),
        };
        match head.status {
            StatusCode::OK => Ok(self.list(head, body).await),
            StatusCode::NOT_FOUND => Ok(self.missing(head, body)),
            status => {
                let entry = self.entry(head, body.into(), None, self.path_places(), false);
                Ok(self.store_or_forget(entry, status, false, true))
            }
        }
    }

    async fn list(&self, head: Parts, body: Bytes) -> FetchResult {
        let read = self.key.read();
        let checked = if is_json(&head.headers) { self.check(body.clone()).await } else { Err(NotAList::page_for_people(read)) };
        self.count_list(checked.as_ref().map(|(list, _)| list));
        let enforces = self.active.config.payload.validate == Validate::Enforce;
        match checked {
            Ok((list, _)) if enforces && !list.violations.is_empty() => {
                let first = list.violations.first(NAMED_VIOLATIONS).join("; ");
                FetchResult::Failed(Failure::BreaksContract(first.into()))
            }
            Ok(checked) => {
                self.learn_token(&body);
                self.good_list(head, body, checked).await
            }
            Err(why) => {
                if self.no_list(&head).is_none() {
                    no_list::tell(self.state, StatusCode::OK, NoList::OtherBody, Some(&why));
                }
                if enforces {
                    return FetchResult::Failed(Failure::BreaksContract(why.to_string().into()));
                }
                // A maintenance page says nothing of the list: what is stored stays.
                let entry = self.entry(head, body.into(), None, self.path_places(), false);
                FetchResult::Answer { entry, status: StatusCode::OK, stored: false, only_early: true }
            }
        }
    }

    /// What a list was made from, whether it names nobody, and whether all of it is known; none if it is no list. The error is
    /// how it breaks the contract, if that is enforced.
    pub(super) async fn scopes_of(&self, plain: Bytes) -> Result<Option<(Vec<Place>, bool, bool)>, Arc<str>> {
        let checked = self.check(plain.clone()).await;
        self.count_list(checked.as_ref().map(|(list, _)| list));
        let enforces = self.active.config.payload.validate == Validate::Enforce;
        match checked {
            Ok((list, _)) if enforces && !list.violations.is_empty() => {
                Err(list.violations.first(NAMED_VIOLATIONS).join("; ").into())
            }
            Ok((list, _)) => {
                self.learn_token(&plain);
                Ok(Some(self.made_from(&list).await))
            }
            Err(why) if enforces => Err(why.to_string().into()),
            Err(_) => Ok(None),
        }
    }

    /// A list that may be served: its scopes and what it teaches, then the store.
    async fn good_list(&self, head: Parts, body: Bytes, (list, own_etag): Checked) -> FetchResult {
        let (places, nameless, known) = self.made_from(&list).await;
        let counted = if list.changed {
            let beside = self.state.cache.memory.adopt(list.body.clone());
            // The upstream's body goes; if there was no room beside it, there may be now.
            drop(body);
            beside.or_else(|_| self.state.cache.memory.adopt(list.body.clone()))
        } else {
            drop(body);
            Ok(list.body.clone())
        };
        let keep = known && counted.is_ok() && !has_directive(&head.headers, "no-store");
        let body = counted.unwrap_or(list.body);
        let body = if keep { self.as_kept(body).await } else { body.into() };
        let entry = self.entry(head, body, own_etag, places, nameless);
        self.store_or_forget(entry, StatusCode::OK, keep, !known)
    }

    /// A list as `cache.compress` would have it kept: packed if that saves something and there is room for it.
    async fn as_kept(&self, body: Bytes) -> KeptBody {
        let memory = &self.state.cache.memory;
        if self.active.config.compress == Compress::Off {
            return memory.kept(body).into();
        }
        let (active, plain) = (self.active.clone(), body.clone());
        let work = move || encode(&plain, Coding::Zstd, &active.config.encoding).ok();
        let coded = aside_if(body.len() >= INLINE_LIMIT, work).await;
        let coded = coded.and_then(|coded| memory.keep(&coded).ok());
        coded.and_then(|coded| KeptBody::packed(coded, body.len())).unwrap_or_else(|| memory.kept(body).into())
    }

    /// A 404: an answer, not a failure.
    fn missing(&self, head: Parts, body: Bytes) -> FetchResult {
        let Self { state, active, key, .. } = self;
        let mut places = self.path_places();
        if key.resource().conversation().is_some() {
            // Many things make a conversation a contact's: nobody says of what this was made.
            let entry = self.entry(head, body.into(), None, places, false);
            return self.store_or_forget(entry, StatusCode::NOT_FOUND, false, true);
        }
        let (inbox, source) = (key.inbox(), key.contact());
        let scopes =
            [Scope::Missing(inbox), Scope::Absent(source), Scope::IdentityOfSource(source), Scope::Nameless];
        places.extend(scopes.map(|scope| state.invalidation.ledger.place(&scope)));
        let store = !active.config.lifetimes.negative_ttl.is_zero() && !has_directive(&head.headers, "no-store");
        let body = if store { state.cache.memory.kept(body) } else { body.into() };
        let entry = self.entry(head, body.into(), None, places, false);
        self.store_or_forget(entry, StatusCode::NOT_FOUND, store, false)
    }

    /// Where it is written what readers of other origins have been shown.
    fn variants(&self) -> Place {
        self.state.invalidation.ledger.place(&Scope::Variants(self.key.text_of_list()))
    }

    pub(super) fn path_places(&self) -> Vec<Place> {
        self.state.invalidation.path_places(self.key).to_vec()
    }

    /// What the head tells to be no list.
    fn no_list(&self, head: &Parts) -> Option<NoList> {
        let asked = self.active.upstream.base().join(&self.key.path_and_query()).ok()?;
        NoList::of_head(head.status, &head.headers, &asked)
    }

    fn count_list(&self, checked: Result<&payload::Outcome, &NotAList>) {
        let result = match checked {
            Err(_) => "not_a_list",
            Ok(_) if self.active.config.payload.validate == Validate::Off => "unchecked",
            Ok(list) if list.violations.is_empty() => "keeps_contract",
            Ok(_) => "differs",
        };
        self.state.metrics.payload_lists.with_label_values(&[result]).inc();
    }

    /// The contract pass: checked, trimmed, its scopes read; with a validator of our own if the upstream's does not fit.
    /// Counts and tells what differs.
    async fn check(&self, body: Bytes) -> Result<Checked, NotAList> {
        let (active, read) = (self.active.clone(), self.key.read());
        let is_long = body.len() >= INLINE_LIMIT;
        let work = move || {
            let list = payload::apply_to(read, &body, &active.config.payload)?;
            // Sorted lists are alike in whatever order they came: so is their validator.
            let is_ours = list.changed || (read == ReadKind::Conversations && active.config.payload.trim.sorts());
            let etag = is_ours.then(|| own_etag(&list.body));
            Ok((list, etag))
        };
        let (list, etag) = aside_if(is_long, work).await?;
        let metrics = &self.state.metrics;
        for violation in list.violations.iter() {
            let labels = [violation.field, violation.kind.as_str()];
            metrics.payload_violations.with_label_values(&labels).inc_by(violation.count);
        }
        metrics.payload_unknown_keys.inc_by(list.unknown_keys.total);
        if !list.violations.is_empty() && self.state.observation.may_tell_of_violations(clock::now()) {
            let first = list.violations.first(NAMED_VIOLATIONS).join("; ");
            tracing::warn!(count = list.violations.total(), first, "a list differs from the contract");
        }
        Ok((list, etag))
    }

    /// Makes an answer ready to be sent any number of times.
    fn prepared(&self, head: Parts, body: KeptBody) -> Prepared {
        Prepared::new(Received {
            status: head.status,
            head: head.headers,
            body,
            version: head.version,
            date: clock::http_date(),
            for_one_origin: self.key.origin().is_some(),
            has_codings: !self.active.config.encoding.offer.is_empty(),
        })
    }

    /// An answer made ready, with its own validator if it has one, and what it was made from.
    fn entry(
        &self,
        head: Parts,
        body: KeptBody,
        own_etag: Option<HeaderValue>,
        places: Vec<Place>,
        nameless: bool,
    ) -> Arc<Entry> {
        let initial_age = initial_age(&head.headers);
        let answer = self.prepared(head, body);
        let answer = match own_etag {
            Some(etag) => answer.made_anew(etag),
            None => answer,
        };
        self.entry_of(answer, places, initial_age, nameless)
    }

    fn entry_of(&self, answer: Prepared, places: Vec<Place>, initial_age: Duration, nameless: bool) -> Arc<Entry> {
        let mut places = places;
        places.sort_unstable();
        places.dedup();
        let unsettled_until = self.state.invalidation.ledger.unsettled_until(&places);
        let answer = answer.sharing(|head| self.state.cache.heads.share(head));
        let mut entry = Entry::new(answer, self.began, self.noted, places.into(), self.active.fingerprint).aged(initial_age);
        if self.key.origin().is_some() || !entry.answer.is_for_all_origins() {
            entry = entry.varying(self.variants());
        }
        entry = entry.naming_nobody(nameless);
        if self.state.invalidation.epoch.moment(self.began) < unsettled_until {
            entry = entry.expiring(unsettled_expiry(clock::since(self.began)));
        }
        Arc::new(entry)
    }

    /// An authoritative answer that is not kept removes the older one.
    fn store_or_forget(&self, entry: Arc<Entry>, status: StatusCode, keep: bool, only_early: bool) -> FetchResult {
        // What readers of one origin see puts older answers for those of others out of date.
        if let Some(variants) = entry.variants() {
            let ledger = &self.state.invalidation.ledger;
            // A tick of its own: whoever sees it came after every fetch that is under way.
            match self.state.cache.variant(self.key, &entry, ledger.own_tick()) {
                Variant::Same => {}
                Variant::Other => self.state.invalidation.supersede(variants, entry.noted, Cause::Variant),
                Variant::OtherMeanwhile => {
                    self.state.invalidation.outdate(variants, Cause::Variant);
                }
            }
        }
        if keep {
            let bytes = entry.answer.body.kept().len() as u64;
            self.state.metrics.payload_bytes.with_label_values(&["kept"]).inc_by(bytes);
            self.state.cache.store.put(self.key.clone(), entry.clone());
        }
        // In this order: a purge looks through the store after it has been noted.
        let stored = keep && !self.state.invalidation.is_purged(&entry);
        if !stored {
            self.state.cache.store.forget(self.key, self.noted);
        }
        FetchResult::Answer { entry, status, stored, only_early }
    }

    fn private(&self, head: Parts, body: Body, why: &'static str) -> FetchResult {
        self.state.cache.store.forget(self.key, self.noted);
        // Nor does anybody know whether it is newer than what readers of other origins have.
        self.state.invalidation.outdate(self.variants(), Cause::Variant);
        self.for_one(head, body, why)
    }

    fn for_one(&self, head: Parts, body: Body, why: &'static str) -> FetchResult {
        self.state.cache.unshareable.insert(self.key.clone(), why);
        FetchResult::Private(Private::new(head, body, why))
    }
}
