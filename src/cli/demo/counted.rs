//! What the proxies have counted, as it stands in `/metrics`: the acts' claims are checked against this.

use std::collections::BTreeMap;
use std::ops::{Add, Sub};
use std::sync::Arc;
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
    /// Changes told by writes, webhooks, WebSockets and other replicas after which lists were out of date.
    pub(super) by_write: u64,
    pub(super) by_webhook: u64,
    pub(super) by_cable: u64,
    pub(super) by_replica: u64,
    /// Lists that stood in for an error.
    pub(super) stood_in: u64,
    /// Reads that were fetched since nobody could say whether memory still held, and writes that the others could not be
    /// told of.
    pub(super) alone: u64,
    pub(super) untold: u64,
}

impl Counted {
    /// As they stand, of these proxies together.
    pub(super) fn now(all: &[Arc<Metrics>]) -> Self {
        all.iter().map(|metrics| Self::of(metrics)).fold(Self::default(), Self::add)
    }

    fn of(metrics: &Metrics) -> Self {
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
            by_replica: of(&told, "replica"),
            stood_in: figures.sum("anteroom_stale_if_error_total"),
            alone: figures.sum("anteroom_alone_reads_total"),
            untold: figures.sum("anteroom_writes_untold_total"),
        }
    }

    /// How they have grown since `before`, as soon as that is as it should be; else as it is when they cannot be behind any
    /// more.
    pub(super) async fn since(before: Self, all: &[Arc<Metrics>], as_it_should: impl Fn(&Self) -> bool) -> Self {
        let settled = async {
            loop {
                let grown = Self::now(all) - before;
                if as_it_should(&grown) {
                    return grown;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(BEHIND, settled).await.unwrap_or_else(|_| Self::now(all) - before)
    }
}

impl Counted {
    /// Each of them, made of two.
    fn each(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            upstream: of(self.upstream, other.upstream),
            hits: of(self.hits, other.hits),
            misses: of(self.misses, other.misses),
            joined: of(self.joined, other.joined),
            writes: of(self.writes, other.writes),
            failed: of(self.failed, other.failed),
            by_write: of(self.by_write, other.by_write),
            by_webhook: of(self.by_webhook, other.by_webhook),
            by_cable: of(self.by_cable, other.by_cable),
            by_replica: of(self.by_replica, other.by_replica),
            stood_in: of(self.stood_in, other.stood_in),
            alone: of(self.alone, other.alone),
            untold: of(self.untold, other.untold),
        }
    }
}

impl Add for Counted {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.each(other, u64::add)
    }
}

impl Sub for Counted {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        self.each(before, u64::sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_the_page_of_metrics() {
        let [metrics, other] = [Arc::new(Metrics::new()), Arc::new(Metrics::new())];
        let all = [metrics.clone(), other.clone()];
        let none = Counted::now(&all);
        assert_eq!(none, Counted::default());
        metrics.upstream_requests.with_label_values(&["2xx"]).inc_by(3);
        metrics.upstream_requests.with_label_values(&["connect"]).inc();
        metrics.stale_if_error.inc();
        metrics.invalidated(crate::engine::metrics::InvalidationSource::Cable);
        other.stale_if_error.inc();
        let expected = Counted { upstream: 4, stood_in: 2, by_cable: 1, ..Counted::default() };
        assert_eq!(Counted::now(&all) - none, expected);
    }
}
