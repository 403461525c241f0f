//! Which answers are out of date: the ledger, what is known of contacts, and the application's events.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::engine::clock::{self, Epoch};
use crate::engine::identities::Identities;
use crate::engine::metrics::{InvalidationSource, Metrics, WebhookResult};
use crate::engine::replicas::fleet::Fleet;
use crate::engine::replicas::keys;
use crate::engine::sampler::Seldom;
use crate::engine::sources::{Sources, Whose};
use crate::engine::store::{Entry, Store};
use crate::engine::webhook_bodies::WebhookBodies;
use crate::policy::coherence::answer_ids::AnswerIds;
use crate::policy::coherence::beliefs::{self, Belief, Elsewhere, Lesson};
use crate::policy::coherence::causes::{Cause, Causes};
use crate::policy::coherence::event::{self, Event, Heard, Touched};
use crate::policy::coherence::ledger::{Ledger, Of, PLACES, Place, Scope, Tick};
use crate::policy::coherence::pages::Pages;
use crate::policy::coherence::purges::Purges;
use crate::policy::coherence::reach::{Happening, Reach};
use crate::policy::coherence::shown::{Came, Difference, Fact};
use crate::policy::coherence::watermark::{Events, Watermark};
use crate::policy::http::key::Key;
use crate::policy::replicas::wire::Item;
use crate::policy::resource::Resource;

/// Bytes of webhooks being read, all together.
const WEBHOOK_MEMORY: u64 = 16 * 1024 * 1024;
/// The most a webhook may say, in bytes.
pub(crate) const LONGEST_WEBHOOK: u64 = 1024 * 1024;

/// What is known of a request that shows, or asks, whose a source is.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// The source.
    pub whose: Whose<'a>,
    /// The tick noted before it was sent.
    pub noted: Tick,
    /// When it was sent.
    pub began: Instant,
}

/// Which answers are out of date, and who tells.
pub struct Invalidation {
    /// What has changed, and when.
    pub ledger: Ledger,
    /// Who told of the last changes.
    pub causes: Causes,
    /// What the ledger's times count from.
    pub epoch: Epoch,
    /// Whose each source is, and what reads have last shown of it.
    pub sources: Sources,
    /// What else is known of identities, and the writes under way that may change whose a source is.
    pub identities: Identities,
    /// Writes under way in other replicas that may change that.
    pub(super) elsewhere: Mutex<Elsewhere>,
    /// Which pages of older messages were asked for.
    pub pages: Pages,
    /// Whether the application's events arrive.
    pub watermark: Watermark,
    /// What is not only out of date, but gone.
    purges: Mutex<Purges>,
    /// Webhooks while they are read.
    pub webhook_bodies: WebhookBodies,
    /// The other replicas, if there are any.
    pub fleet: Option<Arc<Fleet>>,
    /// Whether the log has been told that events do not arrive.
    told_of_silence: AtomicBool,
    /// When the log was last told that the other replicas could not be.
    pub(super) untold: Seldom,
    pub(super) metrics: Arc<Metrics>,
}

impl Invalidation {
    pub(super) fn new(epoch: Epoch, hasher: &RandomState, fleet: Option<Arc<Fleet>>, metrics: Arc<Metrics>) -> Self {
        let own_keys = || [hasher.hash_one(1), hasher.hash_one(2)];
        let hash_key = fleet.as_ref().map_or_else(own_keys, |fleet| keys::of_places(&fleet.settings));
        Self {
            ledger: Ledger::new(PLACES, hash_key),
            causes: Causes::default(),
            epoch,
            sources: Sources::new(hasher.clone()),
            identities: Identities::new(hasher.clone()),
            elsewhere: Mutex::default(),
            pages: Pages::default(),
            watermark: Watermark::default(),
            purges: Mutex::default(),
            webhook_bodies: WebhookBodies::new(WEBHOOK_MEMORY, LONGEST_WEBHOOK),
            fleet,
            told_of_silence: AtomicBool::new(false),
            untold: Seldom::default(),
            metrics,
        }
    }

