//! Which contact is behind a source: a bounded memory, fed by every answer that passes and shows it.

use std::hash::{BuildHasher, RandomState};

use moka::sync::Cache;

/// Sources remembered at most, about 100 bytes each.
const SOURCES: u64 = 200_000;

/// What has been learned. Identifiers are kept as keyed hashes only.
pub struct Identities {
    contacts: Cache<u64, u64>,
    verified: Cache<u64, u64>,
    tokens: Cache<u64, u64>,
    hasher: RandomState,
}

impl Identities {
    /// Nothing is known.
    pub fn new(hasher: RandomState) -> Self {
        let new = || Cache::new(SOURCES);
        Self { contacts: new(), verified: new(), tokens: new(), hasher }
    }

    /// The contact behind a source.
    pub fn contact(&self, inbox: &str, source: &str) -> Option<u64> {
        self.contacts.get(&self.hasher.hash_one((inbox, source)))
    }

    /// A source shows this contact. If it was another's before, contacts were merged, and nobody says which other
    /// sources moved with this one: nothing that was learned holds any more.
    pub fn learn(&self, inbox: &str, source: &str, contact: u64) {
        let source = self.hasher.hash_one((inbox, source));
        match self.contacts.get(&source) {
            Some(known) if known == contact => return,
            Some(_) => {
                self.contacts.invalidate_all();
                self.verified.invalidate_all();
                self.tokens.invalidate_all();
            }
            None => {}
        }
        self.contacts.insert(source, contact);
    }

    /// Whose this source is, is not known any more.
    pub fn forget(&self, inbox: &str, source: &str) {
        let source = self.hasher.hash_one((inbox, source));
        self.contacts.invalidate(&source);
        self.verified.invalidate(&source);
    }

    /// Whether this very request (a `GET` with an identifier's hash) was the last of its kind that succeeded for the
    /// source: then it changes nothing.
    pub fn has_verified(&self, inbox: &str, source: &str, request: &str) -> bool {
        self.verified.get(&self.hasher.hash_one((inbox, source))) == Some(self.hasher.hash_one(request))
    }

    /// This very request has succeeded.
    pub fn verified(&self, inbox: &str, source: &str, request: &str) {
        self.verified.insert(self.hasher.hash_one((inbox, source)), self.hasher.hash_one(request));
    }

    /// The contact who subscribes to the cable with this token, as far as anybody has shown it. Only to outdate more
    /// than an event itself names: it may have been another's until just now.
    pub fn contact_of_token(&self, token: &str) -> Option<u64> {
        self.tokens.get(&self.hasher.hash_one(token))
    }

    /// An answer or an event shows whose this token is.
    pub fn learn_token(&self, token: &str, contact: u64) {
        self.tokens.insert(self.hasher.hash_one(token), contact);
    }
}
