//! Metrics of replicas that share what they know through Redis.

use std::array;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::declared::Declaring;
use super::labels::ExchangeFailure;
use super::tier::Tier;

/// Where this replica stands, and what telling the others costs. All at zero without `replicas.redis`, but for the last.
pub struct Replicas {
    states: [(&'static str, IntGauge); STATES.len()],
    /// `anteroom_replicas_members`.
    pub members: IntGauge,
    /// `anteroom_replicas_exchange_seconds`.
    pub exchange: Histogram,
    /// `anteroom_replicas_exchange_failures_total`.
    pub failures: IntCounterVec,
    /// `anteroom_replicas_lag_entries`.
    pub lag: IntGauge,
    /// `anteroom_write_wait_seconds`.
    pub waits: [Histogram; 2],
    /// `anteroom_writes_untold_total`.
    pub untold: IntCounter,
    /// `anteroom_replicas_left_out_total`.
    pub left_out: IntCounter,
    /// `anteroom_epochs_total`.
    pub epochs: IntCounterVec,
    /// `anteroom_replicas_gaps_total`.
    pub gaps: IntCounter,
    /// `anteroom_alone_reads_total`.
    pub alone_reads: IntCounter,
    /// What replicas fetch for each other.
    pub tier: Tier,
    /// `anteroom_replicas_failover_safe`.
    pub failover_safe: IntGauge,
}

const STATES: [&str; 5] = ["leased", "asking", "alone", "disagrees", "leaving"];

impl Replicas {
    pub(super) fn declare(declare: &mut Declaring) -> Self {
        let states = declare.gauges(
            "anteroom_replicas_state",
            "1 for where this replica stands among those that share through Redis, else 0: it may serve from memory \
             (`leased`), it is about to ask whether it may (`asking`), Redis gives no answer and every read is fetched \
             (`alone`), the others have other settings or another secret (`disagrees`), it is told to stop (`leaving`). All 0 \
             without `replicas.redis`.",
            &[("state", &STATES)],
        );
        let waits = declare.histograms(
            "anteroom_write_wait_seconds",
            "How much later writes, webhooks and purges were acknowledged so that the other replicas knew of them: until \
             all had said so (`settled`), or until whoever had not could serve nothing old any more (`timer`).",
            ("by", &["settled", "timer"]),
            &[0.5e-3, 1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
        );
        let failover_safe = declare.gauge(
            "anteroom_replicas_failover_safe",
            "0 if a fail-over of Redis may leave two servers that both take writes, so that replicas may serve what is older than \
             a write that was acknowledged: its `min-replicas-to-write` is 0, or its `min-replicas-max-lag` too long. 1 if not, or \
             if nothing is known.",
        );
        failover_safe.set(1);
        Self {
            states: array::from_fn(|at| (STATES[at], states.with_label_values(&[STATES[at]]))),
            members: declare.gauge("anteroom_replicas_members", "Replicas that share through Redis, with this one."),
            exchange: declare.histogram(
                "anteroom_replicas_exchange_seconds",
                "Time from asking Redis for what the other replicas tell to its answer.",
                &[0.1e-3, 0.25e-3, 0.5e-3, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0],
            ),
            failures: declare.counters(
                "anteroom_replicas_exchange_failures_total",
                "Exchanges with Redis that failed, by why: no connection, no answer in time, credentials or rights, a server \
                 that takes no writes, one that lacks its own replicas (`min-replicas-to-write`), one that is full, anything \
                 else.",
                &[("reason", ExchangeFailure::LABELS)],
            ),
            lag: declare.gauge(
                "anteroom_replicas_lag_entries",
                "Entries of the shared log that this replica has applied, and not yet all others.",
            ),
            waits: array::from_fn(|at| waits.with_label_values(&[["settled", "timer"][at]])),
            untold: declare.counter(
                "anteroom_writes_untold_total",
                "Writes, webhooks and purges that were acknowledged although the other replicas could not be told within \
                 `replicas.tell_within`: those may serve what is older until they hear of it, or the bound on age is reached.",
            ),
            left_out: declare.counter(
                "anteroom_replicas_left_out_total",
                "Times a replica was left out, since it had been silent for longer than its lease; a stopped one is, once.",
            ),
            epochs: declare.counters(
                "anteroom_epochs_total",
                "Times Redis had lost something, so that everything kept was out of date once: the keys were gone \
                 (`missing`), it is another process (`run`), its log is shorter than what was known of it (`ahead`), or holds \
                 something else (`tag`); `other`: another replica found it first.",
                &[("cause", &["missing", "run", "ahead", "tag", "other"])],
            ),
            gaps: declare.counter(
                "anteroom_replicas_gaps_total",
                "Times the shared log no longer had what this replica had missed, so that everything kept was out of date once.",
            ),
            alone_reads: declare.counter(
                "anteroom_alone_reads_total",
                "Reads that memory might have answered and that were fetched, since it was not known whether it still holds.",
            ),
            tier: Tier::declare(declare),
            failover_safe,
        }
    }

    /// This is where it stands.
    pub fn stands(&self, state: &str) {
        for (name, gauge) in &self.states {
            gauge.set(i64::from(*name == state));
        }
    }
}
