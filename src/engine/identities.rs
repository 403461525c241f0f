//! Which contact is behind a source: a bounded memory of beliefs, fed by every answer that passes and shows it, and of
//! the writes under way that may change it.
//!
//! A belief is never more than that: whether it still holds is asked of the ledger, the clock and the writes under way.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use moka::sync::Cache;
use tokio::sync::Notify;

use crate::policy::coherence::ledger::{Place, Tick};

/// Sources remembered at most, about 150 bytes each.
const SOURCES: u64 = 200_000;

/// What an answer has shown of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Belief {
    /// The contact.
    pub contact: u64,
    /// The tick noted before the request that has shown it.
    pub noted: Tick,
    /// When that request began.
    pub began: Instant,
}

/// A request with an identifier's hash that has succeeded.
#[derive(Clone, Copy)]
struct Verified {
    request: u64,
    noted: Tick,
    began: Instant,
}

/// A source as one upstream knows it: what was learned of another one says nothing.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Whose<'a> {
    /// The settings under which the upstream was asked.
    pub fingerprint: u64,
    /// The inbox identifier.
    pub inbox: &'a str,
    /// The contact identifier.
    pub source: &'a str,
}

/// What is believed. Identifiers are kept as keyed hashes only.
pub struct Identities {
    contacts: Cache<u64, Belief>,
    verified: Cache<u64, Verified>,
    tokens: Cache<u64, u64>,
    accounts: Cache<u64, u64>,
    writes: Mutex<Writes>,
    moved: Notify,
    hasher: RandomState,
}

/// Writes under way.
#[derive(Default)]
struct Writes {
    next: u64,
    under_way: HashMap<u64, UnderWay>,
}

#[derive(Default)]
struct UnderWay {
    /// The identities that it may change; none if it changes none.
    places: Vec<Place>,
    /// The contacts behind them when it began.
    contacts: Vec<u64>,
    /// Contacts that were merged by others while it was under way.
    merged: Vec<u64>,
}

impl Identities {
    /// Nothing is known.
    pub fn new(hasher: RandomState) -> Self {
        Self {
            contacts: Cache::new(SOURCES),
            verified: Cache::new(SOURCES),
            tokens: Cache::new(SOURCES),
            accounts: Cache::new(SOURCES),
            writes: Mutex::default(),
            moved: Notify::new(),
            hasher,
        }
    }

    /// What was last shown of a source, whether or not it still holds.
    pub fn last_shown(&self, whose: Whose<'_>) -> Option<Belief> {
        self.contacts.get(&self.hasher.hash_one(whose))
    }

    /// A source shows this contact.
    pub fn believe(&self, whose: Whose<'_>, belief: Belief) {
        self.contacts.insert(self.hasher.hash_one(whose), belief);
    }

    /// Whose this source is, is not known any more.
    pub fn forget(&self, whose: Whose<'_>) {
        self.contacts.invalidate(&self.hasher.hash_one(whose));
    }

    /// When this very request (a `GET` with an identifier's hash) succeeded, if it was the last of its kind that did.
    pub fn verified(&self, whose: Whose<'_>, request: &str) -> Option<(Tick, Instant)> {
        let verified = self.verified.get(&self.hasher.hash_one(whose))?;
        (verified.request == self.hasher.hash_one(request)).then_some((verified.noted, verified.began))
    }

    /// This very request has succeeded; it was asked at this tick and moment.
    pub fn verify(&self, whose: Whose<'_>, request: &str, noted: Tick, began: Instant) {
        let request = self.hasher.hash_one(request);
        self.verified.insert(self.hasher.hash_one(whose), Verified { request, noted, began });
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

    /// The account of an inbox, as its lists have shown it: an inbox never gets another.
    pub fn account(&self, fingerprint: u64, inbox: &str) -> Option<u64> {
        self.accounts.get(&self.hasher.hash_one((fingerprint, inbox)))
    }

    /// A list of this inbox shows its account.
    pub fn learn_account(&self, fingerprint: u64, inbox: &str, account: u64) {
        self.accounts.insert(self.hasher.hash_one((fingerprint, inbox)), account);
    }

    /// A write begins that changes no identity.
    pub fn write_begins(&self) -> u64 {
        self.lock().enter(UnderWay::default())
    }

    /// A write begins that may change these identities, unless another one under way may change one of them, too.
    pub fn move_begins(&self, places: &[Place], contacts: &[u64], in_turn: bool) -> Option<u64> {
        let mut writes = self.lock();
        if in_turn && writes.is_moving(places) {
            return None;
        }
        Some(writes.enter(UnderWay { places: places.to_vec(), contacts: contacts.to_vec(), merged: Vec::new() }))
    }

    /// Waits until no write is under way that may change one of these identities.
    pub async fn come_to_rest(&self, places: &[Place]) {
        loop {
            let moved = self.moved.notified();
            if !self.is_moving(places) {
                return;
            }
            moved.await;
        }
    }

    /// Whether a write is under way that may change one of these identities.
    pub fn is_moving(&self, places: &[Place]) -> bool {
        self.lock().is_moving(places)
    }

    /// What others may have made of the contacts of a write that is still under way: those that were merged meanwhile,
    /// and those that may be about to.
    pub fn moved_meanwhile(&self, write: u64) -> Vec<u64> {
        let writes = self.lock();
        let others = writes.under_way.iter().filter(|(id, _)| **id != write);
        let mut contacts: Vec<u64> = others.flat_map(|(_, other)| other.contacts.iter().copied()).collect();
        contacts.extend(writes.under_way.get(&write).into_iter().flat_map(|own| own.merged.iter().copied()));
        contacts
    }

    /// The contacts that writes under way may be about to merge, or have merged already.
    pub fn moving(&self) -> Vec<u64> {
        self.lock().under_way.values().flat_map(|write| write.contacts.iter().copied()).collect()
    }

    /// The identities that writes under way may be about to change, or have changed already.
    pub fn moving_places(&self) -> Vec<Place> {
        self.lock().under_way.values().flat_map(|write| write.places.iter().copied()).collect()
    }

    /// A write has ended. If it may have `merged` contacts, the others under way hear of it.
    pub fn write_ends(&self, write: u64, merged: &[u64]) {
        let mut writes = self.lock();
        writes.under_way.remove(&write);
        for other in writes.under_way.values_mut() {
            other.merged.extend_from_slice(merged);
        }
        drop(writes);
        self.moved.notify_waiters();
    }

    /// Held briefly, never across an await.
    fn lock(&self) -> MutexGuard<'_, Writes> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writes {
    fn enter(&mut self, write: UnderWay) -> u64 {
        self.next += 1;
        self.under_way.insert(self.next, write);
        self.next
    }

    fn is_moving(&self, places: &[Place]) -> bool {
        self.under_way.values().any(|write| write.places.iter().any(|place| places.contains(place)))
    }
}
