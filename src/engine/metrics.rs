//! Every metric, named and explained once.
//!
//! Labels come from closed sets. Handles of the hit path are resolved once.

use std::array;
use std::sync::OnceLock;
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// How a request ended; the first label of most metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// From memory, fresh.
    Hit,
    /// From memory, older than its TTL.
    Stale,
    /// This request led the fetch.
    Miss,
    /// It waited for another's fetch.
    Joined,
    /// A list that may not be shared.
    Bypass,
    /// Not ours: passed on untouched.
    Pass,
    /// It may have changed something.
    Write,
    /// A webhook of the application.
    Webhook,
    /// Not passed on.
    Refused,
    /// The upstream gave no answer, and there was none to stand in.
    Failed,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Hit,
        Self::Stale,
        Self::Miss,
        Self::Joined,
        Self::Bypass,
        Self::Pass,
        Self::Write,
        Self::Webhook,
        Self::Refused,
        Self::Failed,
    ];

    /// The metric label and the word in the log.
    pub fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Joined => "joined",
            Self::Bypass => "bypass",
            Self::Pass => "pass",
            Self::Write => "write",
            Self::Webhook => "webhook",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// The label of a method; strangers' methods share one.
pub fn method_label(method: &Method) -> &'static str {
    METHODS[method_index(method)]
}

fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1)
}

fn class_index(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).checked_sub(1).map_or(5, |class| class.min(5))
}

/// All metrics of the program. A test has its own.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    resolved: Box<[OnceLock<IntCounter>]>,
    durations: [Histogram; Ending::ALL.len()],
    /// Requests being answered.
    pub requests_in_flight: IntGauge,
    /// Open connections of clients, by listener.
    pub connections: IntGaugeVec,
    /// Connections that ended by a mistake of their own, by kind.
    pub connection_errors: IntCounterVec,
    /// Open tunnels.
    pub tunnels: IntGauge,
    /// Requests to the upstream, by result.
    pub upstream_requests: IntCounterVec,
    /// Time from the request to the head, and to the end of the answer.
    pub upstream_duration: HistogramVec,
    /// Requests the upstream is answering.
    pub upstream_in_flight: IntGauge,
    /// Stored answers.
    pub cache_entries: IntGauge,
    /// Their weight.
    pub cache_bytes: IntGauge,
    /// Stored answers that went, by cause.
    pub evictions: IntCounterVec,
    /// Lists that could not be shared, by reason.
    pub bypass: IntCounterVec,
    /// Age of answers served from memory.
    pub answer_age: Histogram,
    /// Fetches under way.
    pub flights: IntGauge,
    /// Readers waiting for a fetch.
    pub waiters: IntGauge,
    /// How fetches ended.
    pub flight_ends: IntCounterVec,
    /// Changes noted in the ledger, by source.
    pub invalidations: IntCounterVec,
    /// Writes of which no contact was known.
    pub writes_unattributed: IntCounter,
    /// What differs from the contract, by field and kind.
    pub payload_violations: IntCounterVec,
    /// Keys that are not on the published page.
    pub payload_unknown_keys: IntCounter,
    /// Settings that were read again, by result.
    pub config_reloads: IntCounterVec,
    /// Bytes of lists, by stage.
    pub payload_bytes: IntCounterVec,
}