    /// Whether nothing that this answer was made from has changed since its fetch began.
    pub fn is_current(&self, entry: &Entry) -> bool {
        self.is_untold(entry) && self.ledger.is_current(entry.noted, entry.variants().as_slice())
    }

    /// The same, but that something newer may have been seen by a reader of whatever origin: nobody told of that.
    pub fn is_untold(&self, entry: &Entry) -> bool {
        self.ledger.is_current(entry.noted, &entry.places)
    }

    /// The places every answer to this key has from its path.
    pub fn path_places(&self, key: &Key) -> [Place; 4] {
        let [of_one, of_all] = shown_of(key, Of::Source(key.contact()));
        [of_one, of_all, Scope::Inbox(key.inbox()), Scope::List(key.text_of_list())]
            .map(|scope| self.ledger.place(&scope))
    }

    /// Where it is written that something has changed that answers to this key show of somebody.
    pub fn places_of(&self, key: &Key, of: Of<'_>) -> [Place; 2] {
        shown_of(key, of).map(|scope| self.ledger.place(&scope))
    }

    /// A fetch of this key is about to begin: what it may show is found by whoever tells of a change from here on.
    pub fn asked_for(&self, key: &Key) {
        if let (Some(conversation), Some(before)) = (key.resource().conversation(), key.before()) {
            self.pages.asked(conversation, before);
        }
    }

    /// What is made from this place is out of date from here on; why is remembered for a while. Other replicas are told.
    pub fn outdate(&self, place: Place, cause: Cause) -> Tick {
        self.outdate_for(place, Duration::ZERO, cause)
    }

    /// The same of what may go on changing for so long, though nobody says so.
    pub fn outdate_for(&self, place: Place, settle: Duration, cause: Cause) -> Tick {
        if !settle.is_zero() {
            // Unsettled first: a fetch that sees the new tick sees this too.
            self.ledger.unsettle(place, self.epoch.moment_after(clock::now(), settle));
        }
        // And queued before it is seen: what is seen to have changed is told, or is known to wait for that.
        self.tell(place, settle, false, cause);
        self.outdate_here(place, cause)
    }

    /// What is made from this place is out of date from here on, in this replica alone.
    pub(super) fn outdate_here(&self, place: Place, cause: Cause) -> Tick {
        self.noted(self.ledger.invalidate(place), cause)
    }

    /// Everything is out of date from here on.
    pub fn outdate_all(&self, cause: Cause) -> Tick {
        self.tell_item(cause, || Item::Everything { gone: cause == Cause::Purge });
        self.noted(self.ledger.invalidate_all(), cause)
    }

    /// Other replicas are told that their answers to this key are out of date; the one here is newer.
    pub fn tell_list(&self, key: &Key) {
        self.tell(self.ledger.place(&Scope::List(key.text_of_list())), Duration::ZERO, false, Cause::Shown);
    }

    fn tell(&self, place: Place, settle: Duration, gone: bool, cause: Cause) {
        let settle = u32::try_from(settle.as_millis()).unwrap_or(u32::MAX);
        self.tell_item(cause, || Item::Places { places: vec![place.number()], settle, gone });
    }

    /// Tells the other replicas of what is not this one's own business.
    pub(super) fn tell_item(&self, cause: Cause, item: impl FnOnce() -> Item) {
        if let Some(fleet) = &self.fleet
            && !matches!(cause, Cause::Replica | Cause::Settings | Cause::Variant)
        {
            fleet.tell(item());
        }
    }

    /// What is made from this place and was noted before this tick is out of date: a newer answer was seen.
    pub fn supersede(&self, place: Place, tick: Tick, cause: Cause) {
        self.ledger.supersede(place, tick);
        self.noted(tick, cause);
    }

