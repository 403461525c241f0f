//! What the proxy has counted, as it stands in `/metrics`: the acts' claims are checked against this.

use std::collections::BTreeMap;
use std::ops::Sub;
use std::time::Duration;

use crate::engine::metrics::Metrics;

/// How long a counter may be behind the answer that it counts.
const BEHIND: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The counters that the acts are about, all as they stand or as they have grown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Requests to the upstream, whatever came of them.
    pub(super) upstream: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) joined: u64,
    pub(super) writes: u64,
    pub(super) failed: u64,
    /// Changes told by writes, webhooks and WebSockets after which lists were out of date.
    pub(super) by_write: u64,
    pub(super) by_webhook: u64,
    pub(super) by_cable: u64,
    /// Lists that stood in for an error.
    pub(super) stood_in: u64,
}

impl Counted {
    /// As they stand.
    pub(super) fn now(metrics: &Metrics) -> Self {
        let figures = metrics.figures();
        let requests = figures.by("anteroom_requests_total", "outcome");
        let told = figures.by("anteroom_invalidations_total", "source");
        let of = |counts: &BTreeMap<&str, u64>, label: &str| counts.get(label).copied().unwrap_or_default();
        Self {
            upstream: figures.sum("anteroom_upstream_requests_total"),
            hits: of(&requests, "hit"),
            misses: of(&requests, "miss"),
            joined: of(&requests, "joined"),
            writes: of(&requests, "write"),
            failed: of(&requests, "failed"),
            by_write: of(&told, "write"),
            by_webhook: of(&told, "webhook"),
            by_cable: of(&told, "cable"),
            stood_in: figures.sum("anteroom_stale_if_error_total"),
        }
    }

    /// How they have grown since `before`, as soon as that is as it should be; else as it is when they cannot be behind any
    /// more.
    pub(super) async fn since(before: Self, metrics: &Metrics, as_it_should: impl Fn(&Self) -> bool) -> Self {
        let settled = async {
            loop {
                let grown = Self::now(metrics) - before;
                if as_it_should(&grown) {
                    return grown;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(BEHIND, settled).await.unwrap_or_else(|_| Self::now(metrics) - before)
    }
}

impl Sub for Counted {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            upstream: self.upstream - before.upstream,
            hits: self.hits - before.hits,
            misses: self.misses - before.misses,
            joined: self.joined - before.joined,
            writes: self.writes - before.writes,
            failed: self.failed - before.failed,
            by_write: self.by_write - before.by_write,
            by_webhook: self.by_webhook - before.by_webhook,
            by_cable: self.by_cable - before.by_cable,
            stood_in: self.stood_in - before.stood_in,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_the_page_of_metrics() {
        let metrics = Metrics::new();
        let none = Counted::now(&metrics);
        assert_eq!(none, Counted::default());
        metrics.upstream_requests.with_label_values(&["2xx"]).inc_by(3);
        metrics.upstream_requests.with_label_values(&["connect"]).inc();
        metrics.stale_if_error.inc();
        metrics.invalidated(crate::engine::metrics::InvalidationSource::Cable);
        let expected = Counted { upstream: 4, stood_in: 1, by_cable: 1, ..Counted::default() };
        assert_eq!(Counted::now(&metrics) - none, expected);
    }
}
