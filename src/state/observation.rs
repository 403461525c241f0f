//! What is told in the log and measured aside: ids, hashes of contacts, samples, and what bounds the measuring.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use tokio::sync::Semaphore;

use crate::engine::clock::Epoch;
use crate::engine::sampler::Sampler;
use crate::policy::coherence::ledger::Moment;
use crate::policy::http::key::Key;

/// Time between two log lines that tell of violations.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Lists being compared at once; each holds two bodies.
const COMPARED_AT_ONCE: usize = 4;
/// Lists whose event may still come; each holds a few places of the ledger.
const AWAITED_AT_ONCE: usize = 1_000;

/// What is told in the log and measured aside.
pub struct Observation {
    /// Which hits get an access line.
    pub sampler: Sampler,
    /// What bounds the measuring of staleness.
    pub staleness: Measuring,
    epoch: Epoch,
    hasher: RandomState,
    request_ids: AtomicU64,
    told_of_violations: AtomicU64,
}

/// What bounds the measuring of staleness.
pub struct Measuring {
    /// Lists being compared.
    pub comparing: Arc<Semaphore>,
    /// Lists whose event may still come.
    pub awaiting: Arc<Semaphore>,
    /// Which hits are audited.
    pub sampler: Sampler,
    /// `upstream.max_in_flight`, of which readers shall find some free.
    pub fetches: usize,
    /// A moment: until then there are no audits.
    pub rests_until: AtomicU64,
}

impl Observation {
    pub(super) fn new(epoch: Epoch, hasher: RandomState, fetches: usize) -> Self {
        let staleness = Measuring {
            comparing: Arc::new(Semaphore::new(COMPARED_AT_ONCE)),
            awaiting: Arc::new(Semaphore::new(AWAITED_AT_ONCE)),
            sampler: Sampler::default(),
            fetches,
            rests_until: AtomicU64::new(0),
        };
        let (sampler, request_ids, told_of_violations) = (Sampler::default(), AtomicU64::new(0), AtomicU64::new(0));
        Self { sampler, staleness, epoch, hasher, request_ids, told_of_violations }
    }

    /// A keyed hash of a contact, for the log.
    pub fn pseudonym(&self, key: &Key) -> u64 {
        self.hasher.hash_one((key.inbox(), key.contact()))
    }

    /// A request id that no other request of this process has.
    pub fn request_id(&self) -> HeaderValue {
        let count = self.request_ids.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:016x}{count:016x}", self.hasher.hash_one(0));
        HeaderValue::try_from(id).expect("hex digits are a header value")
    }

    /// Whether a log line may tell of violations: at most one in a while, the metric has them all.
    pub fn may_tell_of_violations(&self, now: Instant) -> bool {
        let Moment(now) = self.epoch.moment(now);
        let last = self.told_of_violations.load(Ordering::Relaxed);
        let due = last == 0 || u128::from(now.saturating_sub(last)) >= TELL_EVERY.as_millis();
        due && self.told_of_violations.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