    /// A read has shown this contact identifier: that it is missing is out of date, if that is kept. A tick for each fetch would
    /// put others out of date that share its place.
    pub fn is_there(&self, key: &Key, store: &Store) {
        let of = |resource| Key::of(resource, key.inbox(), key.contact(), None);
        let is_missing = |key: Key| store.get(&key).is_some_and(|kept| kept.answer.status == StatusCode::NOT_FOUND);
        if [Resource::Conversations, Resource::Contact].map(of).into_iter().any(is_missing) {
            self.outdate(self.ledger.place(&Scope::Absent(key.contact())), Cause::Shown);
        }
    }

    /// An answer has come.
    pub fn came(&self) -> Came {
        Came { tick: self.ledger.own_tick(), at: self.epoch.moment(clock::now()) }
    }

    /// An answer to this key, asked for at this tick, differs from what another read has shown. What is known to be older is
    /// out of date, and other replicas are told of that if this one has `asked` for it; where nobody knows which is older,
    /// both are.
    pub fn differs(&self, key: &Key, noted: Tick, differences: &[(Fact, Option<u64>, Difference)], asked: bool) {
        // What this read itself showed before is told of by nobody: how old it was is measured.
        let [own, _] = shown_of(key, Of::Source(key.contact()));
        for (fact, conversation, difference) in differences {
            for scope in Reach::of(Happening::Shows(*fact)).scopes(Of::Source(key.contact()), *conversation) {
                let place = self.ledger.place(&scope);
                match difference {
                    Difference::Newer if own == scope => {}
                    Difference::Newer => {
                        if asked {
                            self.tell(place, Duration::ZERO, false, Cause::Shown);
                        }
                        self.supersede(place, noted, Cause::Shown);
                    }
                    Difference::Either => {
                        self.outdate(place, Cause::Shown);
                    }
                }
            }
        }
    }

    /// All that is kept of a source may be older than what a read has shown: it is out of date, and so is what lies in Redis.
    pub fn outdate_source(&self, source: &str) {
        for scope in Reach::of(Happening::Writes).scopes(Of::Source(source), None) {
            self.outdate(self.ledger.place(&scope), Cause::Shown);
        }
    }

    fn noted(&self, tick: Tick, cause: Cause) -> Tick {
        self.causes.note(tick, cause, self.epoch.moment(clock::now()));
        tick
    }

    /// This one answer, to readers of whatever origin, is out of date from here on.
    pub fn invalidate_list(&self, key: &Key, source: InvalidationSource) {
        self.outdate(self.ledger.place(&Scope::List(key.text_of_list())), cause_of(source));
        self.metrics.invalidated(source);
    }

    /// What is made from these places is gone, and none of it that was asked for before will be kept.
    pub fn purge(&self, places: &[Place], cause: Cause) {
        let mut purges = self.purges.lock().unwrap_or_else(PoisonError::into_inner);
        let purge = |place: &Place| {
            self.tell(*place, Duration::ZERO, true, cause);
            self.outdate_here(*place, cause)
        };
        if let Some(last) = places.iter().map(purge).max() {
            purges.purge(places, last);
        }
    }

    /// Everything is gone, and nothing that was asked for before will be kept.
    pub fn purge_all(&self, cause: Cause) {
        let mut purges = self.purges.lock().unwrap_or_else(PoisonError::into_inner);
        purges.purge_all(self.outdate_all(cause));
    }

    /// Whether a purge has been since this was asked for: it may not be kept, nor stand in for anything.
    pub fn is_purged(&self, entry: &Entry) -> bool {
        self.has_purged(entry.noted, &entry.places)
    }

    /// The same of whatever was asked for at this tick and is made from these places.
    pub fn has_purged(&self, noted: Tick, places: &[Place]) -> bool {
        self.purges.lock().unwrap_or_else(PoisonError::into_inner).has_purged(noted, places)
    }

