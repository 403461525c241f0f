//! What would become of a request, and why: what the request path would decide, by the same rules, without doing it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};

use super::access_log::STANDS_IN;
use super::list::LookUp;
use super::origin::answer::Unanswered;
use super::outcome::{Outcome, SPARED_AND_KEPT, spared};
use super::request::ClientRequest;
use super::respond::ttl_left;
use crate::engine::clock;
use crate::engine::metrics::Ending;
use crate::engine::responses::Stored;
use crate::engine::replicas::fleet::Fleet;
use crate::engine::store::Entry;
use crate::policy::coherence::causes::Cause;
use crate::policy::coherence::ledger::{Of, Place, Scope, Tick};
use crate::policy::http::attempts::Attempt;
use crate::policy::http::client::Side;
use crate::policy::http::encoding::Coding;
use crate::policy::http::freshness::{Freshness, Lifetimes, Use, judge, served_until, ttl, use_of};
use crate::policy::http::key::Key;
use crate::policy::http::route::{BypassReason, Route, Rules};
use crate::policy::http::route_words::{Told, refused, told};
use crate::policy::rfc9111::reuse::Reuse;
use crate::state::State;

/// Everything that can be said of a request.
pub struct Explained {
    /// What it is.
    pub told: Told,
    /// The key, if it is a list.
    pub key: Option<Key>,
    /// What is kept for it, if anything is.
    pub kept: Option<Kept>,
    /// The last changes of what the path of a list names, if nothing is kept: why that may be so.
    pub changes: Vec<Change>,
    /// Whether a shared fetch for it is under way.
    pub is_under_way: bool,
    /// Whether the upstream is left alone since it fails.
    pub is_left_alone: bool,
    /// What would become of it now: as its `Cache-Status` would say it, but for what only the upstream's answer tells.
    pub outcome: Outcome,
    /// Why.
    pub why: &'static str,
}

/// An answer that is kept.
pub struct Kept {
    /// Its status.
    pub status: StatusCode,
    /// Bytes of its body, without coding.
    pub bytes: usize,
    /// In which coding it is kept, if it is in one, and the bytes of that.
    pub packed: Option<(Coding, usize)>,
    /// Since its fetch began.
    pub age: Duration,
    /// How old it was then, if the upstream said so.
    pub initial_age: Duration,
    /// The age up to which it is fresh.
    pub ttl: Duration,
    /// Seconds until then; negative if that is over.
    pub ttl_left: i64,
    /// The age up to which it is served while it stays current and the upstream works.
    pub served_until: Duration,
    /// The age up to which it may stand in for a failed fetch.
    pub stands_in_until: Duration,
    /// What its age makes of it.
    pub freshness: Freshness,
    /// Its TTL is shorter than others', since it was fetched soon after a write.
    pub is_unsettled: bool,
    /// The last fetch that was to replace it failed.
    pub refetch_failed: bool,
    /// The codings in which its body has been made for readers, with their bytes.
    pub forms: Vec<(Coding, usize)>,
    /// What has changed since it was fetched; it is current if nothing has. The first change comes first.
    pub changes: Vec<Change>,
}

/// Something that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What.
    pub what: &'static str,
    /// Who told, and how long ago; none if that is no longer remembered.
    pub by: Option<(Cause, Duration)>,
    /// The tick.
    tick: Tick,
}

/// Explains a request, as if it had come from there. Nothing is fetched, counted or changed.
pub fn explain(state: &Arc<State>, side: impl Into<Side>, head: Parts) -> Explained {
    let (active, now) = (state.active(), clock::now());
    let route = active.route(&head);
    let (request_id, tally) = (HeaderValue::from_static(""), Arc::default());
    let (state, active, side) = (state.clone(), active.clone(), side.into());
    let is_alone = state.invalidation.fleet.as_deref().is_some_and(Fleet::serves_nothing_kept);
    let alone = is_alone.then(|| state.invalidation.ledger.now());
    let request = ClientRequest { state, active: active.clone(), head, body: None, side, request_id, tally, traced: None, alone };
    let explained = request.explain(&route, &active.rules(), now);
    match request.instead(&route, &explained.outcome) {
        Some((outcome, why)) => Explained { outcome, why, ..explained },
        None => explained,
    }
}

impl ClientRequest {
    /// What comes of it instead, if it is beyond a limit, or the upstream would not be asked for what passes by the cache.
    fn instead(&self, route: &Route, foreseen: &Outcome) -> Option<(Outcome, &'static str)> {
        if let Some(beyond) = self.would_be_beyond(route, foreseen) {
            return Some(beyond);
        }
        let passes = foreseen.asks_upstream() && matches!(foreseen.ending, Ending::Bypass | Ending::Pass | Ending::Write);
        let why = self.active.upstream.health().would_spare(&self.head.method).filter(|_| passes)?;
        Some((Outcome::forwarded(Ending::Failed, "bypass").detail(why.label()), spared(why)))
    }

