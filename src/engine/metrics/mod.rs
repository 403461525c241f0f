//! Every metric, named and explained once; `docs/metrics.md` is made from this file.
//!
//! Labels come from closed sets. Handles of the hit path are resolved once.

mod declared;
mod exposition;
mod figures;
mod labels;
mod limits;
mod raised;
mod reads;
mod replicas;
mod tier;
mod telling;
mod ways;

use std::array;
use std::sync::OnceLock;
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::build_info::{COMMIT, VERSION};
use crate::policy::coherence::event::Event;
use crate::policy::http::exposition::Exposition;
use declared::Declaring;
pub use declared::{Described, Label};
pub use figures::{Distribution, Figures};
pub use labels::{
    Audited, CableResult, Ending, ErrorClass, ExchangeFailure, InvalidationSource, Limit, TierAsked, TierPut, Untold,
    WebhookResult, class_label, method_label,
};
use labels::{
    BYPASS_REASONS, CLASSES, CONNECTION_ERRORS, EVENTS, FLIGHT_ENDS, METHODS, NO_LISTS, UPSTREAM_RESULTS, class_index,
    method_index, violations,
};
use limits::Limits;
pub use raised::Raised;
use reads::Reads;
use replicas::Replicas;
use telling::Telling;
use ways::Ways;

