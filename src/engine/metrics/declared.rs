//! Metrics as they are declared: registered, at zero from the start, and written down for `docs/metrics.md`.

use std::fmt::Write;

use prometheus::core::Collector;
use prometheus::proto::MetricType;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

const DECLARED: &str = "a metric is declared once, with a valid name";

/// A label and every value it may have; none are listed where there are too many to read.
pub type Label = (&'static str, &'static [&'static str]);

/// One metric, for people.
#[derive(Clone, Debug)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels with their values.
    pub labels: Vec<Label>,
    /// What it says.
    pub help: String,
}

/// A registry that remembers what it was told.
pub(super) struct Declaring {
    pub(super) registry: Registry,
    pub(super) described: Vec<Described>,
}

impl Declaring {
    /// Nothing but what the crate counts of the process itself.
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self())).expect(DECLARED);
        let described = registry.gather().into_iter().map(|family| Described {
            name: family.name().to_owned(),
            kind: if family.get_field_type() == MetricType::COUNTER { "counter" } else { "gauge" },
            labels: Vec::new(),
            help: family.help().to_owned(),
        });
        Self { described: described.collect(), registry }
    }

    fn declare<C: Collector + Clone + 'static>(
        &mut self,
        kind: &'static str,
        name: &str,
        help: &str,
        labels: &[Label],
        collector: prometheus::Result<C>,
    ) -> C {
        let collector = collector.expect(DECLARED);
        self.registry.register(Box::new(collector.clone())).expect(DECLARED);
        let (name, help, labels) = (name.to_owned(), help.to_owned(), labels.to_vec());
        self.described.push(Described { name, kind, labels, help });
        collector
    }

    pub(super) fn counter(&mut self, name: &str, help: &str) -> IntCounter {
        self.declare("counter", name, help, &[], IntCounter::new(name, help))
    }

    /// Counters. With one label they are at zero from the start: a rate needs a value to begin from, and an alert that
    /// waits for the first occurrence would miss it.
    pub(super) fn counters(&mut self, name: &str, help: &str, labels: &[Label]) -> IntCounterVec {
        let counters =
            self.declare("counter", name, help, labels, IntCounterVec::new(Opts::new(name, help), &names(labels)));
        if let [(_, values)] = labels {
            for value in *values {
                counters.with_label_values(&[value]);
            }
        }
        counters
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) -> IntGauge {
        self.declare("gauge", name, help, &[], IntGauge::new(name, help))
    }

    pub(super) fn gauges(&mut self, name: &str, help: &str, labels: &[Label]) -> IntGaugeVec {
        let gauges = self.declare("gauge", name, help, labels, IntGaugeVec::new(Opts::new(name, help), &names(labels)));
        if let [(_, values)] = labels {
            for value in *values {
                gauges.with_label_values(&[value]);
            }
        }
        gauges
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.declare("histogram", name, help, &[], Histogram::with_opts(options))
    }

    pub(super) fn histograms(&mut self, name: &str, help: &str, label: Label, buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histograms = self.declare("histogram", name, help, &[label], HistogramVec::new(options, &[label.0]));
        for value in label.1 {
            histograms.with_label_values(&[value]);
        }
        histograms
    }
}

fn names(labels: &[Label]) -> Vec<&'static str> {
    labels.iter().map(|(name, _)| *name).collect()
}

/// `docs/metrics.md`.
pub(super) fn page(described: &[Described]) -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         `GET /metrics` of the private listener, in the text format of Prometheus. This page is made from\n\
         `src/engine/metrics/mod.rs` (`UPDATE=1 cargo test --lib engine::metrics`); a test holds the two equal.\n\n\
         Labels come from closed sets: no client can add a series. Times are in seconds and sizes in bytes. Counters with\n\
         one label are there from the start, at 0.\n\n\
         What to look at, and what to do about it: [`operating.md`](operating.md). Ready-made: a dashboard and rules in\n\
         [`dashboards/`](../dashboards).\n\n\
         | metric | type | labels | |\n|---|---|---|---|\n",
    );
    let mut sorted: Vec<_> = described.iter().collect();
    sorted.sort_by_key(|metric| &metric.name);
    for Described { name, kind, labels, help } in sorted {
        let labels: Vec<String> = labels.iter().map(|(label, values)| label_cell(label, values)).collect();
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join("; "));
    }
    page
}

fn label_cell(name: &str, values: &[&str]) -> String {
    if values.is_empty() {
        return format!("`{name}`");
    }
    let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
    format!("`{name}`: {}", values.join(", "))
}
