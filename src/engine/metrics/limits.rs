//! Metrics of limits: what the settings allow, what of it is used, and how often that is not enough.

use std::array;

use prometheus::{IntCounter, IntGauge, IntGaugeVec};

use super::declared::Declaring;
use super::labels::{LIMITS, Limit};

/// What the settings allow, and what was beyond it.
pub struct Limits {
    allowed: IntGaugeVec,
    reached: [IntCounter; Limit::ALL.len()],
    /// Requests whose answers have not been handed over.
    pub requests_in_flight: IntGauge,
}

impl Limits {
    pub(super) fn declare(declare: &mut Declaring) -> Self {
        let reached = declare.counters(
            "anteroom_limit_reached_total",
            "What was beyond a limit of the settings: a request that was refused, or a connection that was closed, not \
             taken, or had an answer cut off. `limits.head` in HTTP/2 counts heads with too many fields only. \
             `limits.idle_timeout` is no trouble: it is how idle connections end.",
            &[("limit", Limit::LABELS)],
        );
        Self {
            allowed: declare.gauges(
                "anteroom_limit",
                "What the settings allow: `cache.memory`, that and `cache.fetch_memory`, `upstream.max_in_flight`, \
                 `cache.max_waiters`, `limits.requests`, and `limits.connections` as far as the open files reach. \
                 Reloading does not change them.",
                &[("of", LIMITS)],
            ),
            reached: array::from_fn(|index| reached.with_label_values(&[Limit::LABELS[index]])),
            requests_in_flight: declare.gauge(
                "anteroom_requests_in_flight",
                "Requests of clients whose answers have not been handed over to the system; at most `limits.requests`.",
            ),
        }
    }

    /// Something was beyond a limit.
    pub fn reached(&self, limit: Limit) {
        self.reached[limit as usize].inc();
    }

    /// So much is allowed.
    pub fn allow(&self, of: &str, limit: u64) {
        self.allowed.with_label_values(&[of]).set(i64::try_from(limit).unwrap_or(i64::MAX));
    }
}
