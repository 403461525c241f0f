//! What the upstream said to preflights, for as long as it said.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;

use crate::policy::http::representation::Prepared;

/// Different preflights remembered at most.
const STORED: u64 = 1000;
/// Longer is not believed; browsers do not either.
pub const LONGEST_LIFE: Duration = Duration::from_secs(2 * 60 * 60);

/// What the upstream said to preflights, by what was asked.
pub struct Preflights(Cache<String, Arc<StoredPreflight>>);

/// One answer.
pub struct StoredPreflight {
    /// What is sent.
    pub answer: Prepared,
    /// When it ends.
    pub until: Instant,
    /// The settings it was made under.
    pub fingerprint: u64,
}

impl Default for Preflights {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(STORED).time_to_live(LONGEST_LIFE).build())
    }
}

impl Preflights {
    /// What was said to this question.
    pub fn get(&self, question: &str) -> Option<Arc<StoredPreflight>> {
        self.0.get(question)
    }

    /// Remembers what was said.
    pub fn insert(&self, question: String, stored: StoredPreflight) {
        self.0.insert(question, Arc::new(stored));
    }
}