    fn explain(&self, route: &Route, rules: &Rules<'_>, now: Instant) -> Explained {
        let is_left_alone = self.active.upstream.health().is_left_alone();
        let said = |outcome, why| Explained {
            told: told(route, rules),
            key: None,
            kept: None,
            changes: Vec::new(),
            is_under_way: false,
            is_left_alone,
            outcome,
            why,
        };
        match route {
            Route::Read(key) => {
                let key = self.key_of_host(key.clone());
                match self.look_up(key) {
                    Ok(found) => self.explain_list(found, rules, now),
                    Err(key) => {
                        let route = Route::Bypass(key.clone(), BypassReason::Origin);
                        let (outcome, why) = bypassed(BypassReason::Origin);
                        Explained { told: told(&route, rules), key: Some(key), ..said(outcome, why) }
                    }
                }
            }
            Route::Cached(key) => self.explain_cached(self.key_of_host(key.clone()), said),
            Route::Bypass(key, reason) => {
                let key = self.key_of_host(key.clone());
                let (outcome, why) = bypassed(*reason);
                let kept = self.stored(&key).map(|entry| self.kept(&key, &entry, now));
                Explained { key: Some(key), kept, ..said(outcome, why) }
            }
            Route::Write(_) => said(Outcome::forwarded(Ending::Write, "method"), "a write is passed on"),
            Route::Tunnel | Route::Pass(_) => said(Outcome::forwarded(Ending::Pass, "bypass"), "it is passed on untouched"),
            Route::Preflight => {
                let (outcome, why) = self.foresee_preflight(now);
                said(outcome, why)
            }
            Route::Webhook => said(Outcome::own(Ending::Webhook), "answered 204, and heeded if it is genuine"),
            Route::Refuse(refusal) => {
                said(Outcome::own(Ending::Refused).detail(refused(*refusal).word), "it is not passed on")
            }
        }
    }

