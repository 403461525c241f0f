//! Answers in memory, and the fetches that bring them.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::ops::compute::Op;
use moka::sync::Cache as Moka;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::engine::common_heads::CommonHeads;
use crate::engine::fetch_result::FetchResult;
use crate::engine::flights::Flights;
use crate::engine::memory::Memory;
use crate::engine::metrics::Metrics;
use crate::engine::preflights::Preflights;
use crate::engine::responses::{Fetched, Responses};
use crate::engine::store::{Entry, Store};
use crate::policy::coherence::ledger::Tick;
use crate::policy::http::key::Key;

/// How many lists are remembered as not to be shared, and for how long.
const UNSHAREABLE: u64 = 10_000;
const UNSHAREABLE_FOR: Duration = Duration::from_secs(10);
/// Lists remembered by what they last showed, if the upstream tells origins apart.
const VARIED: u64 = 100_000;
/// Bodies being put into a coding at once: more readers get the plain body meanwhile.
const ENCODED_AT_ONCE: usize = 4;

/// How an answer stands to the last one that readers of whatever origin were shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// It is the same, or the first of all.
    Same,
    /// It is another one, asked for after that one had come, or what came before is forgotten.
    Other,
    /// It is another one, and which of the two is the newer nobody knows: each was asked for before the other had come.
    OtherMeanwhile,
}

/// Answers in memory, and the fetches that bring them.
pub struct Cache {
    /// The answers.
    pub store: Store,
    /// Fetches under way.
    pub flights: Flights<FetchResult>,
    /// Answers that say themselves how they may be cached (`cache.ttl = "origin"`), by the same bound: of the two stores one is
    /// in use.
    pub responses: Responses,
    /// Fetches of such answers under way.
    pub fetches: Flights<Fetched>,
    /// Lists that could not be shared lately, and why: nobody waits for another's fetch of one.
    pub unshareable: Moka<Key, &'static str>,
    /// What the upstream said to preflights.
    pub preflights: Preflights,
    /// What a list that differs by origin last showed to anybody, as a hash, and the tick at which it came.
    last_shown: Moka<u64, (u64, Tick)>,
    /// How many lists came into it. As long as it has held them all, who is not there has shown nothing.
    shown: AtomicU64,
    hasher: RandomState,
    /// Bounds the bodies being put into a coding at once.
    pub encoding: Arc<Semaphore>,
    /// What the heads of answers have in common.
    pub heads: CommonHeads,
    /// Memory for bodies: stored, being fetched, and still being sent.
    pub memory: Memory,
}

impl Cache {
    pub(super) fn new(config: &Config, metrics: &Metrics) -> Self {
        Self {
            store: Store::new(config.store, config.lifetimes.longest(), metrics),
            flights: Flights::new(config.flights),
            responses: Responses::new(config.store, metrics),
            fetches: Flights::new(config.flights),
            unshareable: Moka::builder().max_capacity(UNSHAREABLE).time_to_live(UNSHAREABLE_FOR).build(),
            preflights: Preflights::default(),
            last_shown: Moka::new(VARIED),
            shown: AtomicU64::new(0),
            hasher: RandomState::new(),
            encoding: Arc::new(Semaphore::new(ENCODED_AT_ONCE)),
            heads: CommonHeads::default(),
            memory: Memory::new(config.store.memory.saturating_add(config.fetch.memory)),
        }
    }

    /// Empties the store that is no longer in use: that of answers that say themselves how they may be cached, or the other. What
    /// may not be shared by the one rule may be by the other.
    pub(super) fn empty(&self, by_origin: bool) {
        self.unshareable.invalidate_all();
        if by_origin {
            self.responses.clear();
        } else {
            self.store.clear();
        }
    }

    /// How an answer stands to the last one that readers of any origin were shown; `now` is the tick of its arrival.
    pub fn variant(&self, key: &Key, entry: &Entry, now: Tick) -> Variant {
        let name = self.hasher.hash_one(key.text_of_list());
        let shows = self.hasher.hash_one((entry.answer.status, &entry.answer.body));
        let mut variant = Variant::Same;
        // One after the other: of two that come at once one is the last.
        self.last_shown.entry(name).and_compute_with(|last| {
            variant = match last.as_ref().map(moka::Entry::value) {
                Some((last, _)) if *last == shows => Variant::Same,
                Some((_, arrived)) if entry.noted <= *arrived => Variant::OtherMeanwhile,
                // Nobody has been shown anything else: there is nothing to put out of date.
                None if self.shown.fetch_add(1, Ordering::Relaxed) < VARIED => Variant::Same,
                _ => Variant::Other,
            };
            Op::Put((shows, now))
        });
        variant
    }

    /// Whether readers of other origins may have answers of their own.
    pub fn has_variants(&self, key: &Key) -> bool {
        self.last_shown.contains_key(&self.hasher.hash_one(key.text_of_list()))
    }

    /// Whether another read of this key's source may be kept here, where answers do not say themselves how they may be cached.
    pub fn may_have_others(&self, key: &Key) -> bool {
        self.has_variants(key) || self.store.may_have_others(key)
    }

    /// What is stored for a key, current or not, if it was made under the settings of this fingerprint.
    pub fn stored(&self, key: &Key, fingerprint: u64) -> Option<Arc<Entry>> {
        self.store.get(key).filter(|entry| entry.fingerprint == fingerprint)
    }
}