    /// An event says that something of these has changed, or that they have this new message: what shows it is out of date
    /// from here on.
    pub fn changed(&self, touched: &Touched, event: Event, message: Option<u64>, source: InvalidationSource) {
        let reach = Reach::of(Happening::Event(event));
        let conversation = touched.conversation.map(|(_, display)| display);
        // Which pages other replicas were asked for, nobody here knows.
        let may_have = self.fleet.is_some() || self.pages.may_have(conversation, message);
        let later = reach.later(conversation).filter(|_| may_have);
        for scope in reach.touched(touched).chain(later) {
            self.outdate(self.ledger.place(&scope), cause_of(source));
        }
        self.reach_who_moves(cause_of(source));
        self.metrics.invalidated(source);
    }

    /// Whoever is just being merged or created may be the one already whom a change was about: what is kept of them is
    /// out of date, too.
    pub fn reach_who_moves(&self, cause: Cause) {
        for contact in self.identities.moving() {
            self.outdate_contact(contact, cause);
        }
        for place in self.identities.moving_places().into_iter().chain(self.moving_elsewhere()) {
            self.outdate(place, cause);
        }
    }

    /// Whatever shows something of a contact is out of date from here on.
    pub fn outdate_contact(&self, contact: u64, cause: Cause) {
        for scope in Reach::EVERYTHING.scopes(Of::Contact(contact), None) {
            self.outdate(self.ledger.place(&scope), cause);
        }
    }

    /// An event may tell of a merge: who is behind which source is not believed any more.
    pub fn moved(&self, heard: &Heard, source: InvalidationSource) {
        for scope in heard.identities() {
            self.outdate(self.ledger.place(&scope), cause_of(source));
        }
    }

    /// Hears a genuine webhook: what it touches is out of date. `now` is the wall clock since 1970. A second one, or a
    /// late one, costs a needless fetch.
    pub fn hear(&self, body: &[u8], now: Duration) -> (Event, WebhookResult) {
        let Some(heard) = event::of_webhook(body) else { return (Event::Other, WebhookResult::Malformed) };
        if heard.tells_of_messages() {
            self.watermark.heard(self.epoch.moment(clock::now()));
            self.tell_item(Cause::Webhook, || Item::Heard);
        }
        if !heard.changes_lists {
            return (heard.event, WebhookResult::NoChange);
        }
        if heard.touched.is_empty() {
            return (heard.event, WebhookResult::Unattributed);
        }
        self.moved(&heard, InvalidationSource::Webhook);
        self.changed(&heard.touched, heard.event, heard.message, InvalidationSource::Webhook);
        if let Some(happened) = heard.happened {
            let delay = now.saturating_sub(Duration::from_millis(happened));
            self.metrics.webhook_delay.observe(delay.as_secs_f64());
        }
        (heard.event, WebhookResult::Outdated)
    }

    /// Whether the application's events arrive. Tells once when they cease and once when they are back.
    pub fn events(&self, silent_after: Duration, now: Instant) -> Events {
        let events = self.watermark.events(self.epoch.moment(now), silent_after);
        let silent = matches!(events, Events::Silent { .. });
        if silent != self.told_of_silence.load(Ordering::Relaxed)
            && silent != self.told_of_silence.swap(silent, Ordering::Relaxed)
        {
            if silent {
                tracing::warn!(after = ?silent_after, "webhooks are silent: a message must have caused one");
            } else {
                tracing::info!("webhooks arrive again");
            }
        }
        events
    }

    /// Where it is written that a source, or the contact behind it, may be another's by now.
    pub fn identity_places(&self, source: &str, contact: u64) -> [Place; 2] {
        [Scope::IdentityOfSource(source), Scope::Identity(contact)].map(|scope| self.ledger.place(&scope))
    }

    pub(super) fn is_moving(&self, identities: &[Place]) -> bool {
        self.identities.is_moving(identities) || self.is_moving_elsewhere(identities)
    }

