//! What an answer was made from: the places in the ledger of what its body names; and what it shows that others show, too.

use bytes::Bytes;

use super::admission::Admission;
use super::contact::{Asked, Who};
use crate::engine::sources::Compared;
use crate::policy::coherence::answer_ids::{self, canonical_uuid};
use crate::policy::coherence::causes::Cause;
use crate::policy::coherence::ledger::{Of, Place, Scope};
use crate::policy::coherence::shown::AskedAt;
use crate::policy::http::key::Key;
use crate::policy::payload::{self, BodyScopes, INLINE_LIMIT, Marks};
use crate::policy::resource::ReadKind;
use crate::state::State;
use crate::state::invalidation::Shown;

/// An answer that holds more conversations than this names none of them, but shares one scope with all such answers.
const NAMED_CONVERSATIONS: usize = 32;

impl Admission<'_> {
    /// A contact by itself shows with which token it will subscribe.
    pub(super) fn learn_token(&self, body: &Bytes) {
        if self.key.read() == ReadKind::Contact && body.len() < INLINE_LIMIT {
            self.state.invalidation.learn_token(&answer_ids::of_answer(body), self.active.config.observe_cable);
        }
    }

    /// What a good list was made from, whether it names nobody, and whether all of it is known. What it shows is learned.
    pub(super) async fn made_from(&self, list: &payload::Outcome) -> (Vec<Place>, bool, bool) {
        let Self { state, active, key, noted, began, .. } = self;
        self.shows(list);
        let mut places = self.path_places();
        places.extend(self.body_places(&list.scopes));
        let nameless = list.scopes.contacts.is_empty();
        if let [only] = list.scopes.contacts[..] {
            let whose = active.whose(key.inbox(), key.contact());
            state.invalidation.learn(Shown { whose, noted: *noted, began: *began }, only);
        }
        if let [account] = list.scopes.accounts[..] {
            state.invalidation.identities.learn_account(active.fingerprint, key.inbox(), account);
        }
        let known = if nameless { self.own_up(&mut places).await } else { !list.scopes.too_many_contacts };
        (places, nameless, known)
    }

    /// Finds out whose a list is that names nobody, and adds where it is written that this has changed; whether it was
    /// found out.
    pub(super) async fn own_up(&self, places: &mut Vec<Place>) -> bool {
        let Self { state, active, key, peer, .. } = *self;
        let (inbox, source) = (key.inbox(), key.contact());
        let before = [self.before, state.last_shown(active, key)];
        let Who::Contact(contact) = (Asked { state, active, inbox, source, peer }).contact_of_nameless_list().await else {
            return false;
        };
        // It may have been merged past the proxy since the list was asked for.
        let before = before.into_iter().flatten().filter(|before| *before != contact);
        for contact in before.clone().chain([contact]) {
            places.extend(state.invalidation.identity_places(source, contact));
        }
        // A merge whose answer is due may have moved it: it is what another contact's was when it was asked for.
        let contacts = state.invalidation.identities.moving().into_iter().chain(before).chain([contact]);
        places.extend(contacts.flat_map(|contact| state.invalidation.places_of(key, Of::Contact(contact))));
        places.extend(state.invalidation.moving_elsewhere());
        places.push(state.invalidation.ledger.place(&Scope::Nameless));
        true
    }

    /// Where the last changes of what a body was made from are written.
    fn body_places(&self, scopes: &BodyScopes) -> Vec<Place> {
        if self.key.read() != ReadKind::Conversations {
            return self.places_of_part(scopes);
        }
        let ledger = &self.state.invalidation.ledger;
        let mut places: Vec<Place> = scopes.contacts.iter().map(|id| ledger.place(&Scope::Contact(*id))).collect();
        places.extend(scopes.accounts.iter().map(|id| ledger.place(&Scope::Account(*id))));
        let unnamed = scopes.accounts.is_empty() && !scopes.display_ids.is_empty();
        let many = unnamed
            || scopes.too_many_uuids
            || scopes.too_many_conversations
            || scopes.uuids.len().max(scopes.display_ids.len()) > NAMED_CONVERSATIONS;
        if many {
            places.push(ledger.place(&Scope::AnyConversation));
        } else {
            let uuid_place = |uuid: &String| ledger.place(&Scope::Conversation(&canonical_uuid(uuid)));
            places.extend(scopes.uuids.iter().map(uuid_place));
            let named = scopes.conversations().map(|(account, display)| Scope::AccountConversation(account, display));
            places.extend(named.map(|scope| ledger.place(&scope)));
        }
        places
    }

    /// The same of what is not the list. What an answer does not say of itself, such as its account, its path or its inbox
    /// does, or it is out of date by a change to that of whomever.
    fn places_of_part(&self, scopes: &BodyScopes) -> Vec<Place> {
        let Self { state: State { invalidation, .. }, key, active, .. } = self;
        let places = |of| invalidation.places_of(key, of);
        let mut found: Vec<Place> = scopes.contacts.iter().flat_map(|id| places(Of::Contact(*id))).collect();
        if key.resource().conversation().is_some() {
            let learned = invalidation.identities.account(active.fingerprint, key.inbox());
            let accounts = scopes.accounts.iter().copied().chain(learned).map(Of::Account);
            let anybody = learned.is_none() && scopes.accounts.is_empty();
            // A new message reaches pages of older ones by the conversation alone.
            let anybody = anybody || key.before().is_some();
            let unnamed = scopes.uuids.is_empty().then_some(Of::Everybody);
            let whose = accounts.chain(anybody.then_some(Of::Anybody)).chain(unnamed);
            found.extend(whose.flat_map(places));
            let uuids = scopes.uuids.iter().map(|uuid| canonical_uuid(uuid));
            found.extend(uuids.map(|uuid| invalidation.ledger.place(&Scope::Conversation(&uuid))));
        }
        found
    }

    /// What it shows that others of this contact have shown otherwise puts those out of date.
    fn shows(&self, list: &payload::Outcome) {
        let Self { state, active, key, noted, .. } = *self;
        state.invalidation.is_there(key, &state.cache.store);
        if let Some(marks) = comparable(key, &list.marks) {
            let (asked, arrived) = (AskedAt::Here(noted), state.invalidation.came());
            let answer = Compared { key, fingerprint: active.fingerprint, marks: &marks, asked, arrived };
            let others = || active.config.origin.is_some() || state.cache.may_have_others(key);
            let differences = state.invalidation.sources.meet(&answer, others);
            state.invalidation.differs(key, noted, &differences, true);
        }
        self.outlives_settings();
    }

    /// If the settings have changed meanwhile: what has come under those in force was compared with other answers.
    fn outlives_settings(&self) {
        if self.state.active().fingerprint != self.active.fingerprint {
            self.state.invalidation.outdate_source(self.key.contact());
        }
    }

    /// The same of an answer that still holds, as the upstream says, and may be older than what others have shown meanwhile.
    pub(super) fn still_holds(&self) {
        let Self { state, active, key, noted, .. } = *self;
        if state.invalidation.sources.holds(key, active.fingerprint, noted, state.invalidation.came()) {
            let place = state.invalidation.ledger.place(&Scope::List(key.text_of_list()));
            state.invalidation.outdate(place, Cause::Shown);
        }
        self.outlives_settings();
    }
}

/// Of what an answer shows, what others may show, too. Another query may ask for a part of it; of older messages none is the
/// newest.
pub(super) fn comparable(key: &Key, marks: &Marks) -> Option<Marks> {
    match key.before() {
        Some(_) => Some(Marks { card: marks.card, ..Marks::default() }),
        None => key.query().is_none().then(|| marks.clone()),
    }
}
