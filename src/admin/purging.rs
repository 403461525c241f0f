//! Purging: what is kept of a contact, of an inbox or of everybody goes, and with a contact what is kept of it under its
//! other identifiers.

use std::collections::BTreeSet;

use crate::engine::metrics::InvalidationSource;
use crate::policy::coherence::beliefs::Belief;
use crate::policy::coherence::causes::Cause;
use crate::policy::coherence::ledger::{Of, Place, Scope};
use crate::policy::coherence::reach::Reach;
use crate::policy::http::key::Key;
use crate::state::State;

/// What is to go.
#[derive(Clone, Copy)]
pub enum Purge<'a> {
    /// A contact, by one of its identifiers.
    Contact(&'a str),
    /// An inbox, by its identifier.
    Inbox(&'a str),
    /// Everything.
    All,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Purged {
    /// Lists that were kept, and are not any more.
    pub lists: usize,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Fetches under way whose lists will not be kept.
    pub fetches: usize,
    /// Whose they were, as keyed hashes: as in access lines.
    pub contacts: BTreeSet<u64>,
}

impl Purged {
    /// Whether nothing was known of what was named.
    pub fn is_nothing(&self) -> bool {
        self.lists == 0 && self.fetches == 0 && self.contacts.is_empty()
    }
}

impl Purge<'_> {
    fn means(self, key: &Key) -> bool {
        match self {
            Self::Contact(contact) => key.contact() == contact,
            Self::Inbox(inbox) => key.inbox() == inbox,
            Self::All => true,
        }
    }
}

/// Purges. It looks at all that is kept, so it may take a while.
pub fn purge(state: &State, what: Purge<'_>) -> Purged {
    let mut purged = Purged::default();
    let mut flying = state.cache.flights.keys_under_way();
    flying.extend(state.cache.fetches.keys_under_way());
    purged.fetches = flying.iter().filter(|key| what.means(key)).count();
    // In this order: what is put into the store before it is looked through is found there; what comes later finds
    // the purge.
    match what {
        Purge::All => state.invalidation.purge_all(Cause::Purge),
        Purge::Inbox(inbox) => state.invalidation.purge(&[state.invalidation.ledger.place(&Scope::Inbox(inbox))], Cause::Purge),
        Purge::Contact(contact) => {
            let places = places_of(state, contact, &flying, &mut purged);
            state.invalidation.purge(&places, Cause::Purge);
        }
    }
    state.forget_purged(|key, bytes| {
        purged.lists += 1;
        purged.bytes += bytes as u64;
        purged.contacts.insert(state.observation.pseudonyms.contact(key.inbox(), key.contact()));
    });
    state.metrics.invalidated(InvalidationSource::Purge);
    purged
}

/// What everything is made from that is kept of a contact: of one of its identifiers, and of the contact itself, as
/// far as any list or answer has shown it.
fn places_of(state: &State, contact: &str, flying: &[Key], purged: &mut Purged) -> Vec<Place> {
    let (ledger, active) = (&state.invalidation.ledger, state.active());
    let all_of = |of| Reach::EVERYTHING.scopes(of, None).map(|scope| ledger.place(&scope)).collect::<Vec<_>>();
    let mut places = BTreeSet::from_iter(all_of(Of::Source(contact)));
    let mut inboxes: BTreeSet<String> = flying.iter().map(|key| key.inbox().to_owned()).collect();
    for (key, entry) in state.cache.store.all() {
        if !inboxes.contains(key.inbox()) {
            inboxes.insert(key.inbox().to_owned());
        }
        if key.contact() == contact {
            places.extend(own_places(state, &key, &entry.places));
        }
    }
    for (key, stored) in state.cache.responses.all() {
        inboxes.insert(key.inbox().to_owned());
        if key.contact() == contact {
            places.extend(own_places(state, &key, &stored.places));
        }
    }
    for inbox in &inboxes {
        let whose = active.whose(inbox, contact);
        // However old: to drop one list too many costs a fetch.
        if let Some(Belief { contact: id, .. }) = state.invalidation.sources.belief(whose) {
            places.extend(all_of(Of::Contact(id)));
            purged.contacts.insert(state.observation.pseudonyms.contact(inbox, contact));
            state.invalidation.sources.forget(whose);
        }
    }
    places.into_iter().collect()
}

/// What a list is made from that is its contact's alone.
fn own_places(state: &State, key: &Key, made_from: &[Place]) -> Vec<Place> {
    let account = state.invalidation.identities.account(state.active().fingerprint, key.inbox());
    let shared = [Scope::Inbox(key.inbox()), Scope::Missing(key.inbox()), Scope::AnyConversation, Scope::Nameless];
    let shared = shared.into_iter().chain(account.map(Scope::Account));
    let shared = shared.map(|scope| state.invalidation.ledger.place(&scope));
    let of_many = account.map(Of::Account).into_iter().chain([Of::Anybody, Of::Everybody]);
    let of_many = of_many.filter(|_| key.shows().is_some()).flat_map(|of| state.invalidation.places_of(key, of));
    let shared: Vec<Place> = shared.chain(of_many).collect();
    made_from.iter().filter(|place| !shared.contains(place)).copied().collect()
}
