//! What the upstream said when it asked to be left alone: for which list, for whom, and until when.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use moka::sync::Cache;

use crate::policy::http::attempts::{Failed, LONGEST_PAUSE};
use crate::policy::http::key::Key;
use crate::policy::http::representation::Prepared;

/// All of them together, in bytes: the oldest go first, and what is forgotten is asked again.
const MEMORY: u64 = 4 * 1024 * 1024;

/// A refusal that has not ended.
#[derive(Clone)]
pub struct Refusal {
    /// What follows from it for the next attempt.
    pub failed: Failed,
    /// The settings that it was asked under.
    pub fingerprint: u64,
    /// What readers get who have no other answer, if the upstream said how long that is so.
    pub answer: Option<Arc<Prepared>>,
}

/// A list, and the addresses of the one who was refused; of everybody, if there are none.
type About = (Key, Option<HeaderValue>);

/// All refusals.
pub struct Refusals(Cache<About, Refusal>);

impl Default for Refusals {
    fn default() -> Self {
        let weigh = |(key, asker): &About, refusal: &Refusal| {
            const BOOKKEEPING: usize = 300;
            let answer = refusal.answer.as_ref().map_or(0, |answer| answer.weight() + answer.body.kept().len());
            let weight = BOOKKEEPING + key.weight() + asker.as_ref().map_or(0, HeaderValue::len) + answer;
            u32::try_from(weight).unwrap_or(u32::MAX)
        };
        // A moment more than any refusal holds.
        let kept = LONGEST_PAUSE + Duration::from_secs(1);
        Self(Cache::builder().max_capacity(MEMORY).weigher(weigh).time_to_live(kept).build())
    }
}

impl Refusals {
    /// Remembers one.
    pub fn note(&self, key: &Key, asker: Option<HeaderValue>, refusal: Refusal) {
        self.0.insert((key.clone(), asker), refusal);
        // So that the count is true, by which nearly everybody sees that there is nothing to be looked up.
        self.0.run_pending_tasks();
    }

    /// That of everybody for a list.
    pub fn of_all(&self, key: &Key) -> Option<Refusal> {
        if self.0.entry_count() == 0 { None } else { self.0.get(&(key.clone(), None)) }
    }

    /// Those that one asker meets: of everybody, and his own.
    pub fn met(&self, key: &Key, asker: impl FnOnce() -> HeaderValue) -> impl Iterator<Item = Refusal> {
        let own = if self.0.entry_count() == 0 { None } else { self.0.get(&(key.clone(), Some(asker()))) };
        self.of_all(key).into_iter().chain(own)
    }

    /// The list has been answered.
    pub fn forget(&self, key: &Key) {
        if self.0.entry_count() > 0 {
            self.0.invalidate(&(key.clone(), None));
        }
    }
}
