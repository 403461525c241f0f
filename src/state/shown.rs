//! What reads have last shown of each source, bounded: so that one does not hide what another has shown.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use moka::ops::compute::Op;
use moka::sync::Cache;

use crate::policy::coherence::ledger::Tick;
use crate::policy::coherence::shown::{Difference, Fact, Shown};
use crate::policy::http::key::Key;
use crate::policy::payload::Marks;

/// Sources that are remembered, a few hundred bytes each.
const SOURCES: u64 = 100_000;

/// What reads have last shown of each source. Identifiers are kept as keyed hashes only.
pub struct LastShown {
    sources: Cache<u64, Shown>,
    /// How many came into it: as long as it has held them all, of whoever is not there nothing was shown.
    came: AtomicU64,
    hasher: RandomState,
}

impl LastShown {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self { sources: Cache::new(SOURCES), came: AtomicU64::new(0), hasher }
    }

    /// In which way an answer differs from what other reads of its source have shown; see [`Shown::meet`]. What was shown
    /// under other settings, which have this fingerprint, says nothing.
    pub fn meet(
        &self,
        key: &Key,
        fingerprint: u64,
        marks: &Marks,
        noted: Tick,
        arrived: Tick,
    ) -> Vec<(Fact, Option<u64>, Difference)> {
        let name = self.name(key, fingerprint);
        let mut differences = Vec::new();
        // One after the other: of two that come at once one is the last.
        self.sources.entry(name).and_compute_with(|known| {
            let mut shown = match known {
                Some(known) => known.into_value(),
                None if self.came.fetch_add(1, Ordering::Relaxed) < SOURCES => Shown::default(),
                None => Shown::forgotten(),
            };
            differences = shown.meet(marks, key.resource(), noted, arrived);
            Op::Put(shown)
        });
        differences
    }

    /// An answer to this key still holds, as the upstream says; see [`Shown::holds`].
    pub fn holds(&self, key: &Key, fingerprint: u64, noted: Tick, arrived: Tick) -> bool {
        let mut differs = false;
        self.sources.entry(self.name(key, fingerprint)).and_compute_with(|known| match known {
            Some(known) => {
                let mut shown = known.into_value();
                differs = shown.holds(noted, arrived);
                Op::Put(shown)
            }
            None => Op::Nop,
        });
        differs
    }

    fn name(&self, key: &Key, fingerprint: u64) -> u64 {
        self.hasher.hash_one((fingerprint, key.inbox(), key.contact(), key.host()))
    }
}