    /// Whether what is believed can be checked: without a lease nobody knows what the other replicas have changed.
    fn may_believe(&self) -> bool {
        self.fleet.as_ref().is_none_or(|fleet| fleet.is_leased())
    }

    /// The contact behind a source, as far as that may be believed: nothing has changed it since it was shown, nothing
    /// under way may be about to, and it is no older than this.
    pub fn believed(&self, whose: Whose<'_>, now: Instant, at_most: Duration) -> Option<u64> {
        if !self.may_believe() {
            return None;
        }
        let belief = self.sources.belief(whose)?;
        let places = self.identity_places(whose.source, belief.contact);
        let holds = belief.holds(&self.ledger, &places, now, at_most) && !self.is_moving(&places);
        holds.then_some(belief.contact)
    }

    /// Whether this very request (a `GET` with an identifier's hash) has succeeded, and the source is still the same:
    /// then it changes nothing.
    pub fn has_verified(&self, whose: Whose<'_>, request: &str, now: Instant, at_most: Duration) -> bool {
        self.may_believe()
            && self.identities.verified(whose, request).is_some_and(|(noted, began)| {
                let places = [self.ledger.place(&Scope::IdentityOfSource(whose.source))];
                self.ledger.is_current(noted, &places)
                    && now.saturating_duration_since(began) <= at_most
                    && !self.is_moving(&places)
            })
    }

    /// An answer shows the contact of a source.
    pub fn learn(&self, shown: Shown<'_>, contact: u64) {
        let Shown { whose, noted, began } = shown;
        let with_places = |belief: Belief| (belief, self.identity_places(whose.source, belief.contact));
        let known = self.sources.belief(whose).map(with_places);
        let shown = with_places(Belief { contact, noted, began });
        let is_settled =
            self.ledger.unsettled_until(&shown.1) <= self.epoch.moment(began) && !self.is_moving_elsewhere(&shown.1);
        match beliefs::learn(&self.ledger, known, shown, is_settled) {
            Lesson::Nothing => {}
            Lesson::Forget => self.sources.forget(whose),
            Lesson::Believe => self.sources.believe(whose, shown.0),
            Lesson::Merged { older, believe } => {
                self.outdate_contact(older, Cause::Merge);
                self.outdate(self.ledger.place(&Scope::Identity(older)), Cause::Merge);
                if believe {
                    self.sources.believe(whose, shown.0);
                }
            }
        }
    }

    /// An answer that passes may show the token with which a contact will subscribe. Nobody asks if nobody listens.
    pub fn learn_token(&self, ids: &AnswerIds, is_observed: bool) {
        if let (Some(token), Some(contact)) = (&ids.token, ids.contact)
            && is_observed
        {
            self.identities.learn_token(token, contact);
        }
    }
}

/// What an answer to this key shows of somebody: of its own conversation, and of all; twice the same if it is of none.
fn shown_of<'a>(key: &Key, of: Of<'a>) -> [Scope<'a>; 2] {
    match (key.shows(), key.resource().conversation()) {
        (Some(part), conversation) => [conversation, None].map(|conversation| Scope::Part(part, of, conversation)),
        (None, _) => [of; 2].map(|of| match of {
            Of::Source(source) => Scope::Source(source),
            Of::Contact(id) => Scope::Contact(id),
            Of::Account(id) => Scope::Account(id),
            Of::Anybody | Of::Everybody => Scope::AnyConversation,
        }),
    }
}

fn cause_of(source: InvalidationSource) -> Cause {
    match source {
        InvalidationSource::Write => Cause::Write,
        InvalidationSource::Webhook => Cause::Webhook,
        InvalidationSource::Cable => Cause::Cable,
        InvalidationSource::Purge => Cause::Purge,
        InvalidationSource::Flight => Cause::Flight,
        InvalidationSource::Bypass => Cause::Bypass,
        InvalidationSource::Replica => Cause::Replica,
    }
}
