//! What the proxy has counted, as anybody reads it from `/metrics`: the acts' claims are checked against this.

use std::ops::Sub;
use std::time::Duration;

use crate::engine::metrics::Metrics;
use crate::policy::http::exposition::Exposition;

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
        Self::read(&String::from_utf8_lossy(&metrics.render(Exposition::Prometheus)))
    }

    fn read(text: &str) -> Self {
        let requests = |outcome: &str| sum(text, "anteroom_requests_total", &format!("outcome=\"{outcome}\""));
        let told = |source: &str| sum(text, "anteroom_invalidations_total", &format!("source=\"{source}\""));
        Self {
            upstream: sum(text, "anteroom_upstream_requests_total", ""),
            hits: requests("hit"),
            misses: requests("miss"),
            joined: requests("joined"),
            writes: requests("write"),
            failed: requests("failed"),
            by_write: told("write"),
            by_webhook: told("webhook"),
            by_cable: told("cable"),
            stood_in: sum(text, "anteroom_stale_if_error_total", ""),
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

/// All series of a counter that have this label.
fn sum(text: &str, name: &str, label: &str) -> u64 {
    let of_it = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        let is_this_one = labels.is_empty() || labels.starts_with('{');
        (is_this_one && labels.contains(label)).then(|| value.parse::<u64>().ok())?
    });
    of_it.sum()
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

    #[test]
    fn a_counter_is_not_taken_for_another_that_begins_like_it() {
        let text = "# HELP a_total x\na_total{kind=\"x\"} 2\na_total{kind=\"y\"} 3\na_total_else 7\n";
        assert_eq!((sum(text, "a_total", ""), sum(text, "a_total", "kind=\"y\"")), (5, 3));
    }
}