/// Seconds: from what nobody notices to the longest a list may be kept.
const STALENESS_BUCKETS: &[f64] =
    &[0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// The series of requests that are at zero from the start, so that a ratio or an alert has something to begin from:
/// of each outcome the likeliest. Others come with the first request of their kind.
const FIRST_REQUESTS: [(Ending, usize, usize); 11] = [
    (Ending::Hit, 0, 1),
    (Ending::Stale, 0, 1),
    (Ending::Miss, 0, 1),
    (Ending::Joined, 0, 1),
    (Ending::Bypass, 0, 1),
    (Ending::Pass, 0, 1),
    (Ending::Write, 2, 1),
    (Ending::Webhook, 2, 1),
    (Ending::Refused, 0, 3),
    (Ending::Failed, 0, 3),
    (Ending::Failed, 0, 4),
];

/// All metrics of the program. A test has its own.
pub struct Metrics {
    registry: Registry,
    described: Vec<Described>,
    requests: IntCounterVec,
    resolved: Box<[OnceLock<IntCounter>]>,
    durations: [Histogram; Ending::ALL.len()],
    /// What became of each read.
    pub reads: Reads,
    /// Open connections of clients, by listener.
    pub connections: IntGaugeVec,
    /// Connections that ended by a mistake of their own, by kind.
    pub connection_errors: IntCounterVec,
    /// When the certificate of the public listener ends.
    pub certificate_not_after: IntGauge,
    /// Readings of certificate and key after the first, by result.
    pub certificate_renewals: IntCounterVec,
    /// `anteroom_panics_total`.
    pub panics: IntCounter,
    /// Open tunnels.
    pub tunnels: IntGauge,
    /// Requests to the upstream, by result.
    pub upstream_requests: IntCounterVec,
    /// Failures of the upstream, by class.
    pub upstream_errors: IntCounterVec,
    /// Where the upstream is, and whether it is asked.
    pub ways: Ways,
    /// Time from the request to the head, and to the end of the answer.
    pub upstream_duration: HistogramVec,
    /// Requests the upstream is answering.
    pub upstream_in_flight: IntGauge,
    /// Stored answers.
    pub cache_entries: IntGauge,
    /// Their weight.
    pub cache_bytes: IntGauge,
    /// Bodies in memory.
    pub body_bytes: IntGauge,
    /// What the settings allow, and what was beyond it.
    pub limits: Limits,
    /// Whether `/ready` says so.
    pub ready: IntGauge,
    /// Stored answers that went, by cause.
    pub evictions: IntCounterVec,
    /// Lists that could not be shared, by reason.
    pub bypass: IntCounterVec,
    /// Age of answers served from memory.
    pub answer_age: Histogram,
    /// Answers that stood in for a failed fetch.
    pub stale_if_error: IntCounter,
    /// Fetches under way.
    pub flights: IntGauge,
    /// Readers waiting for a fetch.
    pub waiters: IntGauge,
    /// How fetches ended.
    pub flight_ends: IntCounterVec,
    invalidations: [IntCounter; InvalidationSource::ALL.len()],
    webhooks: Box<[IntCounter]>,
    /// Time from an event to its webhook.
    pub webhook_delay: Histogram,
    /// Whether webhooks that should come do not.
    pub webhooks_silent: IntGauge,
    /// Messages that passed through WebSockets towards clients, if they are looked at, by result.
    pub cable_messages: IntCounterVec,
    /// For how long lists were served that had changed.
    pub staleness: Histogram,
    /// Lists that had changed when they were fetched again though nobody had told, by class.
    pub untold_changes: IntCounterVec,
    /// Hits that were fetched again to see whether they had changed, by result.
    pub audits: IntCounterVec,
    /// Writes of which no contact was known.
    pub writes_unattributed: IntCounter,
    /// What came instead of lists, by what it likely is.
    pub no_lists: IntCounterVec,
    /// Lists that were compared with the contract, by result.
    pub payload_lists: IntCounterVec,
    /// What differs from the contract, by field and kind.
    pub payload_violations: IntCounterVec,
    /// Keys that are not on the published page.
    pub payload_unknown_keys: IntCounter,
    /// What becomes of lines of the log and of spans.
    pub telling: Telling,
    /// What replicas tell each other.
    pub replicas: Replicas,
    /// Settings that were read again, by result.
    pub config_reloads: IntCounterVec,
    /// Whether the last reading of the settings succeeded.
    pub config_last_reload_ok: IntGauge,
    /// When one last did.
    pub config_last_reload_time: IntGauge,
    /// Bytes of lists, by stage.
    pub payload_bytes: IntCounterVec,
    /// Those of the stage `sent`, resolved for the hit path.
    pub payload_bytes_sent: IntCounter,
}

impl Metrics {
    /// A fresh set.
    #[expect(clippy::too_many_lines, reason = "a list: one metric after another, each with its explanation")]
    pub fn new() -> Self {
        let mut declare = Declaring::new();
        let build = declare.gauges(
            "anteroom_build_info",
            "Constant 1; the version and commit that run.",
            &[("version", &[]), ("commit", &[])],
        );
        build.with_label_values(&[VERSION, COMMIT]).set(1);
        let requests = declare.counters(
            "anteroom_requests_total",
            "Requests of clients that were answered, by how they ended. A client that left before its answer counts as \
             `failed` with `4xx`.",
            &[("outcome", Ending::LABELS), ("method", &METHODS), ("status_class", &CLASSES)],
        );
        let durations = declare.histograms(
            "anteroom_request_duration_seconds",
            "Time from the end of a request's head to the end of its answer being handed to the connection.",
            ("outcome", Ending::LABELS),
            &[
                50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
                10.0, 30.0,
            ],
        );
        let invalidations = declare.counters(
            "anteroom_invalidations_total",
            "Changes after which answers were out of date, by who told: a write that passed through, a webhook, an \
             event that passed through a WebSocket, a purge, a fetch that was overtaken, a list that passed by the \
             cache and differed, another replica.",
            &[("source", InvalidationSource::LABELS)],
        );
        let webhooks = declare.counters(
            "anteroom_webhooks_total",
            "Webhooks received, by event and result. What is not known to be genuine is not read: its event is `other`.",
            &[("event", EVENTS), ("result", WebhookResult::LABELS)],
        );
        let payload_bytes = declare.counters(
            "anteroom_payload_bytes_total",
            "Bytes of list bodies received from the upstream, kept in memory and sent to clients.",
            &[("stage", &["received", "kept", "sent"])],
        );
        let this = Self {
            durations: array::from_fn(|index| durations.with_label_values(&[Ending::LABELS[index]])),
            resolved: (0..Ending::ALL.len() * METHODS.len() * CLASSES.len()).map(|_| OnceLock::new()).collect(),
            requests,
            connections: declare.gauges(
                "anteroom_connections",
                "Open connections of clients, by listener.",
                &[("listener", &["public", "admin"])],
            ),
            connection_errors: declare.counters(
                "anteroom_connection_errors_total",
                "Connections of clients that ended by an error, by its kind. `accept`: none could be taken, most often for \
                 want of file descriptors. `flood`: HTTP/2 that only makes work, such as requests given up at once. \
                 `tls_...`: handshakes that failed; `tls_plain`: there was none, but plain HTTP.",
                &[("kind", CONNECTION_ERRORS)],
            ),
            certificate_not_after: declare.gauge(
                "anteroom_certificate_not_after_seconds",
                "When the certificate in force of the public listener ends, in seconds since 1970; 0 without TLS.",
            ),
            certificate_renewals: declare.counters(
                "anteroom_certificate_renewals_total",
                "Certificates and keys that were found changed. `failed`: they are no pair, and the one before stays.",
                &[("result", &["ok", "failed"])],
            ),
            panics: declare.counter(
                "anteroom_panics_total",
                "Faults of the program that ended a request or a task of its own; the log has the place. Report them.",
            ),
            tunnels: declare.gauge("anteroom_tunnels", "Open WebSocket tunnels."),
            upstream_requests: declare.counters(
                "anteroom_upstream_requests_total",
                "Requests sent to the upstream, by their result: a status class or what went wrong. `client`: the client's \
                 own body broke off.",
                &[("result", UPSTREAM_RESULTS)],
            ),
            upstream_errors: declare.counters(
                "anteroom_upstream_errors_total",
                "Times the upstream gave no answer, or not the whole of it, by the class that RFC 9209 section 2.3 gives \
                 such errors. Errors that it answers (5xx) are not among them.",
                &[("class", ErrorClass::LABELS)],
            ),
            reads: Reads::declare(&mut declare),
            ways: Ways::declare(&mut declare),
            upstream_duration: declare.histograms(
                "anteroom_upstream_duration_seconds",
                "Time from sending a request to the upstream until the head (phase `head`) and the end (phase `whole`) of \
                 its answer.",
                ("phase", &["head", "whole"]),
                &[1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0],
            ),
            upstream_in_flight: declare.gauge(
                "anteroom_upstream_in_flight",
                "Requests sent to the upstream whose answer has not ended.",
            ),
            cache_entries: declare.gauge("anteroom_cache_entries", "Stored answers."),
            cache_bytes: declare.gauge("anteroom_cache_bytes", "Weight of stored answers with their bookkeeping."),
            body_bytes: declare.gauge(
                "anteroom_body_bytes",
                "Memory held by bodies of lists: being collected, stored, or evicted and still being sent.",
            ),
            limits: Limits::declare(&mut declare),
            ready: declare.gauge("anteroom_ready", "1 while `/ready` says so, 0 from the moment the program is told to stop."),
            evictions: declare.counters(
                "anteroom_cache_evictions_total",
                "Stored answers that went, by cause: for want of room, replaced by a newer one, removed, or of no use any \
                 more.",
                &[("cause", &["size", "replaced", "explicit", "expired"])],
            ),
            bypass: declare.counters(
                "anteroom_cache_bypass_total",
                "Conversation lists that could not be shared, by reason.",
                &[("reason", BYPASS_REASONS)],
            ),
            answer_age: declare.histogram(
                "anteroom_answer_age_seconds",
                "Age of answers served from memory, from the moment their fetch began.",
                &[0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0],
            ),
            stale_if_error: declare.counter(
                "anteroom_stale_if_error_total",
                "Answers from memory that stood in for a fetch that failed, or was not tried since the last one had failed.",
            ),
            flights: declare.gauge("anteroom_flights", "Shared fetches under way."),
            waiters: declare.gauge("anteroom_waiters", "Readers waiting for a shared fetch."),
            flight_ends: declare.counters(
                "anteroom_flight_ends_total",
                "Shared fetches that ended, by how. `adopted`: another replica had fetched it. `refused`: the one for whom they asked; the others ask on. `not_sent`: \
                 everybody left before there was a place. `waiter_deadline` counts readers who gave up waiting, while the \
                 fetch went on.",
                &[("end", FLIGHT_ENDS)],
            ),
            invalidations: array::from_fn(|index| invalidations.with_label_values(&[InvalidationSource::LABELS[index]])),
            webhooks: EVENTS
                .iter()
                .flat_map(|event| WebhookResult::LABELS.iter().map(|result| webhooks.with_label_values(&[*event, *result])))
                .collect(),
            webhook_delay: declare.histogram(
                "anteroom_webhook_delay_seconds",
                "Time from an event, by the application's own clock, to its webhook: until then a list that was kept was \
                 served without it. Only new messages, in whole seconds, and changes of conversations tell their time.",
                STALENESS_BUCKETS,
            ),
            webhooks_silent: declare.gauge(
                "anteroom_webhooks_silent",
                "1 if webhooks are set up, a message passed or was found that must have caused one, and none came for \
                 `webhook.silent_after`; until one comes `cache.ttl_without_events` applies.",
            ),
            cable_messages: declare.counters(
                "anteroom_cable_messages_total",
                "Text messages that passed through WebSockets towards clients while `cable.observe` is on: lists were out \
                 of date before the client had it, it told of no change, or it was too long or in a form that is not read.",
                &[("result", CableResult::LABELS)],
            ),
            staleness: declare.histogram(
                "anteroom_staleness_seconds",
                "For how long a list could be served that had changed, measured when it was fetched again, differed, and \
                 nobody had told: from the time that the change itself bears, for messages a whole second. A sample; \
                 lists that nobody could have been served stale are not in it.",
                STALENESS_BUCKETS,
            ),
            untold_changes: declare.counters(
                "anteroom_untold_changes_total",
                "Lists that were found changed when they were fetched again though nobody had told by then, while webhooks \
                 are set up: the event came later (`event_late`), not within `webhook.silent_after` (`event_lost`), there is \
                 none for such a change (`no_event`), or a message is 30 s older than what was kept without it (`bug`). A \
                 sample. A write to the same list meanwhile counts as the event.",
                &[("class", Untold::LABELS)],
            ),
            audits: declare.counters(
                "anteroom_audits_total",
                "Hits that were fetched again behind because of `audit.share`: the list was the same, it differed, it could \
                 not be fetched, or it was left alone since the upstream or the comparing had enough to do, or it had \
                 failed. Only as good as the upstream's ETag: a 304 is the same.",
                &[("result", Audited::LABELS)],
            ),
            writes_unattributed: declare.counter(
                "anteroom_writes_unattributed_total",
                "Writes whose contact stayed unknown: for its other sources only the bound on age holds.",
            ),
            no_lists: declare.counters(
                "anteroom_no_lists_total",
                "Answers of the upstream in a list's place that are no list and no error, by what is likely: it forces TLS, \
                 a login page, another redirect, a page for people, another API's JSON.",
                &[("likely", NO_LISTS)],
            ),
            payload_lists: declare.counters(
                "anteroom_payload_lists_total",
                "Lists received, by what comparing them with the published contract gave: `not_a_list` is no JSON array at \
                 all, `unchecked` is `payload.validate = \"off\"`.",
                &[("result", &["keeps_contract", "differs", "not_a_list", "unchecked"])],
            ),
            payload_violations: declare.counters(
                "anteroom_payload_violations_total",
                "Values of lists that differ from the published contract, by field (its paths, such as `contact.email`) and \
                 kind.",
                &[("field", &[]), ("kind", &["missing", "wrong_type", "unknown_enum_value", "null"])],
            ),
            payload_unknown_keys: declare.counter(
                "anteroom_payload_unknown_keys_total",
                "Keys of lists that are not on the published page; they are no violation.",
            ),
            telling: Telling::declare(&mut declare),
            replicas: Replicas::declare(&mut declare),
            config_reloads: declare.counters(
                "anteroom_config_reloads_total",
                "Settings that were read again on SIGHUP, by result.",
                &[("result", &["ok", "failed"])],
            ),
            config_last_reload_ok: declare.gauge(
                "anteroom_config_last_reload_successful",
                "1 if the settings could be used when they were last read, 0 if those from before stay in force.",
            ),
            config_last_reload_time: declare.gauge(
                "anteroom_config_last_reload_success_timestamp_seconds",
                "When the settings in force were read, in seconds since 1970.",
            ),
            payload_bytes_sent: payload_bytes.with_label_values(&["sent"]),
            payload_bytes,
            registry: declare.registry,
            described: declare.described,
        };
        for (ending, method, class) in FIRST_REQUESTS {
            this.requests_of(ending, method, class);
        }
        for labels in violations() {
            this.payload_violations.with_label_values(&labels);
        }
        this
    }

    /// Counts an answered request. Resolves no label that was resolved before.
    pub fn request_ended(&self, ending: Ending, method: &Method, status: StatusCode, took: Duration) {
        self.requests_of(ending, method_index(method), class_index(status)).inc();
        self.durations[ending as usize].observe(took.as_secs_f64());
    }

    fn requests_of(&self, ending: Ending, method: usize, class: usize) -> &IntCounter {
        let index = (ending as usize * METHODS.len() + method) * CLASSES.len() + class;
        self.resolved[index]
            .get_or_init(|| self.requests.with_label_values(&[ending.label(), METHODS[method], CLASSES[class]]))
    }

    /// Counts a change after which answers are out of date. Takes no lock.
    pub fn invalidated(&self, source: InvalidationSource) {
        self.invalidations[source as usize].inc();
    }

    /// Counts a webhook. Takes no lock.
    pub fn webhook(&self, event: Event, result: WebhookResult) {
        self.webhooks[event as usize * WebhookResult::ALL.len() + result as usize].inc();
    }

    /// Everything, in this format.
    pub fn render(&self, format: Exposition) -> Vec<u8> {
        exposition::text(&self.registry.gather(), format)
    }

    /// Every series as it stands.
    pub fn figures(&self) -> Figures {
        Figures::new(self.registry.gather())
    }

    /// Every metric with its labels and their values.
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    /// `docs/metrics.md`.
    pub fn page(&self) -> String {
        declared::page(&self.described)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