impl Metrics {
    /// A fresh set.
    #[expect(clippy::too_many_lines, reason = "a list: one metric after another, each with its explanation")]
    pub fn new() -> Self {
        let registry = Registry::new();
        let build = gauges(&registry, "anteroom_build_info", "Constant 1; the version and commit that run.", &["version", "commit"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), option_env!("ANTEROOM_COMMIT").unwrap_or("unknown")]).set(1);
        let requests = counters(
            &registry,
            "anteroom_requests_total",
            "Requests of clients that were answered, by how they ended.",
            &["outcome", "method", "status_class"],
        );
        let durations = histograms(
            &registry,
            "anteroom_request_duration_seconds",
            "Time from the end of a request's head to the end of its answer being handed to the connection.",
            &["outcome"],
            &[
                50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
                30.0,
            ],
        );
        #[cfg(target_os = "linux")]
        register(&registry, prometheus::process_collector::ProcessCollector::for_self());
        Self {
            durations: array::from_fn(|index| durations.with_label_values(&[Ending::ALL[index].label()])),
            resolved: (0..Ending::ALL.len() * METHODS.len() * CLASSES.len()).map(|_| OnceLock::new()).collect(),
            requests,
            requests_in_flight: gauge(&registry, "anteroom_requests_in_flight", "Requests being answered."),
            connections: gauges(
                &registry,
                "anteroom_connections",
                "Open connections of clients, by listener.",
                &["listener"],
            ),
            connection_errors: counters(
                &registry,
                "anteroom_connection_errors_total",
                "Connections of clients that ended by an error, by its kind.",
                &["kind"],
            ),
            tunnels: gauge(&registry, "anteroom_tunnels", "Open WebSocket tunnels."),
            upstream_requests: counters(
                &registry,
                "anteroom_upstream_requests_total",
                "Requests sent to the upstream, by their result: a status class or what went wrong.",
                &["result"],
            ),
            upstream_duration: histograms(
                &registry,
                "anteroom_upstream_duration_seconds",
                "Time from sending a request to the upstream until the head (phase head) and the end (phase whole) of its answer.",
                &["phase"],
                &[1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0],
            ),
            upstream_in_flight: gauge(
                &registry,
                "anteroom_upstream_in_flight",
                "Requests sent to the upstream whose answer has not ended.",
            ),
            cache_entries: gauge(&registry, "anteroom_cache_entries", "Stored answers."),
            cache_bytes: gauge(&registry, "anteroom_cache_bytes", "Weight of stored answers with their bookkeeping."),
            evictions: counters(
                &registry,
                "anteroom_cache_evictions_total",
                "Stored answers that went, by cause: size, replaced, explicit or expired.",
                &["cause"],
            ),
            bypass: counters(
                &registry,
                "anteroom_cache_bypass_total",
                "Conversation lists that could not be shared, by reason.",
                &["reason"],
            ),
            answer_age: histogram(
                &registry,
                "anteroom_answer_age_seconds",
                "Age of answers served from memory, from the moment their fetch began.",
                &[0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0],
            ),
            flights: gauge(&registry, "anteroom_flights", "Shared fetches under way."),
            waiters: gauge(&registry, "anteroom_waiters", "Readers waiting for a shared fetch."),
            flight_ends: counters(
                &registry,
                "anteroom_flight_ends_total",
                "Shared fetches that ended, by how.",
                &["end"],
            ),
            invalidations: counters(
                &registry,
                "anteroom_invalidations_total",
                "Changes after which answers were out of date, by who told.",
                &["source"],
            ),
            writes_unattributed: counter(
                &registry,
                "anteroom_writes_unattributed_total",
                "Writes whose contact stayed unknown: for its other sources only the bound on age holds.",
            ),
            payload_violations: counters(
                &registry,
                "anteroom_payload_violations_total",
                "Values of lists that differ from the published contract, by field and kind.",
                &["field", "kind"],
            ),
            payload_unknown_keys: counter(
                &registry,
                "anteroom_payload_unknown_keys_total",
                "Keys of lists that are not on the published page; they are no violation.",
            ),
            config_reloads: counters(
                &registry,
                "anteroom_config_reloads_total",
                "Settings that were read again on SIGHUP, by result: ok or failed.",
                &["result"],
            ),
            payload_bytes: counters(
                &registry,
                "anteroom_payload_bytes_total",
                "Bytes of list bodies received from the upstream, kept in memory and sent to clients.",
                &["stage"],
            ),
            registry,
        }
    }

    /// Counts an answered request. Resolves no label that was resolved before.
    pub fn request_ended(&self, ending: Ending, method: &Method, status: StatusCode, took: Duration) {
        let (ending_at, method_at, class_at) = (ending as usize, method_index(method), class_index(status));
        let index = (ending_at * METHODS.len() + method_at) * CLASSES.len() + class_at;
        self.resolved[index]
            .get_or_init(|| self.requests.with_label_values(&[ending.label(), METHODS[method_at], CLASSES[class_at]]))
            .inc();
        self.durations[ending_at].observe(took.as_secs_f64());
    }

    /// Everything in the text format of Prometheus.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("metrics that were registered can be written to memory");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The label of a status class.
pub fn class_label(status: StatusCode) -> &'static str {
    CLASSES[class_index(status)]
}

/// A gauge that is one higher as long as this lives.
pub struct Raised(IntGauge);

impl Raised {
    /// Raises the gauge.
    pub fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.dec();
    }
}

const DECLARED: &str = "a metric is declared once, with a valid name";

fn register<C: Collector + 'static>(registry: &Registry, collector: C) {
    registry.register(Box::new(collector)).expect(DECLARED);
}

fn declared<C: Collector + Clone + 'static>(registry: &Registry, collector: prometheus::Result<C>) -> C {
    let collector = collector.expect(DECLARED);
    register(registry, collector.clone());
    collector
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    declared(registry, IntCounter::new(name, help))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    declared(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    declared(registry, IntGauge::new(name, help))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    declared(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    declared(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
}

fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    declared(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
}
