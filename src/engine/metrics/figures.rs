//! The figures as they stand at one moment, for whoever shows them in another form than Prometheus'.

use std::collections::BTreeMap;

use prometheus::proto::{Metric, MetricFamily, MetricType};

/// Every series at one moment.
pub struct Figures(Vec<MetricFamily>);

/// A histogram of one or more series together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// The upper bounds of its buckets but the last, which has none.
    pub bounds: Vec<f64>,
    /// How many values lie in each bucket; not cumulative, one more than there are bounds.
    pub counts: Vec<u64>,
    /// The sum of all values.
    pub sum: f64,
}

impl Figures {
    pub(super) fn new(families: Vec<MetricFamily>) -> Self {
        Self(families)
    }

    fn series(&self, name: &str) -> &[Metric] {
        self.0.iter().find(|family| family.name() == name).map_or(&[], MetricFamily::get_metric)
    }

    fn kind(&self, name: &str) -> Option<MetricType> {
        self.0.iter().find(|family| family.name() == name).map(MetricFamily::get_field_type)
    }

    /// All series of a counter or a gauge together; zero if there is none.
    pub fn sum(&self, name: &str) -> u64 {
        self.series(name).iter().map(|series| whole(self.kind(name), series)).sum()
    }

    /// A counter or a gauge by the values of one of its labels.
    pub fn by(&self, name: &str, label: &str) -> BTreeMap<&str, u64> {
        let mut sums = BTreeMap::new();
        for series in self.series(name) {
            *sums.entry(value_of(series, label)).or_default() += whole(self.kind(name), series);
        }
        sums
    }

    /// A counter by the values of two of its labels; only what is not zero.
    pub fn by_both(&self, name: &str, labels: [&str; 2]) -> BTreeMap<[&str; 2], u64> {
        let mut sums = BTreeMap::new();
        for series in self.series(name) {
            let count = whole(self.kind(name), series);
            if count > 0 {
                *sums.entry(labels.map(|label| value_of(series, label))).or_default() += count;
            }
        }
        sums
    }

    /// A histogram by the values of its label.
    pub fn distributions(&self, name: &str, label: &str) -> BTreeMap<&str, Distribution> {
        self.series(name).iter().map(|series| (value_of(series, label), distribution(series))).collect()
    }
}

fn value_of<'a>(series: &'a Metric, label: &str) -> &'a str {
    series.get_label().iter().find(|pair| pair.name() == label).map_or("", |pair| pair.value())
}

/// Counters and gauges of this program count things.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count is whole, and not negative")]
fn whole(kind: Option<MetricType>, series: &Metric) -> u64 {
    match kind {
        Some(MetricType::COUNTER) => series.get_counter().get_value() as u64,
        Some(MetricType::GAUGE) => series.get_gauge().get_value() as u64,
        _ => 0,
    }
}

fn distribution(series: &Metric) -> Distribution {
    let histogram = series.get_histogram();
    let mut told = Distribution { sum: histogram.get_sample_sum(), ..Distribution::default() };
    let mut below = 0;
    for bucket in histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite()) {
        told.bounds.push(bucket.upper_bound());
        told.counts.push(bucket.cumulative_count().saturating_sub(below));
        below = bucket.cumulative_count();
    }
    told.counts.push(histogram.get_sample_count().saturating_sub(below));
    told
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Method, StatusCode};

    use crate::engine::metrics::{Ending, Metrics};

    #[test]
    fn figures_are_those_of_the_metrics() {
        let metrics = Metrics::new();
        for (method, micros) in [(Method::GET, 10), (Method::GET, 60), (Method::HEAD, 200), (Method::GET, 90_000_000)] {
            metrics.request_ended(Ending::Hit, &method, StatusCode::OK, Duration::from_micros(micros));
        }
        metrics.payload_violations.with_label_values(&["id", "null"]).inc();
        metrics.cache_bytes.set(7);
        let figures = metrics.figures();
        assert_eq!(figures.by("anteroom_requests_total", "outcome")["hit"], 4);
        assert_eq!(figures.by("anteroom_requests_total", "method")["HEAD"], 1);
        assert_eq!((figures.sum("anteroom_requests_total"), figures.sum("anteroom_cache_bytes")), (4, 7));
        let violations = figures.by_both("anteroom_payload_violations_total", ["field", "kind"]);
        assert_eq!(violations.into_iter().collect::<Vec<_>>(), [(["id", "null"], 1)]);
        let latency = &figures.distributions("anteroom_request_duration_seconds", "outcome")["hit"];
        assert_eq!(latency.counts.len(), latency.bounds.len() + 1);
        assert_eq!((latency.counts[0], latency.counts[1], latency.counts[2]), (1, 1, 1), "{latency:?}");
        assert_eq!((latency.counts.last(), latency.counts.iter().sum()), (Some(&1), 4));
        assert!((latency.sum - 90.000_27).abs() < 1e-6, "{}", latency.sum);
    }
}