    /// Where the answers themselves say how they are cached.
    fn explain_cached(&self, key: Key, said: impl Fn(Outcome, &'static str) -> Explained) -> Explained {
        let now = clock::now();
        let (stored, outcome, why, is_under_way) = match self.may_give(&key, &self.wants(), now) {
            Ok((stored, reuse)) => {
                let (ending, why) = match reuse {
                    Reuse::Fresh => (Ending::Hit, "it is kept, fresh and current"),
                    Reuse::WhileRevalidating => {
                        (Ending::Stale, "it is kept and current; it is stale, so it is served and refreshed behind")
                    }
                    _ => (Ending::Stale, "it is kept and current; it is stale, and the client takes it so"),
                };
                let left = stored.terms.seconds_left(stored.age(now));
                (Some(stored), Outcome::from_memory(ending, left), why, false)
            }
            Err(Unanswered { stored, part, reason }) => {
                let why = match reason {
                    "vary-miss" => "what is kept was chosen by other fields of a request (Vary)",
                    "partial" => "what is kept is not all that is asked for",
                    "request" => "the request wants the upstream to be asked",
                    "stale" => "what is kept is stale or out of date: the upstream is asked whether it still holds",
                    _ => "nothing is kept for it",
                };
                let (outcome, instead, is_under_way) = self.foresee_asking(&key, stored.clone(), reason, now);
                (stored.or(part), outcome, instead.unwrap_or(why), is_under_way)
            }
        };
        let changes = if stored.is_none() { self.changes_after(None, &key, &[]) } else { Vec::new() };
        let kept = stored.map(|stored| self.kept_by_its_terms(&key, &stored, now));
        Explained { key: Some(key), kept, changes, is_under_way, ..said(outcome, why) }
    }

    fn kept_by_its_terms(&self, key: &Key, stored: &Stored, now: Instant) -> Kept {
        let (terms, age) = (&stored.terms, stored.age(now));
        let otherwise = self.active.config.origin.map_or(Duration::ZERO, |settings| settings.stale_if_error);
        let stale = |longest: Duration| if terms.forbids_stale { Duration::ZERO } else { longest };
        let ttl = terms.lifetime.saturating_sub(terms.initial_age);
        let served_until = ttl.saturating_add(stale(terms.while_revalidating));
        let stands_in_until = ttl.saturating_add(stale(terms.if_error.unwrap_or(otherwise)));
        let since = age.saturating_sub(terms.initial_age);
        let freshness = match since {
            _ if since < ttl => Freshness::Fresh,
            _ if since < served_until => Freshness::Stale,
            _ if since < stands_in_until => Freshness::OnlyOnError,
            _ => Freshness::TooOld,
        };
        Kept {
            status: stored.status,
            bytes: stored.body.len(),
            packed: None,
            age: since,
            initial_age: terms.initial_age,
            ttl,
            ttl_left: terms.seconds_left(age),
            served_until,
            stands_in_until,
            freshness,
            is_unsettled: stored.unsettled.is_some(),
            refetch_failed: stored.failure.last().is_some(),
            forms: Vec::new(),
            changes: self.changes_after(Some(stored.noted), key, &stored.places),
        }
    }

    fn explain_list(&self, found: LookUp, rules: &Rules<'_>, now: Instant) -> Explained {
        let LookUp { key, stored, reason } = found;
        let is_under_way = self.state.cache.flights.is_under_way(&key);
        let (outcome, why) = self.foresee(&key, stored.as_deref(), reason, is_under_way, now);
        let changes = if stored.is_none() { self.changes_after(None, &key, &[]) } else { Vec::new() };
        Explained {
            told: told(&Route::Read(key.clone()), rules),
            kept: stored.map(|entry| self.kept(&key, &entry, now)),
            changes,
            is_under_way,
            is_left_alone: self.active.upstream.health().is_left_alone(),
            key: Some(key),
            outcome,
            why,
        }
    }

    /// What would become of a list: the order of the questions is that of `list`.
    fn foresee(
        &self,
        key: &Key,
        stored: Option<&Entry>,
        reason: &'static str,
        is_under_way: bool,
        now: Instant,
    ) -> (Outcome, &'static str) {
        let lifetimes = self.state.lifetimes(&self.active, now);
        let mut why = "nothing is kept for it";
        if self.alone.is_some() {
            why = "it is not known what other replicas have acknowledged: it is fetched";
        } else if let Some(entry) = stored {
            let (freshness, left) = (judge(entry.aging(now), &lifetimes), ttl_left(entry, &lifetimes, now));
            let is_current = self.state.invalidation.is_current(entry);
            match use_of(freshness, is_current, self.active.config.serve_outdated_on_error) {
                Use::Hit => return (Outcome::from_memory(Ending::Hit, left), "it is kept, fresh and current"),
                Use::WhileRevalidating => {
                    let why = "it is kept and current; its TTL is over, so it is served and refreshed behind";
                    return (Outcome::from_memory(Ending::Stale, left), why);
                }
                Use::IfError => match self.attempt_again(key, entry, now) {
                    Attempt::AsUsual => why = "what is kept is only good to stand in for an error",
                    Attempt::Probe => why = "the upstream failed: it is asked again within a budget, else what is kept stands in",
                    Attempt::NotYet => {
                        let outcome = Outcome::from_memory(Ending::Stale, left).detail(STANDS_IN);
                        return (outcome, "the upstream has just failed: what is kept stands in");
                    }
                },
                Use::Not if !is_current => why = "what is kept is out of date",
                Use::Not => why = "what is kept is too old",
            }
        }
        if self.refused_already(key, now).is_some() {
            let why = "the upstream has said for how long it cannot give it, and nothing stands in";
            return (Outcome::own(Ending::Failed).detail("retry-after"), why);
        }
        let unshareable = self.state.cache.unshareable.get(key);
        let joins = is_under_way && unshareable.is_none();
        if let Some(spares) = self.active.upstream.health().would_spare(&Method::GET).filter(|_| !joins) {
            return match self.stands_in(key, now).filter(|_| unshareable.is_none()) {
                Some(entry) => {
                    let outcome = Outcome::from_memory(Ending::Stale, ttl_left(&entry, &lifetimes, now));
                    (outcome.detail(STANDS_IN), SPARED_AND_KEPT)
                }
                None => (Outcome::forwarded(Ending::Failed, reason).detail(spares.label()), spared(spares)),
            };
        }
        if let Some(detail) = unshareable {
            let why = "its answers could not be shared a moment ago: each reader asks alone for ten seconds";
            return (Outcome::forwarded(Ending::Miss, "uri-miss").detail(detail), why);
        }
        let ending = if is_under_way { Ending::Joined } else { Ending::Miss };
        (Outcome::forwarded(ending, reason).collapsed(is_under_way), why)
    }

    fn kept(&self, key: &Key, entry: &Entry, now: Instant) -> Kept {
        let (lifetimes, aging) = (self.state.lifetimes(&self.active, now), entry.aging(now));
        let Lifetimes { stale_if_error, .. } = lifetimes;
        Kept {
            status: entry.answer.status,
            bytes: entry.answer.body.length(),
            packed: entry.answer.body.coding().map(|coding| (coding, entry.answer.body.kept().len())),
            age: aging.age,
            initial_age: entry.initial_age(),
            ttl: ttl(&aging, &lifetimes),
            ttl_left: ttl_left(entry, &lifetimes, now),
            served_until: served_until(entry.unsettled_expiry(), &lifetimes),
            stands_in_until: stale_if_error,
            freshness: judge(aging, &lifetimes),
            is_unsettled: entry.unsettled_expiry().is_some(),
            refetch_failed: entry.failure().is_some(),
            forms: entry.forms(),
            changes: self.changes_after(Some(entry.noted), key, &[&entry.places, entry.variants().as_slice()].concat()),
        }
    }

    /// What has changed after a tick of what is written in these places, and in those of the key's path; without a tick,
    /// what has changed at all.
    fn changes_after(&self, noted: Option<Tick>, key: &Key, places: &[Place]) -> Vec<Change> {
        let invalidation = &self.state.invalidation;
        let known = self.known_places(key);
        let now = clock::now();
        let change = |what, tick| {
            let told = invalidation.causes.of(tick);
            let by = told.map(|(cause, at)| (cause, invalidation.epoch.time_since(at, now)));
            Change { what, by, tick }
        };
        let mut all = places.to_vec();
        all.extend(invalidation.path_places(key));
        all.sort_unstable();
        all.dedup();
        let words = |place: &Place| {
            known.iter().find(|(known, _)| known == place).map_or("a contact or a conversation in it", |(_, words)| *words)
        };
        let mut changes: Vec<Change> =
            all.iter().map(|place| change(words(place), invalidation.ledger.last_change(*place))).collect();
        changes.push(change("everything", invalidation.ledger.last_change_of_all()));
        // Without a tick there is nothing to compare with: what nobody remembers may be from the beginning.
        changes.retain(|change| noted.map_or(change.by.is_some(), |noted| change.tick > noted));
        changes.sort_unstable_by_key(|change| change.tick);
        changes
    }

    /// The places of which it is known what they stand for.
    fn known_places(&self, key: &Key) -> Vec<(Place, &'static str)> {
        let invalidation = &self.state.invalidation;
        let (whose, fingerprint) = (self.active.whose(key.inbox(), key.contact()), self.active.fingerprint);
        let contact = invalidation.sources.belief(whose).map(|belief| belief.contact);
        let account = invalidation.identities.account(fingerprint, key.inbox());
        let named = [
            (Scope::Source(key.contact()), "something under its contact identifier"),
            (Scope::Inbox(key.inbox()), "its inbox"),
            (Scope::List(key.text_of_list()), "this answer alone"),
            (Scope::Variants(key.text_of_list()), "what readers of another origin were shown"),
            (Scope::Missing(key.inbox()), "who is missing from its inbox"),
            (Scope::Absent(key.contact()), "that its contact identifier is missing"),
            (Scope::IdentityOfSource(key.contact()), "which contact is behind its identifier"),
            (Scope::AnyConversation, "some conversation, nobody knows of whom"),
            (Scope::Nameless, "something, nobody knows of whom"),
        ];
        let more = contact.into_iter().flat_map(|contact| {
            [(Scope::Contact(contact), "its contact"), (Scope::Identity(contact), "which identifiers its contact has")]
        });
        let more = more.chain(account.map(|account| (Scope::Account(account), "its account")));
        let of_list = named.into_iter().chain(more).map(|(scope, words)| (invalidation.ledger.place(&scope), words));
        let whose = [(Of::Source(key.contact()), "what it shows, under its contact identifier")].into_iter();
        let whose = whose.chain(contact.map(|contact| (Of::Contact(contact), "what it shows of its contact")));
        let whose = whose.chain(account.map(|account| (Of::Account(account), "what it shows, in its account")));
        let whose = whose.chain([(Of::Anybody, "what it shows, of whomever"), (Of::Everybody, "some conversation, nobody knows of whom")]);
        // What is not the list has places of its own.
        let whose = whose.filter(|_| key.shows().is_some());
        of_list.chain(whose.flat_map(|(of, words)| invalidation.places_of(key, of).map(|place| (place, words)))).collect()
    }
}

fn bypassed(reason: BypassReason) -> (Outcome, &'static str) {
    let outcome = Outcome::forwarded(Ending::Bypass, "bypass").detail(reason.label());
    (outcome, "it is passed on, and what comes is compared with what is kept")
}
