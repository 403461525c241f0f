//! What is known of identities beside what reads show: requests that were verified, whose a token is, the account of an inbox;
//! and the writes under way that may change whose a source is.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::recent::Recent;
use super::sources::Whose;
use crate::policy::coherence::beliefs::{Elsewhere, Moves};
use crate::policy::coherence::ledger::{Moment, Place, Tick};

/// Of each, how many are remembered.
const SOURCES: usize = 200_000;

/// A request with an identifier's hash that has succeeded.
#[derive(Clone, Copy)]
struct Verified {
    request: u64,
    noted: Tick,
    began: Instant,
}

/// What is known beside what answers show (`sources`). Identifiers are kept as keyed hashes only.
pub struct Identities {
    verified: Recent<Verified>,
    tokens: Recent<u64>,
    accounts: Recent<u64>,
    writes: Mutex<Moves>,
    moved: Notify,
    hasher: RandomState,
}

impl Identities {
    /// Nothing is known.
    pub fn new(hasher: RandomState) -> Self {
        Self {
            verified: Recent::new(SOURCES),
            tokens: Recent::new(SOURCES),
            accounts: Recent::new(SOURCES),
            writes: Mutex::default(),
            moved: Notify::new(),
            hasher,
        }
    }

    /// When this very request (a `GET` with an identifier's hash) succeeded, if it was the last of its kind that did.
    pub fn verified(&self, whose: Whose<'_>, request: &str) -> Option<(Tick, Instant)> {
        let verified = self.verified.get(self.hasher.hash_one(whose), |verified| *verified)?;
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
        self.tokens.get(self.hasher.hash_one(token), |contact| *contact)
    }

    /// An answer or an event shows whose this token is.
    pub fn learn_token(&self, token: &str, contact: u64) {
        self.tokens.insert(self.hasher.hash_one(token), contact);
    }

    /// The account of an inbox, as its lists have shown it: an inbox never gets another.
    pub fn account(&self, fingerprint: u64, inbox: &str) -> Option<u64> {
        self.accounts.get(self.hasher.hash_one((fingerprint, inbox)), |account| *account)
    }

    /// A list of this inbox shows its account.
    pub fn learn_account(&self, fingerprint: u64, inbox: &str, account: u64) {
        self.accounts.insert(self.hasher.hash_one((fingerprint, inbox)), account);
    }

    /// A write begins that changes no identity.
    pub fn write_begins(&self) -> u64 {
        self.lock().begins(&[], &[])
    }

    /// A write begins that may change these identities, unless another one under way may change one of them, too.
    pub fn move_begins(&self, places: &[Place], contacts: &[u64], in_turn: bool) -> Option<u64> {
        let mut writes = self.lock();
        (!in_turn || !writes.is_moving(places)).then(|| writes.begins(places, contacts))
    }

    /// Waits until no write is under way that `is_moving`, as far as anybody tells.
    pub async fn come_to_rest(&self, is_moving: impl Fn() -> bool) {
        loop {
            let moved = self.moved.notified();
            if !is_moving() {
                return;
            }
            moved.await;
        }
    }

    /// A write of another replica has ended that may have changed this, and had begun in this entry of the log.
    pub fn ended_elsewhere(&self, places: &[Place], began: Option<u64>) {
        self.lock().ended_elsewhere(places, began);
        self.moved.notify_waiters();
    }

    /// A part of the log was missed, or lost with all before it (`anew`).
    pub fn missed(&self, anew: bool) {
        self.lock().missed(anew);
        self.moved.notify_waiters();
    }

    /// What such writes may have changed that ended while this one was under way.
    pub fn beside(&self, write: u64) -> Vec<Place> {
        self.lock().beside(write)
    }

    /// Whether a write is under way that may change one of these identities.
    pub fn is_moving(&self, places: &[Place]) -> bool {
        self.lock().is_moving(places)
    }

    /// What others may have made of the contacts of a write that is still under way: those that were merged meanwhile,
    /// and those that may be about to.
    pub fn moved_meanwhile(&self, write: u64) -> Vec<u64> {
        self.lock().moved_meanwhile(write)
    }

    /// The contacts that writes under way may be about to merge, or have merged already.
    pub fn moving(&self) -> Vec<u64> {
        self.lock().contacts()
    }

    /// The identities that writes under way may be about to change, or have changed already.
    pub fn moving_places(&self) -> Vec<Place> {
        self.lock().places()
    }

    /// Whom this write merges becomes somebody whom only its answer names.
    pub fn goes_to_unknown(&self, write: u64) {
        self.lock().goes_to_unknown(write);
    }

    /// The writes under way of that kind.
    pub fn to_unknown(&self) -> Vec<u64> {
        self.lock().to_unknown()
    }

    /// Whether one of these is still under way.
    pub fn is_under_way(&self, writes: &[u64]) -> bool {
        self.lock().is_under_way(writes)
    }

    /// A write may change what is made from these.
    pub fn write_touches(&self, write: u64, places: &[Place]) {
        self.lock().touches(write, places);
    }

    /// What the others under way may have changed already.
    pub fn touched_by_others(&self, write: u64) -> Vec<Place> {
        self.lock().touched_by_others(write)
    }

    /// Other replicas are told that a write may change this.
    pub fn write_tells(&self, write: u64, places: &[u32]) {
        self.lock().tells(write, places);
    }

    /// What was told so stands in this entry of the log.
    pub fn entered(&self, told: &[u32], seq: u64) {
        self.lock().entered(told, seq);
    }

    /// Whether it is another replica's turn that may change the same as this write.
    pub fn is_behind(&self, write: u64, elsewhere: &Elsewhere, now: Moment) -> bool {
        self.lock().is_behind(write, elsewhere, now)
    }

    /// What other replicas were told of each write that is still under way.
    pub fn told(&self) -> Vec<Vec<u32>> {
        self.lock().told()
    }

    /// A write has ended. If it may have `merged` contacts, the others under way hear of it. Gives what other replicas were
    /// told that it may change.
    pub fn write_ends(&self, write: u64, merged: &[u64]) -> Vec<u32> {
        let told = self.lock().ends(write, merged);
        self.moved.notify_waiters();
        told
    }

    /// Held briefly, never across an await.
    fn lock(&self) -> MutexGuard<'_, Moves> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
