//! Answers in memory, and the fetches that bring them.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache as Moka;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::engine::fetch_result::FetchResult;
use crate::engine::flights::Flights;
use crate::engine::memory::Memory;
use crate::engine::metrics::Metrics;
use crate::engine::preflights::Preflights;
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

/// Answers in memory, and the fetches that bring them.
pub struct Cache {
    /// The answers.
    pub store: Store,
    /// Fetches under way.
    pub flights: Flights<FetchResult>,
    /// Lists that could not be shared lately, and why: nobody waits for another's fetch of one.
    pub unshareable: Moka<Key, &'static str>,
    /// What the upstream said to preflights.
    pub preflights: Preflights,
    /// What a list that differs by origin last showed to anybody, as a hash, and when it was asked for.
    last_shown: Moka<u64, (u64, Tick)>,
    hasher: RandomState,
    /// Bounds the bodies being put into a coding at once.
    pub encoding: Arc<Semaphore>,
    /// Memory for bodies: stored, being fetched, and still being sent.
    pub memory: Memory,
}

impl Cache {
    pub(super) fn new(config: &Config, metrics: &Metrics) -> Self {
        Self {
            store: Store::new(config.store, config.lifetimes.longest(), metrics),
            flights: Flights::new(config.flights),
            unshareable: Moka::builder().max_capacity(UNSHAREABLE).time_to_live(UNSHAREABLE_FOR).build(),
            preflights: Preflights::default(),
            last_shown: Moka::new(VARIED),
            hasher: RandomState::new(),
            encoding: Arc::new(Semaphore::new(ENCODED_AT_ONCE)),
            memory: Memory::new(config.store.memory.saturating_add(config.fetch.memory)),
        }
    }

    /// Whether an answer, asked for at this tick, is another than the last one to readers of any origin.
    pub fn shows_something_new(&self, key: &Key, entry: &Entry) -> bool {
        let name = self.hasher.hash_one(key.text_of_list());
        let shows = self.hasher.hash_one((entry.answer.status, &entry.answer.body));
        let last = self.last_shown.get(&name);
        if last.is_none_or(|(_, noted)| noted <= entry.noted) {
            self.last_shown.insert(name, (shows, entry.noted));
        }
        last.is_none_or(|(last, _)| last != shows)
    }

    /// What is stored for a key, current or not, if it was made under the settings of this fingerprint.
    pub fn stored(&self, key: &Key, fingerprint: u64) -> Option<Arc<Entry>> {
        self.store.get(key).filter(|entry| entry.fingerprint == fingerprint)
    }
}
