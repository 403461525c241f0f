//! What is told in the log and measured aside: ids, hashes of contacts, samples, and what bounds the measuring.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::Semaphore;

use crate::engine::clock::Epoch;
use crate::engine::metrics::WebhookResult;
use crate::engine::sampler::{FewASecond, Sampler, Seldom};
use crate::engine::top::Top;
use crate::policy::coherence::ledger::Moment;
use crate::policy::http::headers::{DIGITS, hex};

/// Time between two log lines that tell of violations.
const VIOLATIONS_EVERY: Duration = Duration::from_secs(10);
/// Time between two that tell of what is no list: nothing about it changes from one to the next.
const NO_LISTS_EVERY: Duration = Duration::from_secs(60);
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
    /// What stands in the log for whom.
    pub pseudonyms: Pseudonyms,
    /// When webhooks last came, by what came of them: a moment and one, zero is never.
    webhooks: [AtomicU64; WebhookResult::ALL.len()],
    /// Who asks most, while somebody wants to know.
    pub top: Arc<Top>,
    stand_ins: FewASecond,
    refusals: FewASecond,
    epoch: Epoch,
    /// With what every request id begins.
    process: [u8; DIGITS],
    request_ids: AtomicU64,
    violations: Seldom,
    no_lists: Seldom,
}

/// Keyed hashes that stand in the log for whom must not be named there.
#[derive(Clone)]
pub struct Pseudonyms(RandomState);

impl Pseudonyms {
    /// Of a contact.
    pub fn contact(&self, inbox: &str, contact: &str) -> u64 {
        self.0.hash_one((inbox, contact))
    }

    /// Of an inbox.
    pub fn inbox(&self, inbox: &str) -> u64 {
        self.0.hash_one(("inbox", inbox))
    }

    /// Of a client's address.
    pub fn address(&self, address: IpAddr) -> u64 {
        self.0.hash_one(address)
    }
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
        let (sampler, request_ids) = (Sampler::default(), AtomicU64::new(0));
        let (violations, no_lists) = (Seldom::default(), Seldom::default());
        let (stand_ins, refusals) = (FewASecond::default(), FewASecond::default());
        let process = hex(hasher.hash_one(0));
        let pseudonyms = Pseudonyms(hasher);
        let webhooks = std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            sampler,
            staleness,
            pseudonyms,
            webhooks,
            top: Arc::default(),
            stand_ins,
            refusals,
            epoch,
            process,
            request_ids,
            violations,
            no_lists,
        }
    }

    /// Whether a kept answer that stands in gets an access line: the first of each second, and of more the share of
    /// hits that do.
    pub fn may_tell_of_stand_in(&self, now: Instant, share: f64) -> bool {
        self.stand_ins.takes(self.epoch.moment(now)) || self.sampler.takes(share)
    }

    /// Whether a request that was beyond a limit gets an access line: the first of each second do.
    pub fn may_tell_of_refusal(&self, now: Instant) -> bool {
        self.refusals.takes(self.epoch.moment(now))
    }

    /// A webhook has come.
    pub fn heard_webhook(&self, result: WebhookResult, now: Instant) {
        let Moment(now) = self.epoch.moment(now);
        self.webhooks[result as usize].fetch_max(now + 1, Ordering::Relaxed);
    }

    /// How long ago the last webhook came that ended so, if one has.
    pub fn since_webhook(&self, result: WebhookResult, now: Instant) -> Option<Duration> {
        let last = self.webhooks[result as usize].load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.epoch.time_since(Moment(last), now))
    }

    /// How long this process has served.
    pub fn uptime(&self, now: Instant) -> Duration {
        self.epoch.time_since(Moment(0), now)
    }

    /// A request id that no other request of this process has.
    pub fn request_id(&self) -> HeaderValue {
        let count = self.request_ids.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 2 * DIGITS];
        id[..DIGITS].copy_from_slice(&self.process);
        id[DIGITS..].copy_from_slice(&hex(count));
        // It is cloned for the log: bytes with an owner are shared without another allocation.
        HeaderValue::from_maybe_shared(Bytes::from_owner(id)).expect("hex digits are a header value")
    }

    /// Whether a log line may tell of what is no list at all.
    pub fn may_tell_of_no_list(&self, now: Instant) -> bool {
        self.no_lists.takes(self.epoch.moment(now), NO_LISTS_EVERY)
    }

    /// Whether a log line may tell of violations: at most one in a while, the metric has them all.
    pub fn may_tell_of_violations(&self, now: Instant) -> bool {
        self.violations.takes(self.epoch.moment(now), VIOLATIONS_EVERY)
    }
}
