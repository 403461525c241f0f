//! Metrics of the ways to the upstream: where it is, and whether it is asked at all.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::declared::Declaring;

/// Where the upstream is, and whether it is asked.
pub struct Ways {
    /// `anteroom_upstream_breaker_open`.
    pub breaker_open: IntGauge,
    /// `anteroom_upstream_budget_left`.
    pub budget_left: IntGauge,
    /// `anteroom_upstream_spared_total`.
    pub spared: IntCounterVec,
    /// `anteroom_upstream_lookups_total`.
    pub lookups: IntCounterVec,
    /// `anteroom_upstream_addresses`.
    pub addresses: IntGaugeVec,
}

impl Ways {
    pub(super) fn declare(declare: &mut Declaring) -> Self {
        Self {
            breaker_open: declare.gauge(
                "anteroom_upstream_breaker_open",
                "1 while the upstream is left alone, but for one request a second, since it gave nothing but failures.",
            ),
            budget_left: declare.gauge(
                "anteroom_upstream_budget_left",
                "Requests that may still be sent within this minute, with `upstream.requests_per_minute`.",
            ),
            spared: declare.counters(
                "anteroom_upstream_spared_total",
                "Requests that were not sent to the upstream: it gave nothing but failures (`breaker`), it had had \
                 `upstream.requests_per_minute` (`budget`), or `upstream.max_queued` fetches waited already (`queue`).",
                &[("why", &["breaker", "budget", "queue"])],
            ),
            lookups: declare.counters(
                "anteroom_upstream_lookups_total",
                "Times the upstream's name was looked up, by result: it was found, it failed, or there was no answer within \
                 10 s. After the last two the addresses stay as they were.",
                &[("result", &["found", "failed", "late"])],
            ),
            addresses: declare.gauges(
                "anteroom_upstream_addresses",
                "Addresses of the upstream that are used, or left out since they cannot be connected to or are slow; the \
                 latter are probed.",
                &[("state", &["used", "left_out"])],
            ),
        }
    }
}
